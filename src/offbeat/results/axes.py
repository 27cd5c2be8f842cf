"""What the axes of figures are called, and where their marks are."""

import math
from collections.abc import Iterable, Sequence

from offbeat.results.values import RunValues
from offbeat.results.wording import gap_known
from offbeat.tasks.metrics import METRICS

OVER = {
    "time": "simulated time (mean gradient = 1)",  # or real time: see `time_title`
    "updates": "gradients applied, by all agents",
    "megabytes": "megabytes sent, by all agents",
    "epochs": "epochs: passes over the training data, by all agents",
}
"""What curves are drawn over: name -> the title of the axis."""

SAID = {"time": "time {}", "updates": "{} gradients", "megabytes": "{} MB", "epochs": "epoch {}"}
"""How a value is said where somebody points."""

TITLES = {
    "loss": "training loss", "accuracy": "test accuracy", "consensus": "distance from average (RMS)",
    "time_to_target": "time to target", **{name: row.title for name, row in METRICS.items()},
}  # fmt: skip


LOGARITHMIC = {"loss", *(name for name, row in METRICS.items() if row.log)}
"""Metrics that are on a logarithmic axis where nobody says."""


def time_title(runs: Sequence[RunValues]) -> str:
    """What the axis of time is called: simulated, or real in units of so many milliseconds."""
    unit = runs[0].settings.get("unit") if runs else None
    return OVER["time"] if unit is None else f"time (1 = {1000 * unit:g} ms, a mean gradient)"


def metric_title(metric: str, runs: Sequence[RunValues]) -> str:
    """What the axis of a metric is called."""
    if metric == "loss" and runs and all(map(gap_known, runs)):
        return "gap to the optimum"
    return TITLES.get(metric, metric.replace("_", " "))


def ticks(values: Iterable[float]) -> tuple[float, ...]:
    """The marks of a logarithmic axis over these values: at most eight powers of ten, or with 2 and 5 times
    them, or, where that would leave less than three, evenly spaced numbers.
    """
    positive = [value for value in values if 0 < value < math.inf]
    if not positive:
        return ()
    low, high = math.log10(min(positive)), math.log10(max(positive))
    exponents = range(math.floor(low), math.ceil(high) + 1, max(1, math.ceil((high - low) / 8)))
    found = tuple(m * 10.0**e for e in exponents for m in ((1, 2, 5) if high - low < 3 else (1,)))
    inside = sum(min(positive) <= value <= max(positive) for value in found)
    return found if inside >= 3 else _even(min(positive), max(positive))


def _even(low: float, high: float) -> tuple[float, ...]:
    """Three to six round numbers from `low` to `high`; the number itself where they are the same."""
    if high <= low * (1 + 1e-9):
        return (low,)
    unit = 10.0 ** math.floor(math.log10(high - low))
    step = next(m * unit for m in (0.2, 0.25, 0.5, 1, 2, 2.5, 5) if (high - low) / (m * unit) <= 5)
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(round(k * step, 12) for k in range(first, last + 1))


def power(value: float) -> tuple[str, int | None]:
    """How a mark is written: as a number, or as a factor (empty: 1) and a power of ten."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:g}", None
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    factor = f"{value / 10.0**exponent:g}"
    return "" if factor == "1" else factor, exponent


def shortly(value: float) -> str:
    """A number on a linear axis: 20,000 is 20k."""
    for size, letter, least in ((1e9, "G", 1e9), (1e6, "M", 1e6), (1e3, "k", 1e4)):
        if abs(value) >= least:
            return f"{value / size:.6g}{letter}"
    return f"{value:.6g}"
