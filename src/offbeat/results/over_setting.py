"""A figure over the values of a setting: the time to the target, or where a metric ended, over the number of
agents, the topology, the learning rate.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offbeat.core.errors import SettingError, unknown
from offbeat.results.axes import LOGARITHMIC, metric_title, ticks, time_title
from offbeat.results.drawing import Axis, Line, Panel
from offbeat.results.figure import Asked, Figure
from offbeat.results.grouping import Labelled, are_numbers, by_value, lines_of, panels_by
from offbeat.results.looks import Look, looks
from offbeat.results.scores import over_seeds
from offbeat.results.speedup import SPEEDUP, gains_of
from offbeat.results.summary import BANDS, seeds_of
from offbeat.results.times import TIME_TO_TARGET
from offbeat.results.values import ComparisonValues, RunValues, value_text
from offbeat.results.wording import target_name

WIDE = 4.0  # numbers that are further apart than by this factor are on a logarithmic axis
APART = 0.5  # how far apart the groups are that stand at one value which is no number
Value = Callable[[RunValues], float | None]


def over_setting(comparison: ComparisonValues, asked: Asked) -> Figure:
    """The figure of `Comparison.figure` where x is a setting: points with the band over the seeds as bars.

    Numbers are on an axis of numbers, logarithmic if they are far apart; anything else is side by side, in
    the order in which it came. A run that never met its target, or diverged, has no value: the median counts
    it as infinitely large, and of a mean there is none. A hollow triangle at the upper border says so.
    """
    metric, setting, band = asked.metric, asked.x, asked.band
    value = _value_of(comparison, metric)
    panels: dict[str, dict[Any, Labelled]] = {}
    for title, groups in panels_by(comparison, asked.by).items():
        runs = [run for each in groups.values() for run in each]
        parts = by_value(runs, setting)
        panels[title] = {at: lines_of(type(comparison)(some)) for at, some in parts.items()}
    places = [*by_value(comparison.runs, setting)]
    along = _axis(setting, places, asked.log)
    every = [pair for parts in panels.values() for lines in parts.values() for pair in lines.items()]
    look = looks(dict(every), asked.colours)
    log_y = metric in LOGARITHMIC if asked.log is None else asked.log_y
    numbers = are_numbers(places)
    found = {title: _points(parts, along, places, value, band) for title, parts in panels.items()}
    upward = _upward(metric, comparison.runs, [one for each in found.values() for one in each], log_y)
    made = []
    for title, each in found.items():
        labels = list(dict.fromkeys(point.label for point in each))
        alone = len({point.x for point in each}) == len(each)  # no two at one place: each is at its mark
        apart = 0.0 if alone else APART / len(labels)
        beside = {label: (k - (len(labels) - 1) / 2) * apart for k, label in enumerate(labels)}
        lines = [
            _line(look[name], _of(each, name, beside[name], numbers), upward, numbers) for name in labels
        ]
        made.append(Panel(along, upward, title, tuple(lines)))
    notes = [seeds_of(every, BANDS[band])]
    if any(line.never for panel in made for line in panel.lines):
        why = "the target was not met" if metric in (TIME_TO_TARGET, SPEEDUP) else "diverged"
        notes.append(f"△ at the upper border: {why}{'' if band == 'range' else ', in some seed'}.")
    if metric == SPEEDUP and log_y and any(0.0 in line.value for panel in made for line in panel.lines):
        notes.append("At the lower border: 0, for the target was not met.")
    return Figure(tuple(made), tuple(notes), asked.width)


@dataclass(frozen=True)
class Point:
    """What one group came to at one value of the setting: centre and band, infinite where there is none."""

    label: str
    x: float
    middle: float
    low: float
    high: float


def _value_of(comparison: ComparisonValues, metric: str) -> Value:
    runs = comparison.runs
    if metric == SPEEDUP:
        gains = gains_of(comparison)
        return lambda run: gains[id(run)]
    if metric == TIME_TO_TARGET:
        if all(run.target is None for run in runs):
            raise SettingError("The runs had no target, so that there is no time to it; expected a 'target'.")
        return lambda run: run.time_to_target
    known = dict.fromkeys(name for run in runs for name in run.curve.names())
    if metric not in known:
        raise unknown("metric", metric, [*known, TIME_TO_TARGET, SPEEDUP])

    def last(run: RunValues) -> float | None:
        if run.diverged_at is not None or metric not in run.curve.names():
            return None
        end = float(run.curve.of(metric)[-1])
        return end if math.isfinite(end) else None

    return last


def _begun(names: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The words with which all of several names begin, and what follows in each, if something does."""
    words = [name.split(" ") for name in names]
    least = min(map(len, words)) - 1 if len(words) > 1 else 0
    same = next((k for k in range(least) if len({each[k] for each in words}) > 1), least)
    return words[0][:same], tuple(" ".join(each[same:]) for each in words)


