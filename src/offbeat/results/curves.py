"""Curves of a comparison as a figure: a metric over time, updates, megabytes or epochs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from offbeat.core.errors import SettingError, unknown
from offbeat.results.axes import LOGARITHMIC, OVER, SAID, metric_title, ticks, time_title
from offbeat.results.drawing import Axis, Line, Panel
from offbeat.results.figure import Asked, Figure
from offbeat.results.grouping import Labelled, panels_by
from offbeat.results.looks import Look, looks
from offbeat.results.summary import BANDS, Summary, seeds_of, summary
from offbeat.results.values import ComparisonValues, RunValues
from offbeat.tasks.metrics import METRICS

POINTS = 400  # a line has about this many points at most
LIFT = 3.0  # lines are drawn up to so many times the largest value of the runs that did not explode


def curves(comparison: ComparisonValues, asked: Asked) -> Figure:
    """The figure of `Comparison.figure` where x is one of `OVER`."""
    metric = asked.metric
    panels = {
        title: {label: runs for label, runs in groups.items() if all(_has(run, metric) for run in runs)}
        for title, groups in panels_by(comparison, asked.by).items()
    }
    shown = [run for groups in panels.values() for runs in groups.values() for run in runs]
    if not shown:
        known = dict.fromkeys(name for run in comparison.runs for name in run.curve.names())
        if metric in METRICS:
            again = f"--metrics {metric} makes runs that have it"
            what = f"The metric '{metric}' was not measured in these runs"
            raise SettingError(f"{what}; measured: {', '.join(known)}. {again}.")
        raise unknown("metric", metric, known)
    if asked.log is None:
        positive = any(value > 0 for run in shown for value in run.curve.of(metric))
        asked = replace(asked, log="y" if metric in LOGARITHMIC and positive else "")
    groups_shown = {label: runs for groups in panels.values() for label, runs in groups.items()}
    look = looks(groups_shown, asked.colours)
    alike = len({run.settings["task"] for run in shown}) == 1
    drawn = {title: _summaries(groups, asked) for title, groups in panels.items()}
    every = [s for each in drawn.values() for s in each.values()]
    borders = {t: Borders.of(every if alike else [*each.values()], asked) for t, each in drawn.items()}
    made = [_panel(t, panels[t], drawn[t], look, asked, borders[t]) for t in panels]
    made = _same_axes(made, asked) if alike else [_with_ticks(panel, [panel], asked) for panel in made]
    notes = _notes(panels, drawn, borders, asked, comparison.interrupted)
    return Figure(tuple(made), notes, asked.width, alike)


def _has(run: RunValues, metric: str) -> bool:
    return metric in run.curve.names()


def _summaries(groups: Labelled, asked: Asked) -> dict[str, Summary]:
    """Of each group, with no more points than can be seen; what a logarithmic axis has no place for is left
    out.
    """
    found = {}
    for label, runs in groups.items():
        whole = summary(runs, asked.metric, asked.x, asked.band, asked.log_x)
        here = np.flatnonzero(whole.x > 0) if asked.log_x else np.arange(len(whole.x))
        if asked.log_y:
            here = here[whole.middle[here] > 0]
        thin = np.linspace(0, len(here) - 1, min(len(here), POINTS)).round().astype(int)
        at = here[thin]
        found[label] = replace(
            whole, x=whole.x[at], middle=whole.middle[at], low=whole.low[at], high=whole.high[at]
        )
    return found


@dataclass(frozen=True)
class Borders:
    """Between which values lines and bands are drawn.

    Attributes:
        ceiling: a line that explodes ends there, and does not press the others flat
        floor: on a logarithmic axis bands end there, whose lower end may be negative
    """

    ceiling: float
    floor: float

    @staticmethod
    def of(drawn: Sequence[Summary], asked: Asked) -> "Borders":
        some = [s for s in drawn if len(s.x)]
        calm = [s.high for s in some if not s.exploded] or [s.high for s in some if not s.diverged]
        ceiling = LIFT * max((float(v.max()) for v in calm or [s.high[:1] for s in some]), default=1.0)
        if not asked.log_y or not some:
            return Borders(ceiling, -math.inf)
        lows, smallest = np.concatenate([s.low for s in some]), min(float(s.middle.min()) for s in some)
        if asked.band == "range":
            floor = float(lows[lows > 0].min(initial=smallest))
        else:
            floor = max(float(lows.min()), smallest / 10)
        return Borders(ceiling, min(floor, ceiling))

    def cut(self, s: Summary) -> bool:
        """Whether the band of these runs would reach below the floor."""
        return bool((s.low < self.floor).any())

    def passed(self, s: Summary) -> int:
        """How many points are drawn: of runs that exploded those up to the first above the ceiling."""
        above = s.middle > self.ceiling
        return int(np.argmax(above)) + 1 if s.exploded and above.any() else len(s.x)


def _panel(
    title: str, groups: Labelled, drawn: Mapping[str, Summary], look: Mapping[str, Look], asked: Asked,
    borders: Borders,
) -> Panel:  # fmt: skip
    runs = [run for each in groups.values() for run in each]
    lines = tuple(_line(label, look[label], s, borders, len(groups[label]) > 1) for label, s in drawn.items())
    over = time_title(runs) if asked.x == "time" else OVER[asked.x]
    ends = [line.x[-1] for line in lines if line.x]
    start = min((line.x[0] for line in lines if line.x), default=1.0) if asked.log_x else 0.0
    end = max(ends, default=1.0) or 1.0
    limits = (start, end * (end / start) ** 0.01) if asked.log_x else (0.0, 1.01 * end)
    along = Axis(over, log=asked.log_x, limits=limits, said=SAID[asked.x])
    percent = asked.metric.startswith("accuracy")
    upward = Axis(metric_title(asked.metric, runs), log=asked.log_y, percent=percent)
    return Panel(along, upward, title, lines, level=_level(runs, asked))


def _line(label: str, look: Look, s: Summary, borders: Borders, banded: bool) -> Line:
    count, ceiling = borders.passed(s), borders.ceiling
    low, high = (np.clip(ends[:count], borders.floor, ceiling) for ends in (s.low, s.high))
    band = (tuple(low.tolist()), tuple(high.tolist())) if banded else ((), ())
    end = "diverged" if s.diverged else "ended early" if s.early else ""
    value = s.middle[:count]
    drawn = np.minimum(value, ceiling)
    x, y, said = (tuple(values.tolist()) for values in (s.x[:count], drawn, value))
    return Line(label, look, x, y, said, *band, end=end)


def _level(runs: Sequence[RunValues], asked: Asked) -> tuple[float, str] | None:
    """The target, where all have the same, and it is one of what is drawn."""
    targets = {run.target for run in runs}
    target = next(iter(targets)) if len(targets) == 1 else None
    if target is None or target.metric != asked.metric or (asked.log_y and target.level <= 0):
        return None
    level = target.level
    return level, f"target {level * 100:g} %" if target.metric == "accuracy" else f"target {level:g}"


def _same_axes(panels: Sequence[Panel], asked: Asked) -> list[Panel]:
    """All with the same limits, and the same marks; y of one alone is as the renderer has it."""
    low = min(panel.x.limits[0] for panel in panels if panel.x.limits)
    high = max(panel.x.limits[1] for panel in panels if panel.x.limits)
    wide = [replace(panel, x=replace(panel.x, limits=(low, high))) for panel in panels]
    if len(panels) > 1:
        upward = _upward(panels)
        wide = [replace(panel, y=replace(panel.y, limits=upward)) for panel in wide]
    return [_with_ticks(panel, wide, asked) for panel in wide]


def _upward(panels: Sequence[Panel]) -> tuple[float, float] | None:
    """From the smallest value of all panels to the largest, with a twentieth more on both sides."""
    if not (found := _drawn(panels)):
        return None
    low, high = min(found), max(found)
    if panels[0].y.log:
        more = (high / low) ** 0.05 if high > low else 1.1
        return low / more, high * more
    more = (high - low) / 20 or 1.0
    return low - more, high + more


def _drawn(panels: Sequence[Panel]) -> list[float]:
    """All values of lines, bands and levels."""
    lines = [line for panel in panels for line in panel.lines]
    found = [value for line in lines for values in (line.y, line.low, line.high) for value in values]
    return found + [panel.level[0] for panel in panels if panel.level is not None]


def _with_ticks(panel: Panel, beside: Sequence[Panel], asked: Asked) -> Panel:
    """With the marks of logarithmic axes over all that is drawn beside it."""
    if asked.log_x and panel.x.limits:
        panel = replace(panel, x=replace(panel.x, ticks=ticks(panel.x.limits)))
    if asked.log_y:
        panel = replace(panel, y=replace(panel.y, ticks=ticks(_drawn(beside))))
    return panel


def _notes(
    panels: Mapping[str, Labelled], drawn: Mapping[str, Mapping[str, Summary]],
    borders: Mapping[str, Borders], asked: Asked, interrupted: bool,
) -> tuple[str, ...]:  # fmt: skip
    """What line and band are; what is interpolated; what ended, and how."""
    groups = [(label, runs) for each in panels.values() for label, runs in each.items()]
    said = [seeds_of(groups, BANDS[asked.band])]
    if asked.x != "time" and any(len(runs) > 1 for _, runs in groups):
        said.append("Seeds are interpolated on a common grid, and end with the one that ends first.")
    for which, what in (("diverged", "× diverged"), ("early", "| ended before the end of the experiment")):
        names = [
            label + f" ({title})" * (len(panels) > 1) + f" {count} of {s.seeds} seeds" * (s.seeds > 1)
            for title, each in drawn.items()
            for label, s in each.items()
            if (count := getattr(s, which))
        ]
        said += [f"{what}: {', '.join(names)}."] if names else []
    if any(run.settings.get("stop_at") == "target" for _, runs in groups for run in runs):
        said.append("Runs end at the target.")
    every = [(borders[title], s) for title, each in drawn.items() for s in each.values()]
    if floors := {border.floor for border, s in every if border.cut(s)}:
        said.append(f"Bands are cut below {min(floors):.2g}.")
    if any(border.passed(s) < len(s.x) or (s.middle > border.ceiling).any() for border, s in every):
        said.append("A line that ends at the upper border goes on far above it.")
    if interrupted:
        said.append("Not all runs of the plan were made.")
    return tuple(said)
