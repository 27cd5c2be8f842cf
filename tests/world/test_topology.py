"""Graphs and mixing matrices: closed forms, properties over all topologies, refusals, scale."""

import math
import pickle
import random
import time
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import sparse

from offbeat.core.agent import View
from offbeat.core.errors import SettingError
from offbeat.world import spectra
from offbeat.world.graphs import TOPOLOGIES
from offbeat.world.topology import Topology, build, with_weights


def fits(name: str, n: int) -> bool:
    """What the table says about which n fit, restated."""
    sides = [r for r in range(2, n) if n % r == 0]
    match name:
        case "grid":
            return n <= 3 or bool(sides)
        case "torus":
            return any(r >= 3 and n // r >= 3 for r in sides)
        case "random-regular":
            return n > 3 and n % 2 == 0
        case _:
            return True


def strongly_connected(n: int, seed: int) -> nx.DiGraph:
    """A directed cycle in random order with random chords."""
    rng = random.Random(seed)
    order = rng.sample(range(n), n)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from((order[k - 1], order[k]) for k in range(n) if n > 1)
    graph.add_edges_from((rng.randrange(n), rng.randrange(n)) for _ in range(n))
    return graph


NAMED = st.tuples(st.sampled_from(list(TOPOLOGIES)), st.integers(1, 30), st.integers(0, 5))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    if draw(st.booleans()):
        name, n, seed = draw(NAMED)
        assume(fits(name, n))
        return build(name, n, seed)
    n = draw(st.integers(1, 30))
    return build(strongly_connected(n, draw(st.integers(0, 1000))), n)


def spectrum(t: Topology) -> Any:
    return np.linalg.eigvalsh(t.dense_w())[::-1]


# -- closed forms ----------------------------------------------------------------------------------


def test_metropolis_weights_of_the_3x3_grid() -> None:
    t = build("grid", 9)
    w = t.dense_w()
    assert w.diagonal() == pytest.approx([0.5, 0.3, 0.5, 0.3, 0.2, 0.3, 0.5, 0.3, 0.5])
    assert w[0, 1] == w[3, 6] == 1 / 4
    assert w[1, 4] == w[4, 7] == 1 / 5
    assert np.count_nonzero(w) == 9 + 2 * 12
    expected = [1, 0.767423, 0.767423, 0.5, 0.316228, 0.3, 0.032577, 0.032577, -0.316228]
    assert spectrum(t) == pytest.approx(expected, abs=1e-6)
    assert t.spectral_gap == pytest.approx(1 - 0.767423, abs=1e-6)
    assert t.centre == 4
    assert t.sides == (0, 1, 0, 1, 0, 1, 0, 1, 0)
    assert list(t.view(4, range(9)).w) == [1, 3, 4, 5, 7]
    assert t.positions()[5] == (2.0, -1.0)


@pytest.mark.parametrize(("n", "second"), [(16, 0.949253), (32, 0.987190), (128, 0.999197)])
def test_ring_has_third_weights_and_the_known_second_eigenvalue(n: int, second: float) -> None:
    t = build("ring", n)
    assert t.w.data == pytest.approx(np.full(3 * n, 1 / 3))
    assert spectrum(t)[1] == pytest.approx(second, abs=1e-6)
    assert t.spectral_gap == pytest.approx(1 - second, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "n", "edges"),
    [
        ("ring", 1, []),
        ("ring", 2, [(0, 1)]),
        ("ring", 4, [(0, 1), (0, 3), (1, 2), (2, 3)]),
        ("grid", 6, [(0, 1), (0, 3), (1, 2), (1, 4), (2, 5), (3, 4), (4, 5)]),
        ("grid:3x2", 6, [(0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 5)]),
        ("grid", 3, [(0, 1), (1, 2)]),
        ("grid:1x5", 5, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ("star", 4, [(0, 1), (0, 2), (0, 3)]),
        ("chain", 3, [(0, 1), (1, 2)]),
        ("complete", 3, [(0, 1), (0, 2), (1, 2)]),
        ("binary-tree", 6, [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5)]),
        ("exponential", 4, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
    ],
)
def test_edges(name: str, n: int, edges: list[tuple[int, int]]) -> None:
    t = build(name, n)
    assert sorted(t.graph.edges) == edges
    assert list(t.graph) == list(range(n))
    assert t.name == name


def test_degrees() -> None:
    assert {d for _, d in build("torus", 12).graph.degree} == {4}
    assert {d for _, d in build("torus:3x5", 15).graph.degree} == {4}
    assert {d for _, d in build("exponential", 16).graph.degree} == {7}  # hops 1, 2, 4 both ways, and 8
    for d in (2, 3, 5, 7, 9):
        assert {e for _, e in build(f"random-regular:{d}", 10, seed=3).graph.degree} == {d}
    assert build("erdos-renyi:1", 7).graph.number_of_edges() == 21


def test_single_agent_keeps_its_model() -> None:
    for name in TOPOLOGIES:
        if fits(name, 1):
            t = build(name, 1)
            assert t.views() == [View({0: 1.0}, {0: 1.0}, (), 0)]
            assert (t.spectral_gap, t.centre, len(t.positions())) == (1.0, 0, 1)


def test_gap_of_complete_graph_and_chain() -> None:
    assert build("complete", 8).spectral_gap == pytest.approx(1)
    n = 20
    assert build("chain", n).spectral_gap == pytest.approx(2 / 3 * (1 - math.cos(math.pi / n)))


def test_two_colourings() -> None:
    assert build("ring", 5).sides is None
    assert build("ring", 6).sides == (0, 1, 0, 1, 0, 1)
    assert build("star", 4).sides == (0, 1, 1, 1)
    assert build(nx.DiGraph([(0, 1), (1, 0)]), 2).sides is None
    assert [v.side for v in build("chain", 3).views()] == [0, 1, 0]


def test_centres() -> None:
    assert build("chain", 5).centre == 2
    assert build("chain", 6).centre == 2
    assert build("star", 9).centre == 0
    assert build("ring", 9).centre == 0
    assert build(nx.DiGraph([(1, 0), (2, 1), (0, 2)]), 3).centre == 0


def test_layouts() -> None:
    assert build("chain", 3).positions() == {0: (0, 0), 1: (1, 0), 2: (2, 0)}
    assert build("binary-tree", 6).positions() == {0: (2, 0), 1: (1, -1), 2: (3, -1)} | {
        k: (k - 2.5, -2) for k in (3, 4, 5)
    }
    star = build("star", 5).positions()
    assert star[0] == (0, 0)
    assert [math.hypot(*star[k]) for k in range(1, 5)] == pytest.approx([1] * 4)
    ring = build("ring", 4).positions()
    assert [x for k in range(4) for x in ring[k]] == pytest.approx([0, 1, 1, 0, 0, -1, -1, 0], abs=1e-12)
    geometric = nx.random_geometric_graph(10, 0.9, seed=1)
    assert build(geometric, 10).positions() == {i: tuple(p) for i, p in geometric.nodes(data="pos")}
    karate = build(nx.karate_club_graph(), 34)
    assert karate.positions() == karate.positions()


# -- over all topologies ---------------------------------------------------------------------------


@given(NAMED)
@example(("torus", 8, 0))
def test_every_family_takes_what_it_says(case: tuple[str, int, int]) -> None:
    name, n, seed = case
    if fits(name, n):
        assert build(name, n, seed).n == n
    else:
        with pytest.raises(SettingError, match=str(n)):
            build(name, n, seed)


@given(topologies())
def test_matrices_are_stochastic_on_the_graph(t: Topology) -> None:
    n, w, a = t.n, t.dense_w(), t.a.toarray()
    assert np.allclose(w.sum(axis=1), 1, rtol=0, atol=1e-14)
    assert np.allclose(a.sum(axis=0), 1, rtol=0, atol=1e-14)
    assert w.min() >= 0
    assert a.min() >= 0
    assert w.diagonal().min() > 0
    assert a.diagonal().min() > 0
    linked = np.eye(n, dtype=bool) | np.array([[t.graph.has_edge(j, i) for j in range(n)] for i in range(n)])
    assert np.array_equal(w > 0, linked)
    assert np.array_equal(a > 0, linked)
    if t.graph.is_directed():
        assert nx.is_strongly_connected(t.graph)
        assert np.allclose(w[linked] * linked.sum(axis=1).repeat(linked.sum(axis=1)), 1)
    else:
        assert nx.is_connected(t.graph)
        assert np.array_equal(w, w.T)
        assert t.symmetric
        assert t.a is t.w
    assert t.w.has_canonical_format


@given(topologies(), st.data())
def test_views_agree_with_the_matrices_and_with_each_other(t: Topology, data: st.DataObject) -> None:
    everybody = range(t.n)
    lost = data.draw(st.sets(st.integers(0, t.n - 1), max_size=3), label="lost")
    alive = [i for i in everybody if i not in lost]
    assert t.views() == [t.view(i, everybody) for i in everybody]
    w, a = t.dense_w(), t.a.toarray()
    for present in (list(everybody), alive):
        views = {i: t.view(i, present) for i in present}
        for i, view in views.items():
            assert list(view.w) == [j for j in everybody if w[i, j] > 0 and (j == i or j in present)]
            assert list(view.a) == [j for j in everybody if a[j, i] > 0 and (j == i or j in present)]
            assert sum(view.w.values()) == pytest.approx(1, abs=1e-14)
            assert sum(view.a.values()) == pytest.approx(1, abs=1e-14)
            assert all(type(x) is float and x > 0 for x in (*view.w.values(), *view.a.values()))
            assert all(view.w[j] == w[i, j] for j in view.w if j != i)
            assert all(view.a[j] == a[j, i] for j in view.a if j != i)
            assert view.listeners == tuple(j for j in present if j != i and i in views[j].w)
            assert all(type(j) is int for j in view.listeners)
            assert view.side == (t.sides[i] if t.sides else None)
            assert t.peers(i) == sorted({*t.graph.to_undirected()[i]})


@given(topologies())
def test_whoever_is_left_alone_has_weight_one(t: Topology) -> None:
    for i in range(t.n):
        assert t.view(i, {i}) == View({i: 1.0}, {i: 1.0}, (), t.sides[i] if t.sides else None)
        assert t.view(i, []) == t.view(i, frozenset({i}))


@given(NAMED)
def test_same_seed_same_topology(case: tuple[str, int, int]) -> None:
    name, n, seed = case
    assume(fits(name, n))
    random.seed(seed + n)  # the global streams play no part
    one, two = build(name, n, seed), build(name, n, seed)
    assert list(one.graph.edges) == list(two.graph.edges)
    assert one.views() == two.views()
    assert one.positions() == two.positions()


def test_seeds_differ() -> None:
    for name in ("random-regular", "erdos-renyi"):
        drawn = [tuple(build(name, 20, seed).graph.edges) for seed in range(5)]
        assert len(set(drawn)) == 5


@given(topologies())
def test_spectral_gap_lies_between_0_and_1(t: Topology) -> None:
    moduli = np.sort(np.abs(np.linalg.eigvals(t.dense_w())))
    assert -1e-12 <= t.spectral_gap <= 1 + 1e-12
    assert t.spectral_gap == pytest.approx(1 - (moduli[-2] if t.n > 1 else 0), abs=1e-6)


@given(topologies())
def test_positions_are_finite_and_apart(t: Topology) -> None:
    at = t.positions()
    assert list(at) == list(range(t.n))
    assert all(type(x) is float and math.isfinite(x) for p in at.values() for x in p)
    assert len(set(at.values())) == t.n


def test_topologies_can_be_pickled() -> None:
    t = build("grid", 9)
    assert t.centre == 4  # also with something cached
    back = pickle.loads(pickle.dumps(t))
    assert back.views() == t.views()


# -- the user's own graphs and weights -------------------------------------------------------------


def test_nodes_keep_their_numbers_or_get_one_by_order() -> None:
    assert sorted(build(nx.Graph([(2, 1), (0, 2)]), 3).graph.edges) == [(0, 2), (1, 2)]
    assert sorted(build(nx.Graph([("c", "a"), ("a", "b")]), 3).graph.edges) == [(0, 1), (1, 2)]
    assert sorted(build(nx.Graph([(1, 2), (2, 3)]), 3).graph.edges) == [(0, 1), (1, 2)]


def test_loops_parallel_edges_and_attributes_are_dropped() -> None:
    graph = nx.MultiGraph([(0, 1), (0, 1), (1, 1), (1, 2)])
    graph.add_edge(0, 2, weight=7.0)
    t = build(graph, 3)
    assert t.dense_w() == pytest.approx(np.full((3, 3), 1 / 3))
    assert (t.name, graph.number_of_edges()) == ("custom", 5)
    assert build(nx.path_graph(3), 3).name == "custom"
    assert build(nx.karate_club_graph(), 34).name == "Zachary's Karate Club"


def test_later_changes_of_a_graph_do_not_reach_the_topology() -> None:
    graph = nx.cycle_graph(4)
    t = build(graph, 4)
    graph.add_edge(0, 2)
    assert t.graph.number_of_edges() == 4
    with pytest.raises(nx.NetworkXError, match=r"[Ff]rozen"):
        t.graph.add_edge(0, 2)


def test_a_topology_is_returned_as_it_is() -> None:
    t = build("grid", 9)
    assert build(t, 9) is t
    with pytest.raises(SettingError, match=r"has 9 nodes; expected 8"):
        build(t, 8)


def test_directed_edges_point_to_the_receiver() -> None:
    t = build(nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)]), 3)
    third = 1 / 3
    assert t.dense_w() == pytest.approx(np.array([[0.5, 0, 0.5], [0.5, 0.5, 0], [third, third, third]]))
    assert t.a.toarray() == pytest.approx(np.array([[third, 0, 0.5], [third, 0.5, 0], [third, 0.5, 0.5]]))
    view = t.views()[0]
    assert view.listeners == (1, 2)
    assert list(view.w) == [0, 2]
    assert list(view.a) == [0, 1, 2]
    assert not t.symmetric
    assert t.peers(1) == [0, 2]
    assert t.view(0, {0, 1}) == View({0: 1.0}, {0: third + third, 1: third}, (1,), None, (1,))


