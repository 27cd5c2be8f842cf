"""The algorithms: one file each, one row each in `ALGORITHMS`.

A file reads next to its paper, and imports the contract alone: `core.agent`, `core.vector`, `core.errors`.
The table also imports `world`, to say which graphs an algorithm accepts, and loads the user's own.
"""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from offbeat.algorithms.adpsgd import ADPSGD
from offbeat.algorithms.adsgd import ADSGD
from offbeat.algorithms.allreduce import AllReduceSGD
from offbeat.algorithms.dsgd import DSGD
from offbeat.algorithms.rfast import RFAST
from offbeat.core.agent import Agent
from offbeat.core.errors import SettingError, unknown
from offbeat.core.promises import check_class
from offbeat.core.system import own
from offbeat.core.system.named import Own, called
from offbeat.world.topology import Topology


@dataclass(frozen=True)
class Algorithm:
    """One row of the table.

    Attributes:
        prototype: an agent that every agent of a run is a copy of
        paper: where it was published
        waits_for: what an agent may have to wait for besides its own gradient
        needs: of the graph and its weights
        tolerates: "loss" (of registers), "crash" (the others go on), "return" (of a crashed agent)
        note: what else one should know, in particular why something is not tolerated
        options: name -> what an agent does without that option, and with it; both continue "an agent ..."
        scale_lr_by_n: whether the default learning rate is n times that of the others
        graph: whether the graph has to be undirected, and its weights symmetric too
        vectors: models that an agent of a simulation holds, and those for each neighbour: for its memory
        free_running: whether it never waits, and only ever gives its model to all its listeners, at every
            gradient: then its timing is known before any arithmetic (`offbeat.engines.sim.ahead.update_form`)
        user_defined: whether it is the user's own, and not in the table
        named: FILE.py:NAME(options), if it was named so: every process can load it again
        code: then file -> version of what was loaded (`offbeat.core.system.own`)
    """

    name: str
    prototype: Agent
    title: str
    paper: str
    waits_for: str = "nothing"
    needs: str = "a connected graph"
    tolerates: frozenset[str] = frozenset({"loss", "crash", "return"})
    note: str = ""
    options: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    scale_lr_by_n: bool = False
    graph: Literal["any", "undirected", "symmetric"] = "any"
    vectors: tuple[float, float] = (5.0, 3.0)
    free_running: bool = False
    user_defined: bool = False
    named: str = ""
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What `find` takes to find it again, in any process."""
        return self.named or self.name

    @property
    def form(self) -> str:
        """What an agent does, where there are several forms of the algorithm; continues "an agent ..."."""
        said = [texts[getattr(self.prototype, name)] for name, texts in self.options.items()]
        return ", ".join(filter(None, said))

    def default_lr(self, lr: float, n: int) -> float:
        """The learning rate when none was given for this algorithm in particular."""
        return lr * n if self.scale_lr_by_n else lr

    def check(self, topology: Topology) -> None:
        """Raise SettingError if the published algorithm is not for this graph."""
        if self.graph != "any" and topology.graph.is_directed():
            raise SettingError(
                f"{self.name} needs an undirected graph; '{topology.name}' is directed. rfast takes directed "
                "graphs."
            )
        if self.graph == "symmetric" and not topology.symmetric:
            raise SettingError(
                f"{self.name} needs symmetric weights, w_ij = w_ji, or it would minimise another objective; "
                f"those of '{topology.name}' are not. Metropolis weights are (the default), rfast takes any."
            )

    def new(self) -> Agent:
        return copy.deepcopy(self.prototype)


ALGORITHMS: dict[str, Algorithm] = {
    row.name: row
    for row in (
        Algorithm(
            "adsgd", ADSGD(), "Asynchronous decentralized SGD, Algorithm 2", "arXiv:2505.10322",
            needs="an undirected connected graph, symmetric weights", graph="symmetric", vectors=(2.5, 0.0),
            free_running=True,
        ),
        Algorithm(
            "adpsgd", ADPSGD(), "Asynchronous decentralized parallel SGD", "arXiv:1710.06952",
            waits_for="the answer of one random neighbour",
            needs="an undirected connected graph; with :atomic a bipartite one", graph="undirected",
            note="biased towards the data of fast agents", vectors=(2.5, 0.0),
            options={
                "wait": ("averages while it computes", "computes, then averages and waits for the answer"),
                "atomic": ("", "asks on one side of the graph only, so that every averaging is atomic"),
            },
        ),
        Algorithm(
            "rfast", RFAST(), "Robust fully asynchronous gradient tracking", "arXiv:2307.11617",
            needs="a strongly connected graph, row- and column-stochastic weights",
            note="its default learning rate is n times --lr, our choice: a model is moved by a share of the "
            "tracked gradient only",
            scale_lr_by_n=True, vectors=(4.0, 4.0),
        ),
        Algorithm(
            "dsgd", DSGD(), "Decentralized SGD", "arXiv:1705.09056",
            waits_for="all neighbours of the same round",
            needs="an undirected connected graph, symmetric weights", graph="symmetric",
            note="mail is never lost", vectors=(2.0, 0.5),
            options={"after": ("sends its model while it computes", "computes, then sends its model")},
        ),
        Algorithm(
            "allreduce", AllReduceSGD(), "Parallel SGD, ring all-reduce",
            "textbook; a baseline of arXiv:2505.10322", waits_for="everybody",
            needs="nothing: its ring is 0..n-1 on any topology", tolerates=frozenset({"loss"}),
            vectors=(4.0, 0.0),
            note="stands still when an agent is lost, and does not take one back: a ring with a hole has no "
            "sum",
        ),
    )
}  # fmt: skip

FORMER = {"adpsgd": "wait", "dsgd": "after"}
"""Algorithms that had an option `overlap`, and the option for what they did without it."""


EXPECTED = "a subclass of offbeat.Agent, an object of one, or a function that returns one"


def find(wanted: str | type[Agent] | Agent | Algorithm) -> Algorithm:
    """A row of the table by name, with options ("adpsgd:atomic+wait"); or a row for a class of the user's, or
    for what is named FILE.py:NAME or FILE.py:NAME(h=10).

    Raises SettingError for an unknown name or option, ContractError for a class whose agents would share
    something.
    """
    if isinstance(wanted, str):
        named = Own.parse(wanted)
        return _named(wanted) if named is None else _loaded(named)
    if isinstance(wanted, Algorithm):
        ours = ALGORITHMS.get(wanted.name.partition(":")[0])
        if ours and type(ours.prototype) is type(wanted.prototype):
            return wanted
        check_class(wanted.prototype)
        return replace(wanted, user_defined=True)
    agent = wanted() if isinstance(wanted, type) and issubclass(wanted, Agent) else wanted
    if not isinstance(agent, Agent):
        raise SettingError(
            f"An algorithm is a name, a subclass of offbeat.Agent or an object of one; got {wanted!r}."
        )
    check_class(agent)
    title = (type(agent).__doc__ or type(agent).__name__).strip().splitlines()[0]
    return Algorithm(_name_of(agent), agent, title, "the user's own", user_defined=True)


def _name_of(agent: Agent, options: Mapping[str, Any] = MappingProxyType({})) -> str:
    """A class of the table has its name there, any other its own: both with their options."""
    cls = type(agent)
    for row in ALGORITHMS.values():
        if type(row.prototype) is cls:
            chosen = "+".join(each for each in row.options if vars(agent)[each])
            return f"{row.name}:{chosen}" if chosen else row.name
    known = {each.name: getattr(agent, each.name) for each in fields(agent) if each.init}
    usual = {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(agent)
        if each.init
    }
    said = {name: value for name, value in known.items() if repr(value) != repr(usual[name])}
    return cls.__name__ + called(said | {name: value for name, value in options.items() if name not in known})


def _loaded(named: Own) -> Algorithm:
    """The row for the user's own code in a file."""
    with own.pinned([named.file]) as code:
        value = own.load(named, EXPECTED)
        if not isinstance(value, Agent | Algorithm) or named.options:
            value = own.made(named, {}, EXPECTED)
        if not isinstance(value, Agent | Algorithm):
            raise SettingError(f"{named} gives a {type(value).__name__}; expected {EXPECTED}.")
        row = find(value)
    name = _name_of(value, named.options) if isinstance(value, Agent) else row.name
    taken = name.partition(":")[0] in ALGORITHMS
    return replace(row, name=str(named) if taken else name, user_defined=True, named=str(named), code=code)


