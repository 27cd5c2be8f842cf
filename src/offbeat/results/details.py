"""Figures of what was asked for beside the curves, in plotly: the curves of all agents, ages, shares, bytes.

Of each algorithm (and learning rate) one run is drawn. Which groups of values there are: `Details` in
`offbeat.results.values`.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from offbeat.results.axes import metric_title, time_title
from offbeat.results.by_plotly import STYLE, escaped
from offbeat.results.looks import BLUE, looks
from offbeat.results.values import ComparisonValues, RunValues
from offbeat.tasks.metrics import METRICS

POINTS, ROWS, CELLS = 200, 32, 100
"""A line has at most so many points; so many agents have bars, and a place in the matrix of bytes."""

PARTS = {"computing": "#3d3d3d", "waiting": "#F3E788", "down": "#bbbbbb"}

Runs = Mapping[str, RunValues]


def captions(comparison: ComparisonValues) -> dict[str, str]:
    """What is said, in HTML, of the curve of each metric beside those of every run, if it has any value."""
    curves = [pair for run in comparison.runs for pair in run.curve.more.items()]
    names = dict.fromkeys(name for name, values in curves if not all(map(math.isnan, values)))
    about = {name: METRICS[name].about if name in METRICS else f"the metric {name}" for name in names}
    return {name: f"{escaped(text[0].upper() + text[1:])}." for name, text in about.items()}


def figures(comparison: ComparisonValues) -> list[tuple[go.Figure, str]]:
    """Those that there are values for, each with its caption in HTML."""
    found = []
    for group, (figure, caption) in FIGURES.items():
        runs = dict[str, RunValues]()
        for key, same in comparison.groups().items():
            runs |= {comparison.label(key): run for run in same[:1] if group in run.details}
        if runs:
            seed = f" With seed {next(iter(runs.values())).seed}." * (len(comparison.runs) > len(runs))
            found.append((figure(runs), caption + seed))
    return found


def per_agent(runs: Runs) -> go.Figure:
    """A thin line for each agent's own model."""
    first = next(iter(runs.values()))
    (name,) = first.details["per_agent"]
    fig, look = _beside(runs, 250), looks({label: [run] for label, run in runs.items()})
    for place, (label, run) in enumerate(runs.items(), start=1):
        values, time = np.array(run.details["per_agent"][name], dtype=float), np.array(run.curve.time)
        some = np.linspace(0, len(time) - 1, min(len(time), POINTS)).round().astype(int)
        for agent in range(values.shape[1]):
            fig.add_scatter(
                x=time[some], y=values[some, agent], mode="lines", opacity=0.6, showlegend=False, row=1,
                col=place, line={"color": look[label].colour, "width": 1},
                hovertemplate=f"agent {agent}: %{{y:.4~g}}<extra></extra>",
            )  # fmt: skip
    fig.update_xaxes(title_text=time_title([first]) if len(runs) == 1 else "time")
    fig.update_yaxes(tickformat=".0%" if name == "accuracy" else "")
    fig.update_yaxes(title_text=metric_title(name, [first]), row=1, col=1)
    return fig


def ages(runs: Runs) -> go.Figure:
    """The share of the models that were mixed, for each iteration of age; both axes begin at 1."""
    fig, look = _figure(300), looks({label: [run] for label, run in runs.items()})
    for label, run in runs.items():
        begin, count = (np.array(run.details["ages"][name], dtype=float) for name in ("from", "count"))
        if not count.sum():
            continue
        widths = np.diff(begin, append=2 * begin[-1] - begin[-2] if len(begin) > 1 else 1.0)
        share = count / count.sum() / widths
        fig.add_scatter(
            x=begin + 1, y=np.where(share > 0, share, np.nan), name=escaped(label), mode="lines+markers",
            line={"color": look[label].colour, "dash": look[label].dash, "width": 2, "shape": "hv"},
            marker={"symbol": look[label].marker, "size": 7, "maxdisplayed": 10}, customdata=begin,
            hovertemplate="age %{customdata:,.0f}: %{y:.3~g}",
        )  # fmt: skip
    marks = {"type": "log", "dtick": 1, "exponentformat": "power"}
    fig.update_xaxes(title_text="1 + age in iterations of the whole run", **marks)
    fig.update_yaxes(title_text="share of what was mixed, per iteration", **marks)
    return fig


