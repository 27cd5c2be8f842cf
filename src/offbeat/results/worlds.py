"""The worlds of a comparison: those that look different, in words and in pictures.

Of a world in which all are alike and nothing happens there is the graph alone, and no word: the headline
names the rest, a latency or a loss that is the same for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from offbeat.results.markup import escaped
from offbeat.results.values import ComparisonValues, RunValues, value_text
from offbeat.results.world import WorldValues

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHOWN = 6  # worlds that have a picture


class Seen(NamedTuple):
    """A world as one of its runs has it; `label`: what tells it from the others, if there are others."""

    label: str
    run: RunValues


def seen(comparison: ComparisonValues) -> list[Seen]:
    """The worlds that look different: by what agents and links, by what happens, and by their graphs. Of
    several seeds the first one's.
    """
    alike: dict[Any, list[tuple[dict[str, Any], RunValues]]] = {}
    for world, part in comparison.split().items():
        run = part.runs[0]
        look = run.settings["topology"], run.settings["agents"], repr(run.world)
        alike.setdefault(look, []).append((dict(world), run))
    found = []
    for each in alike.values():
        same = {*each[0][0].items()}.intersection(*(world.items() for world, _ in each))
        named = [f"{name} {value_text(value)}" for name, value in each[0][0].items() if (name, value) in same]
        found.append(Seen(", ".join(named) * (len(alike) > 1), each[0][1]))
    return found


def in_words(comparison: ComparisonValues) -> list[str]:
    """A line for each world that is not plain."""
    seeds = len({run.seed for run in comparison.runs})
    found = [(label, run) for label, run in seen(comparison) if run.world is not None]
    lines = []
    for label, run in found[:SHOWN]:
        where = ", ".join(filter(None, [label, f"seed {run.seed}" * (seeds > 1)]))
        lines.append(f"{where}: {run.world}" if where else f"{run.world}")
    more = len(found) - len(lines)
    return [*lines, *[f"{more} more worlds are not described."] * (more > 0)]


def pictures(comparison: ComparisonValues) -> list[list[tuple[go.Figure, str]]]:
    """Rows of figures, each figure with its caption in HTML."""
    worlds = seen(comparison)
    rows = [row for each in worlds[:SHOWN] if (row := _pictures(each))]
    if len(worlds) > SHOWN and rows:
        figure, caption = rows[-1][-1]
        rows[-1][-1] = figure, f"{caption} {len(worlds) - SHOWN} more worlds are not shown."
    if all(len(row) == 1 for row in rows):
        flat = [each for row in rows for each in row]
        return [flat[at : at + 2] for at in range(0, len(flat), 2)]
    return rows


def _pictures(each: Seen) -> list[tuple[go.Figure, str]]:
    """The graph; the times of agents, where they are too many for numbers; and what happens."""
    from offbeat.results.graph import NUMBERED, graph, has_graph, times
    from offbeat.results.happenings import happenings, not_shown

    run, world, found = each.run, each.run.world or WorldValues(), list[tuple["go.Figure", str]]()
    if has_graph(run):
        found.append((graph(run), _graph(run)))
    if (world.computing or world.sending) and run.settings["agents"] > (NUMBERED if found else 0):
        found.append((times(world), "How long agents are expected to take."))
    if (figure := happenings(run)) is not None:
        more = f" {not_shown(run)} more agents are not shown." if not_shown(run) else ""
        found.append((figure, f"What happens, and when.{more}"))
    label = f"<b>{escaped(each.label)}:</b> " if each.label else ""
    return [(figure, f"{label}{caption}") for figure, caption in found]


def _graph(run: RunValues) -> str:
    """What the graph shows, in HTML."""
    from offbeat.results.graph import edges_shown

    topology, world = run.topology, run.world
    edge = "an edge between those that exchange models"
    if topology.graph.is_directed():
        edge = "an edge from each sender to its receiver"
    if not edges_shown(run):
        edge = f"its {topology.graph.number_of_edges():,} edges are not drawn"
    if topology.rounds is not None:
        edge += "; it changes from round to round, and this is the union"
    said = f"The communication graph, {escaped(topology.name)}, of {topology.n} agents: {edge}."
    if world is None:
        return said
    if world.computing and world.sending and world.computing != world.sending:
        said += " The darker an agent, the longer its gradients take; the larger, the longer it sends."
    elif world.computing or world.sending:
        said += " The darker an agent, the slower it is."
    if "from" in world.links and edges_shown(run):
        name = next(iter(world.by_link))
        name = "share of lost messages" if name == "loss" else name
        said += f" The darker and wider an edge, the larger its {name}."
        if not topology.graph.is_directed():
            said += " Where its directions differ, the half at an agent is that of what the agent sends."
    return said
