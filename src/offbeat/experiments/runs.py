"""Makes runs: chooses the engine, runs it from evaluation to evaluation, and scores what comes out.

Runs are made one after another, or side by side where they can share their arithmetic.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from itertools import takewhile
from typing import Any, cast

import numpy as np
import torch

from offbeat.algorithms import RASGP, Algorithm, check_codec
from offbeat.core.errors import SettingError, unknown
from offbeat.core.optimizers import Optimizer, Steps
from offbeat.core.pairs import Meeting
from offbeat.core.promises import unchanged
from offbeat.core.rates import above_zero
from offbeat.core.ring import Ring
from offbeat.core.rounds import Rounds
from offbeat.core.server import Served
from offbeat.core.system import devices
from offbeat.core.system.streams import Purpose, stream
from offbeat.core.vector import Parts
from offbeat.engines.activity import Link
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.levels import Levels
from offbeat.engines.sim.ahead.mailing import MailRun
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.probing import why_not_read
from offbeat.engines.sim.ahead.rhythm import readings
from offbeat.engines.sim.ahead.ring import RingRun
from offbeat.engines.sim.ahead.rounds import RoundRun
from offbeat.engines.sim.ahead.schedule import Schedule
from offbeat.engines.sim.ahead.scheduled import ScheduledRun
from offbeat.engines.sim.checks import Checker
from offbeat.engines.sim.recording import EXECUTORS, ORACLE
from offbeat.engines.sim.simulator import Simulator
from offbeat.engines.trace import Trace, TraceSummary
from offbeat.experiments.limits import limit_of
from offbeat.experiments.measuring import Measurements
from offbeat.experiments.segments import time_segments
from offbeat.experiments.setup import Setup
from offbeat.experiments.worlds import check_reached
from offbeat.results.holdings import Holdings
from offbeat.results.run import Run
from offbeat.results.values import Progress
from offbeat.world.sending import why_no_timetable

AUTO, LEVELS = "auto", "levels"
Timed = RingRun | RoundRun | MailRun
HOW = (AUTO, LEVELS, *EXECUTORS)  # of evaluation; auto: by levels where a timetable is known, else batched
TOGETHER = 8, 1024  # runs that are made side by side, at most, and their agents: by then every call is wide


@dataclass(frozen=True)
class Job:
    """One run that is to be made: an experiment of one seed, an algorithm, its learning rate.

    Attributes:
        check: hold engine and algorithm to the contract, event by event

    Raises SettingError for an unknown executor, no learning rate, an algorithm that is not for this graph.
    """

    setup: Setup
    spec: Algorithm
    lr: float
    executor: str = AUTO
    check: bool = False
    keep_trace: bool = True

    def __post_init__(self) -> None:
        if self.executor not in HOW:
            raise unknown("executor", self.executor, HOW)
        largest = min(torch.finfo(part.dtype).max for part in self.setup.task.initial())
        if above_zero(self.lr, self.spec.name) > largest:
            most = f"more than a model's numbers can be, {largest:.3g}"
            raise SettingError(f"A learning rate of {self.lr:g} is {most}; expected a smaller one.")
        self.spec.check(self.setup.topology)
        check_codec(self.spec, self.setup.codec)
        check_reached(self.setup.world, self.spec, self.setup.topology.n)

    @property
    def why_not_by_levels(self) -> str:
        """Why there is no timetable for this algorithm in this world; empty if there may be one."""
        if self.spec.user_defined:
            return "what a class of the user's own does at its events is not looked into"
        if why := _why_not_read(self.spec, self.setup.steps):
            return why
        if why := why_no_timetable(self.setup.world):
            return why
        if self.setup.codec is not None:
            return "what is sent is compressed, so that others mix another model than its own"
        if len(self.setup.task.initial()) != 1:
            return "its model has several dtypes"
        return ""

    @property
    def by_levels(self) -> bool:
        return self.executor in (AUTO, LEVELS) and not self.check and not self.why_not_by_levels

    @property
    def timed(self) -> "type[Timed] | None":
        """The engine of rings of sums, rounds, pairs and others, timed before any arithmetic; or None."""
        agent, own = self.spec.prototype, self.spec.user_defined
        plain = self.executor == AUTO and not self.check and self.setup.codec is None
        if not plain or own or why_no_timetable(self.setup.world):
            return None
        if isinstance(agent, Ring):  # whose handlers are called, where a rule is the user's own
            return RingRun
        if not isinstance(self.setup.steps.by, Optimizer):
            return None
        known = isinstance(agent, Rounds) and agent.local_steps == 1
        return MailRun if isinstance(agent, Meeting | RASGP | Served) else RoundRun if known else None

    @property
    def heard(self) -> float:
        """Of how many agents one mixes models, by levels: of all others, if it goes beyond the graph."""
        graph = self.setup.topology
        return graph.n - 1.0 if self.spec.prototype.beyond_graph else graph.degree

    @property
    def beside(self) -> int:
        """How many runs like it are made side by side, at most; one if it is long and keeps its trace, or if
        it ends at its target, for what lies beside goes on; but for calls of torch, which gain by width.
        """
        long = self.keep_trace and len(time_segments(self.setup, 1, self.heard)) > 1
        most = max(1, min(TOGETHER[0], TOGETHER[1] // self.setup.topology.n))
        native = getattr(self.setup.task, "native", None) if self.setup.ends_at else None
        return most if self.by_levels and not long and (native is None or native() is None) else 1

    def fits_beside(self, first: "Job") -> bool:
        """Whether it can be made beside that one: gradients of both are evaluated in one call."""
        task, other, like = first.setup.task, self.setup.task, getattr(first.setup.task, "like", None)
        alike = task is other or (like is not None and bool(like(other)))
        return alike and self.setup.eval_times == first.setup.eval_times and self.beside > 1


def _why_not_read(spec: Algorithm, steps: Steps) -> str:
    """Why it cannot be known what the agents of a row of the table do at each event; empty if it can be."""
    if not isinstance(steps.by, Optimizer):
        return "what a local rule of the user's own does is not looked into"
    made = {each.name: getattr(spec.prototype, each.name) for each in fields(spec.prototype) if each.init}
    kind: Any = type(spec.prototype)
    return _probed(kind, tuple(made.items()), steps)


@cache
def _probed(kind: Any, options: tuple[tuple[str, Any], ...], steps: Steps) -> str:
    return why_not_read(partial(kind, **dict(options)), partial(steps.rule, 1.0))


def run_many(jobs: Sequence[Job], progress: Progress | None = None) -> Iterator[Run]:
    """Make these runs, in order; each is finished when it is yielded, and does not depend on the others."""
    waiting = [*jobs]
    while waiting:
        began, most = time.perf_counter(), len(waiting)
        while True:
            try:
                with devices.one_thread(), devices.exact():
                    runs = _made(waiting, most, progress)
                break
            except NoTimetable as found:  # which may show late in a long run
                most = found.run
        wall = (time.perf_counter() - began) / len(runs)
        yield from (replace(run, wall_s=wall) for run in runs)
        waiting = waiting[len(runs) :]


def run_one(job: Job, progress: Progress | None = None) -> Run:
    """One run, from start to end (or until its loss is no longer finite)."""
    return next(run_many([job], progress))


def _made(jobs: Sequence[Job], most: int, progress: Progress | None) -> Sequence[Run]:
    """The first of these runs from start to end, and those that can be made beside it (see `engines`)."""
    with unchanged(type(jobs[0].spec.prototype)):
        active = [ActiveRun(job, engine) for job, engine in zip(jobs, engines(jobs, most), strict=False)]
        for each in active:
            each.engine.start()
        for now in jobs[0].setup.eval_times:
            for each in active:
                each.advance(now, progress)
            if all(each.ended is not None for each in active):
                break
        return [each.ended or each.result() for each in active]


# -- which engine ----------------------------------------------------------------------------------


def engines(jobs: Sequence[Job], most: int = 1024) -> Sequence[Simulator | ScheduledRun | Timed]:
    """The engines of the first job, and of those that can be made beside it: by levels at most so many."""
    first = jobs[0]
    if first.executor in EXECUTORS:
        return [simulator(first)]
    beside = takewhile(lambda job: job is first or job.fits_beside(first), jobs[: min(most, first.beside)])
    together, runs = [*beside], list[ScheduledRun]()
    for job in together:
        try:
            runs.append(_scheduled(job, time_segments(first.setup, len(together), first.heard)))
        except NoTimetable:
            break
    if runs:
        return Levels(runs, first.setup.task, first.setup.task.initial()).runs
    if (kind := first.timed) is not None and most:
        try:
            return [_timed(first, kind)]
        except NoTimetable:
            pass
    if first.executor == LEVELS:
        order = "the order of what happens at the same instant is the simulator's to say"
        why = f"{first.spec.name} cannot be run by levels here: {first.why_not_by_levels or order}"
        raise SettingError(f"{why}. Expected --executor auto, which sees to that.")
    return [simulator(first)]


def simulator(job: Job) -> Simulator:
    """The simulator of one run, ready to start; batched, unless the job names another of its executors."""
    setup, spec = job.setup, job.spec
    how = job.executor if job.executor in EXECUTORS else ORACLE if job.check else "batched"
    world = (setup.topology, setup.task, setup.world, EXECUTORS[how](setup.task))
    rule, checker = partial(setup.steps.rule, job.lr), Checker() if job.check else None
    returns, keep = "return" in spec.tolerates, job.keep_trace
    return Simulator(spec.new, rule, *world, returns, checker, keep, setup.codec)


def _timed(job: Job, kind: type[Timed]) -> Timed:
    setup, new = job.setup, cast(Callable[[], Any], job.spec.new)
    rule = partial(setup.steps.rule, job.lr)
    return kind(new, rule, setup.topology, setup.task, setup.world, job.keep_trace)


def _scheduled(job: Job, ends: Sequence[float]) -> ScheduledRun:
    """The run as timetables and its forms. NoTimetable where only the simulator can tell how it begins."""
    if not job.by_levels:
        raise NoTimetable
    setup, (initial,) = job.setup, job.setup.task.initial()
    n, seed = setup.topology.n, setup.world.seed
    draws = [partial(setup.task.draw, i, stream(seed, Purpose.DATA, i)) for i in range(n)]
    try:
        found = readings(job.spec.new, partial(setup.steps.rule, job.lr), setup.topology.views(), initial)
        schedule = Schedule(found, setup.world)
        return ScheduledRun(schedule, ends, draws, job.keep_trace)
    except NotLinear as why:
        if job.executor == LEVELS:
            expected = "Expected --executor auto, which goes event by event"
            raise SettingError(f"{job.spec.name} cannot be run by levels: {why}. {expected}.") from None
        raise NoTimetable from None


@dataclass
class ActiveRun:
    """A run that is being made. ended: what came out, if that was before its time."""

    job: Job
    engine: Simulator | ScheduledRun | Timed
    measured: Measurements = field(init=False)
    ended: Run | None = None

    def __post_init__(self) -> None:
        setup, spec, lr = self.job.setup, self.job.spec, self.job.lr
        limit = limit_of(setup, spec, lr)
        self.measured = Measurements(setup.task, setup.asked, limit)

    def advance(self, now: float, progress: Progress | None) -> None:
        """Up to an evaluation, and the evaluation; nothing once it has ended, because its loss is no longer
        finite or it has met the target at which it is to end.
        """
        if self.ended is not None:
            return
        setup, engine, curve = self.job.setup, self.engine, self.measured.curve
        engine.run(now)
        updates, _, sent = engine.counts()
        began = time.perf_counter()
        steps = partial(getattr, engine, "steps")
        self.measured.add(now, engine.everybody(), engine.living, updates, sent / 1e6, steps)
        self.measured.seconds += time.perf_counter() - began
        goal = setup.ends_at
        met = goal is not None and goal.met(curve.of(goal.metric)[-1])
        if progress is not None:
            progress(self.job.spec.name, now, now if met else setup.until, curve)
        if curve.lost or met:
            self.ended = self.result()

    def result(self) -> Run:
        """What has come out so far, as that of a run that has ended; how long it took is not known here."""
        job, setup, engine = self.job, self.job.setup, self.engine
        mine = job.spec.user_defined and not job.spec.named
        own = [*setup.settings["own"], *[f"the algorithm {job.spec.name}"] * mine]
        return run_of(
            setup, job.spec, job.lr, self.measured, engine.stacked(), engine.traced(), engine.counts(),
            engine.carried, {"own": own}, wall_s=0.0,
            error=None if self.measured.curve.lost else engine.stalled(),
        )  # fmt: skip


def run_of(
    setup: Setup,
    spec: Algorithm,
    lr: float,
    measured: Measurements,
    models: Parts,
    traced: Trace | TraceSummary,
    counts: tuple[int, int, float],
    links: Callable[[np.ndarray], Mapping[Link, int]],
    asked: Mapping[str, Any],
    **rest: Any,
) -> Run:
    """What came out of a run, simulated or live.

    Args:
        counts: gradients applied, transmissions, and their bytes
        links: from the bytes that each agent has sent to those of each link
        asked: settings beside those of the experiment
        rest: the other fields of `Run`
    """
    task, target, (updates, messages, sent) = setup.task, setup.target, counts
    summary = traced if isinstance(traced, TraceSummary) else traced.summary()
    curve, details = measured.curve, measured.of_run(summary.activity, links)
    own = task.accuracies(models) if task.measure == "accuracy" else None
    final = {
        "loss": curve.loss[-1],
        "accuracy": curve.accuracy[-1] if curve.accuracy else None,
        "consensus": curve.consensus[-1],
        "accuracy_mean": None if own is None else float(own.mean()),
        "accuracy_worst": None if own is None else float(own.min()),
        "loss_worst": float(task.losses(models).max()) if own is None else None,
        **{name: None if math.isnan(values[-1]) else values[-1] for name, values in curve.more.items()},
    }
    models = tuple(part.cpu() for part in models)
    counts_of = getattr(task, "label_counts", None)
    held = None if counts_of is None else Holdings.counted(*counts_of())
    named: dict[str, Any] = {"algorithm": spec.asked, "lr": lr, "seed": setup.seed}
    named |= {"code": setup.settings["code"] | spec.code}
    return Run(
        algorithm=spec.name, lr=lr, seed=setup.seed, settings=setup.settings | named | asked,
        measure=task.measure, curve=curve, final=final,
        time_to_target=None if target is None else curve.first_met(target), diverged_at=curve.diverged_at(),
        updates=updates, messages=messages, megabytes=sent / 1e6, staleness=summary.staleness(),
        digest=summary.digest(*(part.numpy().tobytes() for part in models)), graph=setup.topology,
        models=models, trace=traced if isinstance(traced, Trace) else None, details=details,
        epoch=getattr(task, "epoch", None), holdings=held, world=setup.world_values,
        eval_s=measured.seconds, **rest,
    )  # fmt: skip