def shares(runs: Runs) -> go.Figure:
    """What each agent's time went into, as bars; a dot says which part of it was spent sending."""
    n = min(ROWS, max(len(run.details["shares"]["computing"]) for run in runs.values()))
    fig = _beside(runs, 90 + 14 * n)
    for place, run in enumerate(runs.values(), start=1):
        found = run.details["shares"]
        agents = [*range(len(found["computing"]))][:ROWS]
        for name, colour in PARTS.items():
            fig.add_bar(
                orientation="h", y=agents, x=found[name][:ROWS], name=name, legendgroup=name, row=1,
                col=place, showlegend=place == 1, marker={"color": colour},
                hovertemplate=f"agent %{{y}}: {name} %{{x:.1%}}<extra></extra>",
            )  # fmt: skip
        fig.add_scatter(
            y=agents, x=found["sending"][:ROWS], mode="markers", name="sending", legendgroup="sending", row=1,
            col=place, showlegend=place == 1, marker={"color": BLUE, "size": 7, "symbol": "diamond"},
            hovertemplate="agent %{y}: sending %{x:.1%}<extra></extra>",
        )  # fmt: skip
    fig.update_layout(barmode="stack")
    fig.update_xaxes(range=[0, 1.02], tickformat=".0%", tickvals=[0, 0.5])
    fig.update_yaxes(autorange="reversed", dtick=1 if n <= 16 else 4)
    fig.update_yaxes(title_text="agent", row=1, col=1)
    return fig


def traffic(runs: Runs) -> go.Figure:
    """A matrix of megabytes from sender to receiver."""
    fig = _beside(runs, 330)
    most = max(max(run.details["traffic"]["bytes"], default=0) for run in runs.values()) / 1e6 or 1.0
    for place, run in enumerate(runs.values(), start=1):
        found = run.details["traffic"]
        n = min(CELLS, len(found["agents"]))
        cells = np.full((n, n), np.nan)
        for i, j, size in zip(found["from"], found["to"], found["bytes"], strict=True):
            if i < n and j < n:
                cells[i, j] = size / 1e6
        fig.add_heatmap(
            z=cells, zmin=0, zmax=most, colorscale=[[0, "white"], [1, BLUE]],
            showscale=place == len(runs), colorbar={"title": {"text": "MB"}, "thickness": 12}, row=1,
            col=place, hovertemplate="%{y} to %{x}: %{z:.4~g} MB<extra></extra>",
        )  # fmt: skip
    fig.update_xaxes(title_text="to agent", showgrid=False, constrain="domain")
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_yaxes(title_text="from agent", row=1, col=1)
    return fig


FIGURES: dict[str, tuple[Callable[[Runs], go.Figure], str]] = {
    "per_agent": (per_agent, "Each line is one agent’s own model."),
    "ages": (
        ages,
        "How old what was mixed was: k − s<sub>ij</sub><sup>k</sup>, in iterations of the whole run; 0 is "
        "the newest there is.",
    ),
    "shares": (
        shares,
        "What each agent’s time went into, until the end of its last gradient; diamonds: which part of the "
        f"run it was sending. At most {ROWS} agents are shown.",
    ),
    "traffic": (
        traffic,
        f"Megabytes by link, from sender (row) to receiver. At most {CELLS} agents are shown.",
    ),
}
"""Group of details -> how it is drawn, and what is said of it."""


def _figure(height: int) -> go.Figure:
    return go.Figure(layout={"template": STYLE, "height": height})


def _beside(runs: Runs, height: int) -> go.Figure:
    """A panel for each algorithm, side by side."""
    titles = [f"<b>{escaped(label)}</b>" for label in runs]
    space = 0.24 / (len(runs) + 3)  # so that the last number of one axis is off the first of the next
    fig = make_subplots(1, len(runs), shared_yaxes="all", subplot_titles=titles, horizontal_spacing=space)
    fig.update_annotations(font_size=13)
    fig.update_layout(template=STYLE, height=height, margin={"t": 60})
    return fig
