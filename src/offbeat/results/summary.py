"""The curves of several seeds as one: a centre and a band, and where they end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offbeat.core.errors import SettingError
from offbeat.results.values import RunValues

Array = NDArray[np.float64]

BANDS = {
    "range": "Median and range",
    "std": "Mean ± standard deviation",
    "ci": "Mean and 95 % confidence interval (Student t)",
}
"""What a line and its band may be: name -> what is said of it on the figure."""


def centre_and_band(rows: Array, band: str) -> tuple[Array, Array, Array]:
    """Of values [seeds, points] the centre, and the lower and the upper end of the band: [points] each.

    range: the median, the smallest and the largest. std: the mean m, and m ± s, with the standard deviation s
    of the sample, sum (v - m)^2 / (k - 1) for k seeds. ci: m ± t s / sqrt(k), with the 97.5 % quantile t of
    Student's distribution with k - 1 degrees of freedom. Of one seed all three are its own values.
    """
    seeds = len(rows)
    if band == "range":
        return np.median(rows, 0), rows.min(0), rows.max(0)
    mean = rows.mean(0)
    if seeds == 1:
        return mean, mean, mean
    away = rows.std(0, ddof=1)
    if band == "ci":
        from scipy.special import stdtrit

        away = away * (float(stdtrit(seeds - 1, 0.975)) / math.sqrt(seeds))
    return mean, mean - away, mean + away


@dataclass(frozen=True)
class Summary:
    """A group of runs on one grid, up to where the first of them ends.

    Attributes:
        seeds: how many runs there are
        diverged: how many of them diverged
        early: how many end before the end of the experiment, though they did not diverge
        exploded: whether one of them would press the others flat: see `exploded`
    """

    x: Array
    middle: Array
    low: Array
    high: Array
    seeds: int
    diverged: int
    early: int
    exploded: bool


def summary(
    runs: Sequence[RunValues], metric: str, x: str = "time", band: str = "range", log_x: bool = False
) -> Summary:
    """The curves of the runs as one, as far as all of them got.

    Over time they share the times at which they were evaluated. Over anything else, and where they do not
    share them, each is interpolated linearly on as many points from the largest of the first x to the
    smallest of the last; evenly spaced, on a logarithmic axis in its logarithm.
    """
    pairs = [_measured(run, metric, x) for run in runs]
    count = min(len(along) for along, _ in pairs)
    same = all(np.array_equal(along[:count], pairs[0][0][:count]) for along, _ in pairs)
    if same or not count:
        grid, rows = pairs[0][0][:count], np.stack([values[:count] for _, values in pairs])
    else:
        first, last = max(along[0] for along, _ in pairs), min(along[-1] for along, _ in pairs)
        if log_x and first <= 0:
            first = max(along[along > 0].min(initial=math.inf) for along, _ in pairs)
        grid = (np.geomspace if log_x and first < math.inf else np.linspace)(first, max(first, last), count)
        rows = np.stack([_interpolated(grid, *pair) for pair in pairs])
    diverged = sum(run.diverged_at is not None for run in runs)
    early = sum(_early(run, len(along)) for run, (along, _) in zip(runs, pairs, strict=True))
    parts = centre_and_band(rows, band)
    return Summary(grid, *parts, len(runs), diverged, early, any(map(exploded, runs)))


def seeds_of(groups: Sequence[tuple[str, Sequence[RunValues]]], what: str) -> str:
    """The note that says what lines and bands are, and of how many seeds."""
    counts = {label: len(runs) for label, runs in groups}
    few, many = min(counts.values()), max(counts.values())
    if many == 1:
        seeds = {runs[0].seed for _, runs in groups}
        return f"One seed{f', {seeds.pop()}' if len(seeds) == 1 else ''}: no band."
    if few == many:
        return f"{what} of {many} seeds."
    each = ", ".join(f"{label} {count}" for label, count in counts.items())
    return f"{what} of {few} to {many} seeds ({each})."


def _measured(run: RunValues, metric: str, x: str) -> tuple[Array, Array]:
    """x and values, up to where one of them, or the loss, is no longer finite."""
    values = np.array(run.curve.of(metric), dtype=float)
    kept = np.isfinite(values) & np.isfinite(run.curve.loss)
    count = len(kept) if kept.all() else int(np.argmin(kept))
    return along(run, x)[:count], values[:count]


def along(run: RunValues, x: str) -> Array:
    """What a curve is drawn over, one value an evaluation. SettingError for epochs that are not known."""
    if x != "epochs":
        return np.array(run.curve.of(x), dtype=float)
    if run.epoch is None:
        raise SettingError(
            f"How many gradients make an epoch of the task {run.settings['task']} is not known (it has no "
            "training data, or the results are from an older version); expected x='updates', or a task with "
            "an attribute `epoch`: samples divided by the size of a minibatch."
        )
    return np.array([updates / run.epoch for updates in run.curve.updates])


def _interpolated(grid: Array, x: Array, values: Array) -> Array:
    last = np.append(np.diff(x) > 0, True)  # of those at the same x, the last
    found: Array = np.interp(grid, x[last], values[last])
    return found


def _early(run: RunValues, count: int) -> bool:
    """Whether its curve ends before its experiment does, and not because it diverged."""
    until, times = run.settings["until"], run.curve.time
    if run.settings.get("stop_at") == "target" and run.time_to_target is not None:
        return False
    return run.diverged_at is None and (not count or times[count - 1] < until * (1 - 1e-9))


def exploded(run: RunValues) -> bool:
    """Whether the loss ended ten times as high as it began, or diverged: it does not set a figure's scale."""
    return run.diverged_at is not None or run.curve.loss[-1] > 10 * run.curve.loss[0]
