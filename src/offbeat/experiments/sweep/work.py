"""What a worker does: points in, rows out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from typing import Any

from offbeat.algorithms import find
from offbeat.core.errors import OffbeatError
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.jobs import Job
from offbeat.experiments.runs import run_many
from offbeat.experiments.scheduler import Batch
from offbeat.experiments.setup import Setup, prepare
from offbeat.experiments.sweep.grid import Point
from offbeat.experiments.sweep.record import row_of

AT_ONCE = 4
"""Points in a batch, at most: few enough that all cores have something to do, and that little is lost with
one."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a row, or with the reason why there is none, in one line."""

    point: Point
    row: dict[str, Any] | None = None
    failure: str = ""


def batches(points: Sequence[Point]) -> Iterator[Batch[Point]]:
    """The points, in order, in batches: neighbours that differ in seed or learning rate alone.

    Such runs may lie side by side (see `offbeat.experiments.runs`), which is faster and changes no result.
    """
    for _, alike in groupby(points, key=lambda point: (point.experiment, point.algorithm)):
        while some := tuple(islice(alike, AT_ONCE)):
            yield Batch(some)


def run_batch(batch: Batch[Point], number: int = 0) -> list[Outcome]:
    """Make these runs as the worker of this number; one that fails does not disturb the others."""
    try:
        return _together(batch.runs)
    except Exception:  # whose fault it is shows when each is on its own
        return [_run(point) for point in batch.runs]


def reason(error: BaseException) -> str:
    """Why there is no row, in one line."""
    return (
        str(error)
        if isinstance(error, OffbeatError)
        else f"{type(error).__name__}: {' '.join(str(error).split())}"
    )


def _together(points: Sequence[Point]) -> list[Outcome]:
    spec = find(points[0].algorithm)
    how = points[0].experiment.executor
    jobs = [Job(_setup(each.experiment, each.seed), spec, each.lr, how, keep_trace=False) for each in points]
    runs = run_many(jobs)
    return [Outcome(point, row_of(point, run)) for point, run in zip(points, runs, strict=True)]


def _run(point: Point) -> Outcome:
    try:
        return _together([point])[0]
    except Exception as error:  # whatever it is, the other points go on
        return Outcome(point, failure=reason(error))


@lru_cache(maxsize=AT_ONCE)
def _setup(experiment: Experiment, seed: int) -> Setup:
    """Points of one world often follow each other."""
    return prepare(experiment, seed)
