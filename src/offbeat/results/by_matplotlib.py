"""Figures for print: descriptions drawn by matplotlib, with sizes that can be read in a column of a page."""

import io
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from offbeat.core.errors import SettingError
from offbeat.results.axes import power, shortly
from offbeat.results.drawing import Axis, Drawing, Line, Panel
from offbeat.results.looks import Look, faint

DASHES: Mapping[str, Any] = {
    "solid": "solid", "dash": (0, (5, 1.6)), "dot": (0, (1.2, 1.2)), "dashdot": (0, (5, 1.4, 1.2, 1.4)),
    "longdash": (0, (9, 2)), "longdashdot": (0, (9, 1.6, 1.2, 1.6)),
}  # fmt: skip
MARKERS = {
    "circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "triangle-down": "v", "pentagon": "p",
    "star": "*",
}  # fmt: skip

SIZES: dict[Any, Any] = {  # points and inches; the family of fonts is yours
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "lines.markersize": 3.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5, "axes.axisbelow": True, "hatch.linewidth": 0.7, "legend.frameon": False,
    "text.color": "#222222", "axes.edgecolor": "#666666", "axes.labelcolor": "#222222",
}  # fmt: skip
FILES: dict[Any, Any] = {  # fonts as they are, so that a PDF can be searched; in an SVG as curves
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "offbeat",
}  # fmt: skip
DATES: Mapping[str, Mapping[str, Any]] = {  # none: the same figure, the same bytes
    "pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {},
}  # fmt: skip
NOTE = 6.5  # points: of the notes
ASPECT, TALLEST = 0.62, 2.7  # a panel's height over its width, and in inches at most
BAR = 0.3  # inches: a bar with its name


def drawn(drawing: Drawing) -> Figure:
    """The figure, in inches: a legend above the panels, notes below."""
    with matplotlib.rc_context(SIZES | FILES):
        figure = Figure(layout=ConstrainedLayoutEngine(h_pad=0.02, w_pad=0.02), dpi=100)
        rows, columns = drawing.shape
        bars = max((len(panel.bars) for panel in drawing.panels), default=0)
        share: dict[str, Any] = {"sharex": drawing.shared, "sharey": drawing.shared and not bars}
        axes = figure.subplots(rows, columns, squeeze=False, **share).flatten().tolist()
        for spare in axes[len(drawing.panels) :]:
            spare.remove()
        wide = drawing.width / columns
        each = BAR * bars + 0.1 if bars else min(ASPECT * (wide - 0.45), TALLEST)
        under = max(len(_broken(panel.x.title, wide).splitlines()) for panel in drawing.panels)
        figure.set_size_inches(drawing.width, rows * (each + 0.3 + 0.15 * under))
        drawn_in(drawing, axes[: len(drawing.panels)])
        for at in axes[: len(drawing.panels)]:
            at.set_xlabel(_broken(at.get_xlabel(), wide))
            at.set_ylabel(_broken(at.get_ylabel(), each))
        if drawing.shared:
            _only_outer(drawing, axes[: len(drawing.panels)])
        above = _legend(figure, drawing) if drawing.labels else 0.0
        _note(figure, drawing, above)
    return figure


def drawn_in(drawing: Drawing, axes: Sequence[Axes]) -> Figure:
    """The panels in these axes, without legend and notes; their figure."""
    if len(axes) != len(drawing.panels):
        raise SettingError(f"Expected an axes for each of {len(drawing.panels)} panels; got {len(axes)}.")
    with matplotlib.rc_context(SIZES | FILES):
        for panel, at in zip(drawing.panels, axes, strict=True):
            _bars(at, panel) if panel.bars else _lines(at, panel)
            _axis(at, "x", panel.x)
            if not panel.bars:
                _axis(at, "y", panel.y)
            at.set_title(panel.title, loc="left", fontweight="bold", fontsize=7.5, pad=3)
    figure = axes[0].get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def saved(figure: Figure, kind: str) -> bytes:
    """The file of a figure, "pdf", "svg" or "png". The same figure gives the same bytes."""
    file = io.BytesIO()
    with matplotlib.rc_context(FILES):
        figure.savefig(file, format=kind, dpi=300, metadata=DATES[kind])
    return file.getvalue()


def _lines(at: Axes, panel: Panel) -> None:
    for line in panel.lines:
        if line.low and not line.points:
            at.fill_between(line.x, line.low, line.high, color=line.look.colour, alpha=0.18, linewidth=0)
    for k, line in enumerate(panel.lines):
        style = _style(line.look)
        if line.points and line.x:
            ends = [_apart(line.y, line.low), _apart(line.high, line.y)] if line.low else None
            cap: dict[str, Any] = {"capsize": 2, "capthick": 0.9, "elinewidth": 0.9, "clip_on": False}
            mark = style | {"markeredgewidth": 0.9} | ({} if line.joined else {"linestyle": "none"})
            at.errorbar(line.x, line.y, yerr=ends, label=line.label, **cap, **mark)
        elif line.x:
            step = 0.02 + 0.11 * (k / max(len(panel.lines), 1)), 0.11
            at.plot(line.x, line.y, label=line.label, markevery=step, clip_on=False, **style)
        if line.end and line.x:
            _end(at, line)
        if line.never:
            hollow: dict[str, Any] = {
                "marker": "^",
                "fillstyle": "none",
                "markersize": 5,
                "linestyle": "none",
            }
            below: dict[str, Any] = {
                "transform": at.get_xaxis_transform(),
                "color": line.look.colour,
            }  # of the title
            at.plot(line.never, [0.95] * len(line.never), clip_on=False, **below, **hollow)
    if panel.level is not None:
        at.axhline(panel.level[0], color="#444444", linewidth=0.8, linestyle=(0, (3, 2)), zorder=1.5)


