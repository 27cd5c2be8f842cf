"""Who talks to whom, and with which weights: graphs from networkx, mixing matrices as sparse arrays.

Agents are numbered 0..n-1. A graph whose nodes are the numbers 0..n-1 keeps them; any other is
numbered in the order of its nodes. Self-loops are dropped (every agent mixes its own model in any
case), parallel edges count once, and edge attributes are ignored. In a directed graph the edge
j -> i says that i receives from j.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

import networkx as nx
import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from offbeat.agent import View
from offbeat.errors import SettingError, unknown

DENSE = 500
"""Up to this many agents the eigenvalues come from a dense solver."""

TRIES = 100
"""How many random graphs are drawn in search of a connected one."""


@dataclass(frozen=True, eq=False)
class Topology:
    """A connected graph with its mixing matrices; `build` and `with_weights` make one.

    name:  what it is called in reports
    graph: a frozen `networkx.Graph` or `DiGraph` on the nodes 0..n-1
    w:     W, a `scipy.sparse.csr_array` [n, n] of float64 whose rows sum to 1; w_ij is the weight that
           agent i gives to j's model
    a:     A, likewise, but its columns sum to 1; a_ij is the share of j's mass that goes to i
    """

    name: str
    graph: nx.Graph
    w: sparse.csr_array = field(repr=False)
    a: sparse.csr_array = field(repr=False)

    @property
    def n(self) -> int:
        """How many agents there are."""
        return int(self.w.shape[0])

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
        listeners = tuple(j for j in _row(self._w_columns, i) if j != i and j in living)
        side = None if self.sides is None else self.sides[i]
        return View(_folded(self.w, i, living), _folded(self._a_columns, i, living), listeners, side)

    @cached_property
    def _w_columns(self) -> sparse.csr_array:
        return _sorted(self.w.T)

    @cached_property
    def _a_columns(self) -> sparse.csr_array:
        return _sorted(self.a.T)

    @cached_property
    def sides(self) -> tuple[int, ...] | None:
        """The two-colouring with agent 0 in colour 0; None on an odd cycle or a directed graph."""
        if self.graph.is_directed() or not nx.is_bipartite(self.graph):
            return None
        colour = nx.bipartite.color(self.graph)
        return tuple(int(colour[i] != colour[0]) for i in range(self.n))

    @cached_property
    def centre(self) -> int:
        """The agent of smallest eccentricity, directions ignored; the lowest if there are several.

        O(n edges) unless the graph is a tree: seconds for thousands of agents.
        """
        return int(min(nx.center(self.graph.to_undirected())))

    @cached_property
    def symmetric(self) -> bool:
        """Whether W = W^T within 1e-12."""
        return bool(abs(self.w - self.w.T).max() <= 1e-12)

    @cached_property
    def spectral_gap(self) -> float:
        """1 - max(|lambda_2|, |lambda_n|) of W; if W is not symmetric, 1 - its second largest modulus.

        A single agent has gap 1. A W of more than 500 agents that is not symmetric and mixes very slowly
        takes O(n^3); any other takes seconds at most for 10,000 agents.
        """
        return 1.0 - _second_modulus(self.w, self.symmetric)

    def positions(self) -> dict[int, tuple[float, float]]:
        """Agent -> (x, y) for drawing, the same every time.

        The node attribute "pos" if every node has one (most named topologies and the geometric graphs
        of networkx do), a spring layout otherwise.
        """
        at = nx.get_node_attributes(self.graph, "pos")
        if len(at) != self.n or any(np.shape(p) != (2,) for p in at.values()):
            at = nx.spring_layout(self.graph, seed=0)
        return {i: (float(at[i][0]), float(at[i][1])) for i in range(self.n)}


# -- the named topologies --------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A row of `TOPOLOGIES`.

    graph:     n, seed, what follows the colon or "" -> the graph
    about:     one line
    takes:     which n fit
    parameter: what may follow a colon; "" if nothing may
    """

    graph: Callable[[int, int, str], nx.Graph]
    about: str
    takes: str = "any n"
    parameter: str = ""


