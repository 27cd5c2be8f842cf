"""How a graph grows while a run goes on: a newcomer joins it, and every edge that was there stays.

Whom a newcomer is joined to, if nobody says it (the rule is ours):

1. If the named graph of one agent more, of the same seed, has all the edges that are there, those that it has
   besides. So a complete graph stays complete, a star a star around agent 0, a chain is longer by one at its
   end, a binary tree gets its next leaf.
2. Else, as a ring of n is no part of a ring of n + 1: as many neighbours as agents had on average when the
   run began, rounded, one at least. Those who have fewest now, the lowest numbers of several; of a bipartite
   graph all on one side, so that it stays bipartite. That is what ring, grid, torus, exponential,
   random-regular, erdos-renyi, and graphs of files and of one's own code do.

In a directed graph the second rule is asked twice: whom the newcomer hears are those with fewest listeners,
who hears it are those who hear fewest. A connected graph stays connected, strongly if it is directed. Who has
left, or was left out, gets no new neighbour.

Weights are made anew by the rule that the run has (`offbeat.world.weights`): the old edges are the same,
their weights are not. A graph with weights of its own, or that changes from round to round, has no such rule.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import networkx as nx

from offbeat.core.errors import SettingError
from offbeat.world.graph_files import file_of
from offbeat.world.graphs import TOPOLOGIES, named
from offbeat.world.topology import Topology, build


@dataclass(frozen=True)
class Newcomer:
    """Whom an agent that joins a graph hears, and who hears it: by rising numbers, the same if undirected."""

    hears: tuple[int, ...]
    heard_by: tuple[int, ...]

    @property
    def neighbours(self) -> tuple[int, ...]:
        return tuple(sorted({*self.hears, *self.heard_by}))

    def record(self) -> list[list[int]]:
        return [[*self.hears], [*self.heard_by]]

    @staticmethod
    def of(record: object, number: int) -> "Newcomer":
        """What `record` gave, of the agent of this number. Raises ValueError for anything else."""
        match record:
            case [[*hears], [*heard_by]] if hears and heard_by:
                both = [[j for j in some if type(j) is int and 0 <= j < number] for some in (hears, heard_by)]
                if both == [hears, heard_by]:
                    return Newcomer(*(tuple(sorted({*some})) for some in both))
        raise ValueError(f"agent {number} joined as {record!r:.60}")


@dataclass(frozen=True, eq=False)
class Growing:
    """A topology, and what it becomes.

    Attributes:
        first: that of the agents with which the run began
        seed, weights: by which it was built
    """

    first: Topology
    seed: int = 0
    weights: str | None = None
    made: dict[tuple[Newcomer, ...], Topology] = field(default_factory=dict, repr=False)

    def refuse(self) -> None:
        """Raise SettingError if nobody can join."""
        name = self.first.name
        if self.first.rounds is not None:
            why = "changes from round to round, in an order that all have agreed on"
        elif not self._by_rule:
            why = "has weights of its own, and none for anybody else"
        else:
            return
        raise SettingError(f"Nobody can join '{name}': it {why}. Expected another graph (--topology).")

    @property
    def _by_rule(self) -> bool:
        """Whether its weights follow from its edges."""
        again = build(self.first.graph, self.first.n, self.seed, self.weights)
        return bool(abs(again.w - self.first.w).max() == 0)

    def after(self, newcomers: Sequence[Newcomer]) -> Topology:
        """The topology once these have joined, one after another."""
        key = tuple(newcomers)
        if key not in self.made:
            graph = (nx.DiGraph if self.first.graph.is_directed() else nx.Graph)(self.first.graph)
            for i, each in enumerate(key, start=self.first.n):
                graph.add_edges_from([(j, i) for j in each.hears] + [(i, j) for j in each.heard_by])
            grown = build(graph, self.first.n + len(key), self.seed, self.weights) if key else self.first
            self.made[key] = replace(grown, name=self.first.name)
        return self.made[key]

    def next(self, newcomers: Sequence[Newcomer], present: Collection[int]) -> Newcomer:
        """Whom the next one is joined to, by the rules above; `present`: who may get a neighbour."""
        topology, name = self.after(newcomers), self.first.name
        graph, many = topology.graph, max(1, round(self.first.degree))
        if name.partition(":")[0] in TOPOLOGIES and file_of(name) is None:
            new = _in_the_family(name, self.seed, graph)
            if new and {*new} <= {*present}:
                return Newcomer(new, new)
        if graph.is_directed():
            hears = _fewest(many, present, dict(graph.out_degree()))
            return Newcomer(hears, _fewest(many, present, dict(graph.in_degree())))
        degree, sides = dict(graph.degree()), topology.sides
        if sides is not None:
            (least,) = _fewest(1, present, degree)
            present = [j for j in present if sides[j] == sides[least]]
        new = _fewest(many, present, degree)
        return Newcomer(new, new)


def _in_the_family(name: str, seed: int, graph: nx.Graph) -> tuple[int, ...]:
    """The last agent's neighbours in the named graph of one more, if all else in it is this graph."""
    n = len(graph)
    try:
        larger = nx.convert_node_labels_to_integers(named(name, n + 1, seed))
    except SettingError:
        return ()
    new = tuple(sorted(j for j in larger[n] if j != n))
    larger.remove_node(n)
    same = {frozenset(edge) for edge in larger.edges()} == {frozenset(edge) for edge in graph.edges()}
    return new if same else ()


def _fewest(many: int, present: Collection[int], degree: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(sorted(sorted(present, key=lambda j: (degree[j], j))[:many]))


def stated(neighbours: Iterable[int], present: Collection[int]) -> Newcomer:
    """A newcomer that hears these, and is heard by them. Raises SettingError for who is not there."""
    wanted = tuple(sorted({*neighbours}))
    if wrong := [j for j in wanted if j not in present]:
        there = ", ".join(map(str, sorted(present)))
        raise SettingError(f"Agent {wrong[0]} is not in the run; expected neighbours among {there}.")
    if not wanted:
        raise SettingError("A newcomer has one neighbour at least; got none.")
    return Newcomer(wanted, wanted)
