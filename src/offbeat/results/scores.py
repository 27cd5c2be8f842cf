"""Scores and times over the seeds of a group, as numbers and as text: what stands in a cell of the table."""

import math
from collections.abc import Sequence
from math import isinf, isnan, nan
from statistics import median

import numpy as np

from offbeat.core.errors import unknown
from offbeat.results.summary import BANDS, centre_and_band
from offbeat.results.values import RunValues, time_text


def over_seeds(values: Sequence[float | None], band: str) -> tuple[float, float, float]:
    """Centre and band of values that may be missing (None), which counts as infinitely large.

    Where one is missing there is no mean: it is infinite.
    """
    if band not in BANDS:
        raise unknown("spread", band, BANDS)
    numbers = sorted(math.inf if value is None else value for value in values)
    if band == "range":
        return median(numbers), numbers[0], numbers[-1]
    if math.isinf(numbers[-1]):
        return math.inf, math.inf, math.inf
    middle, low, high = centre_and_band(np.array(numbers)[:, None], band)
    return float(middle[0]), float(low[0]), float(high[0])


def times_of(runs: Sequence[RunValues], band: str) -> tuple[float | None, float | None, float | None]:
    low, middle, high = sorted(over_seeds([run.time_to_target for run in runs], band))
    return tuple(None if isinf(each) else each for each in (middle, low, high))  # type: ignore[return-value]


def plus_minus(times: tuple[float | None, float | None, float | None]) -> str:
    middle, _, high = times
    away = "" if middle is None or high is None or high == middle else f" ± {time_text(high - middle)}"
    return time_text(middle) + away


def score(runs: Sequence[RunValues], name: str, band: str) -> tuple[float, float]:
    """Of a score at the end the centre over the seeds, and for a mean how far the band reaches from it."""
    values = [value for run in runs if (value := run.final.get(name)) is not None]
    middle, _, high = over_seeds(values, band) if values else (nan, nan, nan)
    return middle, 0.0 if band == "range" else high - middle


def share_text(value: float, away: float) -> str:
    return "-" if isnan(value) else f"{100 * value:.1f}{f' ± {100 * away:.1f}' * (away > 0)} %"


def number_text(value: float, away: float) -> str:
    return f"{value:.4g}{f' ± {away:.2g}' * (away > 0)}"


def spread_text(times: tuple[float | None, float | None, float | None]) -> str:
    middle, low, high = map(time_text, times)
    return middle if times[1] == times[2] else f"{middle} [{low} - {high}]"
