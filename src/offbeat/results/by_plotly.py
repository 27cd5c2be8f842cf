"""Figures on a page: descriptions drawn by plotly."""

import html
import math
from collections.abc import Mapping
from dataclasses import replace
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from offbeat.results.axes import power
from offbeat.results.drawing import Axis, Drawing, Line, Panel
from offbeat.results.looks import PALETTE, faint

_AXIS = {
    "showline": True, "linecolor": "#666", "linewidth": 1, "ticks": "outside", "tickcolor": "#666",
    "ticklen": 4, "gridcolor": "#e8e8e8", "zeroline": False, "title": {"standoff": 8, "font": {"size": 13}},
    "automargin": True,
}  # fmt: skip
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
STYLE = go.layout.Template(layout={  # white, thin axes, the legend above
    "font": {"family": FONT, "size": 13, "color": "#222"},
    "paper_bgcolor": "white", "plot_bgcolor": "white", "colorway": list(PALETTE),
    "xaxis": _AXIS, "yaxis": _AXIS, "hoverlabel": {"align": "left"},
    "legend": {"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 1, "yanchor": "top",
               "tracegroupgap": 0, "font": {"size": 12}},
    "margin": {"l": 66, "r": 22, "t": 16, "b": 48},
})  # fmt: skip
CONFIG = {
    "responsive": True, "displaylogo": False, "toImageButtonOptions": {"format": "svg"},
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
}  # fmt: skip
"""Of a figure on a page of its own; those of the report have the same in `page.html`."""

PLOT, GAP, NOTE, BAR = 286, 76, 16, 58  # pixels: a panel, what is between two, a line of notes, a bar
DPI = 96  # pixels an inch of print, to break the lines of notes


def escaped(text: str) -> str:
    """Text as plotly shows it: plotly reads a few HTML tags in what it is given."""
    return html.escape(text, quote=False)


def drawn(drawing: Drawing) -> go.Figure:
    """The figure; its height is fixed, its width that of the place where it is shown."""
    fig = _panels(drawing)
    if drawing.notes:
        _note(fig, drawing)
    return fig


def page(drawing: Drawing) -> str:
    """A page with this figure alone, which needs nothing else; the same figure gives the same bytes."""
    text: str = drawn(drawing).to_html(config=CONFIG, include_plotlyjs=True, div_id="figure")
    return text


