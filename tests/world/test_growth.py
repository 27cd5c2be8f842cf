"""How graphs grow: old edges stay, everybody is reached, weights keep their sums, degrees stay level."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from test_topology import fits, strongly_connected

from offbeat.core.errors import SettingError
from offbeat.world.graphs import TOPOLOGIES
from offbeat.world.growth import Growing, Newcomer, stated
from offbeat.world.topology import Topology, build, with_weights
from offbeat.world.weights import WEIGHTS

SYMMETRIC = [name for name in WEIGHTS if name not in ("uniform", "fastest")]


@st.composite
def growing(draw: st.DrawFn) -> Growing:
    n, seed = draw(st.integers(1, 20)), draw(st.integers(0, 5))
    if draw(st.booleans()):
        return Growing(build(strongly_connected(n, seed), n), seed)
    name, weights = draw(st.sampled_from(list(TOPOLOGIES))), draw(st.sampled_from(SYMMETRIC))
    assume(fits(name, n))
    return Growing(build(name, n, seed, weights), seed, weights)


def grown(start: Growing, many: int, gone: int | None = None) -> list[Topology]:
    """One more agent each, to which agent `gone` is no neighbour."""
    start.refuse()
    newcomers: list[Newcomer] = []
    for k in range(many):
        present = [j for j in range(start.first.n + k) if j != gone]
        newcomers.append(start.next(newcomers, present))
    return [start.after(newcomers[:k]) for k in range(many + 1)]


@given(start=growing(), many=st.integers(1, 5))
def test_old_edges_stay_and_weights_keep_their_sums(start: Growing, many: int) -> None:
    for k, (before, after) in enumerate(pairwise(grown(start, many))):
        n, edges = start.first.n + k + 1, {*after.graph.edges()}
        assert (after.n, after.name) == (n, before.name)
        assert {edge for edge in edges if n - 1 not in edge} == {*before.graph.edges()}
        connected = nx.is_strongly_connected if after.graph.is_directed() else nx.is_connected
        assert connected(after.graph)
        w, a = after.dense_w(), after.a.toarray()
        np.testing.assert_allclose(w.sum(1), 1.0, atol=1e-12)
        np.testing.assert_allclose(a.sum(0), 1.0, atol=1e-12)
        assert w.min() >= 0 and w.diagonal().min() > 0
        assert after.symmetric or not start.first.symmetric
        assert (before.sides is None) == (after.sides is None) or n <= 3, "bipartite graphs stay so"


@given(start=growing(), gone=st.integers(0, 19))
def test_who_is_gone_gets_no_new_neighbour(start: Growing, gone: int) -> None:
    assume(start.first.n > 1)
    first, *_, last = grown(start, 3, gone)
    if gone < first.n:
        assert last.peers(gone) == first.peers(gone)


@pytest.mark.parametrize("name", ["complete", "star", "chain", "binary-tree"])
def test_families_that_hold_their_smaller_ones_grow_into_the_larger(name: str) -> None:
    start = Growing(build(name, 4))
    for k, topology in enumerate(grown(start, 6)):
        expected = build(name, 4 + k)
        assert {*topology.graph.edges()} == {*expected.graph.edges()}
        assert abs(topology.w - expected.w).max() == 0


@pytest.mark.parametrize(("name", "n", "degree"), [("ring", 4, 2), ("torus", 9, 4), ("exponential", 16, 7)])
def test_others_get_as_many_neighbours_as_agents_had_and_nobody_becomes_a_hub(
    name: str, n: int, degree: int
) -> None:
    topology = grown(Growing(build(name, n)), n)[-1]
    assert [len(topology.peers(i)) >= degree for i in range(2 * n)] == [True] * 2 * n
    assert max(len(topology.peers(i)) for i in range(2 * n)) <= 2 * degree


def test_a_newcomer_of_a_ring_of_four() -> None:
    start = Growing(build("ring", 4))
    first = start.next([], range(4))
    assert first == Newcomer((0, 2), (0, 2)) and first.neighbours == (0, 2)
    w = start.after([first]).dense_w()
    assert w[4].tolist() == pytest.approx([1 / 4, 0, 1 / 4, 0, 1 / 2])
    assert w[0].tolist() == pytest.approx([1 / 4, 1 / 4, 0, 1 / 4, 1 / 4])
    assert Newcomer.of(first.record(), 4) == first
    assert stated([3, 0, 3], range(4)) == Newcomer((0, 3), (0, 3))


def test_what_cannot_grow_is_refused() -> None:
    w = np.full((3, 3), 0.25) + 0.25 * np.eye(3)
    with pytest.raises(SettingError, match=r"'mine'.*weights of its own"):
        Growing(with_weights(nx.complete_graph(3), w, name="mine")).refuse()
    with pytest.raises(SettingError, match="changes from round to round"):
        Growing(build("one-peer-exponential", 4)).refuse()
    with pytest.raises(SettingError, match="Agent 7 is not in the run; expected neighbours among 0, 2"):
        stated([7], (2, 0))
    with pytest.raises(SettingError, match="one neighbour at least"):
        stated([], (0, 1))
    for wrong in (None, [[0]], [[0], [4]], [[0], ["1"]], [[], [1]], [[True], [1]]):
        with pytest.raises(ValueError, match="agent 4 joined"):
            Newcomer.of(wrong, 4)
