"""The runs of a comparison in portions, which this process and its workers make at the same time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from offbeat.experiments.setup import Setup, prepare
from offbeat.experiments.workers import Processes, Shared, board, possible
from offbeat.results.run import Run
from offbeat.results.values import Curve, Progress

VECTOR, EVALUATION = 10e-6, 1e-3
"""Seconds that an update takes for each model that it moves, and an evaluation; rough, and for one core."""

WORTH = 5.0
"""Seconds of work that there must be for workers, or none are started: they begin 2 to 4 seconds later."""

TICK = 0.2
"""Seconds between looks at the workers while this process has nothing else to do."""

WORLDS = 8
"""Worlds that a worker keeps: as many as lie side by side."""


@dataclass(frozen=True)
class Portion:
    """Runs of one algorithm that one process makes: side by side where they can be, else one after another.

    Attributes:
        number: no two portions of a comparison have the same
        place: of the algorithm in the plan
        first: of the first run, among those of its algorithm
        asked: of every run its seed, its step, and whether to keep its trace
        tuning: whether it is only to find a step
        seconds: how long it takes, estimated
        here: whether only this process can make it, for something in it is the user's own object
        label: what it is called while it is going on
    """

    number: int
    spec: Algorithm
    place: int
    first: int
    asked: tuple[tuple[int, float, bool], ...]
    tuning: bool
    seconds: float
    here: bool
    label: str

    def jobs(
        self, world: Callable[[int], Setup], executor: str, rule: Callable[[float], Rule], check: bool
    ) -> list[Job]:
        """The runs, in the worlds of these seeds."""
        return [Job(world(seed), self.spec, lr, executor, rule, check, keep) for seed, lr, keep in self.asked]


def seconds(setup: Setup, spec: Algorithm) -> float:
    """How long a run takes, estimated: updates x (models an agent holds) x 10 us + evaluations x 1 ms.

    Updates are those of agents that never wait, and `Algorithm.vectors` says how many models: good to a
    factor of two or so for the tasks of the table. It decides what is made first, and whether workers pay; no
    result depends on it.
    """
    each, edge = spec.vectors
    return setup.updates * (each + edge * setup.topology.degree) * VECTOR + len(setup.eval_times) * EVALUATION


def crew(
    portions: Sequence[Portion],
    wanted: int,
    need: Callable[[int, tuple[bool, ...]], float],
    kept: float = 0.0,
) -> tuple[int, str]:
    """How many workers, of those that are wanted, beside this process; and what the user should be told about
    that.

    None where the work that is left for them, while this process makes the longest portion, is estimated at
    less than `WORTH`. Fewer where not all processes could make the largest portions at once and hold the data
    beside them.

    Args:
        need: bytes beyond the data of runs of the algorithm at that place, of which the trace is held or not
        kept: bytes of the traces that are held to the end
    """
    times = [portion.seconds for portion in portions]
    movable = [portion.seconds for portion in portions if not portion.here]
    if min(sum(movable), sum(times) - max(times)) < WORTH or not possible():
        return 0, ""
    count = wanted = min(wanted, len(movable), len(portions) - 1)
    free, data = machine.available(), machine.resident()
    asked = [(portion.place, tuple(keep for _, _, keep in portion.asked)) for portion in portions]
    needs = sorted((need(*each) for each in asked), reverse=True)
    while count and kept + sum(needs[: count + 1]) + count * data > free:
        count -= 1
    if count == wanted:
        return count, ""
    many = f"{count + 1} processes at once" if count else "one process"
    return count, f"{free / 1e9:.1f} GB of memory are free: enough for {many}, not for {wanted + 1}."


# -- in this process -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What all portions have in common, and who is told what.

    Attributes:
        setups: the worlds that there are already
        arrived: told of every run as soon as it is there: its portion, its place in it, the run
        progress: likewise of evaluations: those of this process, and the newest of every worker
        note: told what the user should know
    """

    experiment: Experiment
    setups: Sequence[Setup]
    rule: Callable[[float], Rule]
    check: bool
    arrived: Callable[[Portion, int, Run], None]
    progress: Progress | None
    note: Callable[[str], None]


