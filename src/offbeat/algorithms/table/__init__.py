"""The table: one row for each algorithm, in the file of those that wait for the same.

Who waits for nobody is in `wait_free`; for its neighbours, round by round, in `rounds`; for one other agent
in `pairs`; for a server in `server`; for all others in `everybody`. In this order they are listed.
"""

from offbeat.algorithms.row import Algorithm
from offbeat.algorithms.table import everybody, pairs, rounds, server, wait_free

ALGORITHMS: dict[str, Algorithm] = {
    row.name: row for kind in (wait_free, rounds, pairs, server, everybody) for row in kind.ROWS
}

USUAL = ("adsgd", "adpsgd", "rfast", "dsgd", "allreduce")
"""What is compared if nothing says which: those of the evaluation of arXiv:2505.10322."""
