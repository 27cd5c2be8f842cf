"""What is measured at the evaluations of a run: what was asked for, checked, and what has come out so far."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offbeat.core.errors import SettingError, unknown
from offbeat.core.settings import Kind
from offbeat.core.system.named import Own, separated, unknown_name
from offbeat.core.vector import Parts
from offbeat.engines.activity import Activity, Link, traffic
from offbeat.results.values import MEASURED, Curve, Details
from offbeat.tasks.metrics import METRICS, OF_RUN, Metric, offers
from offbeat.tasks.metrics.evaluation import AVERAGE, JUDGED, SERVER, Evaluation
from offbeat.tasks.task import Task
from offbeat.world.topology import Topology

PER_AGENT = "per_agent"


def metric_of(name: str, function: Any) -> Metric:
    """A function of the user's own as a metric. Raises SettingError for a name that is taken, or none."""
    if not callable(function):
        what = "a function of an offbeat.Evaluation that returns a number"
        raise SettingError(f"The metric '{name}' must be {what}; got {function!r:.80}.")
    if name in MEASURED or name in METRICS or name in OF_RUN:
        raise SettingError(f"A metric of your own cannot be called '{name}': offbeat measures that.")
    if not re.fullmatch(r"[^\W\d]\w*", name):
        raise SettingError(f"A metric needs a name like 'sharpness'; got '{name}': metrics={{'NAME': f}}.")
    return Metric(name, name, "", "", function, log=False, own=True)


def _metrics(setting: str, value: Any) -> tuple[str | Metric, ...]:
    """Names with commas between, a list of names and functions, or functions by name."""
    if isinstance(value, str):
        value = [each for each in map(str.strip, separated(value)) if each]
    if isinstance(value, Mapping):
        found: list[str | Metric] = [metric_of(str(name), function) for name, function in value.items()]
    elif isinstance(value, Iterable):
        found = [each for one in value for each in _one(one)]
    else:
        raise SettingError(f"'{setting}' must be names, or functions by name; got {value!r}.")
    names = [each if isinstance(each, str) else each.name for each in found]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise SettingError(f"The metric '{twice[0]}' is named twice.")
    return tuple(found)


def _one(value: Any) -> Sequence[str | Metric]:
    if isinstance(value, Metric):
        return [value]
    if not isinstance(value, str):
        return [metric_of(getattr(value, "__name__", repr(value)), value)]
    names = [each.strip() for each in separated(value)]
    for name in names:
        if Own.parse(name) is None and name not in METRICS and name not in OF_RUN:
            raise unknown_name("metric", name, name, {**METRICS, **OF_RUN})
    return names