class Making:
    """Makes portions, here and in workers, until there are none left. Whoever is free takes the longest that
    waits.

    Without workers, in the order of the plan. most: portions that there will ever be
    """

    def __init__(self, setting: Setting, workers: int, most: int) -> None:
        self.setting, self.left, self.alone = setting, 0, False
        self.here, self.running = deque[Portion](), dict[int, Portion]()
        self.known, self.others = (
            {setup.seed: setup for setup in setting.setups},
            lru_cache(partial(prepare, setting.experiment)),
        )
        self.board = board(3 * most) if workers else []
        pool = Processes(workers, begin, self.board, setting.experiment, setting.check) if workers else None
        self.shared = Shared[Portion, list[Sent]](pool, make_portion)

    def add(self, portions: Iterable[Portion]) -> None:
        """More portions."""
        for portion in portions:
            self.left += 1
            if self.shared.pool is None:
                self.shared.put(portion.place, portion.number, portion)
            elif portion.here:
                self.here.append(portion)
            else:
                self.shared.put(-portion.seconds, portion.number, portion)

    def __iter__(self) -> Iterator[None]:
        """Make everything; a step ends when runs may have arrived."""
        s, portion = self.setting, self._next()
        self.shared.start()
        while self.left:
            if portion is None:
                self.look(TICK)
            else:
                jobs = portion.jobs(self._world, s.experiment.executor, s.rule, s.check)
                for k, run in enumerate(run_many(jobs, partial(self._told, portion))):
                    s.arrived(portion, k, run)
                    self.look()
                    yield
                self.left -= 1
            yield
            portion = self._next()

    def look(self, seconds: float = 0.0) -> None:
        """What workers have done meanwhile; wait for it so long. Raises what a run of theirs has raised."""
        while (news := self.shared.hear(seconds)) is not None:
            (portion, future), seconds = news, 0.0
            if future is None:
                self.running[portion.number] = portion
                continue
            self.running.pop(portion.number)
            if isinstance(future.exception(), Processes.died):
                self._again(portion)
            else:
                self._received(portion, future.result())
        if self.setting.progress is not None:
            for portion in self.running.values():
                self._glance(portion, self.setting.progress)

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
        self.shared.close()

    def _next(self) -> Portion | None:
        return self.here.popleft() if self.here else self.shared.take()

    def _told(self, portion: Portion, _: str, now: float, until: float, curve: Curve) -> None:
        self.look()
        if self.setting.progress is not None:
            self.setting.progress(portion.label, now, until, curve)

    def _world(self, seed: int) -> Setup:
        return self.known[seed] if seed in self.known else self.others(seed)

    def _received(self, portion: Portion, sent: list[Sent]) -> None:
        self.left -= 1
        for k, (run, arrays) in enumerate(sent):
            if self.setting.progress is not None:
                self.setting.progress(portion.label, run.curve.time[-1], run.settings["until"], run.curve)
            topology = self.known[run.seed].topology if run.seed in self.known else run.topology
            models = tuple(torch.from_numpy(array) for array in arrays)
            self.setting.arrived(portion, k, replace(run, models=models, topology=topology))

    def _again(self, portion: Portion) -> None:
        """A worker was killed, and all have ended with it: this process makes what they were making."""
        if not self.alone:
            self.setting.note(
                "A worker was killed (out of memory?). This process makes the other runs, alone."
            )
        self.alone = True
        self.left -= 1
        self.add([replace(portion, here=True)])

    def _glance(self, portion: Portion, progress: Progress) -> None:
        """Tell how far a worker is, but not of the end of a run: that is told when the run is here."""
        now, loss, accuracy = self.board[3 * portion.number : 3 * portion.number + 3]
        until = self.setting.setups[0].until
        if 0 < now < until and math.isfinite(loss):
            progress(
                portion.label,
                now,
                until,
                Curve([now], [], [], [loss], [] if math.isnan(accuracy) else [accuracy]),
            )


# -- in a worker -----------------------------------------------------------------------------------

Sent = tuple[Run, list[np.ndarray]]
"""A run without its models, and these as arrays: tensors would come through shared memory, which may be
small."""

_given: list[Any] = []


def begin(numbers: Any, experiment: Experiment, check: bool) -> None:
    """Keep what all portions have in common; numbers: a time, a loss and an accuracy for each portion."""
    _given[:] = numbers, experiment, check, lru_cache(WORLDS)(partial(prepare, experiment))


def make_portion(portion: Portion) -> list[Sent]:
    """Make these runs."""
    numbers, experiment, check, world = _given

    def told(_: str, now: float, until: float, curve: Curve) -> None:
        at = 3 * portion.number
        numbers[at : at + 3] = now, curve.loss[-1], curve.accuracy[-1] if curve.accuracy else math.nan

    runs = run_many(portion.jobs(world, experiment.executor, SGD, check), told)
    return [(replace(run, models=()), [part.numpy() for part in run.models]) for run in runs]
