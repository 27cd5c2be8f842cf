"""Weights by name: their closed forms, and where they are refused."""

import math
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import offbeat
from offbeat.core.errors import SettingError
from offbeat.engines.live.settings import RunSettings, ScriptProgram
from offbeat.world.graphs import TOPOLOGIES
from offbeat.world.topology import build
from offbeat.world.weights import MOST, OWN, WEIGHTS

SYMMETRIC = [name for name in WEIGHTS if name not in ("uniform", "fastest")]


def test_weights_on_a_star_are_the_formulas() -> None:
    first = {"metropolis": 1 / 4, "lazy": 1 / 6, "max-degree": 1 / 4, "uniform": 1 / 4}
    assert {name: build("star", 4, weights=name).w[0, 1] for name in first} == first
    assert build("star", 4, weights="uniform").w[1, 0] == 1 / 2
    assert build("chain", 4, weights="metropolis").w[0, 1] == build("chain", 4).w[0, 1] == 1 / 3
    assert build("chain", 4, weights="max-degree").w[0, 0] == pytest.approx(2 / 3)


@pytest.mark.parametrize("topology", [name for name in TOPOLOGIES if name not in ("torus", "random-regular")])
def test_rows_sum_to_one_and_the_transpose_is_what_shares_go_by(topology: str) -> None:
    for n in (1, 2, 10):
        for name in (*SYMMETRIC, "uniform"):
            t = build(topology, n, seed=2, weights=name)
            w = t.dense_w()
            assert np.abs(w.sum(1) - 1).max() < 1e-12 and w.diagonal().min() > 0
            assert np.array_equal(t.a.toarray(), w.T)
            assert t.symmetric or name == "uniform"
            assert name != "lazy" or np.linalg.eigvalsh(w)[0] > -1e-12


def test_the_fastest_have_the_known_spectra() -> None:
    pytest.importorskip("mixingmatrix")
    chain, star, ring = (build(name, 8, weights="fastest") for name in ("chain", "star", "ring"))
    keeps = 1 - OWN  # in the middle of a chain, and at a hub, the fastest keep nothing
    assert chain.spectral_gap == pytest.approx(keeps * (1 - math.cos(math.pi / 8)), abs=1e-5)
    assert star.spectral_gap == pytest.approx(keeps / 7, abs=1e-5)
    low, high = 1 - math.cos(math.tau / 8), 2.0
    assert ring.spectral_gap == pytest.approx(2 * low / (low + high), abs=1e-5)
    assert build("complete", 8, weights="fastest").spectral_gap == pytest.approx(1, abs=1e-5)
    # of the 3x3 grid: the same program solved by an interior-point method, 0.69255122
    assert build("grid", 9, weights="fastest").spectral_gap == pytest.approx(1 - 0.69255122, abs=1e-5)
    for t in (chain, star, ring):
        assert t.symmetric and t.w.diagonal().min() >= OWN - 1e-4
        assert t.spectral_gap > build(t.name, 8).spectral_gap


def test_weights_are_refused_where_they_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("g.csv").write_text("from,to,weight\n0,1,0.25\n")
    one_way = nx.DiGraph([(0, 1), (1, 2), (2, 0)])
    assert build(one_way, 3, weights="uniform").w[1, 0] == 1 / 2
    for graph, n, name, said in [
        ("g.csv", 2, "lazy", "'g.csv' has weights of its own; got the weights 'lazy'"),
        (build("ring", 3), 3, "lazy", "'ring' has weights of its own"),
        (one_way, 3, "lazy", "is directed, and 'lazy' weights are of undirected graphs"),
        ("ring", 3, "lasy", "lazy"),
        ("ring", MOST + 1, "fastest", f"up to {MOST} agents"),
    ]:
        with pytest.raises(SettingError, match=said):
            build(graph, n, weights=name)
    with pytest.raises(SettingError, match="adsgd needs symmetric weights"):
        offbeat.simulate("adsgd", task="quadratic", agents=4, topology="star", weights="uniform", until=2)


def test_weights_reach_the_run_its_record_and_the_graph_that_is_built_from_it() -> None:
    def run(weights: str | None) -> offbeat.Run:
        return offbeat.simulate(
            "dsgd", task="quadratic", agents=6, topology="chain", weights=weights, until=5
        )

    usual, lazy = run(None), run("lazy")
    assert usual.digest != lazy.digest and usual.digest == run("metropolis").digest
    assert ("weights", "lazy") in lazy.settings.words() and lazy.record()["settings"]["weights"] == "lazy"
    assert lazy.topology.w[1, 2] == 1 / 4


def test_a_live_run_says_its_weights() -> None:
    for weights in (None, "lazy"):
        settings = RunSettings(agents=2, folder=Path(), program=ScriptProgram("ring", ("a.py",), weights))
        assert RunSettings.of(settings.record(), "run.json").program == settings.program
