"""The figure of a world's graph, in plotly: agents by how long they take, edges by what differs among links.

Dark is slow, for agents, and much, for links: it holds in grey, and edges differ in width too.
"""

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from offbeat.results.by_plotly import STYLE
from offbeat.results.looks import BLUE, VERMILLION
from offbeat.results.values import RunValues
from offbeat.results.world import MOST, WorldValues

NUMBERED = 64  # agents of which each has its number in it, at most
ARROWS = 300  # the edges of a directed graph with more are drawn without arrowheads
AGENTS = 400  # of a graph with more nothing would be seen
CLASSES = (
    (0.75, "#bbbbbb"),
    (1.5, "#8f8f8f"),
    (2.75, "#5c5c5c"),
    (4.0, "#222222"),
)  # of edges: width, colour
SHADES = ((0.0, "#CDE3F2"), (0.5, BLUE), (1.0, "#00263B"))  # from fast to slow
DARK = 0.3  # from here on the number of an agent is white

Edge = tuple[int, int]
Place = tuple[float, float]


def graph(run: RunValues) -> go.Figure:
    """Who hears whom: agents are the darker, the slower they compute, and the larger, the slower they send;
    Byzantine ones are squares. An edge is the darker and wider, the larger the first of latency, bandwidth
    and loss that differs among links; the others are said where one points. Of more than 2,000 links no edge
    is drawn.
    """
    topology, world = run.topology, run.world or WorldValues()
    at, edges = topology.positions(), sorted(topology.graph.edges())
    fig = go.Figure(layout={"template": STYLE, "height": 340})
    if not edges_shown(run):
        edges = []
    routes = _routes(at, edges)
    pieces = _pieces(world, routes)
    name, classes = _classes(world, [*pieces])
    for label, width, colour, some in classes:
        x, y = ([v for edge in some for v in (*(p[axis] for p in pieces[edge]), None)] for axis in (0, 1))
        fig.add_scatter(
            x=x, y=y, mode="lines", line={"color": colour, "width": width}, hoverinfo="skip",
            name=label, showlegend=bool(name),
        )  # fmt: skip
    if topology.graph.is_directed() and len(edges) <= ARROWS:
        for i, j in edges:
            fig.add_annotation(
                x=at[j][0], y=at[j][1], ax=at[i][0], ay=at[i][1], xref="x", yref="y", axref="x", ayref="y",
                text="", showarrow=True, arrowhead=2, arrowsize=1.4, arrowcolor="#999", standoff=14,
                startstandoff=12,
            )  # fmt: skip
    _say_links(fig, world, routes)
    _agents(fig, world, at)
    legend = bool(name or world.byzantine)
    fig.update_layout(
        margin={"l": 24, "r": 24, "b": 24, "t": 44 if legend else 16}, showlegend=legend,
        legend={"title": {"text": f"{name}: " if name else ""}},
    )  # fmt: skip
    fig.update_xaxes(visible=False)
    return fig.update_yaxes(visible=False, scaleanchor="x")


def has_graph(run: RunValues) -> bool:
    """Whether it can be drawn: the graph is known, and has several agents, but not too many."""
    return run.has_topology and 1 < run.settings["agents"] <= AGENTS


def edges_shown(run: RunValues) -> bool:
    """Whether the edges are drawn."""
    directed = run.topology.graph.is_directed()
    return bool(run.topology.graph.number_of_edges() * (1 if directed else 2) <= MOST)


def times(world: WorldValues) -> go.Figure:
    """The expected times of many agents, sorted, from the slowest."""
    fig = go.Figure()
    for name, values, dash in (
        ("a gradient", world.computing, "solid"), ("sending a model", world.sending, "dash")
    ):  # fmt: skip
        if values:
            y = sorted(values, reverse=True)
            fig.add_scatter(
                x=[*range(1, len(y) + 1)], y=y, name=name, mode="lines",
                line={"color": BLUE if dash == "solid" else VERMILLION, "dash": dash, "shape": "hv"},
                hovertemplate="%{x:,} agents need %{y:.3~g} or more",
            )  # fmt: skip
    fig.update_layout(template=STYLE, height=340, showlegend=True)
    fig.update_xaxes(title_text="agents, the slowest first")
    return fig.update_yaxes(title_text="expected time", type="log", dtick="D2", tickformat="~g")


