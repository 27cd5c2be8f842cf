"""What a worker does: points in, rows out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from offbeat.algorithms import find
from offbeat.errors import OffbeatError
from offbeat.experiment import Experiment, Prepared, prepare
from offbeat.runs import run_one
from offbeat.sweeping.grid import Point
from offbeat.sweeping.record import row_of


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a row, or with the reason why there is none, in one line."""

    point: Point
    row: dict[str, Any] | None = None
    failure: str = ""


def batches(points: Sequence[Point]) -> list[list[Point]]:
    """The points in the portions that a worker takes at once, in order.

    One each. This and `run_batch` are the place for running several seeds or steps of one world together: whoever puts
    more points in a batch changes no result, and nothing else.
    """
    return [[point] for point in points]


def run_batch(batch: Sequence[Point]) -> list[Outcome]:
    """Make these runs; one that fails does not disturb the others."""
    return [_run(point) for point in batch]


def _run(point: Point) -> Outcome:
    try:
        p = _prepared(point.experiment, point.seed)
        run = run_one(p, find(point.algorithm), point.lr, point.experiment.executor, keep_trace=False)
        return Outcome(point, row_of(point, run))
    except OffbeatError as error:
        return Outcome(point, failure=str(error))
    except Exception as error:  # whatever it is, the other points go on
        return Outcome(point, failure=f"{type(error).__name__}: {' '.join(str(error).split())}")


@lru_cache(maxsize=1)
def _prepared(experiment: Experiment, seed: int) -> Prepared:
    """Points of one world often follow each other."""
    return prepare(experiment, seed)
