"""Figures of a comparison, in plotly: an algorithm has the same colour in all of them."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import plotly.graph_objects as go

from offbeat.results.table import cells, gap_known, target_name
from offbeat.results.values import ComparisonValues, RunValues, spread, stragglers

# Okabe and Ito's colours, told apart by the colour-blind; without their yellow, which is pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

X_TITLES = {
    "time": "simulated time (mean gradient = 1)",  # or real time: see `time_title`
    "updates": "gradients applied, by all agents",
    "megabytes": "megabytes sent, by all agents",
}
Y_TITLES = {"loss": "training loss", "accuracy": "test accuracy", "consensus": "distance from average (RMS)"}

POINTS = 400  # a line has about this many points at most
LIFT = 3.0  # lines are drawn up to so many times the largest value of the runs that did not explode
ARROWS = 300  # the edges of a directed graph with more are drawn without arrowheads

_AXIS = {
    "showline": True, "linecolor": "#666", "linewidth": 1, "ticks": "outside", "tickcolor": "#666",
    "ticklen": 4, "gridcolor": "#e8e8e8", "zeroline": False, "title": {"standoff": 8, "font": {"size": 13}},
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


def escaped(text: str) -> str:
    """Text as plotly shows it: plotly reads a few HTML tags in what it is given."""
    return html.escape(text, quote=False)


@dataclass(frozen=True)
class Look:
    """How a group is drawn: colour by algorithm; marker by group; dashes by learning rate."""

    colour: str
    symbol: str
    dash: str


def looks(comparison: ComparisonValues) -> dict[tuple[str, float], Look]:
    """A look for every group, in order; past the seventh algorithm colours return dashed."""
    groups, found = list(comparison.groups()), dict[tuple[str, float], Look]()
    names = list(dict.fromkeys(name for name, _ in groups))
    for index, key in enumerate(groups):
        nth, place = names.index(key[0]), [name for name, _ in groups[:index]].count(key[0])
        dash = DASHES[(place + nth // len(PALETTE)) % len(DASHES)]
        found[key] = Look(PALETTE[nth % len(PALETTE)], SYMBOLS[index % len(SYMBOLS)], dash)
    return found


@dataclass(frozen=True)
class Summary:
    """A group of runs on one grid: median, smallest, largest; up to where the first of them diverged."""

    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    diverged: bool
    exploded: bool


def summary(runs: Sequence[RunValues], x: str, y: str) -> Summary:
    """The curves of the runs as one: over time they share their grid, else they are interpolated."""
    pairs = []
    for run in runs:
        values = np.array(run.curve.of(y), dtype=float)
        kept = np.isfinite(values) & np.isfinite(run.curve.loss)
        count = len(kept) if kept.all() else int(np.argmin(kept))
        pairs.append((np.array(run.curve.of(x)[:count], dtype=float), values[:count]))
    count = min(len(along) for along, _ in pairs)
    if x == "time" or len(runs) == 1 or not count:
        grid, rows = pairs[0][0][:count], np.stack([values[:count] for _, values in pairs])
    else:
        grid = np.linspace(max(along[0] for along, _ in pairs), min(along[-1] for along, _ in pairs), count)
        last = [np.append(np.diff(along) > 0, True) for along, _ in pairs]  # of those at the same x, the last
        points = [(along[k], values[k]) for (along, values), k in zip(pairs, last, strict=True)]
        rows = np.stack([np.interp(grid, along, values) for along, values in points])
    thin = np.linspace(0, count - 1, min(count, POINTS)).round().astype(int)
    grid, rows = grid[thin], rows[:, thin]
    diverged = any(run.diverged_at is not None for run in runs)
    return Summary(grid, np.median(rows, 0), rows.min(0), rows.max(0), diverged, any(map(exploded, runs)))


def exploded(run: RunValues) -> bool:
    """Whether the loss ended ten times as high as it began, or diverged: it does not set a figure's scale."""
    return run.diverged_at is not None or run.curve.loss[-1] > 10 * run.curve.loss[0]


def time_title(runs: Sequence[RunValues]) -> str:
    """What the axis of time is called: simulated, or real in units of so many milliseconds."""
    unit = runs[0].settings.get("unit") if runs else None
    return X_TITLES["time"] if unit is None else f"time (1 = {1000 * unit:g} ms, a mean gradient)"