def _axis(setting: str, places: Sequence[Any], log: str | None) -> Axis:
    """Numbers where they are; other values beside one another."""
    if not are_numbers(places):
        marks = tuple(float(k) for k in range(len(places)))
        begin, names = _begun([*map(value_text, places)])
        title = " ".join([setting, *begin])
        said = f"{title.replace('{', '{{').replace('}', '}}')} {{}}"
        return Axis(title, limits=(-0.4, len(places) - 0.6), ticks=marks, names=names, said=said)
    low, high = min(places), max(places)
    wide = low > 0 and high / low > WIDE if log is None else "x" in log
    if wide and low <= 0:
        raise SettingError(
            f"On a logarithmic axis '{setting}' must be > 0; it is {low:g}. Expected no 'x' in log."
        )
    apart = (high - low) * 0.06 or 1.0
    limits = (low / 1.15, high * 1.15) if wide else (low - apart, high + apart)
    marks, names = tuple(map(float, places)), tuple(map(value_text, places))
    return Axis(setting, wide, False, limits, marks, names, f"{setting} {{}}")


def _points(
    parts: Mapping[Any, Labelled], along: Axis, places: Sequence[Any], value: Value, band: str
) -> list[Point]:
    return [
        Point(label, along.ticks[places.index(place)], *over_seeds([value(run) for run in runs], band))
        for place, lines in parts.items()
        for label, runs in lines.items()
    ]


def _of(points: Sequence[Point], label: str, beside: float, numbers: bool) -> list[Point]:
    """The points of one group; where x is no number, beside those of the others."""
    mine = [point for point in points if point.label == label]
    return mine if numbers else [replace(point, x=point.x + beside) for point in mine]


def _upward(metric: str, runs: Sequence[RunValues], points: Sequence[Point], log: bool) -> Axis:
    """From 0 for times; with room above for what has no value."""
    known = [v for point in points for v in (point.low, point.middle, point.high) if math.isfinite(v)]
    positive = [v for v in known if v > 0] if log else known
    low, high = min(positive, default=1.0), max(positive, default=1.0)
    if log:
        limits = low / 1.3, high * 1.5
    else:
        low = 0.0 if metric == TIME_TO_TARGET or low >= 0 else low - 0.1 * (high - low)
        limits = low, high + 0.15 * ((high - low) or 1.0)
    title = metric_title(metric, runs)
    if metric == TIME_TO_TARGET:
        title = f"{target_name(runs[0])}, {time_title(runs)}"
    if metric == SPEEDUP:
        title = f"speed-up in {target_name(runs[0])}"
    marks = ticks(positive) if log else ()
    return Axis(title, log, metric.startswith("accuracy"), limits, marks)


def _line(look: Look, points: Sequence[Point], upward: Axis, joined: bool) -> Line:
    """Of one group; a line that joins its points has a gap where there is none."""
    label, (lowest, top) = points[0].label, upward.limits or (0.0, 1.0)
    gap = Point(label, math.nan, math.nan, math.nan, math.nan)
    there = [point if math.isfinite(point.middle) else gap for point in points]
    if all(point is gap for point in there):
        there = []
    x, value = tuple(point.x for point in there), tuple(point.middle for point in there)
    low, y, high = (
        tuple(float(np.clip(each, lowest, top)) for each in values)
        for values in ([point.low for point in there], value, [point.high for point in there])
    )
    never = tuple(point.x for point in points if math.isinf(point.middle))
    return Line(label, look, x, y, value, low, high, points=True, joined=joined, never=never)