# -- edges -----------------------------------------------------------------------------------------


def _routes(at: dict[int, Place], edges: Sequence[Edge]) -> dict[Edge, list[Place]]:
    """How each edge is drawn: straight; bent where it would pass through an agent, as in a torus."""
    if not edges:
        return {}
    places = np.array([at[agent] for agent in range(len(at))])
    spacing = min(math.dist(at[i], at[j]) for i, j in edges) or 1.0
    centre, found = places.mean(0), dict[Edge, list[Place]]()
    for i, j in edges:
        start, along = places[i], places[j] - places[i]
        length = float(np.hypot(*along)) or 1.0
        across = np.array([-along[1], along[0]]) / length
        share, off = (places - start) @ along / length**2, np.abs((places - start) @ across)
        if not ((share > 0.01) & (share < 0.99) & (off < 0.05 * spacing)).any():
            found[i, j] = [at[i], at[j]]
            continue
        outwards = 1.0 if (start + along / 2 - centre) @ across > -1e-9 else -1.0
        t = np.linspace(0, 1, 17)[:, None]
        curve = start + t * along + 2 * t * (1 - t) * 0.64 * spacing * outwards * across
        found[i, j] = [(float(x), float(y)) for x, y in curve]
    return found


def _classes(
    world: WorldValues, edges: Sequence[Edge]
) -> tuple[str, list[tuple[str, float, str, Sequence[Edge]]]]:
    """What the edges are told apart by, and the classes: label, width, colour, edges."""
    values = _by_edge(world)
    if not values or not edges:
        return "", [("", 1.5 if len(edges) <= 100 else 0.5, "#999", edges)]
    name = next(iter(values))
    each = {edge: values[name].get(edge, values[name].get(edge[::-1], 0.0)) for edge in edges}
    steps = sorted({*each.values()})
    if len(steps) > len(CLASSES):
        steps = [float(v) for v in np.quantile([*each.values()], (0.25, 0.5, 0.75, 1.0))]
    looks = CLASSES if len(steps) > 2 else (CLASSES[0], CLASSES[-1])
    found, low = list[tuple[str, float, str, Sequence[Edge]]](), -math.inf
    for step, (width, colour) in zip(steps, looks, strict=False):
        some = [edge for edge in edges if low < each[edge] <= step]
        if some:
            least, most = (f"{pick(each[edge] for edge in some):.3g}" for pick in (min, max))
            label = least if least == most else f"{least} to {most}"
            found.append((label, width, colour, some))
        low = step
    return "lost messages" if name == "loss" else name, found


def _pieces(world: WorldValues, routes: dict[Edge, list[Place]]) -> dict[Edge, list[Place]]:
    """What is drawn of each link: the edge; of one whose two directions differ the half that is nearer to
    the sender.
    """
    of = next(iter(_by_edge(world).values()), {})
    found = dict[Edge, list[Place]]()
    for (i, j), route in routes.items():
        if (j, i) in routes or of.get((j, i)) in (None, of.get((i, j))):
            found[i, j] = route
            continue
        half = len(route) // 2
        (x, y), (u, v) = route[half - 1], route[half]
        middle = [((x + u) / 2, (y + v) / 2)]
        found[i, j], found[j, i] = route[:half] + middle, middle + route[half:]
    return found


def _by_edge(world: WorldValues) -> dict[str, dict[Edge, float]]:
    """What differs -> link -> its value, of worlds with so few links that each is kept."""
    if "from" not in world.links:
        return {}
    ends = [*zip(map(int, world.links["from"]), map(int, world.links["to"]), strict=True)]
    return {name: dict(zip(ends, values, strict=True)) for name, values in world.by_link.items()}


