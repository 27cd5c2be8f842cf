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
    return with_spread(middle, _away(times, middle, high, band), time_text(middle))


def score(runs: Sequence[RunValues], name: str, band: str) -> tuple[float, float]:
    """Of a score at the end the centre over the seeds, and for a mean how far the band reaches from it."""
    return spread_of([value for run in runs if (value := run.final.get(name)) is not None], band)


def spread_of(values: Sequence[float], band: str) -> tuple[float, float]:
    """The centre, and for a mean of several how far the band reaches from it; else that is not a number."""
    middle, _, high = over_seeds(values, band) if values else (nan, nan, nan)
    return middle, _away(values, middle, high, band)


def _away(values: Sequence[float], middle: float, high: float, band: str) -> float:
    if band == "range" or len(values) < 2:
        return nan
    return high - middle if high - middle > 1e-12 * abs(middle) else 0.0


def with_spread(value: float, away: float, alone: str) -> str:
    """ "1.22 ± 0.34": two digits of the spread, and so many decimals of the value.

    Args:
        alone: the value as it is without a spread
    """
    if not (math.isfinite(value) and math.isfinite(away)):
        return alone
    if away == 0:
        return f"{alone} ± 0"
    power = _power(away, 1)
    largest = max(_power(value, 1), power)
    if power >= -5 and largest < 7:
        decimals = max(0, 1 - power)
        return f"{value:,.{decimals}f} ± {away:,.{decimals}f}"
    decimals = max(0, largest - power) + 1
    return " ± ".join(f"{each / 10.0**largest:.{decimals}f}e{largest:+03d}" for each in (value, away))


def _power(value: float, digits: int) -> int:
    """That of ten in the value, rounded to one digit and so many decimals."""
    return int(f"{value:.{digits}e}".partition("e")[2]) if value else -400


def share_text(value: float, away: float) -> str:
    return "-" if isnan(value) else with_spread(100 * value, 100 * away, f"{100 * value:.1f}") + " %"


def number_text(value: float, away: float = nan, digits: int = 4) -> str:
    return "-" if isnan(value) else with_spread(value, away, f"{value:.{digits}g}")


def count_text(value: float, away: float) -> str:
    return with_spread(value, away, f"{value:,.0f}")


def megabytes_text(value: float, away: float) -> str:
    """With one decimal; below 10 with three digits."""
    return with_spread(value, away, f"{value:,.1f}" if value >= 9.995 else f"{value:#.3g}" if value else "0")


def spread_text(times: tuple[float | None, float | None, float | None]) -> str:
    middle, low, high = map(time_text, times)
    return middle if times[1] == times[2] else f"{middle} [{low} - {high}]"
