"""The runs of a comparison as batches: how long they take, how many workers pay, and how they are made."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch

from offbeat.algorithms import Algorithm, find
from offbeat.core.system import machine
from offbeat.core.system.own import pinned
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.forking import possible
from offbeat.experiments.runs import Job, run_many
from offbeat.experiments.scheduler import Batch, Scheduler
from offbeat.experiments.setup import Setup, prepare
from offbeat.experiments.space import adjusted
from offbeat.experiments.tuning import Trial
from offbeat.experiments.workers import Processes, tell
from offbeat.results.run import Run
from offbeat.results.values import Curve, Progress

VECTOR, EVALUATION = 10e-6, 1e-3  # seconds of an update, for each model that it moves, and of an evaluation
WORTH = 5.0  # seconds of work without which no workers are started: they begin 2 to 4 seconds later

WORLDS = 8  # that a worker keeps: as many as lie side by side


@dataclass(frozen=True)
class PlannedRun:
    """A run of a comparison to be made.

    Attributes:
        name: of the algorithm
        spec: the algorithm; of the user's own by its text, for it is loaded where the run is made
        key: its algorithm's place in the plan, and its own among these
        trial: the learning rate, and what else was or is being tuned
    """

    name: str
    spec: Algorithm | str
    seed: int
    trial: Trial
    keep_trace: bool
    key: tuple[int, int]
    tuning: bool

    def __str__(self) -> str:
        return f"{self.name}, {self.trial}, seed {self.seed}{', tuning' * self.tuning}"

    def job(self, setup: Setup, executor: str, check: bool) -> Job:
        spec = replace(find(self.spec), name=self.name)
        spec, setup = adjusted(spec, setup.shortened(self.trial.until), dict(self.trial.options))
        return Job(setup, spec, self.trial.lr, executor, check, self.keep_trace)


def seconds(setup: Setup, spec: Algorithm) -> float:
    """How long a run takes, estimated: updates x (models an agent holds) x 10 us + evaluations x 1 ms.

    Good to a factor of two or so for the tasks of the table; it decides the order, and whether workers pay.
    """
    each, edge = spec.vectors
    vectors = each + edge * setup.topology.degree + setup.steps.vectors
    return setup.updates * vectors * VECTOR + len(setup.eval_times) * EVALUATION


def how_many_workers(
    batches: Sequence[Batch[PlannedRun]],
    wanted: int,
    need: Callable[[int, tuple[bool, ...]], float],
    kept: float = 0.0,
) -> tuple[int, str]:
    """How many workers, of those that are wanted, beside this process; and what the user should know of that.

    None where less than `WORTH` is left for them while this process makes the longest batch. Fewer where not
    all processes could make the largest batches at once and hold the data beside them.

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

Sent = tuple[Run, list[np.ndarray]]
"""A worker's run without its models, and these as arrays: tensors would come through small shared memory."""


class Maker:
    """How this process makes batches of one experiment, and follows those that workers make.

    Attributes:
        known: the worlds that there are already, by their seed
        code: the versions of the user's own code in files
        on_progress: told of evaluations: those of this process, and the newest of every worker
    """

    scheduler: Scheduler[PlannedRun, Run | Sent]

    def __init__(
        self, e: Experiment, setups: list[Setup], check: bool, code: Mapping[str, str], progress: Progress,
        workers: int,
    ) -> None:  # fmt: skip
        self.known, self.others = {setup.seed: setup for setup in setups}, lru_cache(partial(prepare, e))
        self.how, self.code, self.on_progress = (e.executor, check), code, progress
        self.pool = Processes(workers) if workers else None

    def make(self, batch: Batch[PlannedRun]) -> Iterator[Run]:
        """Make these runs; at every evaluation what workers have done is taken in."""

        def evaluated(_: str, now: float, until: float, curve: Curve) -> None:
            self.scheduler.look()
            self.show()
            self.on_progress(batch.label, now, until, curve)

        with pinned(self.code, self.code):
            jobs = [run.job(self._world(run.seed), *self.how) for run in batch.runs]
        return run_many(jobs, evaluated)

    def received(self, batch: Batch[PlannedRun], sent: Sent) -> Run:
        run, arrays = sent
        self.on_progress(batch.label, run.curve.time[-1], run.curve.time[-1], run.curve)
        graph = self.known[run.seed].topology if run.seed in self.known else run.graph
        return replace(run, models=tuple(map(torch.from_numpy, arrays)), graph=graph)

    def show(self) -> None:
        """Tell how far workers are, but not of the end of a run: that is told when the run is here."""
        whole, told = next(iter(self.known.values())).until, self.pool.told if self.pool is not None else ()
        for number, batch in self.scheduler.running.items():
            now, loss, accuracy = told[3 * number : 3 * number + 3]
            until = batch.runs[0].trial.until or whole
            if 0 < now < until and math.isfinite(loss):
                curve = Curve([now], [], [], [loss], [] if math.isnan(accuracy) else [accuracy])
                self.on_progress(batch.label, now, until, curve)

    def _world(self, seed: int) -> Setup:
        return self.known[seed] if seed in self.known else self.others(seed)


# -- in a worker -----------------------------------------------------------------------------------

_world = lru_cache(WORLDS)(prepare)


def make_batch(
    e: Experiment, check: bool, code: Mapping[str, str], batch: Batch[PlannedRun], number: int
) -> list[Sent]:
    """Make these runs as the worker of this number; it tells the time, the loss and the accuracy."""
    tell(number, 0.0, 0.0, 0.0)

    def evaluated(_: str, now: float, until: float, curve: Curve) -> None:
        tell(number, now, curve.loss[-1], curve.accuracy[-1] if curve.accuracy else math.nan)

    with pinned(code, code):
        jobs = [run.job(_world(e, run.seed), e.executor, check) for run in batch.runs]
    runs = run_many(jobs, evaluated)
    return [(replace(run, models=()), [part.numpy() for part in run.models]) for run in runs]
