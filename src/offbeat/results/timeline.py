"""Who computed, sent and waited when: a window of the trace, one row an agent."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from offbeat.engines.events import Crashed, GradientDone, Rejoined, rows_of
from offbeat.results.axes import time_title
from offbeat.results.by_plotly import STYLE, escaped
from offbeat.results.values import RunValues, stragglers

ROWS = 16  # so many agents are shown; of more, those that crash, stragglers, their neighbours, and the first
GAP, TOP, BOTTOM = 34, 60, 52  # pixels: between two panels, above them all, and below
TALLEST = 860  # pixels: with a caption of three lines, a page of A4 or US Letter
STEPS = 6  # the window takes in about so many gradients or messages of the slowest agent
Span = tuple[str, float, float]  # state, start, end

EDGE = {"color": "white", "width": 0.5}
HATCHED = {"shape": "x", "bgcolor": "white", "fgcolor": "#888888", "fillmode": "replace", "size": 5}
BARS: dict[str, tuple[float, float, dict[str, object]]] = {
    "computing": (0.5, -0.13, {"color": "#3d3d3d", "line": EDGE}),
    "waiting": (0.5, -0.13, {"color": "#F3E788", "line": EDGE}),
    "sending": (0.22, 0.28, {"color": "#56B4E9", "line": EDGE}),
    "down": (0.78, 0.0, {"color": "#888888", "line": EDGE | {"color": "#888888"}, "pattern": HATCHED}),
}
"""How a state is drawn in its agent's row: thickness, how far below the middle, and plotly's marker."""


def window(runs: Sequence[RunValues]) -> tuple[float, float]:
    """A window in which something can be seen: a few steps of the slowest agent, after the start-up.

    If agents crash, it begins a little before the first of them does.
    """
    ends = [run.curve.time[-1] for run in runs]
    slowest, typical, crashed = 0.0, 0.0, math.inf
    for run in runs:
        if run.trace is None:
            continue
        means = _means(rows_of(run.trace.events, GradientDone))
        slowest = max([slowest, *means, *_means(run.trace.transmissions)])
        typical = max(typical, float(np.median(means)) if means else 0.0)
        crashed = min([crashed, *rows_of(run.trace.events, Crashed)["time"].tolist()])
    last = max(ends, default=0.0)
    length = min(max(STEPS * slowest, 12 * typical), 100 * typical) or last
    unit = 10 ** math.floor(math.log10(length)) / 2 if length > 0 else 1.0
    length = min(math.ceil(length / unit) * unit, last)
    start = crashed - length / 4 if crashed < last else length
    start = math.floor(min(max(start, 0.0), last - length) / unit) * unit
    return start, start + length


def _means(rows: np.ndarray) -> list[float]:
    """How long what is in the rows took each of their agents, on average."""
    count, total = np.bincount(rows["agent"]), np.bincount(rows["agent"], rows["end"] - rows["start"])
    means: list[float] = (total[count > 0] / count[count > 0]).tolist()
    return means


def shown(run: RunValues) -> list[int]:
    n, slow = run.topology.n, stragglers(run.settings)
    if n <= ROWS:
        return list(range(n))
    first = [*slow, *(peer for each in slow for peer in run.topology.peers(each))]
    if run.trace is not None:
        first = [*np.unique(rows_of(run.trace.events, Crashed)["agent"]).tolist(), *first]
    return sorted(list(dict.fromkeys([*first, *range(n)]))[:ROWS])


def pieces(runs: Mapping[str, RunValues]) -> list[dict[str, RunValues]]:
    """The runs in so few figures that each fits a page of paper, and about as many in each."""
    named = list(runs.items())
    for count in range(1, len(named) + 1):
        found = [dict(each.tolist()) for each in np.array_split(np.array(named, dtype=object), count)]
        if all(_height(piece) <= TALLEST for piece in found):
            break
    return found


def _height(runs: Mapping[str, RunValues]) -> int:
    """Pixels: of a panel for each run, one below the other."""
    agents = max((len(shown(run)) for run in runs.values()), default=1)
    return TOP + BOTTOM + len(runs) * (17 * agents + 12) + (len(runs) - 1) * GAP


def timelines(runs: Mapping[str, RunValues], span: tuple[float, float] | None = None) -> go.Figure:
    """Runs, named, one above the other over the same window of time, whose traces were kept."""
    begin, stop = window(list(runs.values())) if span is None else span
    count, height = len(runs), _height(runs)
    fig = make_subplots(
        rows=max(count, 1), cols=1, shared_xaxes=True,
        vertical_spacing=GAP / (height - TOP - BOTTOM) if count > 1 else 0.0,
        subplot_titles=[f"<b>{escaped(name)}</b>" for name in runs],
    )  # fmt: skip
    fig.update_annotations(x=0, xanchor="left", font_size=13)
    used = set()
    for place, run in enumerate(runs.values(), start=1):
        for state, found in _spans(run, begin, stop).items():
            fig.add_trace(_bar(state, found), row=place, col=1)
            used |= {state} if found else set()
        rows, slow = shown(run), stragglers(run.settings)
        fig.update_yaxes(
            row=place, col=1, range=[len(rows) - 0.4, -0.6], showgrid=False, ticks="", tickfont={"size": 11},
            tickvals=list(range(len(rows))), ticktext=[f"<b>{i}</b>" if i in slow else str(i) for i in rows],
            title={"text": "agent", "standoff": 4},
        )  # fmt: skip
    for state in [state for state in BARS if state in used]:  # the legend, whatever the first panel has
        key = go.Bar(orientation="h", base=[0], x=[0], y=[0], marker=BARS[state][2], hoverinfo="skip")
        fig.add_trace(key.update(name=state, legendgroup=state), row=1, col=1)
    fig.update_xaxes(range=[begin, stop], showgrid=False)
    fig.update_xaxes(title_text=time_title(list(runs.values())), row=max(count, 1), col=1)
    fig.update_layout(
        template=STYLE, height=height, barmode="overlay", hovermode="closest",
        margin={"l": 44, "r": 22, "t": TOP, "b": BOTTOM},
        legend={"itemclick": False, "itemdoubleclick": False},
    )  # fmt: skip
    return fig


def _bar(state: str, spans: Sequence[tuple[int, float, float]]) -> go.Bar:
    """All bars of one state in one panel: row, start, end."""
    width, below, marker = BARS[state]
    return go.Bar(
        orientation="h", base=[start for _, start, _ in spans], x=[end - start for _, start, end in spans],
        y=[row + below for row, _, _ in spans], width=width, showlegend=False, legendgroup=state,
        marker=marker, customdata=[end for _, _, end in spans],
        hovertemplate=f"{state}, %{{base:.5~g}} to %{{customdata:.5~g}}<extra></extra>",
    )  # fmt: skip


def _spans(run: RunValues, begin: float, stop: float) -> dict[str, list[tuple[int, float, float]]]:
    """What the shown agents did between `begin` and `stop`, by state: row, start, end."""
    found: dict[str, list[tuple[int, float, float]]] = {state: [] for state in BARS}
    if run.trace is None:
        return found
    over, sent = run.curve.time[-1], run.trace.transmissions
    sent = sent[(sent["end"] > begin) & (sent["start"] < stop)]
    for row, agent in enumerate(shown(run)):
        events = run.trace.events[run.trace.events["agent"] == agent]
        crashed, back = (rows_of(events, kind)["time"].tolist() for kind in (Crashed, Rejoined))
        downs = [(at, min((time for time in back if time >= at), default=over)) for at in crashed]
        spans = _worked(events, downs, over)
        for at in sent[sent["agent"] == agent]:
            cut = [down for down, _ in downs if at["start"] < down < at["end"]]
            spans.append(("sending", float(at["start"]), min([float(at["end"]), over, *cut])))
        for state, start, end in spans:
            if min(end, stop) > max(start, begin):
                found[state].append((row, max(start, begin), min(end, stop)))
    return found


def _worked(events: np.ndarray, downs: list[tuple[float, float]], over: float) -> list[Span]:
    """Computing and down as recorded, waiting in between.

    A gradient that was cut off by a crash or by the end of the run is not in the trace, so that the time
    before those counts as waiting only where it is longer than two of the agent's gradients.
    """
    done = rows_of(events, GradientDone)
    busy = list(zip(done["start"].tolist(), done["end"].tolist(), strict=True))
    longest = max((end - start for start, end in busy), default=math.inf)
    known = [*(("computing", *each) for each in busy), *(("down", *each) for each in downs)]
    spans, free = list[Span](), 0.0
    for state, start, end in [*sorted(known, key=lambda span: span[1:]), ("", over, over)]:
        if state == "computing" or start - free > 2 * longest:
            spans.append(("waiting", free, start))
        spans.append((state, start, end))
        free = max(free, end)
    return [span for span in spans if span[0]]