def _broken(title: str, inches: float) -> str:
    """The title of an axis that is so long, in lines."""
    return "\n".join(wrap(title, max(12, int(inches * 72 / 4.6))))


def _apart(high: Sequence[float], low: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(high, low, strict=True)]


def _style(look: Look) -> dict[str, Any]:
    marker = {"marker": MARKERS[look.marker], "markeredgewidth": 0.0} if look.marker else {}
    return {"color": look.colour, "linestyle": DASHES[look.dash], **marker}


def _end(at: Axes, line: Line) -> None:
    """A cross where a line ends in divergence, a stroke where it ends early."""
    cross = line.end == "diverged"
    at.plot(
        line.x[-1:], line.y[-1:], color=line.look.colour, marker="X" if cross else "|", linestyle="none",
        markersize=6 if cross else 9, markeredgewidth=0.5 if cross else 1.5,
        markeredgecolor="white" if cross else line.look.colour, clip_on=False, zorder=5,
    )  # fmt: skip


def _axis(at: Axes, which: str, axis: Axis) -> None:
    side = at.xaxis if which == "x" else at.yaxis
    at.set(**{f"{which}label": axis.title, f"{which}scale": "log" if axis.log else "linear"})
    if axis.limits is not None:
        at.set(**{f"{which}lim": axis.limits})
    if axis.ticks:
        side.set_major_locator(FixedLocator(axis.ticks))
        side.set_minor_locator(NullLocator())
    elif not axis.log:
        side.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if axis.names:
        side.set_major_formatter(FuncFormatter(lambda value, k: axis.names[axis.ticks.index(value)]))
    elif axis.percent:
        side.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
    else:
        side.set_major_formatter(
            FuncFormatter(lambda value, k: _power(value) if axis.log else shortly(value))
        )


def _power(value: float) -> str:
    factor, exponent = power(value)
    times = r"\cdot" if factor else ""
    return factor if exponent is None else f"${factor}{times}10^{{{exponent}}}$"


def _only_outer(drawing: Drawing, axes: Sequence[Axes]) -> None:
    """Of panels with the same axes, titles at the left and at the bottom alone."""
    columns = drawing.shape[1]
    for place, at in enumerate(axes):
        if place % columns:
            at.set_ylabel("")
        last = place + columns >= len(axes)
        at.tick_params(labelbottom=last)
        if not last:
            at.set_xlabel("")


def _legend(figure: Figure, drawing: Drawing) -> float:
    """Above the panels, in as many columns as fit into the width; how high it is, in inches."""
    keys: list[Artist] = [Line2D([], [], label=name, **_style(look)) for name, look in drawing.labels.items()]
    levels = dict.fromkeys(panel.level[1] for panel in drawing.panels if panel.level is not None)
    dashed: dict[str, Any] = {"color": "#444444", "linewidth": 0.8, "linestyle": (0, (3, 2))}
    keys += [Line2D([], [], label=name, **dashed) for name in levels]
    for columns in range(len(keys), 0, -1):
        legend = figure.legend(
            handles=keys, loc="outside upper left", ncols=columns, handlelength=3.2, columnspacing=1.4,
            handletextpad=0.5, borderaxespad=0.2, labelspacing=0.3,
        )  # fmt: skip
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    return float(box.height / figure.dpi)


def _note(figure: Figure, drawing: Drawing, above: float) -> None:
    """The notes below everything, for which the figure grows, as it does for the legend."""
    width, height = figure.get_size_inches()
    lines = [line for note in drawing.notes for line in wrap(note, int(width * 72 / (NOTE * 0.53)))]
    below = (len(lines) * NOTE * 1.3 + 3) / 72 if lines else 0.0
    whole = height + above + below
    figure.set_size_inches(width, whole)
    if lines:
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(rect=(0, below / whole, 1, 1 - below / whole))
        figure.text(
            0.015, 0.01, "\n".join(lines), fontsize=NOTE, color="#555555", va="bottom", linespacing=1.25
        )


def _bars(at: Axes, panel: Panel) -> None:
    """One below another, named above themselves; what never got there is hatched to the end."""
    for place, bar in enumerate(panel.bars):
        hatched: dict[str, Any] = (
            {"facecolor": "white", "hatch": "/////"} if bar.never else {"facecolor": faint(bar.look.colour)}
        )
        at.barh(place, bar.length, height=0.4, edgecolor=bar.look.colour, linewidth=0.6, **hatched)
        if bar.low < bar.high:
            ends = [[bar.length - bar.low], [bar.high - bar.length]]
            at.errorbar([bar.length], [place], xerr=ends, color="#222222", capsize=2, linewidth=0.9)
        at.text(0, place - 0.27, bar.name, fontsize=7, va="bottom")
    at.set_ylim(len(panel.bars) - 0.6, -0.75)
    at.yaxis.set_visible(False)
    at.spines["left"].set_visible(False)
    at.grid(False, axis="y")