METRIC_NAMES = Kind(
    list[str], "list string", _metrics, _metrics,
    lambda metrics: [each if isinstance(each, str) else each.name for each in metrics],
    lambda names: [",".join(names)] if names else [],
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What is measured at an evaluation beside time, updates, megabytes, loss, accuracy and consensus.

    Attributes:
        of_run: which of `offbeat.tasks.metrics.OF_RUN`
        judge: which model loss and accuracy are of: one of `offbeat.tasks.metrics.evaluation.JUDGED`
        server: the agent at the hub of the graph, where that is judged
        per_agent: whether what a target is measured in is kept of every agent's own model
    """

    metrics: tuple[Metric, ...] = ()
    of_run: tuple[str, ...] = ()
    judge: str = AVERAGE
    server: int = 0
    per_agent: bool = False

    @property
    def more(self) -> bool:
        """Whether it is more than what is always measured."""
        return bool(self.metrics or self.per_agent or self.judge != AVERAGE)


def asked(metrics: Any, judge: str, per_agent: bool, task: Task, topology: Topology) -> Asked:
    """What these settings ask for. Raises SettingError for what this task or graph does not have."""
    if judge not in JUDGED:
        raise unknown("model to judge", judge, JUDGED)
    of_run = tuple(each for each in metrics if each in OF_RUN)
    names = [each for each in metrics if each not in of_run]
    usual = [m.name for m in METRICS.values() if m.usual and offers(task, m.needs)]
    names = [*usual, *(each for each in names if each not in usual)]
    found = tuple(METRICS[m] if isinstance(m, str) else m for m in names)
    for each in found:
        if each.name in getattr(task, "metrics", ()):
            raise SettingError(f"The task {task.name} has a metric '{each.name}' of its own; name another.")
        if each.needs and not offers(task, each.needs):
            able = [row.name for row in METRICS.values() if not row.needs or offers(task, row.needs)]
            lacks = f"The task {task.name} has no `{each.needs}`, which the metric {each.name} needs"
            raise SettingError(f"{lacks}. Expected metrics that it has: {', '.join(able)}.")
    made = Asked(found, of_run, judge, _hub(topology) if judge == SERVER else 0, per_agent)
    if any(each.own for each in found):  # before anything runs
        everybody = range(topology.n)
        start = tuple(part.expand(topology.n, -1) for part in task.initial())
        at = Evaluation(task, start, everybody, judge=judge, server=made.server)
        for each in found:
            if each.own:
                each(at)
    return made


def _hub(topology: Topology) -> int:
    """The one agent that is the neighbour of all others. Raises SettingError where there is none."""
    if topology.hub is None:
        only = "a graph with a hub, one agent that is the neighbour of all others: 'star'"
        least = "judged is a hub, also where algorithms with a server make do with agent 0"
        raise SettingError(f"No agent is the server on '{topology.name}': {least}. Expected {only}.")
    return topology.hub


@dataclass
class Measurements:
    """What has been measured of a run so far.

    Attributes:
        limit: where its algorithm ends, [n, P], from the updates that each agent made; None: not known
        seconds: how long that took, on the clock of the wall
    """

    task: Task
    asked: Asked
    limit: Callable[[np.ndarray], np.ndarray] | None = None
    curve: Curve = field(default_factory=Curve)
    details: Details = field(default_factory=dict)
    seconds: float = 0.0

    def add(
        self,
        now: float,
        models: Parts,
        living: Sequence[int],
        updates: int,
        megabytes: float,
        steps: Callable[[], Sequence[int] | np.ndarray],
    ) -> None:
        """Evaluate the agents' models [n, P], of which these agents are up, and add a point to the curve.

        Args:
            steps: how many gradients each agent has applied by then, [n]
        """
        curve, asked, task = self.curve, self.asked, self.task
        limit = None if self.limit is None else self.limit(np.asarray(steps()))
        at = Evaluation(task, models, living, now, updates, megabytes, asked.judge, asked.server, limit)
        curve.time.append(now)
        curve.updates.append(updates)
        curve.megabytes.append(megabytes)
        curve.loss.append(at.loss)
        if task.measure == "accuracy":
            curve.accuracy.append(at.accuracy)
        curve.consensus.append(float(sum(part.mean() for part in at.distances)) ** 0.5)
        for metric in asked.metrics:
            curve.more.setdefault(metric.name, []).append(metric(at))
        own_metrics = getattr(task, "own_metrics", None)
        average = tuple(part[None] for part in at.average)
        for name, values in {}.items() if own_metrics is None else own_metrics(average).items():
            curve.more.setdefault(name, []).append(float(values[0]))
        if asked.per_agent:
            own = at.accuracies() if task.measure == "accuracy" else at.losses()
            rows = self.details.setdefault(PER_AGENT, {}).setdefault(task.measure, [])
            rows.append(np.asarray(own, dtype=float).tolist())

    def of_run(self, activity: Activity, links: Callable[[np.ndarray], Mapping[Link, int]]) -> Details:
        """All details, with those of the whole run. links: from bytes by agent to bytes by link"""
        until = self.curve.time[-1] or 1.0
        made: dict[str, Callable[[], Mapping[str, list[Any]]]] = {
            "ages": activity.histogram,
            "shares": lambda: activity.shares(until),
            "traffic": lambda: traffic(activity.sent, links(activity.sent)),
        }
        return self.details | {name: dict(made[name]()) for name in self.asked.of_run}
