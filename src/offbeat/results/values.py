"""What comes out of an experiment, as plain values; `offbeat.results.run` has those that show themselves."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from statistics import median
from typing import Any

from offbeat.core.errors import SettingError, unknown
from offbeat.core.settings import Settings
from offbeat.core.vector import Parts
from offbeat.engines.trace import Staleness, Trace
from offbeat.results.holdings import Holdings
from offbeat.results.targets import Target, rises
from offbeat.world.topology import Topology

VERSION = version("offbeat")


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

Progress = Callable[[str, float, float, Curve], None]
"""Told after every evaluation: which runs, the time, the end (now, where one ends at its target), the curve
so far. Of another process now and then, with the curve's last point alone; but the end of every run is told
once, with all of it."""


@dataclass(frozen=True)
class Tried:
    """What a learning rate gave that was tried to find the best one."""

    values: tuple[float | None, ...]  # of the criterion, one for each seed; None: never met, or diverged
    loss: float | None  # the median of the final losses; None: most runs diverged
    unstable: str  # why it is not stable; empty if it is (`offbeat.experiments.tuning.unstable`)

    @property
    def median(self) -> float | None:
        """Of the values; None counts as larger than all numbers."""
        return spread(self.values)[0]

    def record(self) -> dict[str, Any]:
        named = dict(zip(("median", "smallest", "largest"), spread(self.values), strict=True))
        stable = {"stable": not self.unstable, "why_not": self.unstable or None}
        return {**named, "final_loss": self.loss, **stable}


@dataclass(frozen=True)
class Tuning:
    """How the learning rate of an algorithm was found (`offbeat.experiments.tuning`)."""

    by: str  # the criterion: "loss", "target" or "final"
    level: float | None  # the loss that stopped the clock, where the criterion is "loss"
    grid: tuple[float, ...]  # what was asked for; R-FAST tried n times these
    seeds: tuple[int, ...]  # those of the worlds in which they were tried
    steps: dict[float, Tried]  # every learning rate that was tried, and what it gave

    def record(self) -> dict[str, Any]:
        return {**vars(self), "steps": {f"{lr:g}": tried.record() for lr, tried in self.steps.items()}}


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
        diverged_at: the evaluation at which the loss was no longer finite; the run ended there
        error: what went wrong with the algorithm: "no agent computes or will be woken from time ... on"
        final: at the end loss, accuracy, consensus; of the agents' own models accuracy_mean, accuracy_worst,
            and loss_worst where the task has no accuracy
        topology: the graph and its weights
        models: the agents' final models, [n, P] per part, on the CPU
        trace: the whole trace, where it was kept
        tuning: how the learning rate was found, where it was tuned
        epoch: gradients of all agents together that make one pass over the training data; None: not known
        details: what was asked for beside the curve; empty if nothing was
        holdings: the samples that each agent has, where the task has samples
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
    topology: Topology = field(repr=False)
    models: Parts = field(repr=False)
    trace: Trace | None = field(default=None, repr=False)
    tuning: Tuning | None = None
    error: str | None = None
    epoch: float | None = None
    details: Details = field(default_factory=dict, repr=False)
    eval_s: float = 0.0
    holdings: Holdings | None = field(default=None, repr=False)

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

    def record(self) -> dict[str, Any]:
        """The run as JSON-ready values; what is not finite becomes null.

        Nothing in it depends on when or how fast it was made: the same run gives the same bytes.
        """
        known = {**self.settings, **vars(self), "topology": self.settings["topology"]}
        known |= {"staleness": vars(self.staleness), "curve": self.curve.columns()}
        known["tuning"] = None if self.tuning is None else self.tuning.record()
        known["holdings"] = None if self.holdings is None else vars(self.holdings)
        names = [*RECORDED, *["details"] * bool(self.details)]
        text = json.dumps({name: known[name] for name in names})
        record: dict[str, Any] = json.loads(text, parse_constant=lambda name: None)
        return record


# Settings in which the runs of one comparison may differ; of the straggler see `_differences`.
MAY_DIFFER = (
    "algorithm",
    "lr",
    "seed",
    "own",
    "code",
    "executor",
    "data",
    "straggler",
    "metrics",
    "per_agent",
)


@dataclass(frozen=True)
class ComparisonValues:
    """Several runs of the same experiment: algorithms, seeds, learning rates.

    Attributes:
        interrupted: some runs of the plan were not made
        planned: then, how many runs of each algorithm there were to be, as far as that is known

    Raises SettingError if they differ by anything else, or one is there twice: a median would mix them.
    """

    runs: Sequence[RunValues]
    interrupted: bool = False
    planned: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if found := _differences(self.runs):
            raise SettingError(
                f"Runs of different worlds are no comparison; {'; '.join(found)}. Expected runs that differ "
                "by algorithm, lr and seed: make one for each world, or a table of all with a sweep."
            )
        for (name, lr, seed), count in Counter((r.algorithm, r.lr, r.seed) for r in self.runs).items():
            if count > 1:
                run = f"run of {name} with lr {lr:g} and seed {seed}"
                raise SettingError(f"The {run} is there twice; expected once.")

    def groups(self) -> dict[tuple[str, float], list[RunValues]]:
        """The runs by (algorithm, lr): what differs only by its seed is together."""
        groups: dict[tuple[str, float], list[RunValues]] = {}
        for run in self.runs:
            groups.setdefault((run.algorithm, run.lr), []).append(run)
        return groups

    def label(self, key: tuple[str, float]) -> str:
        """A group's name in tables and figures; with its learning rate where an algorithm has several."""
        algorithm, lr = key
        rates = [rate for name, rate in self.groups() if name == algorithm]
        if len(rates) == 1:
            return algorithm
        alike = len({f"{rate:g}" for rate in rates}) < len(rates)
        return f"{algorithm} lr={lr!r}" if alike else f"{algorithm} lr={lr:g}"

    def record(self) -> dict[str, Any]:
        stopped = {"interrupted": True, "planned": dict(self.planned)} if self.interrupted else {}
        return {"offbeat": VERSION, **stopped, "runs": [run.record() for run in self.runs]}