def _panels(drawing: Drawing) -> go.Figure:
    rows, columns = drawing.shape
    several = len(drawing.panels) > 1
    most = max(len(panel.bars) for panel in drawing.panels)
    top = 16 + 46 * several
    plot = BAR * most - 4 if most else PLOT + 14 * max(0, len(drawing.labels) - 5)
    inner = rows * plot + (rows - 1) * GAP
    fig = make_subplots(
        rows=rows, cols=columns, specs=_cells(len(drawing.panels), rows, columns),
        shared_xaxes="all" if several and drawing.shared else False,
        shared_yaxes="all" if several and drawing.shared and not most else False,
        vertical_spacing=GAP / inner if rows > 1 else 0.0, horizontal_spacing=0.2 / columns,
        subplot_titles=[f"<b>{escaped(panel.title)}</b>" for panel in drawing.panels] if several else None,
    )  # fmt: skip
    fig.update_annotations(font_size=13)
    named: set[str] = set()
    for place, panel in enumerate(drawing.panels):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        last = place + columns >= len(drawing.panels) or not drawing.shared
        first = place % columns == 0 or not drawing.shared
        along = replace(panel.x, title="\n".join(wrap(panel.x.title, 90 // columns)))
        fig.update_xaxes(**_axis(along, last), showticklabels=last, **at)
        if panel.bars:
            _bars(fig, panel, at)
            continue
        upward = replace(panel.y, title="\n".join(wrap(panel.y.title, 34)))
        fig.update_yaxes(**_axis(upward, first), showticklabels=first, **at)
        traces = [_band(line) for line in panel.lines if line.low and not line.points]
        traces += [_line(line, panel, line.label not in named) for line in panel.lines]
        traces += [_end(line) for line in panel.lines if line.end and line.x]
        traces += [_never(line, panel.y, not line.x) for line in panel.lines if line.never]
        fig.add_traces(traces, rows=[at["row"]] * len(traces), cols=[at["col"]] * len(traces))
        named |= {line.label for line in panel.lines}
    for place, panel in enumerate(drawing.panels):  # last in the legend
        if panel.level is not None:
            fig.add_trace(_level(panel, place == 0), row=place // columns + 1, col=place % columns + 1)
    layout = {"height": inner + top + 48, "margin": {"t": top, "l": 16 if most else 66}}
    return fig.update_layout(template=STYLE, showlegend=not most, **layout)


def _cells(count: int, rows: int, columns: int) -> list[list[dict[str, Any] | None]]:
    """What make_subplots is to make where: nothing in the cells that are left over."""
    return [[{} if r * columns + c < count else None for c in range(columns)] for r in range(rows)]


def _axis(axis: Axis, titled: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"title_text": escaped(axis.title).replace("\n", "<br>")} if titled else {}
    said |= {"type": "log"} if axis.log else {"type": "linear"}
    if axis.limits is not None:
        said["range"] = [math.log10(value) for value in axis.limits] if axis.log else list(axis.limits)
    if axis.percent:
        said["tickformat"] = ".0%"
    if axis.ticks:
        said |= {"tickvals": axis.ticks, "ticktext": axis.names or [_power(value) for value in axis.ticks]}
    return said


def _power(value: float) -> str:
    factor, exponent = power(value)
    return factor if exponent is None else f"{factor}{'·' * bool(factor)}10<sup>{exponent}</sup>"


def _band(line: Line) -> go.Scatter:
    return go.Scatter(
        x=np.concatenate([line.x, line.x[::-1]]), y=np.concatenate([line.high, line.low[::-1]]),
        fill="toself", fillcolor=line.look.colour, opacity=0.18, mode="none", line={"width": 0},
        legendgroup=escaped(line.label), showlegend=False, hoverinfo="skip",
    )  # fmt: skip


def _line(line: Line, panel: Panel, named: bool) -> go.Scatter:
    value = "%{customdata:.1%}" if panel.y.percent else "%{customdata:.4~g}"
    marker = {"color": line.look.colour, "symbol": line.look.marker, "size": 8}
    ends, along = None, panel.x.said.format("%{x}" if panel.x.names else "%{x:,.6~g}")
    if line.points and line.low:
        above, below = np.subtract(line.high, line.y), np.subtract(line.y, line.low)
        ends = {"array": above, "arrayminus": below, "symmetric": False, "width": 4, "thickness": 1.5}
    return go.Scatter(
        x=line.x, y=line.y, name=escaped(line.label), legendgroup=escaped(line.label), showlegend=named,
        mode="+".join(["lines"] * line.joined + ["markers"] * bool(line.look.marker)),
        line={"color": line.look.colour, "width": 2, "dash": line.look.dash},
        marker=marker | ({} if line.points else {"maxdisplayed": 8}) if line.look.marker else None,
        cliponaxis=False, customdata=line.value, hovertemplate=f"{along}: {value}", error_y=ends,
    )  # fmt: skip


def _end(line: Line) -> go.Scatter:
    """A cross where a line ends in divergence, a stroke where it ends early."""
    marker: dict[str, Any] = {"color": line.look.colour, "symbol": "x", "size": 12}
    marker["line"] = {"color": "white", "width": 1}
    if line.end != "diverged":
        marker |= {"symbol": "line-ns", "size": 16, "line": {"color": line.look.colour, "width": 2.5}}
    return go.Scatter(
        x=[line.x[-1]], y=[line.y[-1]], mode="markers", legendgroup=escaped(line.label), showlegend=False,
        marker=marker, cliponaxis=False, hovertemplate=f"{escaped(line.label)} {line.end}<extra></extra>",
    )  # fmt: skip


def _never(line: Line, axis: Axis, named: bool) -> go.Scatter:
    """Hollow triangles at the upper border; in the legend where nothing else of the group is."""
    top = axis.limits[1] if axis.limits else max(line.y)
    marker = {"color": line.look.colour, "symbol": "triangle-up-open", "size": 10, "line": {"width": 2}}
    return go.Scatter(
        x=line.never, y=[top] * len(line.never), mode="markers", marker=marker, cliponaxis=False,
        legendgroup=escaped(line.label), name=escaped(line.label), showlegend=named,
        hovertemplate=f"{escaped(line.label)}: never<extra></extra>",
    )  # fmt: skip


def _level(panel: Panel, named: bool) -> go.Scatter:
    value, name = panel.level or (0.0, "")
    return go.Scatter(
        x=panel.x.limits or (0.0, panel.end), y=[value] * 2, name=escaped(name),
        legendgroup=escaped(name), showlegend=named, mode="lines", hoverinfo="skip",
        line={"color": "#444", "width": 1, "dash": "dash"},
    )  # fmt: skip


def _note(fig: go.Figure, drawing: Drawing) -> None:
    """The notes, in lines below everything."""
    lines = [line for note in drawing.notes for line in wrap(note, int(max(drawing.width, 6.0) * DPI / 6.5))]
    below, height = fig.layout.margin.b or 48, NOTE * len(lines)
    fig.update_layout(height=fig.layout.height + height, margin={"b": below + height})
    fig.add_annotation(
        text="<br>".join(map(escaped, lines)), showarrow=False, align="left", xref="paper", yref="paper",
        x=0, xanchor="left", y=0, yanchor="top", yshift=-below, xshift=-40,
        font={"size": 11, "color": "#595959"},
    )  # fmt: skip


def _bars(fig: go.Figure, panel: Panel, at: Mapping[str, int]) -> None:
    """One below another, named above themselves; what never got there is hatched to the end."""
    bars = panel.bars
    places, colours = list(range(len(bars))), [bar.look.colour for bar in bars]
    fig.add_bar(
        orientation="h", x=[bar.length for bar in bars], y=places, width=0.42, hoverinfo="skip",
        marker={
            "color": [faint(colour) for colour in colours], "line": {"color": colours, "width": 1},
            "pattern": {"shape": ["/" if bar.never else "" for bar in bars], "bgcolor": "white",
                        "fgcolor": colours, "fillmode": "replace", "size": 7, "solidity": 0.25},
        }, **at,
    )  # fmt: skip
    varied = {place: bar for place, bar in enumerate(bars) if bar.low < bar.high}
    above = [bar.high - bar.length for bar in varied.values()]
    below = [bar.length - bar.low for bar in varied.values()]
    ends = {"array": above, "arrayminus": below, "symmetric": False}
    fig.add_scatter(
        x=[bar.length for bar in varied.values()], y=[*varied], mode="markers", hoverinfo="skip",
        marker={"size": 1, "color": "#222"}, error_x={**ends, "color": "#222", "thickness": 1.5, "width": 5},
        **at,
    )  # fmt: skip
    for place, bar in enumerate(bars):
        fig.add_annotation(
            text=f"<b>{escaped(bar.label)}</b>  {escaped(bar.text)}", showarrow=False,
            x=0, xanchor="left", y=place - 0.22, yanchor="bottom", xshift=-3, **at,
        )  # fmt: skip
    fig.update_yaxes(range=[len(bars) - 0.6, -0.75], visible=False, **at)
