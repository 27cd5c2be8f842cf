"""Makes runs: chooses the engine, runs it from evaluation to evaluation, and scores what comes out.

Runs are made one after another, or side by side where they can share their arithmetic.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from typing import Any, Protocol

from offbeat.core.errors import SettingError
from offbeat.core.promises import unchanged
from offbeat.core.rules import SGD
from offbeat.core.system import devices
from offbeat.core.system.streams import Purpose, stream
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.levels import Levels, ScheduledRun
from offbeat.engines.sim.ahead.schedule import NoTimetable, Schedule
from offbeat.engines.sim.ahead.update_form import NotLinear, UpdateForm, update_form_of
from offbeat.engines.sim.checks import Checker
from offbeat.engines.sim.executors import EXECUTORS, Executor
from offbeat.engines.sim.simulator import Simulator
from offbeat.engines.trace import Trace, TraceSummary
from offbeat.experiments.jobs import LEVELS, Job, time_segments
from offbeat.experiments.memory import refuse_too_large
from offbeat.experiments.scoring import curve_point, final_scores, run_of
from offbeat.experiments.setup import check_algorithm
from offbeat.results.run import Run
from offbeat.results.values import Curve, Progress


class Engine(Protocol):
    """What makes a run."""

    def start(self) -> None:
        """Before anything else."""

    def run(self, until: float) -> None:
        """Everything up to and including that time."""

    def stacked(self) -> Parts:
        """The living agents' models, [m, P]."""

    def counts(self) -> tuple[int, int, int]:
        """Gradients applied, transmissions and their bytes, so far."""

    def traced(self) -> Trace | TraceSummary:
        """What happened so far: the trace, or what is left of it."""

    def stalled(self) -> str | None:
        """From when on nothing will ever happen again, if that is so."""


def check_run(job: Job) -> None:
    """Raise SettingError if this run makes no sense, or there is not enough memory for it."""
    check_algorithm(job.setup, job.spec)
    if job.executor == LEVELS and job.why_not_by_levels:
        raise SettingError(
            f"{job.spec.name} cannot be run by levels: {job.why_not_by_levels}. Expected --executor auto, "
            "which sees to it."
        )
    refuse_too_large(job)


def run_many(jobs: Sequence[Job], progress: Progress | None = None) -> Iterator[Run]:
    """Make these runs, in order; each is finished when it is yielded. What a run gives does not depend on the
    others.
    """
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
    """The first of these runs from start to end, and those that can be made beside it: by levels at most so
    many.
    """
    with unchanged(type(jobs[0].spec.prototype)):
        active = [ActiveRun(job, engine) for job, engine in zip(jobs, engines(jobs, most), strict=False)]
        for each in active:
            each.engine.start()
        for now in jobs[0].setup.eval_times:
            for each in active:
                each.advance(now, progress)
            if all(each.diverged is not None for each in active):
                break
        return [each.diverged or each.result(None) for each in active]


# -- which engine ----------------------------------------------------------------------------------


def engines(jobs: Sequence[Job], most: int = 1024) -> Sequence[Engine]:
    """The engines of the first job, and of those after it that can be made beside it: by levels at most so
    many.
    """
    first = jobs[0]
    if first.executor in EXECUTORS:
        return [simulator(first)]
    beside = takewhile(lambda job: job is first or job.fits_beside(first), jobs[: min(most, first.beside)])
    together, runs = [*beside], list[ScheduledRun]()
    for job in together:
        try:
            runs.append(_scheduled(job, time_segments(first.setup, len(together))))
        except NoTimetable:
            break
    if runs:
        return Levels(runs, first.setup.task, first.setup.task.initial()).runs
    if first.executor == LEVELS:
        raise SettingError(
            f"{first.spec.name} cannot be run by levels here: two things happen at the same instant, and "
            "their order is the simulator's to say. Expected --executor auto, which sees to that."
        )
    return [simulator(first)]


def simulator(job: Job) -> Simulator:
    """The simulator of one run, ready to start; batched, unless the job names another of its executors."""
    setup, spec = job.setup, job.spec
    how = job.executor if job.executor in EXECUTORS else "batched"
    world = (setup.topology, setup.task, setup.world, Executor(setup.task, EXECUTORS[how]))
    rule, checker = partial(job.rule, job.lr), Checker() if job.check else None
    returns = "return" in spec.tolerates
    return Simulator(spec.new, rule, *world, returns=returns, checker=checker, keep_trace=job.keep_trace)


def _scheduled(job: Job, ends: Sequence[float]) -> ScheduledRun:
    """The run as timetables and its forms. Raises NoTimetable where only the simulator can tell how it
    begins.
    """
    if not job.by_levels:
        raise NoTimetable
    setup, (initial,) = job.setup, job.setup.task.initial()
    n, views = setup.topology.n, setup.topology.views()
    known: dict[Any, UpdateForm] = {}
    forms = []
    for i, view in enumerate(views):
        shape = (*view.w.values(), [*view.w].index(i), bool(view.listeners))
        if shape not in known:
            try:
                known[shape] = update_form_of(job.spec.new, job.rule(job.lr), i, n, view, (initial[:1],))
            except NotLinear as why:
                raise SettingError(f"{job.spec.name} is declared free-running, but {why}.") from None
        forms.append(known[shape])
    draws = [partial(setup.task.draw, i, stream(setup.world.seed, Purpose.DATA, i)) for i in range(n)]
    return ScheduledRun(Schedule(views, setup.world, initial.nbytes), ends, forms, draws, job.keep_trace)


# -- one run ---------------------------------------------------------------------------------------


@dataclass
class ActiveRun:
    """A run that is being made. diverged: what came out, once its loss is no longer finite."""

    job: Job
    engine: Engine
    curve: Curve = field(default_factory=Curve)
    diverged: Run | None = None

    def advance(self, now: float, progress: Progress | None) -> None:
        """Up to an evaluation, and the evaluation; nothing once the loss is no longer finite."""
        if self.diverged is not None:
            return
        setup, curve = self.job.setup, self.curve
        self.engine.run(now)
        updates, _, sent = self.engine.counts()
        curve_point(setup.task, self.engine.stacked(), now, updates, sent / 1e6, curve)
        if progress is not None:
            progress(self.job.spec.name, now, setup.until, curve)
        if not (math.isfinite(curve.loss[-1]) and math.isfinite(curve.consensus[-1])):
            self.diverged = self.result(now)

    def result(self, diverged_at: float | None) -> Run:
        """What has come out so far, as that of a run that has ended; how long it took is not known here."""
        job, setup, curve = self.job, self.job.setup, self.curve
        models = self.engine.stacked()
        final, on_cpu = final_scores(setup.task, models, curve), tuple(part.cpu() for part in models)
        traced = self.engine.traced()
        summary = traced if isinstance(traced, TraceSummary) else traced.summary()
        rule = getattr(job.rule, "__name__", repr(job.rule))
        own = [*setup.settings["own"], *[f"the algorithm {job.spec.name}"] * job.spec.user_defined]
        own += [f"the rule {rule}"] * (job.rule is not SGD)
        return run_of(
            setup, job.spec, job.lr, curve, final, on_cpu, summary, self.engine.counts(),
            {"rule": rule, "own": own}, diverged_at=diverged_at, wall_s=0.0,
            trace=traced if isinstance(traced, Trace) else None,
            error=self.engine.stalled() if diverged_at is None else None,
        )  # fmt: skip