def test_own_weights() -> None:
    chain = nx.path_graph(3)
    w = [[0.9, 0.1, 0], [0.3, 0.4, 0.3], [0, 0.5, 0.5]]
    for given_w in (w, np.array(w), sparse.csr_matrix(w), sparse.coo_array(w)):
        t = with_weights(chain, given_w, name="mine")
        assert np.array_equal(t.dense_w(), w)
        assert np.array_equal(t.a.toarray(), np.transpose(w))
        assert all(view.w == view.a for view in t.views())
        assert t.name == "mine"
    assert t.spectral_gap == pytest.approx(1 - np.sort(np.abs(np.linalg.eigvals(w)))[-2])
    a = [[0.5, 0.2, 0], [0.5, 0.6, 0.5], [0, 0.2, 0.5]]
    assert np.array_equal(with_weights(chain, w, a).a.toarray(), a)
    cycle = with_weights(nx.DiGraph([(0, 1), (1, 2), (2, 0)]), [[0.5, 0, 0.5], [0.1, 0.9, 0], [0, 0.5, 0.5]])
    assert cycle.a.toarray() == pytest.approx(np.array([[0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0.5, 0.5]]))
    assert with_weights(build("grid", 4).graph, np.eye(4)).positions() == build("grid", 4).positions()


