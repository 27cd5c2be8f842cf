"""The figure of who holds which data, in plotly: agents and classes."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from offbeat.results.by_plotly import STYLE
from offbeat.results.looks import BLUE
from offbeat.results.values import RunValues

BUBBLES = 1500  # agents times classes up to which each pair is a bubble; beyond, a pixel
LARGEST = 24.0  # diameter of the largest bubble


def who_holds(run: RunValues) -> go.Figure:
    """Agents and classes: the area of a bubble is how many samples of a class an agent has. Above it, or
    alone where there are no classes, the agents' sizes as bars.
    """
    held = run.holdings
    assert held is not None
    classes, agents = held.classes, list(range(len(held.sizes)))
    rows = 2 if classes else 1
    heights = [0.25, 0.75] if classes else [1.0]
    fig = make_subplots(rows, 1, shared_xaxes=True, vertical_spacing=0.06, row_heights=heights)
    height = 150 + (22 * min(len(classes), 20) + 60) * bool(classes)
    fig.update_layout(template=STYLE, height=height, showlegend=False)
    shown = "agent %{x}: %{y:,} samples<extra></extra>"
    fig.add_bar(x=agents, y=held.sizes, marker={"color": BLUE}, hovertemplate=shown, row=1, col=1)
    fig.update_yaxes(title_text="samples", rangemode="tozero", row=1, col=1)
    if classes:
        counts = np.array(held.counts)
        fig.add_trace(_bubbles(counts, classes) if counts.size <= BUBBLES else _pixels(counts, classes), 2, 1)
        places = [*range(len(classes))][:: -(-len(classes) // 20)]
        ticks = {"tickvals": places, "ticktext": [classes[k] for k in places]}
        fig.update_yaxes(title_text="class", range=[-0.7, len(classes) - 0.3], **ticks, row=2, col=1)
    few = {"dtick": 1} if len(agents) <= 25 else {}
    fig.update_xaxes(range=[-0.7, len(agents) - 0.3], **few)
    fig.update_xaxes(title_text="agent", row=rows, col=1)
    return fig


def _bubbles(counts: np.ndarray, classes: Sequence[str]) -> go.Scatter:
    agent, klass = np.nonzero(counts)
    some = counts[agent, klass]
    marker = {
        "size": some, "sizemode": "area", "sizeref": 2.0 * some.max() / LARGEST**2, "sizemin": 1.5,
        "color": BLUE, "line": {"width": 0},
    }  # fmt: skip
    return go.Scatter(
        x=agent, y=klass, mode="markers", marker=marker, cliponaxis=False,
        customdata=np.stack([some, np.array(classes)[klass]], 1),
        hovertemplate="agent %{x}: %{customdata[0]} of class %{customdata[1]}<extra></extra>",
    )  # fmt: skip


def _pixels(counts: np.ndarray, classes: Sequence[str]) -> go.Heatmap:
    shades = [[0.0, "white"], [1.0, BLUE]]
    shown = "agent %{x}: %{z} of class %{y}<extra></extra>"
    return go.Heatmap(z=counts.T, colorscale=shades, showscale=False, hovertemplate=shown)
