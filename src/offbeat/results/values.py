"""What comes out of an experiment, as plain values; `offbeat.results.run` has those that show themselves."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, NamedTuple, Self

from offbeat.core.errors import SettingError, unknown
from offbeat.core.settings import Settings, as_word
from offbeat.core.vector import Parts
from offbeat.engines.trace import Staleness, Trace
from offbeat.results.differences import worlds_of
from offbeat.results.holdings import Holdings
from offbeat.results.targets import Target, rises
from offbeat.results.trials import Halving, Tuning
from offbeat.results.world import WorldValues
from offbeat.world.topology import Topology, build

VERSION = version("offbeat")


FAR = 1000.0  # so many times the loss of the start, and a run has diverged


@dataclass(frozen=True)
class Curve:
    """What was measured over the run, one value for each evaluation.

    Attributes:
        time: simulated
        updates: gradients applied by then, by all
        megabytes: sent by then (1 MB = 10^6 bytes)
        loss: of the average model on all training data
        accuracy: of the average model on the test data, empty where the task has none
        consensus: root mean square distance of the agents' models from the average model
        more: further metrics that were asked for, by name; in files their values stand beside the others
    """

    time: list[float] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    consensus: list[float] = field(default_factory=list)
    more: dict[str, list[float]] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The metrics that there are: loss, accuracy, consensus as far as they were measured, then others."""
        return [name for name in ("loss", "accuracy", "consensus") if self.of(name)] + [*self.more]

    def of(self, name: str) -> list[float]:
        """The values of any metric, or of an axis ("time", "updates", "megabytes"), one an evaluation; empty
        where the task has no accuracy. Raises SettingError for a metric that was not measured.
        """
        columns = self.columns()
        if name not in columns:
            raise unknown("metric", name, columns)
        return columns[name]

    def columns(self) -> dict[str, list[Any]]:
        """All axes and metrics by name, as they are written."""
        return {name: getattr(self, name) for name in MEASURED} | self.more

    @property
    def last_update(self) -> float:
        """The first evaluation after which there were no updates; the last, where they were not counted."""
        return self.time[self.updates.index(self.updates[-1]) if self.updates else -1]

    @property
    def lost(self) -> bool:
        """Whether loss or consensus is no longer finite: a run ends there."""
        return not (math.isfinite(self.loss[-1]) and math.isfinite(self.consensus[-1]))

    def diverged_at(self) -> float | None:
        """The evaluation at which the run diverged; None: it did not.

        The last, if it is lost there. Or, of one that ended with a loss more than `FAR` times that of the
        start (above 0) and no smaller than half-way, the one from which on its loss was so large.
        """
        loss, last = self.loss, self.loss[-1]
        if self.lost:
            return self.time[-1]
        far = FAR * loss[0]
        if loss[0] <= 0 or last <= far or last < loss[len(loss) // 2]:
            return None
        return self.time[max((k + 1 for k, each in enumerate(loss) if each <= far), default=0)]

    def crossing(self, what: str, level: float) -> float | None:
        """When a value first met a level, interpolated linearly between two evaluations; None: at none.

        Accuracy meets what it is not below, anything else what it is not above.
        """
        return self.first_met(Target(what, level, rises(what)))

    def first_met(self, target: Target) -> float | None:
        """When it first met this target, interpolated likewise; None: at no evaluation."""
        return target.crossing(self.of(target.metric), self.time)


MEASURED = ("time", "updates", "megabytes", "loss", "accuracy", "consensus")
"""The columns that every curve has, whatever else is measured."""

Details = dict[str, dict[str, list[Any]]]
"""Group -> name -> values, JSON-ready. per_agent: of every agent's own model, [evaluations, n]."""


class Label(str):
    """What runs are called that are made together. runs: how many they are"""

    runs = 1

    def __new__(cls, text: str, runs: int = 1) -> "Label":
        made = super().__new__(cls, text)
        made.runs = runs
        return made


Progress = Callable[[str, float, float, Curve], None]
"""Told after every evaluation: which runs, the time, the end (now, where one ends at its target), the curve
so far. Of another process now and then, with the curve's last point alone; but the end of every run is told
once, with all of it."""


RECORDED = (  # what is written of a run, in this order: its own values, and some of its settings
    "algorithm", "task", "case", "agents", "topology", "skew", "lr", "batch", "seed", "until", "target",
    "time_to_target", "diverged_at", "error", "updates", "messages", "megabytes", "staleness", "final",
    "curve", "digest", "settings", "tuning", "epoch", "holdings",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class RunValues:
    """One algorithm in one world, from one seed.

    Attributes:
        settings: everything needed to run it again (names as in `offbeat.simulate`)
        time_to_target: when the target was first met, between two evaluations; None if it was at none
        diverged_at: the evaluation at which it diverged, see `Curve.diverged_at`
        error: what went wrong with the algorithm: "no agent computes or will be woken from time ... on"
        final: at the end loss, accuracy, consensus; of the agents' own models accuracy_mean, accuracy_worst,
            and loss_worst where the task has no accuracy
        graph: the graph and its weights; None where the run was loaded (see `topology`)
        models: the agents' final models, [n, P] per part, on the CPU; none where the run was loaded
        trace: the whole trace, where it was kept
        tuning: how the learning rate, or several hyperparameters, were found, where they were tuned
        epoch: gradients of all agents together that make one pass over the training data; None: not known
        details: what was asked for beside the curve; empty if nothing was
        holdings: the samples that each agent has, where the task has samples
        world: by what agents and links differ, and what happens; None: all are alike, and nothing does
        wall_s, eval_s: seconds that the run took, and those of it that its evaluations took; not recorded
    """

    algorithm: str
    lr: float
    seed: int
    settings: Settings = field(repr=False)
    measure: str
    curve: Curve = field(repr=False)
    time_to_target: float | None
    diverged_at: float | None
    final: dict[str, float | None]
    updates: int
    messages: int
    megabytes: float
    staleness: Staleness
    digest: str
    wall_s: float
    graph: Topology | None = field(default=None, repr=False)
    models: Parts = field(default=(), repr=False)
    trace: Trace | None = field(default=None, repr=False)
    tuning: Tuning | Halving | None = None
    error: str | None = None
    epoch: float | None = None
    details: Details = field(default_factory=dict, repr=False)
    eval_s: float = 0.0
    holdings: Holdings | None = field(default=None, repr=False)
    world: WorldValues | None = field(default=None, repr=False)

    @property
    def target(self) -> Target | None:
        """What `time_to_target` is the time to."""
        said = self.settings["target"]
        return None if said is None else Target.of(said, self.measure)

    @property
    def stopped_at(self) -> float | None:
        """The evaluation at which it met its target and ended, where it was to end there; None: at none."""
        stopped = self.settings.get("stop_at") == "target" and self.time_to_target is not None
        return self.curve.time[-1] if stopped else None

    @cached_property
    def topology(self) -> Topology:
        """The graph and its weights: of a loaded run built anew, by its name. SettingError if it has none."""
        if self.graph is not None:
            return self.graph
        if not self.has_topology:
            name = self.settings["topology"]
            raise SettingError(f"The graph {name} was an object of its author's, and is in no file.")
        s = self.settings
        return build(s["topology"], s["agents"], self.seed, s.get("weights"))

    @property
    def has_topology(self) -> bool:
        """Whether `topology` is known: a graph that was an object does not outlive its process."""
        return self.graph is not None or f"the graph {self.settings['topology']}" not in self.settings["own"]

    def record(self) -> dict[str, Any]:
        """The run as JSON-ready values; what is not finite becomes null.

        Nothing in it depends on when or how fast it was made: the same run gives the same bytes.
        """
        known = {**self.settings, **vars(self), "topology": self.settings["topology"]}
        known |= {"staleness": vars(self.staleness), "curve": self.curve.columns()}
        known["tuning"] = None if self.tuning is None else self.tuning.record()
        known["holdings"] = None if self.holdings is None else vars(self.holdings)
        known["world"] = None if self.world is None else vars(self.world)
        names = [*RECORDED, *["world"] * (self.world is not None), *["details"] * bool(self.details)]
        text = json.dumps({name: known[name] for name in names})
        record: dict[str, Any] = json.loads(text, parse_constant=lambda name: None)
        return record


class Group(NamedTuple):
    """What runs have in common of which a median may be taken: all but the seed.

    Attributes:
        world: the settings that differ within the comparison, (name, value) each, in their order
        said: how the learning rate was said, if not as a number: 0.01n
    """

    algorithm: str
    lr: float
    world: tuple[tuple[str, Any], ...] = ()
    said: str = ""

    @classmethod
    def of(cls, run: "RunValues", world: tuple[tuple[str, Any], ...]) -> Self:
        """That of a run in this world."""
        return cls(run.algorithm, run.lr, world, run.settings.get("lr_said") or "")


@dataclass(frozen=True)
class ComparisonValues:
    """Several runs: of one experiment, or of several that differ by settings (case, topology, agents ...).

    Runs are grouped by algorithm, learning rate and every setting that differs: no median mixes worlds.

    Attributes:
        interrupted: some runs of the plan were not made
        planned: then, how many runs of each algorithm there were to be, as far as that is known

    Raises SettingError if a run is there twice, or if graphs differ that have one name: objects of Python's.
    """

    runs: Sequence[RunValues]
    interrupted: bool = False
    planned: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        there = set[tuple[Group, int]]()
        for run, world in zip(self.runs, self._worlds, strict=True):
            key = Group.of(run, world), run.seed
            if key in there:
                which = f"run of {run.algorithm} with lr {run.lr:g} and seed {run.seed}"
                raise SettingError(f"The {which} is there twice; expected once.")
            there.add(key)

    @cached_property
    def _worlds(self) -> list[tuple[tuple[str, Any], ...]]:
        """Of each run the settings that differ within this comparison, (name, value)."""
        return worlds_of(self.runs)

    @property
    def differing(self) -> dict[str, list[Any]]:
        """The settings that differ, but for algorithm, lr and seed, each with its values."""
        found: dict[str, list[Any]] = {}
        for name, value in dict.fromkeys(pair for world in self._worlds for pair in world):
            found.setdefault(name, []).append(value)
        return found

    def groups(self) -> dict[Group, list[RunValues]]:
        """The runs by what differs: what differs only by its seed is together."""
        groups: dict[Group, list[RunValues]] = {}
        for run, world in zip(self.runs, self._worlds, strict=True):
            groups.setdefault(Group.of(run, world), []).append(run)
        return groups

    def split(self, by: str | None = None) -> dict[Any, Self]:
        """A comparison for each value of a setting that differs; None: for each world; "seed": for each seed.

        Raises SettingError unless the runs differ by that setting.
        """
        if by == "seed":
            seeds = sorted({run.seed for run in self.runs})
            return {
                seed: replace(self, runs=[run for run in self.runs if run.seed == seed]) for seed in seeds
            }
        differing = self.differing
        if by is not None and by not in differing:
            known = ", ".join(differing) or "none but algorithm, lr and seed"
            raise SettingError(f"The runs do not differ by '{by}'; those that do: {known}.")
        parts: dict[Any, list[RunValues]] = {}
        for run, world in zip(self.runs, self._worlds, strict=True):
            parts.setdefault(world if by is None else dict(world)[by], []).append(run)
        return {value: replace(self, runs=runs) for value, runs in parts.items()}

    def label(self, group: Group, lr: bool = True, world: bool = True) -> str:
        """A group's name in tables and figures: with its `lr` where an algorithm has several in that world,
        and with what tells its `world` from the others.
        """
        name, rate = group.algorithm, f"{group.lr:g}"
        rates = [each.lr for each in self.groups() if (each.algorithm, each.world) == (name, group.world)]
        if len({f"{one:g}" for one in rates}) < len(rates):
            rate = group.said or repr(group.lr)
        named = [f"{name} lr={rate}" if lr and len(rates) > 1 else name]
        return ", ".join(named + [f"{each}={value_text(value)}" for each, value in group.world if world])

    def record(self) -> dict[str, Any]:
        stopped = {"interrupted": True, "planned": dict(self.planned)} if self.interrupted else {}
        return {"offbeat": VERSION, **stopped, "runs": [run.record() for run in self.runs]}


def value_text(value: object) -> str:
    """A setting's value in a label or a column."""
    if isinstance(value, tuple | list):
        return " and ".join(map(str, value)) or "none"
    return "none" if value is None else as_word(value)


def stragglers(settings: Mapping[str, Any]) -> list[int]:
    """The slow agents of the case, in the settings of this version or of one that had one at most."""
    slow = settings.get("straggler")
    return [] if slow is None else [slow] if isinstance(slow, int) else [*slow]


def time_text(time: float | None) -> str:
    """A time to a target: no digits that mean nothing, for it is interpolated."""
    return "never" if time is None else f"{time:,.0f}" if time >= 1000 else f"{time:.4g}"
