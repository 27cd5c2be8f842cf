"""One run that is to be made, and how it can be: by levels or in the simulator, alone or beside others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from offbeat.algorithms import Algorithm
from offbeat.core.errors import SettingError, unknown
from offbeat.core.rules import SGD, Rule
from offbeat.engines.sim.executors import EXECUTORS
from offbeat.experiments.setup import Setup

AUTO, LEVELS = "auto", "levels"
HOW = (AUTO, LEVELS, *EXECUTORS)
"""How gradients and models are evaluated. auto: by levels where an algorithm's timetable is known, else
batched."""

TOGETHER = 8, 1024
"""Runs that are made side by side, at most, and their agents: by then every call is wide."""

SEGMENT = 2_000_000
"""Updates, and models that they mix, in a segment of the timetable."""


@dataclass(frozen=True)
class Job:
    """One run that is to be made: an experiment of one seed, an algorithm, its learning rate.

    Attributes:
        executor: one of `HOW`
        rule: learning rate -> local rule
        check: hold engine and algorithm to the contract, event by event
        keep_trace: whether the run is to have its trace

    Raises SettingError for an unknown executor, for a learning rate that is none, and if the algorithm is not
    for this graph.
    """

    setup: Setup
    spec: Algorithm
    lr: float
    executor: str = AUTO
    rule: Callable[[float], Rule] = SGD
    check: bool = False
    keep_trace: bool = True

    def __post_init__(self) -> None:
        if self.executor not in HOW:
            raise unknown("executor", self.executor, HOW)
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise SettingError(
                f"A learning rate must be a finite number > 0; got {self.lr} for {self.spec.name}."
            )
        largest = min(torch.finfo(part.dtype).max for part in self.setup.task.initial())
        if self.lr > largest:
            raise SettingError(
                f"A learning rate of {self.lr:g} is more than a model's numbers can be, {largest:.3g}; "
                "expected a smaller one."
            )
        self.spec.check(self.setup.topology)

    @property
    def why_not_by_levels(self) -> str:
        """Why there is no timetable for this algorithm in this world; empty if there may be one."""
        if not self.spec.free_running:
            return "what it does depends on what it hears"
        if self.rule is not SGD:
            return "its local rule keeps a state"
        if self.setup.world.crashes:
            return "agents crash"
        if len(self.setup.task.initial()) != 1:
            return "its model has several dtypes"
        return ""

    @property
    def by_levels(self) -> bool:
        """Whether it is made by levels, as far as can be told before."""
        return self.executor in (AUTO, LEVELS) and not self.check and not self.why_not_by_levels

    @property
    def beside(self) -> int:
        """How many runs like it are made side by side, at most; one if it is long and keeps its trace."""
        long = self.keep_trace and len(time_segments(self.setup, 1)) > 1
        most = max(1, min(TOGETHER[0], TOGETHER[1] // self.setup.topology.n))
        return most if self.by_levels and not long else 1

    def fits_beside(self, first: Job) -> bool:
        """Whether it can be made beside that one: gradients of both are evaluated in one call."""
        task, other = first.setup.task, self.setup.task
        if self.setup.eval_times != first.setup.eval_times or self.beside == 1:
            return False
        like = getattr(task, "like", None)
        return task is other or (like is not None and bool(like(other)))


def time_segments(setup: Setup, beside: int) -> Sequence[float]:
    """Where the segments of time end, one timetable each, of so many such runs side by side."""
    count = math.ceil(beside * setup.updates * (1 + setup.topology.degree) / SEGMENT)
    return [*[setup.until * k / count for k in range(1, count)], setup.until]