def told_apart(rows: Sequence[Algorithm]) -> list[Algorithm]:
    """The same with names that tell them apart: of those of one name, what is named by file by its file."""
    count = Counter(row.name for row in rows)
    return [replace(row, name=row.named) if row.named and count[row.name] > 1 else row for row in rows]


def _named(wanted: str) -> Algorithm:
    name, colon, options = wanted.strip().lower().partition(":")
    if not name or (colon and not options):
        raise SettingError(f"A name is missing in '{wanted}'; expected names like 'adsgd' or 'dsgd:after'.")
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    row = ALGORITHMS[name]
    if not options:
        return row
    chosen = sorted(set(options.split("+")))
    for option in chosen:
        if option == "overlap" and name in FORMER:
            instead = ":".join(filter(None, (name, "+".join(other for other in chosen if other != option))))
            raise SettingError(
                f"'overlap' is no option of {name} any more: it is the default. Write '{instead}' for what "
                f"'{wanted}' was; what {name} was without it is '{name}:{FORMER[name]}'."
            )
        if not row.options:
            raise SettingError(f"The algorithm {name} has no options; got '{wanted}'.")
        if option not in row.options:
            raise unknown(f"option of {name}", option, row.options)
    agent = type(row.prototype)(**dict.fromkeys(chosen, True))
    return replace(row, name=f"{name}:{'+'.join(chosen)}", prototype=agent)


__all__ = [
    "ADPSGD",
    "ADSGD",
    "ALGORITHMS",
    "DSGD",
    "RFAST",
    "Algorithm",
    "AllReduceSGD",
    "find",
    "told_apart",
]