def test_own_weights_are_copied() -> None:
    w = sparse.csr_array(build("ring", 4).w)
    t = with_weights(nx.cycle_graph(4), w)
    w.data[:] = 0
    assert t.dense_w().sum() == pytest.approx(4)


GOOD = np.array([[0.5, 0.5, 0], [0.25, 0.5, 0.25], [0, 0.5, 0.5]])


def changed(*entries: tuple[int, int, float]) -> Any:
    w = GOOD.copy()
    for i, j, x in entries:
        w[i, j] = x
    return w


@pytest.mark.parametrize(
    ("w", "a", "message"),
    [
        (np.eye(2), None, r"W is float64 of shape \(2, 2\); expected numbers \[3, 3\]"),
        (np.ones(3), None, r"W is float64 of shape \(3,\)"),
        (GOOD * 1j, None, "W is complex128"),
        (changed((1, 2, math.nan)), None, "Row 1 of W has nan in column 2; expected a finite number"),
        (changed((1, 2, math.inf)), None, "Row 1 of W has inf in column 2; expected a finite number"),
        (changed((1, 0, -0.25), (1, 1, 1.0)), None, "Row 1 of W has -0.25 in column 0; expected 0 or more"),
        (changed((0, 0, 0.3), (0, 2, 0.2)), None, "Row 0 of W has 0.2 in column 2; .* no edge from 2 to 0"),
        (changed((2, 1, 1.0), (2, 2, 0.0)), None, "Row 2 of W has 0 on the diagonal"),
        (changed((1, 1, 0.4), (2, 2, 0.4)), None, "Row 1 of W sums to 0.9; expected 1"),
        (changed((2, 2, 0.5 + 2e-9)), None, "Row 2 of W sums to 1.000000002; expected 1"),
        (GOOD, GOOD, "Column 0 of A sums to 0.75; expected 1"),
        (GOOD, np.eye(4), "A is float64 of shape"),
    ],
)
def test_bad_weights_are_refused(w: Any, a: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        with_weights(nx.path_graph(3), w, a)


def test_weights_may_be_off_by_rounding() -> None:
    assert with_weights(nx.path_graph(3), changed((2, 2, 0.5 + 5e-10))).n == 3


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n", "message"),
    [
        ("ringg", 4, "Unknown topology 'ringg'. Did you mean 'ring'"),
        ("ring", 0, "0 agents were asked for; expected 1 to 1,000,000"),
        ("ring:3", 3, "expected behind it: nothing; use 'ring'"),
        ("grid:", 4, "expected behind it: rows x columns"),
        ("grid", 7, "7 agents make no grid: .* 6 and 8"),
        ("grid", 5, "4 and 6"),
        ("torus", 10, "10 agents make no torus: .* 9 and 12"),
        ("torus", 2, r"numbers that fit: 9\."),
        ("torus:2x6", 12, "both 3 or more"),
        ("grid:2x6", 10, "'grid:2x6' on 10 agents: expected rows x columns, as in 3x4, with product 10"),
        ("grid:wide", 10, "'grid:wide' on 10 agents: expected rows x columns"),
        ("random-regular", 3, "'random-regular:3' on 3 agents: expected a degree from 1 to 2"),
        ("random-regular", 9, "must be even.* Use 8 or 10 agents, or degree 4"),
        ("random-regular:0", 4, "expected a degree from 1 to 3"),
        ("random-regular:-1", 4, "expected a degree from 1 to 3"),
        ("random-regular:x", 4, "expected a degree from 1 to 3"),
        ("random-regular:1", 4, "None of 100 draws .* Raise the number"),
        ("erdos-renyi:1.5", 4, "expected a probability above 0 and up to 1"),
        ("erdos-renyi:nan", 4, "expected a probability"),
        ("erdos-renyi:x", 4, "expected a probability"),
        ("erdos-renyi:0.001", 20, "None of 100 draws .* Raise the number"),
        (nx.path_graph(4), 5, "has 4 nodes; expected 5"),
        (nx.Graph([(0, 1), (2, 3)]), 4, r"2 components, and agent 2 \(node 2\) is not in that of agent 0"),
        (nx.Graph([("a", "b"), ("c", "d")]), 4, r"agent 2 \(node 'c'\)"),
        (nx.DiGraph([(0, 1), (1, 2)]), 3, "not strongly connected: it has 3 components, and agent 1"),
        (7, 3, "The topology is a int; expected a name"),
    ],
)
def test_refusals_say_what_to_do(name: Any, n: int, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build(name, n)


def test_graph_without_nodes_is_refused() -> None:
    with pytest.raises(SettingError, match="no nodes"):
        with_weights(nx.Graph(), np.zeros((0, 0)))


# -- scale -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n"), [("ring", 10_000), ("torus", 4096), ("binary-tree", 10_000)])
def test_large_topologies_are_built_within_seconds(name: str, n: int) -> None:
    start = time.process_time()
    t = build(name, n)
    views = t.views()
    assert time.process_time() - start < 3
    assert len(views) == n
    assert "spectral_gap" not in vars(t)
    assert t.w.nnz == n + 2 * t.graph.number_of_edges()


@pytest.mark.parametrize("name", ["ring", "grid", "star", "binary-tree", "random-regular", "erdos-renyi"])
def test_iterative_gap_agrees_with_the_dense_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    t = build(name, 200, seed=1)
    dense = t.spectral_gap
    monkeypatch.setattr(spectra, "DENSE", 10)
    assert build(name, 200, seed=1).spectral_gap == pytest.approx(dense, rel=1e-8)


def test_iterative_gap_of_weights_that_are_not_symmetric(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = strongly_connected(100, seed=0)
    dense = build(graph, 100).spectral_gap
    monkeypatch.setattr(spectra, "DENSE", 10)
    assert build(graph, 100).spectral_gap == pytest.approx(dense, rel=1e-8)


def test_gap_where_lanczos_gives_up() -> None:
    n = 10_000
    assert build("ring", n).spectral_gap == pytest.approx(2 / 3 * (1 - math.cos(math.tau / n)), rel=1e-6)
    assert build("chain", n).spectral_gap == pytest.approx(2 / 3 * (1 - math.cos(math.pi / n)), rel=1e-6)
