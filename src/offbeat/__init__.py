"""offbeat: asynchronous decentralized SGD, simulated exactly and reproducibly.

    import offbeat

    result = offbeat.compare(task="digits", case="combined", target=0.9)
    print(result)                        # the table
    result.save_report("report.html")    # the page

Read `offbeat.core.agent` (the contract), `offbeat.algorithms.adsgd` (an algorithm) and
`offbeat.engines.sim.simulator`, in that order, and you have understood the system.
"""

import sys
from itertools import pairwise

# `python -m offbeat` puts the current folder, which may be anybody's, first on the path: nothing of ours is
# there.
if (
    sys.argv[:1] == ["-m"]
    and not sys.flags.safe_path
    and next(name for word, name in pairwise(sys.orig_argv) if word[0] + word[-1] == "-m").split(".")[0]
    == "offbeat"
):
    sys.path.pop(0)

from offbeat.algorithms import ADPSGD, ADSGD, ALGORITHMS, DSGD, RFAST, Algorithm, AllReduceSGD
from offbeat.core.agent import Agent, View
from offbeat.core.errors import ContractError, DataError, OffbeatError, SettingError
from offbeat.core.forms import concat, mix, pin, split, total, zero
from offbeat.core.rules import SGD, Adam, Momentum
from offbeat.core.vector import Vector, opaque
from offbeat.engines.trace import Staleness, Trace
from offbeat.experiments.comparison import compare, plan, simulate
from offbeat.experiments.experiment import Experiment
from offbeat.results.run import Comparison, Run
from offbeat.results.values import VERSION as __version__
from offbeat.results.values import Curve
from offbeat.tasks import TASKS, Logistic, ModuleTask, Quadratic
from offbeat.tasks.task import Task
from offbeat.training.member import Member, join
from offbeat.world.delays import Delay, empirical
from offbeat.world.graphs import TOPOLOGIES
from offbeat.world.topology import Topology, with_weights
from offbeat.world.world import CASES, Crash, World

__all__ = [
    "ADPSGD", "ADSGD", "ALGORITHMS", "CASES", "DSGD", "RFAST", "SGD", "TASKS", "TOPOLOGIES", "Adam",
    "Agent", "Algorithm", "AllReduceSGD", "Comparison", "ContractError", "Crash", "Curve", "DataError",
    "Delay", "Experiment", "Logistic", "Member", "ModuleTask", "Momentum", "OffbeatError", "Quadratic",
    "Run", "SettingError", "Staleness", "Task", "Topology", "Trace", "Vector", "View", "World",
    "__version__", "compare", "concat", "empirical", "join", "mix", "opaque", "pin", "plan", "simulate",
    "split", "total", "with_weights", "zero",
]  # fmt: skip
