"""What a worker does: points in, rows out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from offbeat.algorithms import find
from offbeat.core.errors import OffbeatError
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.jobs import Job
from offbeat.experiments.runs import run_many
from offbeat.experiments.setup import Setup, prepare
from offbeat.experiments.sweep.grid import Point
from offbeat.experiments.sweep.record import row_of

AT_ONCE = 4
"""Points in a portion, at most: few enough that all cores have something to do, and that little is lost with
one."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a row, or with the reason why there is none, in one line."""

    point: Point
    row: dict[str, Any] | None = None
    failure: str = ""


def batches(points: Sequence[Point]) -> list[list[Point]]:
    """The points in the portions that a worker takes at once, in order: neighbours that differ in seed or
    step alone.

    Such runs may lie side by side (see `offbeat.experiments.runs`), which is faster and changes no result.
    """
    together: list[list[Point]] = []
    for point in points:
        last = together[-1] if together else []
        alike = bool(last) and (last[0].experiment, last[0].algorithm) == (point.experiment, point.algorithm)
        if alike and len(last) < AT_ONCE:
            last.append(point)
        else:
            together.append([point])
    return together


def run_batch(batch: Sequence[Point]) -> list[Outcome]:
    """Make these runs; one that fails does not disturb the others."""
    try:
        return _together(batch)
    except Exception:  # whose fault it is shows when each is on its own
        return [_run(point) for point in batch]


def _together(batch: Sequence[Point]) -> list[Outcome]:
    row = find(batch[0].algorithm)
    how = batch[0].experiment.executor
    jobs = [Job(_setup(each.experiment, each.seed), row, each.lr, how, keep_trace=False) for each in batch]
    runs = run_many(jobs)
    return [Outcome(point, row_of(point, run)) for point, run in zip(batch, runs, strict=True)]


def _run(point: Point) -> Outcome:
    try:
        (outcome,) = _together([point])
        return outcome
    except OffbeatError as error:
        return Outcome(point, failure=str(error))
    except Exception as error:  # whatever it is, the other points go on
        return Outcome(point, failure=f"{type(error).__name__}: {' '.join(str(error).split())}")


@lru_cache(maxsize=AT_ONCE)
def _setup(experiment: Experiment, seed: int) -> Setup:
    """Points of one world often follow each other."""
    return prepare(experiment, seed)
