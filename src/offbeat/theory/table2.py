"""What an agent keeps and sends: table 2 of arXiv:2505.10322, for every algorithm, by formula and as counted.

Memory is `Algorithm.keeps`, in vectors as long as a model. Where it is not of the paper, it is derived here
by listing an agent's state; so is all traffic.
"""

from collections.abc import Callable
from dataclasses import dataclass

from offbeat.algorithms import ALGORITHMS, Algorithm, row_of
from offbeat.core.errors import SettingError
from offbeat.core.server import Served
from offbeat.theory.measured import Counted, counted
from offbeat.world.topology import build

AGENTS = 9
GRAPHS = {2: "ring", 4: "torus", 8: "complete"}
"""Neighbours of every agent -> the graph of nine agents; a server has so many workers instead."""

Traffic = tuple[float, float]
"""Models sent an update, one multicast counted once; and over all links together."""


def multicast(n: int, d: float) -> Traffic:
    """One model to all neighbours; shares of one, where all get equal ones, as on a graph of one degree."""
    return 1.0, d


def tracked(n: int, d: float) -> Traffic:
    """One model to all neighbours, and to each of them another one."""
    return 1.0 + d, 2 * d


def asked(n: int, d: float) -> Traffic:
    """A model to one neighbour, and the answer; fewer where two ask each other at the same time."""
    return 2.0, 2.0


def around(n: int, d: float) -> Traffic:
    """2 (n - 1) times 1/n of a model, to one other agent."""
    return 2 * (n - 1) / n, 2 * (n - 1) / n


def block(n: int, d: float) -> Traffic:
    """1/n of a model to everybody, whatever the degree."""
    return 1 / n, (n - 1) / n


def served(n: int, d: float) -> Traffic:
    """Every worker's gradient to the server, and the model back; the server's own gradients are there."""
    return 2 * (n - 1) / n, 2 * (n - 1) / n


def gathered(n: int, d: float) -> Traffic:
    """Every worker's gradient to the server, and one model to all workers."""
    return 1.0, 2 * (n - 1) / n


def paired(n: int, d: float) -> Traffic:
    """Two models to the agent that it is paired with: everybody is, or all but one."""
    return (2 * (n - n % 2) / n,) * 2


def twice(n: int, d: float) -> Traffic:
    """Two models to all neighbours."""
    return 2.0, 2 * d


TRAFFIC: dict[str, Callable[[int, float], Traffic]] = {
    "adsgd": multicast,
    "adsgd:memory-efficient": multicast,
    "adpsgd": asked,
    "rfast": tracked,
    "kungurtsev": twice,
    "dsgd": multicast,
    "allreduce": around,
    "dpsgd": multicast,
    "d2": multicast,
    "qg-dsgdm": multicast,
    "dsgt": twice,
    "apsgd": served,
    "spsgd": gathered,
    "rasgp": multicast,
    "asbcd": block,
    "swift": multicast,
    "dgd-atc": multicast,
    "prox-dgd": multicast,
    "sgp": multicast,
    "osgp": multicast,
    "easgd": served,
    "ringmaster": served,
    "diloco": around,
    "noloco": paired,
    "a2cid2": asked,
}
"""Row of the table of algorithms -> its traffic among n agents with d neighbours each, by exchange."""

NO_FORMULA = {
    "spsgd": "what is kept: its server keeps the gradients of all, its workers two vectors",
    "ringleader": "its server keeps up to 2 gradients of each agent; how many make a step depends on delays",
    "amelie": "an agent keeps as much as there are below it in the tree; how many make a step depends on "
    "delays",
}
"""Row of the table of algorithms -> why there is no formula of what it keeps or sends."""


def memory(spec: Algorithm, d: float) -> float | None:
    """Vectors as long as a model that an agent with d neighbours keeps, its gradient among them."""
    return None if spec.keeps is None else spec.keeps[0] + d * spec.keeps[1]


def traffic(spec: Algorithm, n: int, d: float) -> Traffic | None:
    """Models sent an update; None where no formula is known."""
    row = row_of(spec.name)
    if row is None or row.name not in TRAFFIC:
        return None
    sends, carries = TRAFFIC[row.name](n, d)
    return sends / spec.gradients, carries / spec.gradients


@dataclass(frozen=True)
class Row:
    """What one algorithm keeps and sends with so many neighbours: by formula, and counted.

    Attributes:
        keeps: by formula; None where the table of algorithms has none
        sends, carries: by formula, a multicast counted once, and over all links; None where none is known
        counted: on a short run; None on a graph that the algorithm does not take
    """

    keeps: float | None
    sends: float | None
    carries: float | None
    counted: Counted | None


def row(spec: Algorithm, d: int) -> Row:
    """Of nine agents, each with 2, 4 or 8 neighbours; or of a server with so many workers."""
    central = isinstance(spec.prototype, Served)
    name, n = ("star", d + 1) if central else (GRAPHS[d], AGENTS)
    sends, carries = traffic(spec, n, d) or (None, None)
    try:
        found = counted(spec, build(name, n))
    except SettingError:
        found = None
    return Row(memory(spec, d), sends, carries, found)


def table2() -> dict[str, dict[int, Row]]:
    """Algorithm -> neighbours -> what it keeps and sends. Short runs are made."""
    return {name: {d: row(spec, d) for d in GRAPHS} for name, spec in ALGORITHMS.items()}
