"""Running experiments: one after another, or side by side where they can share their arithmetic."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any, Protocol

import torch
from torch import Tensor

from offbeat.algorithms import Algorithm
from offbeat.core.errors import SettingError, unknown
from offbeat.core.promises import check_unchanged, state_of
from offbeat.core.rules import SGD, Rule
from offbeat.core.system import devices
from offbeat.core.system.streams import Purpose, stream
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.forms import Form, NoForm, form_of
from offbeat.engines.sim.ahead.levels import Lane, Levels
from offbeat.engines.sim.ahead.schedule import NoTimetable, Schedule
from offbeat.engines.sim.ahead.sides import Side
from offbeat.engines.sim.checks import Checker
from offbeat.engines.sim.executors import EXECUTORS, executor
from offbeat.engines.sim.simulator import Simulator, final_bytes
from offbeat.engines.trace import Tally, Trace
from offbeat.experiments.experiment import Setup, check_algorithm
from offbeat.experiments.memory import need, pieces, refuse_too_large
from offbeat.results.run import Curve, Progress, Run
from offbeat.tasks.task import Task

AUTO, LEVELS = "auto", "levels"
HOW = (AUTO, LEVELS, *EXECUTORS)
"""How gradients and models are evaluated. auto: by levels where an algorithm's timetable is known, else
batched."""

TOGETHER = 8, 1024
"""Runs that are made side by side, at most, and their agents: by then every call is wide."""


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

    def traced(self) -> Trace | Tally:
        """What happened so far: the trace, or what is left of it."""

    def stalled(self) -> str | None:
        """From when on nothing will ever happen again, if that is so."""


@dataclass(frozen=True)
class Job:
    """One run that is to be made: an experiment of one seed, an algorithm, its step, and whether to keep the
    trace.

    Raises SettingError for a step that is none, and if the algorithm is not for this graph.
    """

    setup: Setup
    spec: Algorithm
    lr: float
    keep_trace: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise SettingError(f"A step must be a finite number > 0; got {self.lr} for {self.spec.name}.")
        largest = min(torch.finfo(part.dtype).max for part in self.setup.task.initial())
        if self.lr > largest:
            raise SettingError(
                f"A step of {self.lr:g} is more than a model's numbers can be, {largest:.3g}; expected a "
                "smaller one."
            )
        self.spec.check(self.setup.topology)


def check_run(
    setup: Setup, spec: Algorithm, lr: float, how: str = AUTO, rule: Callable[[float], Rule] = SGD,
    keep_trace: bool = False,
) -> None:  # fmt: skip
    """Raise SettingError if this run makes no sense, or there is not enough memory for it."""
    if how not in HOW:
        raise unknown("executor", how, HOW)
    job = Job(setup, spec, lr)
    check_algorithm(setup, spec)
    reason = _why_not(setup, spec, rule)
    if how == LEVELS and reason:
        raise SettingError(
            f"{spec.name} cannot be run by levels: {reason}. Expected --executor auto, which sees to it."
        )
    refuse_too_large(setup, spec, _by_levels(job, how, rule), keep_trace)


def run_many(
    jobs: Sequence[Job], how: str = AUTO, rule: Callable[[float], Rule] = SGD, progress: Progress | None = None,
    check: bool = False,
) -> Iterator[Run]:  # fmt: skip
    """Make these runs, in order; each is finished when it is yielded. What a run gives does not depend on the
    others.

    Args:
        check: hold engine and algorithm to the contract, event by event
    """
    waiting = [*jobs]
    while waiting:
        began, most = time.perf_counter(), len(waiting)
        while True:
            try:
                with one_thread(), devices.exact():
                    going = _made(waiting, how, rule, progress, check, most)
                break
            except NoTimetable as found:  # which may show late in a long run
                most = found.side
        wall = (time.perf_counter() - began) / len(going)
        yield from (each.result(wall) for each in going)
        waiting = waiting[len(going) :]


def _made(
    jobs: Sequence[Job],
    how: str,
    rule: Callable[[float], Rule],
    progress: Progress | None,
    check: bool,
    most: int,
) -> Sequence[_Going]:
    """The first of these runs from start to end, and those that can be made beside it: so many by levels at
    most.
    """
    own = type(jobs[0].spec.prototype)
    before = state_of(own)
    made = engines(jobs, how, rule, check, most)
    going = [_Going(job, engine, rule) for job, engine in zip(jobs, made, strict=False)]
    for each in going:
        each.engine.start()
    for now in jobs[0].setup.eval_times:
        for each in going:
            each.advance(now, progress)
        if all(each.diverged_at is not None for each in going):
            break
    for each in going:
        if each.diverged_at is None:
            each.finish()
    check_unchanged(own, before)
    return going


def needed(jobs: Sequence[Job], how: str = AUTO, rule: Callable[[float], Rule] = SGD) -> float:
    """Bytes of memory that these runs need at most at a time, beyond the data: an estimate."""
    most = 0.0
    for job in jobs:
        by_levels = _by_levels(job, how, rule)
        beside = min(len(jobs), _beside(job)) if by_levels else 1
        most = max(most, need(job.setup, job.spec, by_levels, job.keep_trace, beside).total)
    return most


def side_by_side(job: Job, how: str = AUTO, rule: Callable[[float], Rule] = SGD) -> int:
    """How many runs like this one are made side by side, at most."""
    return _beside(job) if _by_levels(job, how, rule) else 1


def run_one(
    setup: Setup, spec: Algorithm, lr: float, how: str = AUTO, rule: Callable[[float], Rule] = SGD,
    progress: Progress | None = None, check: bool = False, keep_trace: bool = True,
) -> Run:  # fmt: skip
    """One run, from start to end (or until its loss is no longer finite)."""
    return next(run_many([Job(setup, spec, lr, keep_trace)], how, rule, progress, check))


def simulator(
    setup: Setup, spec: Algorithm, lr: float, how: str = "batched", rule: Callable[[float], Rule] = SGD,
    check: bool = False, keep_trace: bool = True,
) -> Simulator:  # fmt: skip
    """The simulator of one run, ready to start."""
    return Simulator(
        spec.new, lambda: rule(lr), setup.topology, setup.task, setup.world, executor(how, setup.task),
        returns="return" in spec.tolerates, checker=Checker() if check else None, keep_trace=keep_trace,
    )  # fmt: skip


# -- which engine ----------------------------------------------------------------------------------


def engines(
    jobs: Sequence[Job],
    how: str = AUTO,
    rule: Callable[[float], Rule] = SGD,
    check: bool = False,
    most: int = 1024,
) -> Sequence[Engine]:
    """The engines of the first job, and of those after it that can be made beside it: so many by levels at
    most.
    """
    first = jobs[0]
    if how not in (AUTO, LEVELS):
        return [simulator(first.setup, first.spec, first.lr, how, rule, check, first.keep_trace)]
    together = [*takewhile(lambda job: job is first or _alike(first, job), jobs[: min(most, _beside(first))])]
    sides: list[Side] = []
    for job in together:
        try:
            if check or _why_not(job.setup, job.spec, rule):
                raise NoTimetable
            sides.append(_side(job, rule, pieces(first.setup, len(together))))
        except NoTimetable:
            break
    if sides:
        levels = Levels(sides, first.setup.task, first.setup.task.initial())
        return [Lane(levels, k) for k in range(len(sides))]
    if how == LEVELS:
        raise SettingError(
            f"{first.spec.name} cannot be run by levels here: two things happen at the same instant, and "
            "their order is the simulator's to say. Expected --executor auto, which sees to that."
        )
    return [simulator(first.setup, first.spec, first.lr, "batched", rule, check, first.keep_trace)]


def _beside(job: Job) -> int:
    """How many runs are made side by side, at most; a long one of which the trace is held is made alone."""
    long = job.keep_trace and len(pieces(job.setup, 1)) > 1
    return 1 if long else max(1, min(TOGETHER[0], TOGETHER[1] // job.setup.topology.n))


def _alike(job: Job, other: Job) -> bool:
    """Whether the other may lie beside the first, and the gradients of both can be evaluated in one call."""
    task, others = job.setup.task, other.setup.task
    if job.setup.eval_times != other.setup.eval_times or _beside(other) == 1:
        return False
    like = getattr(task, "like", None)
    return task is others or (like is not None and bool(like(others)))


def _by_levels(job: Job, how: str, rule: Callable[[float], Rule]) -> bool:
    """Whether this run is made by levels, as far as can be told before."""
    return how in (AUTO, LEVELS) and not _why_not(job.setup, job.spec, rule)


def _why_not(setup: Setup, spec: Algorithm, rule: Callable[[float], Rule]) -> str:
    """Why there is no timetable for this algorithm in this world; empty if there may be one."""
    if not spec.free:
        return "what it does depends on what it hears"
    if rule is not SGD:
        return "its local rule keeps a state"
    if setup.world.crashes:
        return "agents crash"
    if len(setup.task.initial()) != 1:
        return "its model has several dtypes"
    return ""


def _side(job: Job, rule: Callable[[float], Rule], ends: Sequence[float]) -> Side:
    """The run as timetables and its forms. Raises NoTimetable where only the simulator can tell how it
    begins.
    """
    setup, (initial,) = job.setup, job.setup.task.initial()
    views = setup.topology.views()
    forms: dict[Any, Form] = {}
    each = []
    for i, view in enumerate(views):
        shape = (*view.w.values(), [*view.w].index(i), bool(view.listeners))
        if shape not in forms:
            try:
                forms[shape] = form_of(job.spec.new, rule(job.lr), i, setup.topology.n, view, (initial[:1],))
            except NoForm as why:
                raise SettingError(f"{job.spec.name} is declared free-running, but {why}.") from None
        each.append(forms[shape])
    draws = [
        partial(setup.task.draw, i, stream(setup.world.seed, Purpose.DATA, i))
        for i in range(setup.topology.n)
    ]
    return Side(Schedule(views, setup.world, initial.nbytes), ends, each, draws, job.keep_trace)


# -- one run ---------------------------------------------------------------------------------------


@dataclass
class _Going:
    """A run that is being made."""

    job: Job
    engine: Engine
    rule: Callable[[float], Rule]
    curve: Curve = field(default_factory=Curve)
    diverged_at: float | None = None

    def advance(self, now: float, progress: Progress | None) -> None:
        """Up to an evaluation, and the evaluation; nothing once the loss is no longer finite."""
        if self.diverged_at is not None:
            return
        setup, curve = self.job.setup, self.curve
        self.engine.run(now)
        updates, _, sent = self.engine.counts()
        curve_point(setup.task, self.engine.stacked(), now, updates, sent / 1e6, curve)
        if progress is not None:
            progress(self.job.spec.name, now, setup.until, curve)
        if not (math.isfinite(curve.loss[-1]) and math.isfinite(curve.consensus[-1])):
            self.diverged_at = now
            self.finish()

    def finish(self) -> None:
        """What is left when it has ended."""
        models = self.engine.stacked()
        self.final = final_scores(self.job.setup.task, models, self.curve)
        self.models = tuple(part.cpu() for part in models)
        self.error = self.engine.stalled() if self.diverged_at is None else None
        traced, self.counted = self.engine.traced(), self.engine.counts()
        self.trace = traced if isinstance(traced, Trace) else None
        tally = traced.tally() if isinstance(traced, Trace) else traced
        self.staleness, self.digest = tally.staleness(), tally.digest(final_bytes(self.models))

    def result(self, wall: float) -> Run:
        """The run."""
        setup, spec, lr, rule = self.job.setup, self.job.spec, self.job.lr, self.rule
        named = getattr(rule, "__name__", repr(rule))
        own = [
            *setup.settings["own"],
            *[f"the algorithm {spec.name}"] * spec.own,
            *[f"the rule {named}"] * (rule is not SGD),
        ]
        updates, messages, sent = self.counted
        return Run(
            algorithm=spec.name, lr=lr, seed=setup.seed, measure=setup.task.measure, curve=self.curve, final=self.final,
            settings=setup.settings | {"algorithm": spec.name, "lr": lr, "seed": setup.seed, "rule": named, "own": own},
            time_to_target=reached(setup, self.curve), diverged_at=self.diverged_at,
            updates=updates, messages=messages, megabytes=sent / 1e6, staleness=self.staleness,
            digest=self.digest, wall_s=wall, topology=setup.topology, models=self.models, trace=self.trace,
            error=self.error,
        )  # fmt: skip


def final_scores(task: Task, models: Parts, curve: Curve) -> dict[str, float | None]:
    """The scores at the end: of the average model, from the curve, and of the agents' own."""
    own = task.accuracies(models) if task.measure == "accuracy" else None
    return {
        "loss": curve.loss[-1],
        "accuracy": curve.accuracy[-1] if curve.accuracy else None,
        "consensus": curve.consensus[-1],
        "accuracy_mean": None if own is None else float(own.mean()),
        "accuracy_worst": None if own is None else float(own.min()),
        "loss_worst": float(task.losses(models).max()) if own is None else None,
    }


def curve_point(task: Task, models: Parts, now: float, updates: int, megabytes: float, curve: Curve) -> None:
    """Evaluate these models [m, P] and add a point to the curve."""
    mean = tuple(part.mean(0) for part in models)
    average = tuple(part[None] for part in mean)
    squares = sum(_distances(part, middle).mean() for part, middle in zip(models, mean, strict=True))
    curve.time.append(now)
    curve.updates.append(updates)
    curve.megabytes.append(megabytes)
    curve.loss.append(float(task.losses(average)[0]))
    if task.measure == "accuracy":
        curve.accuracy.append(float(task.accuracies(average)[0]))
    curve.consensus.append(float(squares) ** 0.5)


def _distances(models: Tensor, middle: Tensor) -> Tensor:
    """The squared distance of each of m models from another: [m]; block by block, for there may be many."""
    return torch.cat([(block - middle).double().square().sum(1) for block in torch.split(models, 256)])


def reached(setup: Setup, curve: Curve) -> float | None:
    """When the average model first met the target; None if it did not, or there is none."""
    return None if setup.target is None else curve.crossing(setup.task.measure, setup.target)


@contextmanager
def one_thread() -> Iterator[None]:
    """One OpenMP thread: faster for models of this size, and the bits do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