def _differences(runs: Sequence[RunValues]) -> list[str]:
    """How runs differ though they must not; a random graph, and its centre, are others with every seed."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in MAY_DIFFER)
    values = {name: list(dict.fromkeys(str(run.settings.get(name)) for run in runs)) for name in names}
    if found := [f"{name}: {' and '.join(all_)}" for name, all_ in values.items() if len(all_) > 1]:
        return found
    versions = {(file, code) for run in runs for file, code in (run.settings.get("code") or {}).items()}
    if len(versions) > len(files := {file for file, _ in versions}):
        return [f"versions of {' and '.join(sorted(files))}"]
    graphs = [run.topology.w.indices.tobytes() + run.topology.w.data.tobytes() for run in runs]
    if len({*zip(graphs, (run.seed for run in runs), strict=True)}) > len({run.seed for run in runs}):
        return ["the graphs differ though the seed is the same"]
    slow = [tuple(stragglers(run.settings)) for run in runs]
    if len({*zip(graphs, slow, strict=True)}) > len({*graphs}):
        return [f"straggler: {' and '.join(','.join(map(str, each)) for each in dict.fromkeys(slow))}"]
    return []


def stragglers(settings: Mapping[str, Any]) -> list[int]:
    """The slow agents of the case, in the settings of this version or of one that had one at most."""
    slow = settings.get("straggler")
    return [] if slow is None else [slow] if isinstance(slow, int) else [*slow]


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """Median, smallest and largest of times to target; "never" (None) counts as infinitely late."""
    if not values:
        return None, None, None
    times = sorted(math.inf if value is None else value for value in values)
    low, middle, high = times[0], median(times), times[-1]
    return tuple(None if math.isinf(t) else t for t in (middle, low, high))  # type: ignore[return-value]


def time_text(time: float | None) -> str:
    """A time to a target: no digits that mean nothing, for it is interpolated."""
    return "never" if time is None else f"{time:,.0f}" if time >= 1000 else f"{time:.4g}"
