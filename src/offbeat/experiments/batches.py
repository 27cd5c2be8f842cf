"""The runs of a comparison as batches: how long they take, how many workers pay, and how they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from offbeat.algorithms import Algorithm
from offbeat.core.rules import SGD, Rule
from offbeat.core.system import machine
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.jobs import Job
from offbeat.experiments.runs import run_many
from offbeat.experiments.scheduler import Batch
from offbeat.experiments.setup import Setup, prepare
from offbeat.experiments.workers import possible
from offbeat.results.run import Run
from offbeat.results.values import Curve, Progress

VECTOR, EVALUATION = 10e-6, 1e-3
"""Seconds that an update takes for each model that it moves, and an evaluation; rough, and for one core."""

WORTH = 5.0
"""Seconds of work that there must be for workers, or none are started: they begin 2 to 4 seconds later."""

WORLDS = 8
"""Worlds that a worker keeps: as many as lie side by side."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a comparison that is to be made.

    Attributes:
        key: the place of its algorithm in the plan, and its own among the runs of that
        tuning: whether it is only to find a learning rate
    """

    spec: Algorithm
    seed: int
    lr: float
    keep_trace: bool
    key: tuple[int, int]
    tuning: bool

    def __str__(self) -> str:
        return f"{self.spec.name}, lr {self.lr:g}, seed {self.seed}{', tuning' * self.tuning}"

    def job(self, setup: Setup, executor: str, rule: Callable[[float], Rule], check: bool) -> Job:
        """The run in the world of its seed."""
        return Job(setup, self.spec, self.lr, executor, rule, check, self.keep_trace)


def seconds(setup: Setup, spec: Algorithm) -> float:
    """How long a run takes, estimated: updates x (models an agent holds) x 10 us + evaluations x 1 ms.

    Updates are those of agents that never wait, and `Algorithm.vectors` says how many models: good to a
    factor of two or so for the tasks of the table. It decides what is made first, and whether workers pay; no
    result depends on it.
    """
    each, edge = spec.vectors
    return setup.updates * (each + edge * setup.topology.degree) * VECTOR + len(setup.eval_times) * EVALUATION


def how_many_workers(
    batches: Sequence[Batch[PlannedRun]],
    wanted: int,
    need: Callable[[int, tuple[bool, ...]], float],
    kept: float = 0.0,
) -> tuple[int, str]:
    """How many workers, of those that are wanted, beside this process; and what the user should know of that.

    None where the work that is left for them, while this process makes the longest batch, is estimated at
    less than `WORTH`. Fewer where not all processes could make the largest batches at once and hold the data
    beside them.

    Args:
        need: bytes beyond the data of runs of the algorithm at that place, of which the trace is held or not
        kept: bytes of the traces that are held to the end
    """
    times = [batch.seconds for batch in batches]
    movable = [batch.seconds for batch in batches if not batch.here]
    if min(sum(movable), sum(times) - max(times)) < WORTH or not possible():
        return 0, ""
    count = wanted = min(wanted, len(movable), len(batches) - 1)
    free, data = machine.available(), machine.resident()
    traces = [(batch.place, tuple(run.keep_trace for run in batch.runs)) for batch in batches]
    needs = sorted((need(*each) for each in traces), reverse=True)
    while count and kept + sum(needs[: count + 1]) + count * data > free:
        count -= 1
    if count == wanted:
        return count, ""
    many = f"{count + 1} processes at once" if count else "one process"
    return count, f"{free / 1e9:.1f} GB of memory are free: enough for {many}, not for {wanted + 1}."


# -- in this process -------------------------------------------------------------------------------


@dataclass
class Maker:
    """How this process makes batches of one experiment, and follows those that workers make.

    Attributes:
        known: the worlds that there are already, by their seed
        on_progress: told of evaluations: those of this process, and the newest of every worker
        look: called at every evaluation, to take in what workers have done
        numbers: a time, a loss and an accuracy for each worker
    """

    experiment: Experiment
    known: Mapping[int, Setup]
    rule: Callable[[float], Rule]
    check: bool
    on_progress: Progress
    numbers: Any
    look: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.others = lru_cache(partial(prepare, self.experiment))

    def make(self, batch: Batch[PlannedRun]) -> Iterator[Run]:
        """Make these runs."""

        def evaluated(_: str, now: float, until: float, curve: Curve) -> None:
            self.look()
            self.on_progress(batch.label, now, until, curve)

        how = self.experiment.executor, self.rule, self.check
        return run_many([run.job(self._world(run.seed), *how) for run in batch.runs], evaluated)

    def received(self, batch: Batch[PlannedRun], sent: Sent) -> Run:
        """A run that a worker has made."""
        run, arrays = sent
        self.on_progress(batch.label, run.curve.time[-1], run.settings["until"], run.curve)
        topology = self.known[run.seed].topology if run.seed in self.known else run.topology
        return replace(run, models=tuple(map(torch.from_numpy, arrays)), topology=topology)

    def show(self, running: Mapping[int, Batch[PlannedRun]]) -> None:
        """Tell how far workers are, but not of the end of a run: that is told when the run is here."""
        until = next(iter(self.known.values())).until
        for number, batch in running.items():
            now, loss, accuracy = self.numbers[3 * number : 3 * number + 3]
            if 0 < now < until and math.isfinite(loss):
                curve = Curve([now], [], [], [loss], [] if math.isnan(accuracy) else [accuracy])
                self.on_progress(batch.label, now, until, curve)

    def _world(self, seed: int) -> Setup:
        return self.known[seed] if seed in self.known else self.others(seed)


# -- in a worker -----------------------------------------------------------------------------------

Sent = tuple[Run, list[np.ndarray]]
"""A run without its models, and these as arrays: tensors would come through shared memory, which may be
small."""

_given: list[Any] = []


def begin(numbers: Any, experiment: Experiment, check: bool) -> None:
    """Keep what all batches have in common; numbers: a time, a loss and an accuracy for each worker."""
    _given[:] = numbers, experiment, check, lru_cache(WORLDS)(partial(prepare, experiment))


def make_batch(batch: Batch[PlannedRun], number: int) -> list[Sent]:
    """Make these runs as the worker of this number."""
    numbers, experiment, check, world = _given
    numbers[3 * number : 3 * number + 3] = 0.0, 0.0, 0.0

    def evaluated(_: str, now: float, until: float, curve: Curve) -> None:
        accuracy = curve.accuracy[-1] if curve.accuracy else math.nan
        numbers[3 * number : 3 * number + 3] = now, curve.loss[-1], accuracy

    jobs = [run.job(world(run.seed), experiment.executor, SGD, check) for run in batch.runs]
    runs = run_many(jobs, evaluated)
    return [(replace(run, models=()), [part.numpy() for part in run.models]) for run in runs]
