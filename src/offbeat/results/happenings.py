"""The figure of what happens in a world, in plotly: who is down, slower, cut off, Byzantine, and when."""

from typing import NamedTuple

import plotly.graph_objects as go

from offbeat.results.axes import time_title
from offbeat.results.by_plotly import STYLE
from offbeat.results.looks import BLUE, VERMILLION
from offbeat.results.values import RunValues
from offbeat.results.world import WorldValues
from offbeat.world.changes import Cut, Slowdown

ROWS = 24  # at most so many agents, and as many cuts, have a row
NAMED = 6  # agents that a cut names in its row


class Bar(NamedTuple):
    """`row`: the agent, or a cut; `name`: what is written beside its row."""

    row: int | Cut
    name: str
    kind: str
    begin: float
    end: float | None
    inside: str
    about: str


KINDS: dict[str, tuple[float, dict[str, object]]] = {
    "down": (0.7, {"color": "#666666", "pattern": {"shape": "x", "bgcolor": "white", "fgcolor": "#666666"}}),
    "slower": (0.7, {"color": "#F0B93F"}),
    "cut off": (0.7, {"color": BLUE, "pattern": {"shape": "/", "bgcolor": "white", "fgcolor": BLUE}}),
    "Byzantine": (0.22, {"color": VERMILLION}),
}
"""How each is drawn: thickness of the bar, and plotly's marker."""


def happenings(run: RunValues) -> go.Figure | None:
    """A row for each agent to which something happens, and for each cut, over the time of the run; None if
    nothing does. Of more than 24 agents, and cuts, the first are shown.
    """
    bars = _bars(run.world or WorldValues())
    if not bars:
        return None
    agents = sorted({bar.row for bar in bars if isinstance(bar.row, int)})[:ROWS]
    rows: list[int | Cut] = [*agents, *dict.fromkeys(bar.row for bar in bars if isinstance(bar.row, Cut))]
    rows = rows[: len(agents) + ROWS]
    names = {bar.row: bar.name for bar in bars}
    until = float(run.settings["until"])
    fig = go.Figure(layout={"template": STYLE, "barmode": "overlay", "height": 116 + 24 * len(rows)})
    for kind, (width, marker) in KINDS.items():
        some = [bar for bar in bars if bar.kind == kind and bar.row in rows]
        if some:
            ends = [until if bar.end is None else min(bar.end, until) for bar in some]
            fig.add_bar(
                orientation="h", name=kind, y=[rows.index(bar.row) for bar in some], width=width,
                base=[bar.begin for bar in some], x=[e - b.begin for b, e in zip(some, ends, strict=True)],
                marker=marker | {"line": {"color": "#444444", "width": 0.5}}, showlegend=True,
                text=[bar.inside for bar in some], textposition="inside", insidetextanchor="middle",
                textangle=0, insidetextfont={"color": "#222222"}, hovertext=[bar.about for bar in some],
                hovertemplate="%{hovertext}<extra></extra>",
            )  # fmt: skip
    fig.update_xaxes(title_text=time_title([run]), range=[0, until])
    fig.update_yaxes(
        tickvals=[*range(len(rows))], ticktext=[names[row] for row in rows], showgrid=False,
        range=[len(rows) - 0.4, -0.6], automargin=True,
    )  # fmt: skip
    return fig.update_layout(margin={"l": 24, "t": 44})


def not_shown(run: RunValues) -> int:
    """To how many agents something happens that have no row."""
    found = {bar.row for bar in _bars(run.world or WorldValues()) if isinstance(bar.row, int)}
    return max(0, len(found) - ROWS)


def _bars(world: WorldValues) -> list[Bar]:
    crashes, changes, byzantine = world.events
    bars = [Bar(c.agent, f"agent {c.agent}", "down", c.at, c.until, "", f"{c}: down") for c in crashes]
    for change in changes:
        if isinstance(change, Slowdown):
            name, factor = f"agent {change.agent}", f"{change.factor:.4g}×"
            what = "" if change.computes and change.sends else " computing" if change.computes else " sending"
            bars.append(
                Bar(change.agent, name, "slower", change.at, change.until, factor + what, str(change))
            )
        else:
            group = sorted(change.group)
            few = f"cut {{{','.join(map(str, group))}}}"
            name = few if len(group) <= NAMED else f"cut of {len(group)}"
            bars.append(Bar(change, name, "cut off", change.at, change.until, "", str(change)))
    return bars + [Bar(b.agent, f"agent {b.agent}", "Byzantine", 0.0, None, "", str(b)) for b in byzantine]
