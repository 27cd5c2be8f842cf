"""Graphs that change from round to round: their matrices, what agents see of them, where they are refused."""

from functools import reduce

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import offbeat
from offbeat.algorithms import ALGORITHMS
from offbeat.algorithms.row import CHANGING as TAKEN_BY
from offbeat.core.errors import SettingError
from offbeat.core.rounds import Rounds
from offbeat.theory import limit
from offbeat.world.changing import CHANGING, Graphs, Matchings
from offbeat.world.finite_time import base
from offbeat.world.topology import Topology, build

EXACT = 1e-14


def rounds_of(name: str, n: int, seed: int = 0) -> tuple[Topology, Graphs]:
    t = build(name, n, seed)
    assert t.rounds is not None
    return t, t.rounds


def product(rounds: Graphs, count: int) -> np.ndarray:
    return reduce(lambda all, k: rounds.matrix(k) @ all, range(count), np.eye(rounds.n))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_one_period_of_base_averages_exactly_and_nobody_has_more_than_k_neighbours(k: int) -> None:
    for n in range(1, 41):
        _, rounds = rounds_of(f"base:{k}", n)
        assert rounds.period == len(base(n, k)) and rounds.symmetric
        matrices = [rounds.matrix(m) for m in range(rounds.period)]
        for w in matrices:
            assert np.abs(w.sum(1) - 1).max() < EXACT and np.array_equal(w, w.T)
            assert w.min() >= 0 and w.diagonal().min() > 0
            assert np.count_nonzero(w, axis=1).max() <= k + 1
        assert np.abs(product(rounds, rounds.period) - 1 / n).max() < EXACT
        assert rounds.left()[0] == 0


def test_base_has_the_rounds_of_its_closed_forms() -> None:
    """Products of factors up to k + 1: as many as there are; 6 = 2 * 3 by Base-2: three for 3, one for 2."""
    assert [len(base(n, 1)) for n in (2, 3, 4, 5, 6, 8, 16, 32)] == [1, 3, 2, 5, 4, 3, 4, 5]
    assert [len(base(n, n - 1)) for n in (2, 5, 11)] == [1, 1, 1]
    assert base(2, 1) == [{(0, 1): 0.5}]


def test_one_peer_exponential_hears_hops_of_two_to_the_k() -> None:
    for n in range(2, 20):
        t, rounds = rounds_of("one-peer-exponential", n)
        period = rounds.period or 0
        assert period == int(np.ceil(np.log2(n))) and t.degree == 1
        for k in range(2 * period):
            w = rounds.matrix(k)
            assert all(w[i, (i + 2 ** (k % period)) % n] == w[i, i] == 0.5 for i in range(n))
            assert np.abs(w.sum(0) - 1).max() < EXACT
        exact = np.abs(product(rounds, period) - 1 / n).max() < EXACT
        assert exact == (n & (n - 1) == 0) == (rounds.left()[0] == 0)


def test_matchings_pair_all_and_are_drawn_by_round_and_seed() -> None:
    for n in (1, 2, 7, 8):
        t, rounds = rounds_of("matchings", n)
        drawn = [rounds.matrix(k) for k in range(4000 if n == 7 else 50)]
        for w in drawn:
            assert np.array_equal(w, w.T) and np.allclose(w @ w, w)
            assert np.count_nonzero(w - np.diag(w.diagonal())) == n - n % 2
        assert t.degree == pytest.approx((n - n % 2) / n)
        if n == 7:
            assert np.mean(drawn, axis=0) == pytest.approx(rounds.mean().toarray(), abs=0.03)
            assert rounds.left()[0] == pytest.approx(np.linalg.eigvalsh(rounds.mean().toarray())[-2])
    one, other = Matchings(8, 0), Matchings(8, 1)
    assert any(not np.array_equal(one.matrix(k), other.matrix(k)) for k in range(3))
    assert np.array_equal(one.matrix(5), build("matchings", 8).rounds.matrix(5))  # type: ignore[union-attr]


@given(
    st.sampled_from(["one-peer-exponential", "base", "base:3", "matchings"]), st.integers(1, 14), st.data()
)
def test_what_agents_see_is_the_matrix_with_the_lost_on_the_diagonal(
    name: str, n: int, data: st.DataObject
) -> None:
    t, rounds = rounds_of(name, n)
    alive = data.draw(st.sets(st.integers(0, n - 1)))
    k = data.draw(st.integers(0, 30))
    w = rounds.matrix(k)
    for i in range(n):
        living = sorted(alive | {i})
        here = t.view(i, alive).at(k)
        assert here.w.keys() == {j for j in living if w[i, j] > 0}
        assert here.a.keys() == {j for j in living if w[j, i] > 0}
        assert sum(here.w.values()) == pytest.approx(1) and sum(here.a.values()) == pytest.approx(1)
        assert all(here.w[j] == w[i, j] and i != j for j in here.w if j != i)
        assert here.listeners == tuple(j for j in living if j != i and w[j, i] > 0)
        assert {*here.listeners, *here.w} - {i} <= {*t.view(i, alive).peers}


def test_a_graph_that_stands_still_is_the_same_in_every_round() -> None:
    view = build("ring", 4).views()[0]
    assert view.at(0) is view.at(7) is view


def test_who_takes_graphs_that_change_is_said_and_the_others_refuse() -> None:
    takes = [name for name, row in ALGORITHMS.items() if row.prototype.changing_graph]
    by_rounds = [name for name in takes if isinstance(ALGORITHMS[name].prototype, Rounds)]
    assert sorted(by_rounds) == sorted(TAKEN_BY.split(", "))
    assert {name for name in takes if name not in by_rounds} == {
        name for name, row in ALGORITHMS.items() if row.prototype.beyond_graph
    }
    changing = build("base", 6)
    for name, row in ALGORITHMS.items():
        if name in takes:
            row.check(changing)
        else:
            with pytest.raises(SettingError, match=f"{name} is defined on a graph that stands still"):
                row.check(changing)


def test_what_means_nothing_on_a_graph_that_changes_is_refused() -> None:
    for name, said in [
        ("base:0", "largest degree"),
        ("matchings:2", "nothing; use 'matchings'"),
        ("bas", "Did you mean 'base'"),
    ]:
        with pytest.raises(SettingError, match=said):
            build(name, 6)
    with pytest.raises(SettingError, match="has weights of its own"):
        build("base", 6, weights="lazy")
    with pytest.raises(SettingError, match="no one spectrum"):
        _ = build("base", 6).spectral_gap
    with pytest.raises(SettingError, match="No limit is known on 'base'"):
        limit("dsgd", offbeat.Quadratic(np.zeros((6, 1)), np.ones(6)), build("base", 6), 0.1)
    assert [*CHANGING] == ["one-peer-exponential", "base", "matchings"]
    assert all(nx.is_connected(build(name, 9).graph.to_undirected()) for name in CHANGING)
