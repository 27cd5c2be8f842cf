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


def times_text(times: Sequence[float | None], band: str) -> str:
    """Times to the target over the seeds, one of which is None where it was not met.

    Where some seeds met it and some did not, it says how many did not. If the centre of all is known, it is
    that: "175 [166 - never in 1 of 5]"; else it is never, and what it is of those that did comes after it:
    "never in 1 of 3, else 166 ± 12".
    """
    met = [time for time in times if time is not None]
    missed = f"never in {len(times) - len(met)} of {len(times)}"
    if not met or len(met) == len(times):
        return _of_all(met, band)
    middle, low, _ = over_seeds(times, band)
    if isinf(middle):
        return f"{missed}, else {_of_all(met, band)}"
    return f"{time_text(middle)} [{time_text(low)} - {missed}]"


def _of_all(times: Sequence[float], band: str) -> str:
    if not times:
        return time_text(None)
    middle, low, high = over_seeds(times, band)
    if band == "range":
        return spread_text((middle, low, high))
    return time_text(middle) + f" ± {time_text(high - middle)}" * (low < high)


def score(runs: Sequence[RunValues], name: str, band: str) -> tuple[float, float]:
    """Of a score at the end the centre over the seeds, and for a mean how far the band reaches from it."""
    return spread_of([value for run in runs if (value := run.final.get(name)) is not None], band)


def spread_of(values: Sequence[float], band: str) -> tuple[float, float]:
    """The centre, and for a mean how far the band reaches from it; of no values both are not numbers."""
    middle, _, high = over_seeds(values, band) if values else (nan, nan, nan)
    return middle, 0.0 if band == "range" else high - middle


def share_text(value: float, away: float) -> str:
    return "-" if isnan(value) else f"{100 * value:.1f}{f' ± {100 * away:.1f}' * (away > 0)} %"


def number_text(value: float, away: float, digits: int = 4) -> str:
    return "-" if isnan(value) else f"{value:.{digits}g}{f' ± {away:.2g}' * (away > 0)}"


def count_text(value: float, away: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}{f' ± {away:,.{digits}f}' * (away > 0)}"


def spread_text(times: tuple[float | None, float | None, float | None]) -> str:
    middle, low, high = map(time_text, times)
    return middle if times[1] == times[2] else f"{middle} [{low} - {high}]"