def _placed(graph: nx.Graph, place: Callable[[int], tuple[float, float]]) -> nx.Graph:
    """Say where the k-th node is drawn."""
    nx.set_node_attributes(graph, {node: place(k) for k, node in enumerate(graph)}, "pos")
    return graph


def _circle(graph: nx.Graph, hub: int = 0) -> nx.Graph:
    """On a circle, clockwise from the top, around the first `hub` nodes."""
    turn = math.tau / max(len(graph) - hub, 1)
    return _placed(graph, lambda k: (math.sin(turn * k), math.cos(turn * k)) if k >= hub else (0.0, 0.0))


def _binary_tree(n: int) -> nx.Graph:
    """Layer by layer; the leaves of a full tree are one apart and a parent is midway above its children."""

    def place(k: int) -> tuple[float, float]:
        depth = (k + 1).bit_length() - 1
        return (k + 1.5 - 2**depth) * 2.0 ** (n.bit_length() - 1 - depth), float(-depth)

    return _placed(nx.full_rary_tree(2, n), place)


def _lattice(n: int, shape: str, wrap: bool) -> nx.Graph:
    """A grid, or a torus if `wrap`, numbered row by row; without a shape the most square one."""
    what, least = ("torus", 3) if wrap else ("grid", 2)

    def rows_of(m: int) -> int:
        return next(r for r in range(math.isqrt(m), 0, -1) if m % r == 0)

    def fits(m: int) -> bool:
        return rows_of(m) >= least or (m <= 3 and not wrap)

    if shape:
        match = re.fullmatch(r"(\d+)x(\d+)", shape)
        rows, columns = (int(match[1]), int(match[2])) if match else (0, 0)
        if rows * columns != n or (wrap and min(rows, columns) < least):
            thin = ", both 3 or more" if wrap else ""
            raise SettingError(f"'{what}:{shape}' on {n} agents: expected {_SHAPE}, with product {n}{thin}.")
    elif fits(n):
        rows, columns = rows_of(n), n // rows_of(n)
    else:
        near = [*[m for m in range(n) if m and fits(m)][-1:], next(m for m in count(n + 1) if fits(m))]
        raise SettingError(
            f"{n} agents make no {what}: it needs {least} or more rows and as many columns. The nearest "
            f"numbers that fit: {' and '.join(map(str, near))}. A 'chain' or a 'ring' takes any number."
        )
    graph = nx.grid_2d_graph(rows, columns, periodic=wrap)
    return _placed(graph, lambda k: (float(k % columns), float(-(k // columns))))


def _draw(what: str, seed: int, draw: Callable[[random.Random], nx.Graph]) -> nx.Graph:
    """The first connected graph of one stream of draws."""
    rng = random.Random(seed)
    for _ in range(TRIES):
        graph = draw(rng)
        if nx.is_connected(graph):
            return graph
    raise SettingError(f"None of {TRIES} draws of {what} was connected. Raise the number after the colon.")


def _random_regular(n: int, seed: int, degree: str) -> nx.Graph:
    """Every agent has d neighbours. Dense graphs are drawn as complements of sparse ones, which is fast."""
    d = int(degree or 3) if re.fullmatch(r"\d*", degree) else 0
    what = f"'random-regular:{degree or d}' on {n} agents"
    if not 1 <= d < n:
        raise SettingError(f"{what}: expected a degree from 1 to {n - 1}; with few agents, use 'complete'.")
    if n * d % 2:
        raise SettingError(
            f"{what}: the number of agents times the degree must be even, for every edge has two ends. "
            f"Use {n - 1} or {n + 1} agents, or degree {d + 1}."
        )
    if d <= n // 2:
        return _draw(what, seed, lambda rng: nx.random_regular_graph(d, n, seed=rng))
    return _draw(what, seed, lambda rng: nx.complement(nx.random_regular_graph(n - 1 - d, n, seed=rng)))


def _erdos_renyi(n: int, seed: int, probability: str) -> nx.Graph:
    """Every pair is an edge with probability p."""
    what = f"'erdos-renyi:{probability}' on {n} agents"
    try:
        p = float(probability) if probability else min(1.0, 2 * math.log(n) / n)
    except ValueError:
        p = math.nan
    if probability and not 0 < p <= 1:
        raise SettingError(f"{what}: expected a probability above 0 and up to 1.")
    return _draw(what, seed, lambda rng: nx.fast_gnp_random_graph(n, p, seed=rng))


def _exponential(n: int) -> nx.Graph:
    """Hops 1, 2, 4, ... < n, both ways."""
    return _circle(nx.circulant_graph(n, [2**k for k in range((n - 1).bit_length())]))


_SHAPE = "rows x columns, as in 3x4"

TOPOLOGIES: dict[str, Family] = {
    "ring": Family(lambda n, *_: _circle(nx.cycle_graph(n)), "a cycle"),
    "grid": Family(
        lambda n, _, shape: _lattice(n, shape, wrap=False),
        "the most square grid, numbered row by row",
        "n that is not a prime above 3",
        _SHAPE,
    ),
    "torus": Family(
        lambda n, _, shape: _lattice(n, shape, wrap=True),
        "a grid whose opposite borders are joined",
        "n = rows x columns, both 3 or more",
        _SHAPE,
    ),
    "complete": Family(lambda n, *_: _circle(nx.complete_graph(n)), "everybody talks to everybody"),
    "star": Family(lambda n, *_: _circle(nx.star_graph(n - 1), hub=1), "agent 0 talks to everybody"),
    "exponential": Family(
        lambda n, *_: _exponential(n),
        "hops of 1, 2, 4, ... both ways: the static exponential graph of arXiv:2110.13363, undirected",
    ),
    "random-regular": Family(
        _random_regular, "a random graph with d = 3 neighbours each", "n > d with n d even", "the degree d"
    ),
    "erdos-renyi": Family(
        _erdos_renyi,
        "each pair an edge with probability p = min(1, 2 ln n / n)",
        parameter="the probability p, as in 0.4",
    ),
    "chain": Family(lambda n, *_: _placed(nx.path_graph(n), lambda k: (float(k), 0.0)), "a line"),
    "binary-tree": Family(lambda n, *_: _binary_tree(n), "i talks to 2i + 1, 2i + 2 and its parent"),
}
"""Name -> family, in the order in which they are listed."""


def build(name_or_graph: str | nx.Graph | nx.DiGraph | Topology, n: int, seed: int = 0) -> Topology:
    """The topology of n agents with the default weights.

    name_or_graph: a name of `TOPOLOGIES`, some with a parameter after a colon ("random-regular:4",
    "erdos-renyi:0.4", "grid:2x6", "torus:3x4"); or any connected networkx graph (strongly connected if it
    is directed); or a `Topology`, which is returned as it is.

    Undirected: `metropolis` weights, and A = W. Directed: w_ij = 1 / (1 + indegree of i) and
    a_ij = 1 / (1 + outdegree of j), for every edge j -> i and for i = j.

    Random graphs are drawn, from one stream seeded with `seed`, until one is connected.

    Raises `SettingError` for an unknown name, for a parameter or an n that does not fit, for a graph
    of another size, and for a graph that is not connected.
    """
    if n < 1:
        raise SettingError(f"{n} agents were asked for; expected 1 or more.")
    if isinstance(name_or_graph, str):
        name, graph = name_or_graph, _named(name_or_graph, n, seed)
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
        return name_or_graph
    graph = _numbered(graph)
    edges = _receives(graph)
    return Topology(name, graph, *(_uniform(edges) if graph.is_directed() else (_metropolis(edges),) * 2))


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
    graph = _numbered(graph)
    edges = _receives(graph)
    row_stochastic = _checked("W", w, edges)
    if a is not None:
        return Topology(name, graph, row_stochastic, _checked("A", a, edges))
    a = _uniform(edges)[1] if graph.is_directed() else _sorted(row_stochastic.T)
    return Topology(name, graph, row_stochastic, a)


def metropolis(graph: nx.Graph) -> sparse.csr_array:
    """Metropolis weights of a connected undirected graph: W [n, n], symmetric, rows and columns sum to 1.

        w_ij = 1 / (1 + max(d_i, d_j)) for every edge,     w_ii = 1 - sum_{j != i} w_ij

    d_i is the number of i's neighbours. Raises `SettingError` if the graph is directed or not connected.
    """
    if graph.is_directed():
        raise SettingError("Metropolis weights need an undirected graph; got a directed one. Use `build`.")
    return _metropolis(_receives(_numbered(graph)))


# -- graphs and matrices ---------------------------------------------------------------------------


def _named(text: str, n: int, seed: int) -> nx.Graph:
    """The graph of a name with or without a parameter."""
    name, colon, parameter = text.partition(":")
    if name not in TOPOLOGIES:
        raise unknown("topology", name, TOPOLOGIES)
    family = TOPOLOGIES[name]
    if colon and not (parameter and family.parameter):
        expected = family.parameter or f"nothing; use '{name}'"
        raise SettingError(f"'{text}' has a colon; expected behind it: {expected}.")
    return family.graph(n, seed, parameter)


def _numbered(graph: nx.Graph) -> nx.Graph:
    """A frozen copy on 0..n-1, edges sorted, without loops and attributes other than "pos"; connected."""
    n, directed = len(graph), graph.is_directed()
    if n == 0:
        raise SettingError("The graph has no nodes; expected one for each agent.")
    nodes = list(range(n)) if all(i in graph for i in range(n)) else list(graph)
    index = {node: i for i, node in enumerate(nodes)}
    pairs = [(index[u], index[v]) for u, v in graph.edges() if u != v]
    edges = sorted(pairs if directed else [(min(pair), max(pair)) for pair in pairs])
    numbered = nx.DiGraph() if directed else nx.Graph()
    for i, node in enumerate(nodes):
        pos = graph.nodes[node].get("pos")
        numbered.add_node(i, **({} if pos is None else {"pos": pos}))
    numbered.add_edges_from(edges)
    parts = list((nx.strongly_connected_components if directed else nx.connected_components)(numbered))
    if len(parts) > 1:
        first = next(part for part in parts if 0 in part)
        i = next(i for i in range(n) if i not in first)
        raise SettingError(
            f"The graph is not {'strongly ' * directed}connected: it has {len(parts)} components, and agent "
            f"{i} (node {nodes[i]!r}) is not in that of agent 0. Everybody must be able to reach everybody."
        )
    return nx.freeze(numbered)


def _sorted(matrix: Any) -> sparse.csr_array:
    """A copy as CSR, without stored zeros, columns rising within each row."""
    m = sparse.csr_array(matrix, dtype=np.float64, copy=True)
    m.sum_duplicates()
    m.eliminate_zeros()
    return m


def _receives(graph: nx.Graph) -> sparse.csr_array:
    """[n, n], entry ij is 1 where i receives from j."""
    return _sorted(nx.to_scipy_sparse_array(graph, weight=None, dtype=np.float64).T)


def _metropolis(edges: sparse.csr_array) -> sparse.csr_array:
    n = edges.shape[0]
    i, j = _coordinates(edges)
    d = np.bincount(i, minlength=n)
    w = 1.0 / (1.0 + np.maximum(d[i], d[j]))
    own = 1.0 - np.bincount(i, weights=w, minlength=n)
    return _sorted(sparse.csr_array((w, (i, j)), shape=(n, n)) + sparse.diags_array(own))


def _uniform(edges: sparse.csr_array) -> tuple[sparse.csr_array, sparse.csr_array]:
    """W and A of a directed graph: one value in each row of W and in each column of A."""
    m = edges + sparse.diags_array(np.ones(edges.shape[0]))
    inward, outward = (sparse.diags_array(1.0 / m.sum(axis=axis)) for axis in (1, 0))
    return _sorted(inward @ m), _sorted(m @ outward)


def _checked(what: str, matrix: Any, edges: sparse.csr_array) -> sparse.csr_array:
    """The user's W or A, if it is one."""
    n = edges.shape[0]
    given = matrix if sparse.issparse(matrix) else np.asarray(matrix)
    if given.shape != (n, n) or given.dtype.kind not in "biuf":
        raise SettingError(f"{what} is {given.dtype} of shape {given.shape}; expected numbers [{n}, {n}].")
    m = _sorted(given)
    (i, j), (to, source) = _coordinates(m), _coordinates(edges)
    for wrong, why in [
        (~np.isfinite(m.data), "a finite number"),
        (m.data < 0, "0 or more"),
        ((i != j) & ~np.isin(i * n + j, to * n + source), "0, for the graph has no edge from {j} to {i}"),
    ]:
        if wrong.any():
            k = int(np.argmax(wrong))
            why = why.format(i=i[k], j=j[k])
            raise SettingError(f"Row {i[k]} of {what} has {m.data[k]:g} in column {j[k]}; expected {why}.")
    empty = np.flatnonzero(m.diagonal() <= 0)
    if empty.size:
        raise SettingError(f"Row {empty[0]} of {what} has 0 on the diagonal; expected more than 0.")
    line, axis = ("Row", 1) if what == "W" else ("Column", 0)
    sums = m.sum(axis=axis)
    off = np.flatnonzero(np.abs(sums - 1.0) > 1e-9)
    if off.size:
        raise SettingError(f"{line} {off[0]} of {what} sums to {sums[off[0]]:.12g}; expected 1 within 1e-9.")
    return m


def _coordinates(m: sparse.csr_array) -> tuple[Any, Any]:
    """The rows and the columns of the entries, row by row."""
    entries = m.tocoo()
    return entries.row.astype(np.int64), entries.col.astype(np.int64)


def _row(m: sparse.csr_array, i: int) -> dict[int, float]:
    cut = slice(m.indptr[i], m.indptr[i + 1])
    return dict(zip(m.indices[cut].tolist(), m.data[cut].tolist(), strict=True))


def _folded(m: sparse.csr_array, i: int, living: Set[int]) -> dict[int, float]:
    """Row i with the weight of the lost on the diagonal; exactly 1 for whoever is left alone."""
    row = _row(m, i)
    kept = {j: x for j, x in row.items() if j == i or j in living}
    lost = [x for j, x in row.items() if j not in kept]
    if lost:
        kept[i] = math.fsum([row[i], *lost]) if len(kept) > 1 else 1.0
    return kept


def _second_modulus(w: sparse.csr_array, symmetric: bool) -> float:
    """The second largest modulus of the eigenvalues of W; 0 for a single agent.

    A large symmetric W: Lanczos on W - 1 1^T / n, where lambda_1 is gone. It converges slowly where
    mixing is slow; such graphs are long and thin, so that W - sigma I factors cheaply, and the
    eigenvalues next to sigma are found: just above 1, and just below Gershgorin's bound 2 min_i w_ii - 1.
    """
    n = w.shape[0]
    if n <= DENSE:
        dense = w.toarray()
        values = np.linalg.eigvalsh(dense) if symmetric else np.linalg.eigvals(dense)
        return float(np.sort(np.abs(values))[-2]) if n > 1 else 0.0
    options = {"v0": np.random.default_rng(0).standard_normal(n), "return_eigenvectors": False}
    deflated = linalg.LinearOperator((n, n), matvec=lambda v: w @ v - v.mean(), dtype=np.float64)
    try:
        if symmetric:
            return float(abs(linalg.eigsh(deflated, k=1, maxiter=200, **options)[0]))
        return float(min(abs(linalg.eigs(w, k=2, maxiter=1000, **options))))
    except linalg.ArpackNoConvergence:
        if not symmetric:
            return float(np.sort(np.abs(np.linalg.eigvals(w.toarray())))[-2])
    top = linalg.eigsh(w.tocsc(), k=2, sigma=1.0 + 1e-9, **options)
    low = linalg.eigsh(w.tocsc(), k=1, sigma=2.0 * w.diagonal().min() - 1.0 - 1e-6, **options)
    return float(max(min(top), -low[0]))