def _say_links(fig: go.Figure, world: WorldValues, routes: dict[Edge, list[Place]]) -> None:
    """In the middle of each edge what its links are like, for a pointer."""
    values = _by_edge(world)
    if not values or not routes:
        return
    said = []
    for i, j in routes:
        lines = [(i, j), (j, i)] if (j, i) not in routes else [(i, j)]
        said.append("<br>".join(
            f"{link[0]} to {link[1]}: " + ", ".join(f"{name} {of[link]:.4g}" for name, of in values.items())
            for link in lines if link in next(iter(values.values()))
        ))  # fmt: skip
    halves = [route if len(route) == 2 else [route[len(route) // 2]] for route in routes.values()]
    middles = [np.mean(half, axis=0) for half in halves]
    fig.add_scatter(
        x=[float(m[0]) for m in middles], y=[float(m[1]) for m in middles], mode="markers", hovertext=said,
        marker={"size": 12, "opacity": 0}, hovertemplate="%{hovertext}<extra></extra>", showlegend=False,
    )  # fmt: skip


# -- agents ----------------------------------------------------------------------------------------


def _agents(fig: go.Figure, world: WorldValues, at: dict[int, Place]) -> None:
    """Numbered where they are few."""
    n = len(at)
    few, size = n <= NUMBERED, 24.0 if n <= 40 else 20.0 if n <= NUMBERED else 9.0
    slowness = world.computing or world.sending
    shade = _scaled(slowness) if slowness else [0.5] * n
    sizes = [size] * n
    if world.computing and world.sending and world.sending != world.computing:
        sizes = [size * (0.75 + 0.65 * value) for value in _scaled(world.sending)]
    colours = sample_colorscale([list(each) for each in SHADES], shade)
    lying = {each.agent: str(each) for each in world.events[2]}
    for name, symbol, line in (
        ("agent", "circle", {"color": "#444444", "width": 1}),
        ("Byzantine agent", "square", {"color": VERMILLION, "width": 4}),
    ):  # fmt: skip
        agents = [i for i in at if (i in lying) == (symbol == "square")]
        if agents:
            fig.add_scatter(
                x=[at[i][0] for i in agents], y=[at[i][1] for i in agents], name=name,
                mode="markers+text" if few else "markers", showlegend=bool(lying), cliponaxis=False,
                marker={"color": [colours[i] for i in agents], "symbol": symbol, "line": line, "opacity": 1,
                        "size": [sizes[i] for i in agents]},
                text=[str(i) for i in agents], hovertext=[_agent(world, i, lying) for i in agents],
                textfont={"color": ["white" if shade[i] >= DARK else "#111" for i in agents], "size": 12},
                hovertemplate="%{hovertext}<extra></extra>",
            )  # fmt: skip
    if slowness:
        _bar(fig, world, slowness)


def _agent(world: WorldValues, agent: int, lying: dict[int, str]) -> str:
    said = [f"agent {agent}"]
    said += [f"a gradient takes {world.computing[agent]:.4g}"] if world.computing else []
    said += [f"sending a model takes {world.sending[agent]:.4g}"] if world.sending else []
    return "<br>".join([*said, *([lying[agent]] if agent in lying else [])])


def _scaled(values: Sequence[float]) -> list[float]:
    """From 0 to 1, in the logarithm."""
    logs = np.log(np.maximum(values, 1e-9))
    return [float(v) for v in (logs - logs.min()) / (logs.max() - logs.min())]


def _bar(fig: go.Figure, world: WorldValues, values: Sequence[float]) -> None:
    """What a colour says, by an agent that is nowhere."""
    ticks = sorted({*values})
    if len(ticks) > 4:
        ticks = [ticks[0], math.sqrt(max(ticks[0], 1e-9) * ticks[-1]), ticks[-1]]
    low, high = (math.log(max(value, 1e-9)) for value in (ticks[0], ticks[-1]))
    title = "time of<br>a gradient" if world.computing else "time of<br>sending"
    title = "expected<br>time" if world.computing == world.sending else title
    bar = {
        "title": {"text": title, "font": {"size": 12}}, "thickness": 12, "len": 0.8, "tickmode": "array",
        "tickvals": [math.log(max(value, 1e-9)) for value in ticks],
        "ticktext": [f"{value:.3g}" for value in ticks],
    }  # fmt: skip
    fig.add_scatter(
        x=[None], y=[None], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"color": [low], "cmin": low, "cmax": high, "showscale": True, "colorbar": bar,
                "colorscale": [list(each) for each in SHADES]},
    )  # fmt: skip