def curves(comparison: ComparisonValues, x: str = "time", y: str = "loss") -> go.Figure:
    """How all algorithms went: x is "time", "updates" or "megabytes"; y "loss", "accuracy" or "consensus".

    A line is the median over the seeds, as far as all of them got; a band reaches from the smallest to the
    largest, a cross ends what diverged, and the target is dashed.
    """
    alike, look = comparison.groups(), looks(comparison)
    groups = {key: runs for key, runs in alike.items() if all(y in run.curve.names() for run in runs)}
    drawn = {key: summary(runs, x, y) for key, runs in groups.items()}
    some = [s for s in drawn.values() if len(s.x)]  # one that exploded must not press the others flat:
    calm = [s.high for s in some if not s.exploded] or [s.high for s in some if not s.diverged]
    ceiling = LIFT * max((float(v.max()) for v in calm or [s.high[:1] for s in some]), default=1.0)
    fig = go.Figure(layout={"template": STYLE, "height": 350 + 14 * max(0, len(drawn) - 5)})
    shown = {key: (_cut(s, ceiling), look[key], comparison.label(key), ceiling) for key, s in drawn.items()}
    fig.add_traces([_band(*each) for key, each in shown.items() if len(groups[key]) > 1])
    fig.add_traces([_line(*each, x, y) for each in shown.values()])
    fig.add_traces([_cross(*each) for each in shown.values() if each[0].diverged and len(each[0].x)])
    end = max((float(s.x[-1]) for s in some), default=0.0) or 1.0
    title = time_title(comparison.runs)
    if x != "time":  # where a seed has ended, there is no median
        ends = [{run.curve.of(x)[-1] for run in runs} for runs in groups.values()]
        title = X_TITLES[x] + " (up to the slowest seed)" * any(len(each) > 1 for each in ends)
    fig.update_xaxes(title_text=title, range=[0, 1.01 * end])
    gap = y == "loss" and bool(comparison.runs) and gap_known(comparison.runs[0])
    fig.update_yaxes(title_text="gap to the optimum" if gap else Y_TITLES.get(y, y))
    if y == "loss":
        fig.update_yaxes(type="log", **_ticks(list(drawn.values()), ceiling))
    if y == "accuracy":
        fig.update_yaxes(tickformat=".0%")
    target = comparison.runs[0].target if comparison.runs else None
    if target is not None and target.metric == y and (y != "loss" or target.level > 0):
        level = target.level
        name = f"target {level * 100:g} %" if y == "accuracy" else f"target {level:g}"
        line = {"color": "#444", "width": 1, "dash": "dash"}
        fig.add_scatter(x=[0, end], y=[level] * 2, name=name, mode="lines", line=line, hoverinfo="skip")
    return fig


def _ticks(drawn: Sequence[Summary], ceiling: float) -> dict[str, list[float] | list[str]]:
    """Of a logarithmic axis: at most eight powers of ten, or with 2 and 5 times them; if short, plotly's."""
    values = np.concatenate([[], *(s.middle for s in drawn)])
    values = np.minimum(values[values > 0], ceiling)
    low, high = (math.log10(values.min()), math.log10(values.max())) if len(values) else (0.0, 0.0)
    if high - low < 0.9:
        return {}
    exponents = range(math.floor(low), math.ceil(high) + 1, math.ceil((high - low) / 8))
    marks = [(m, e) for e in exponents for m in ((1, 2, 5) if high - low < 3 else (1,))]
    texts = [f"{m * 10.0**e:g}" if -4 < e < 4 else f"{m}·10<sup>{e}</sup>"[2 * (m == 1) :] for m, e in marks]
    return {"tickvals": [m * 10.0**e for m, e in marks], "ticktext": texts}


def _cut(s: Summary, ceiling: float) -> Summary:
    """What is drawn of a run that exploded: up to the first point above the ceiling."""
    above = s.middle > ceiling
    count = int(np.argmax(above)) + 1 if s.exploded and above.any() else len(s.x)
    return replace(s, x=s.x[:count], middle=s.middle[:count], low=s.low[:count], high=s.high[:count])


def _band(s: Summary, look: Look, label: str, ceiling: float) -> go.Scatter:
    around = np.concatenate([s.high, s.low[::-1]])
    floor = around[around > 0].min(initial=math.inf)
    if math.isfinite(floor):
        around = np.clip(around, min(floor, ceiling), ceiling)
    return go.Scatter(
        x=np.concatenate([s.x, s.x[::-1]]), y=around, fill="toself", fillcolor=look.colour, opacity=0.18,
        mode="none", line={"width": 0}, legendgroup=escaped(label), showlegend=False, hoverinfo="skip",
    )  # fmt: skip


def _line(s: Summary, look: Look, label: str, ceiling: float, x: str, y: str) -> go.Scatter:
    shown = {"time": "time %{x:,.6~g}", "updates": "%{x:,.0f} gradients", "megabytes": "%{x:,.4~g} MB"}[x]
    value = "%{customdata:.1%}" if y == "accuracy" else "%{customdata:.4~g}"
    return go.Scatter(
        x=s.x, y=np.minimum(s.middle, ceiling), name=escaped(label), legendgroup=escaped(label),
        mode="lines+markers", line={"color": look.colour, "width": 2, "dash": look.dash},
        marker={"color": look.colour, "symbol": look.symbol, "size": 8, "maxdisplayed": 8},
        cliponaxis=False, customdata=s.middle, hovertemplate=f"{shown}: {value}",
    )  # fmt: skip


