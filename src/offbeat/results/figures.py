"""Figures that only the page has, in plotly: the graph. Curves and times to a target are drawn from a
description (`offbeat.results.curves`, `offbeat.results.times`).
"""

import plotly.graph_objects as go

from offbeat.results.by_plotly import STYLE
from offbeat.results.looks import BLUE, VERMILLION
from offbeat.results.values import RunValues, stragglers

ARROWS = 300  # the edges of a directed graph with more are drawn without arrowheads


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
    for name, colour, symbol in (("agent", BLUE, "circle"), ("straggler", VERMILLION, "square")):
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
