"""Who talks to whom, and with which weights: graphs from networkx, mixing matrices as sparse arrays.

Agents are numbered 0..n-1. A graph whose nodes are these numbers keeps them; any other is numbered in the
order of its nodes. Self-loops are dropped (every agent mixes its own model in any case), parallel edges count
once, and edge attributes are ignored. In a directed graph the edge j -> i says that i receives from j.
"""

from collections.abc import Collection, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from offbeat.core.agent import View
from offbeat.core.errors import SettingError
from offbeat.core.system.named import Own
from offbeat.world import graph_files, graphs
from offbeat.world.changing import Graphs, changing, folded, union
from offbeat.world.graphs import TOPOLOGIES, named
from offbeat.world.spectra import second_modulus
from offbeat.world.weights import matrix, rule

MOST_AGENTS = 1_000_000  # more of them are refused before anything is built


@dataclass(frozen=True, eq=False)
class Topology:
    """A connected graph with its mixing matrices; `build` and `with_weights` make one.

    Attributes:
        name: what it is called in reports
        graph: a frozen `networkx.Graph` or `DiGraph` on the nodes 0..n-1
        w: W, a `scipy.sparse.csr_array` [n, n] of float64 whose rows sum to 1; w_ij is the weight that agent
            i gives to j's model
        a: A, likewise, but its columns sum to 1; a_ij is the share of j's mass that goes to i
        rounds: W_0, W_1, ..., where it changes from round to round; the graph is their union then, w and a
            are the mean, which nobody mixes with
    """

    name: str
    graph: nx.Graph
    w: sparse.csr_array = field(repr=False)
    a: sparse.csr_array = field(repr=False)
    rounds: Graphs | None = field(repr=False, default=None)

    @property
    def n(self) -> int:
        """How many agents there are."""
        return int(self.w.shape[0])

    @property
    def degree(self) -> float:
        """To how many others an agent sends, on average; of a graph that changes, in a round."""
        if self.rounds is not None:
            return self.rounds.degree()
        return (int(self.w.nnz) - self.n) / self.n  # no entry of W is a stored zero, and none on the diagonal

    @property
    def links(self) -> list[tuple[int, int]]:
        """(sender, receiver) of every link; of an edge without direction there are two. O(edges)."""
        edges = [*self.graph.edges()]
        return sorted(edges if self.graph.is_directed() else [*edges, *((j, i) for i, j in edges)])

    def dense_w(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """W as a dense array [n, n], for tests and theory: 8 n^2 bytes."""
        return np.asarray(self.w.toarray())

    def peers(self, i: int) -> list[int]:
        """The agents that share an edge with i, in either direction, by rising index."""
        return sorted(dict.fromkeys(nx.all_neighbors(self.graph, i)))

    def views(self) -> list[View]:
        """The `View` of every agent while all live. O(edges)."""
        everybody = frozenset(range(self.n))
        return [self.view(i, everybody) for i in range(self.n)]

    def view(self, i: int, alive: Collection[int]) -> View:
        """The `View` of agent i when only the agents in `alive` live; i itself always counts as alive.

            w_ii <- w_ii + sum_{j lost} w_ij,     a_ii <- a_ii + sum_{j lost} a_ji

        so that row i of W and column i of A still sum to 1. Sets are used as they are, never iterated over.
        """
        living = alive if isinstance(alive, Set) else frozenset(alive)
        if self.rounds is not None:
            peers, alone = tuple(j for j in self.peers(i) if j in living), {i: 1.0}
            return View(alone, alone, (), None, peers, self.hub or 0, changing=self.rounds.seen_by(i, living))
        w_columns, a_columns = self._columns
        listeners = tuple(j for j in _row(w_columns, i) if j != i and j in living)
        side = None if self.sides is None else self.sides[i]
        peers = tuple(j for j in self.peers(i) if j in living)
        w, a = folded(i, _row(self.w, i), living), folded(i, _row(a_columns, i), living)
        return View(w, a, listeners, side, peers, self.hub or 0, self.chi, *self.tree[i])

    @cached_property
    def _columns(self) -> tuple[sparse.csr_array, sparse.csr_array]:
        return _sorted(self.w.T), _sorted(self.a.T)

    @cached_property
    def sides(self) -> tuple[int, ...] | None:
        """The two-colouring with agent 0 in colour 0; None on an odd cycle or a directed graph."""
        if self.graph.is_directed() or not nx.is_bipartite(self.graph):
            return None
        colour = nx.bipartite.color(self.graph)
        return tuple(int(colour[i] != colour[0]) for i in range(self.n))

    @cached_property
    def centre(self) -> int:
        """The agent of smallest eccentricity, directions ignored; the lowest of several. O(n edges)."""
        return int(min(nx.center(self.graph.to_undirected())))

    @cached_property
    def chi(self) -> tuple[float, float] | None:
        """1 / lambda_2 and half the largest resistance of an edge, of the Laplacian of pairs that average.

        Edge (i, j) has the rate 1 / d_i + 1 / d_j: each agent asks a random neighbour once in a unit of time.
        A single agent has (1, 1). None for a directed graph, and for more than 100 agents: O(n^3).
        """
        if self.graph.is_directed() or self.n > 100 or self.rounds is not None:
            return None
        edges, laplacian = (
            np.array([*self.graph.edges()], dtype=int).reshape(-1, 2),
            np.zeros((self.n, self.n)),
        )
        if not len(edges):
            return 1.0, 1.0
        i, j = edges.T
        degree = np.bincount(edges.ravel(), minlength=self.n)
        laplacian[i, j] = laplacian[j, i] = -(1 / degree[i] + 1 / degree[j])
        np.fill_diagonal(laplacian, -laplacian.sum(1))
        values, vectors = np.linalg.eigh(laplacian)
        resistances = ((vectors[i, 1:] - vectors[j, 1:]) ** 2 / values[1:]).sum(1)
        return 1 / float(values[1]), float(resistances.max()) / 2

    @cached_property
    def hub(self) -> int | None:
        """The one agent that is the neighbour of all others; of two agents the first. O(n)."""
        degree = (
            self.graph.degree()
        )  # of a directed graph in either direction, so a neighbour may count twice
        hubs = [i for i, d in degree if d >= self.n - 1 and len(self.peers(i)) == self.n - 1]
        return min(hubs) if len(hubs) == 1 or self.n <= 2 else None

    @cached_property
    def tree(self) -> list[tuple[int | None, tuple[int, ...]]]:
        """Who is above and below each agent in a spanning tree of fewest hops from the hub, or from agent 0
        where there is none. O(edges).
        """
        _, above = csgraph.breadth_first_order(self.w, self.hub or 0, directed=False)
        below: list[list[int]] = [[] for _ in range(self.n)]
        for i, parent in enumerate(above.tolist()):
            if parent >= 0:
                below[parent].append(i)
        return [
            (parent if parent >= 0 else None, tuple(children))
            for parent, children in zip(above.tolist(), below, strict=True)
        ]

    @cached_property
    def symmetric(self) -> bool:
        """Whether W = W^T within 1e-12."""
        return bool(abs(self.w - self.w.T).max() <= 1e-12)

    @cached_property
    def spectral_gap(self) -> float:
        """1 - max(|lambda_2|, |lambda_n|) of W; if W is not symmetric, 1 - its second largest modulus.

        A single agent has gap 1. A W of more than 500 agents that is not symmetric and mixes very slowly
        takes O(n^3); any other takes seconds at most for 10,000 agents. Raises SettingError if W changes.
        """
        if self.rounds is not None:
            raise SettingError(f"'{self.name}' changes from round to round, and has no one spectrum.")
        return 1.0 - second_modulus(self.w, self.symmetric)

    def positions(self) -> dict[int, tuple[float, float]]:
        """Agent -> (x, y) for drawing, the same every time.

        The node attribute "pos" if every node has one, as in most named topologies; else a spring layout.
        """
        at = nx.get_node_attributes(self.graph, "pos")
        if len(at) != self.n or any(np.shape(p) != (2,) for p in at.values()):
            at = nx.spring_layout(self.graph, seed=0)
        return {i: (float(at[i][0]), float(at[i][1])) for i in range(self.n)}


def size_of(name: str, seed: int = 0) -> int | None:
    """How many agents a graph has by its name ("torus:4x4") or file; None if it takes as many as it gets."""
    return graphs.size(name) if graph_files.file_of(name) is None else graph_files.size(name, seed)


def build(
    name_or_graph: str | nx.Graph | nx.DiGraph | Topology, n: int, seed: int = 0, weights: str | None = None
) -> Topology:
    """The topology of n agents; weights: a name of `offbeat.world.weights`, None: the default.

    Of a name of `TOPOLOGIES`, some with a parameter after a colon ("random-regular:4", "grid:2x6"); or of
    `CHANGING`: a graph that changes from round to round; or of any connected networkx graph, strongly if it
    is directed; or a `Topology`, which is returned as it is; or of a file (`offbeat.world.graph_files`).

    Undirected: Metropolis weights, if no others are named, d_i the number of i's neighbours, and A = W^T:

        w_ij = 1 / (1 + max(d_i, d_j)) for every edge,     w_ii = 1 - sum_{j != i} w_ij

    Directed: w_ij = 1 / (1 + indegree of i) and a_ij = 1 / (1 + outdegree of j), for every edge j -> i and
    for i = j. Random graphs are drawn, from one stream seeded with `seed`, until one is connected.

    Raises `SettingError` for an unknown name, a parameter, an n or a graph that does not fit, and for
    `weights` of a directed graph, or of one that has its own.
    """
    if not 1 <= n <= MOST_AGENTS:
        raise SettingError(f"{n} agents were asked for; expected 1 to {MOST_AGENTS:,}.")
    if isinstance(name_or_graph, str) and graph_files.file_of(name_or_graph) is not None:
        return _of_file(name_or_graph, n, seed, weights)
    if isinstance(name_or_graph, str):
        if (rounds := changing(name_or_graph, n, seed)) is not None:
            _refuse_others(name_or_graph, weights)
            w = rounds.mean()
            return Topology(name_or_graph, nx.freeze(union(rounds)), w, w, rounds)
        if name_or_graph.partition(":")[0] not in TOPOLOGIES:
            graph_files.refuse_ending(name_or_graph)
        name, graph = name_or_graph, named(name_or_graph, n, seed)
    elif isinstance(name_or_graph, Topology):
        name, graph = name_or_graph.name, name_or_graph.graph
    elif isinstance(name_or_graph, nx.Graph):
        name, graph = str(name_or_graph.name or "custom"), name_or_graph
    else:
        got = type(name_or_graph).__name__
        raise SettingError(f"The topology is a {got}; expected a name, a networkx graph or a Topology.")
    if len(graph) != n:
        raise SettingError(f"The graph '{name}' has {len(graph)} nodes; expected {n}, one for each agent.")
    if isinstance(name_or_graph, Topology):
        _refuse_others(name, weights)
        return name_or_graph
    graph, edges = _numbered(graph)
    if graph.is_directed():
        rule(weights, True, name)
        return Topology(name, graph, *_uniform(edges))
    w = _sorted(matrix(weights, edges, name))
    return Topology(name, graph, w, w if abs(w - w.T).max() == 0 else _sorted(w.T))


def _of_file(text: str, n: int, seed: int, weights: str | None) -> Topology:
    """The topology in a file, or that the user's own code gives, under the name that it was asked for by."""
    if (code := Own.parse(text)) is not None:
        return replace(build(graph_files.drawn(code, n, seed), n, seed, weights), name=text)
    graph, w = graph_files.read(text)
    if w is None:
        return replace(build(graph, n, seed, weights), name=text)
    _refuse_others(text, weights)
    return replace(with_weights(graph, w), name=text)


def _refuse_others(name: str, weights: str | None) -> None:
    if weights is not None:
        raise SettingError(f"'{name}' has weights of its own; got the weights '{weights}'. Leave them out.")


def with_weights(graph: nx.Graph | nx.DiGraph, w: Any, a: Any = None, name: str = "") -> Topology:
    """A topology with your own matrices, dense or sparse [n, n], in the numbering of the agents.

    w_ij is the weight that i gives to j's model: rows sum to 1. a_ij is the share of j's mass that goes
    to i: columns sum to 1. Both within 1e-9. Off the diagonal an entry ij needs the edge j -> i; an
    edge may have weight 0. The default A is W^T for an undirected graph, whether W is symmetric or
    not, and 1 / (1 + outdegree) for a directed one. The default name is the graph's.

    Raises `SettingError` naming the first offending entry, row or column: wrong shape, not finite,
    negative, no such edge, a diagonal that is not positive, a wrong sum; or a graph that is not connected.
    """
    name = name or str(graph.name or "custom")
    graph, edges = _numbered(graph)
    row_stochastic = _checked("W", w, edges)
    if a is not None:
        return Topology(name, graph, row_stochastic, _checked("A", a, edges))
    a = _uniform(edges)[1] if graph.is_directed() else _sorted(row_stochastic.T)
    return Topology(name, graph, row_stochastic, a)


def _numbered(graph: nx.Graph) -> tuple[nx.Graph, sparse.csr_array]:
    """A frozen copy on 0..n-1, edges sorted, without loops and attributes other than "pos"; connected. And
    [n, n], of which an entry ij is 1 where i receives from j.
    """
    n, directed = len(graph), graph.is_directed()
    if n == 0:
        raise SettingError("The graph has no nodes; expected one for each agent.")
    nodes = list(range(n)) if all(i in graph for i in range(n)) else list(graph)
    index = {node: i for i, node in enumerate(nodes)}
    pairs = [(index[u], index[v]) for u, v in graph.edges() if u != v]
    numbered = nx.DiGraph() if directed else nx.Graph()
    numbered.add_nodes_from(range(n))
    numbered.add_edges_from(sorted(pairs if directed else [(min(pair), max(pair)) for pair in pairs]))
    at = {i: pos for i, node in enumerate(nodes) if (pos := graph.nodes[node].get("pos")) is not None}
    nx.set_node_attributes(numbered, at, "pos")
    parts = list((nx.strongly_connected_components if directed else nx.connected_components)(numbered))
    if len(parts) > 1:
        (first,) = (part for part in parts if 0 in part)
        i = min(set(range(n)) - first)
        raise SettingError(
            f"The graph is not {'strongly ' * directed}connected: it has {len(parts)} components, and agent "
            f"{i} (node {nodes[i]!r}) is not in that of agent 0. Everybody must be able to reach everybody."
        )
    return nx.freeze(numbered), _sorted(nx.to_scipy_sparse_array(numbered, weight=None, dtype=np.float64).T)


def _sorted(matrix: Any) -> sparse.csr_array:
    """A copy as CSR, without stored zeros, columns rising within each row."""
    m = sparse.csr_array(matrix, dtype=np.float64, copy=True)
    m.sum_duplicates()
    m.eliminate_zeros()
    return m


def _uniform(edges: sparse.csr_array) -> tuple[sparse.csr_array, sparse.csr_array]:
    """W and A of a directed graph: one value in each row of W and in each column of A."""
    m = edges + sparse.diags_array(np.ones(edges.shape[0]))
    inward, outward = (sparse.diags_array(1.0 / m.sum(axis=axis)) for axis in (1, 0))
    return _sorted(inward @ m), _sorted(m @ outward)


def _checked(what: str, matrix: Any, edges: sparse.csr_array) -> sparse.csr_array:
    n = edges.shape[0]
    given = matrix if sparse.issparse(matrix) else np.asarray(matrix)
    if given.shape != (n, n) or given.dtype.kind not in "biuf":
        raise SettingError(f"{what} is {given.dtype} of shape {given.shape}; expected numbers [{n}, {n}].")
    m = _sorted(given)
    i, j, to, source = (k.astype(np.int64) for k in (*m.nonzero(), *edges.nonzero()))
    for wrong, why in [
        (~np.isfinite(m.data), "a finite number"),
        (m.data < 0, "0 or more"),
        ((i != j) & ~np.isin(i * n + j, to * n + source), "0, for the graph has no edge from {j} to {i}"),
    ]:
        if wrong.any():
            k = int(np.argmax(wrong))
            why = why.format(i=i[k], j=j[k])
            raise SettingError(f"Row {i[k]} of {what} has {m.data[k]:g} in column {j[k]}; expected {why}.")
    if (empty := np.flatnonzero(m.diagonal() <= 0)).size:
        raise SettingError(f"Row {empty[0]} of {what} has 0 on the diagonal; expected more than 0.")
    line, axis = ("Row", 1) if what == "W" else ("Column", 0)
    sums = m.sum(axis=axis)
    if (off := np.flatnonzero(np.abs(sums - 1.0) > 1e-9)).size:
        raise SettingError(f"{line} {off[0]} of {what} sums to {sums[off[0]]:.12g}; expected 1 within 1e-9.")
    return m


def _row(m: sparse.csr_array, i: int) -> dict[int, float]:
    cut = slice(m.indptr[i], m.indptr[i + 1])
    return dict(zip(m.indices[cut].tolist(), m.data[cut].tolist(), strict=True))