def _cross(s: Summary, look: Look, label: str, ceiling: float) -> go.Scatter:
    return go.Scatter(
        x=[s.x[-1]], y=[min(s.middle[-1], ceiling)], mode="markers",
        legendgroup=escaped(label), showlegend=False,
        marker={"color": look.colour, "symbol": "x", "size": 12, "line": {"color": "white", "width": 1}},
        cliponaxis=False, hovertemplate=f"{escaped(label)} diverged<extra></extra>",
    )  # fmt: skip


def bars(comparison: ComparisonValues) -> go.Figure:
    """Time to target: median, smallest to largest over the seeds; hatched to the end where never met."""
    groups, look = comparison.groups(), looks(comparison)
    end = max((run.settings["until"] for run in comparison.runs), default=1.0)
    texts = [row[1] for row in cells(comparison)[1]] if groups else []
    times = [spread([run.time_to_target for run in runs]) for runs in groups.values()]
    shown = [tuple(end if time is None else time for time in row) for row in times]
    colours = [look[key].colour for key in groups]
    places = list(range(len(groups)))
    fig = go.Figure(layout={"template": STYLE, "height": 60 + 58 * max(len(groups), 1), "showlegend": False})
    hatched = ["/" if row[0] is None else "" for row in times]
    fig.add_bar(
        orientation="h", x=[row[0] for row in shown], y=places, width=0.42, hoverinfo="skip",
        marker={
            "color": colours, "line": {"color": colours, "width": 1},
            "pattern": {"shape": hatched, "bgcolor": "white", "fgcolor": colours, "fillmode": "replace",
                        "size": 7, "solidity": 0.25},
        },
    )  # fmt: skip
    varied = [(place, *row) for place, row in enumerate(shown) if row[1] < row[2]]
    above, below = [row[3] - row[1] for row in varied], [row[1] - row[2] for row in varied]
    ends = {"array": above, "arrayminus": below, "symmetric": False}
    fig.add_scatter(
        x=[row[1] for row in varied], y=[row[0] for row in varied], mode="markers",
        marker={"size": 1, "color": "#222"}, hoverinfo="skip",
        error_x={**ends, "color": "#222", "thickness": 1.5, "width": 5},
    )  # fmt: skip
    for place, key in enumerate(groups):
        fig.add_annotation(
            text=f"<b>{escaped(comparison.label(key))}</b>  {escaped(texts[place])}", showarrow=False,
            x=0, xanchor="left", y=place - 0.22, yanchor="bottom", xshift=-3,
        )  # fmt: skip
    title = target_name(comparison.runs[0]) if comparison.runs else "time to target"
    fig.update_xaxes(title_text=f"{title}, {time_title(comparison.runs)}", range=[0, end * 1.02])
    fig.update_yaxes(range=[len(groups) - 0.6, -0.75], visible=False)
    fig.update_layout(margin={"l": 16})
    return fig


def graph(run: RunValues) -> go.Figure:
    """Who hears whom; stragglers are squares."""
    topology, slow = run.topology, stragglers(run.settings)
    at, edges = topology.positions(), sorted(topology.graph.edges())
    fig = go.Figure(layout={"template": STYLE, "height": 340, "showlegend": bool(slow)})
    x, y = ([v for i, j in edges for v in (at[i][axis], at[j][axis], None)] for axis in (0, 1))
    line = {"color": "#999", "width": 1.5 if len(edges) <= 100 else 0.5}
    fig.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    if topology.graph.is_directed() and len(edges) <= ARROWS:
        for i, j in edges:
            fig.add_annotation(
                x=at[j][0], y=at[j][1], ax=at[i][0], ay=at[i][1], xref="x", yref="y", axref="x", ayref="y",
                text="", showarrow=True, arrowhead=2, arrowsize=1.4, arrowcolor="#999", standoff=14,
                startstandoff=12,
            )  # fmt: skip
    few, size = topology.n <= 64, 24 if topology.n <= 40 else 20 if topology.n <= 64 else 7
    for name, colour, symbol in (("agent", PALETTE[0], "circle"), ("straggler", PALETTE[1], "square")):
        agents = [i for i in at if (i in slow) == (name == "straggler")]
        fig.add_scatter(
            x=[at[i][0] for i in agents], y=[at[i][1] for i in agents], name=name,
            mode="markers+text" if few else "markers",
            marker={"color": colour, "symbol": symbol, "size": size},
            text=[str(i) for i in agents], textfont={"color": "white", "size": 12 if few else 1},
            hovertemplate=f"{name} %{{text}}<extra></extra>",
        )  # fmt: skip
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False, scaleanchor="x")
    fig.update_layout(margin={"l": 24, "r": 24, "b": 24})
    return fig
