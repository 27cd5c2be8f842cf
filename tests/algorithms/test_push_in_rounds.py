"""What is particular to stochastic gradient push, with and without overlap."""

from dataclasses import replace
from typing import Any, cast

import networkx as nx
import numpy as np
import pytest
import torch
from runs import models, quadratic, started
from under_way import Nothing, shared_weights, shares

from offbeat import Crash, Delay, SettingError, Vector, World
from offbeat.engines.sim.simulator import Simulator
from offbeat.theory import limit
from offbeat.world.topology import Topology, build

LAGGING = World(compute=Delay("constant"), communication=Delay("constant", mean=0.3))
STRAGGLERS = World(seed=3, slow_compute={4: 5.0}, slow_communication={2: 5.0, 4: 5.0})
ONE_WAY = build(nx.DiGraph([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 3), (2, 0)]), 6)
graphs = pytest.mark.parametrize("graph", ["grid", ONE_WAY], ids=["grid", "one-way"])
names = pytest.mark.parametrize("name", ["sgp", "osgp", "osgp:tau=3"])


def spread_out(sim: Simulator) -> None:
    """Different models to begin with: what is held by then is another multiple of the weight."""
    rng = np.random.default_rng(0)
    for actor in sim.actors:
        agent = cast(Any, actor.agent)
        agent.z = actor.model = Vector((torch.from_numpy(rng.normal(size=3)),))
        agent.x = Vector((agent.z.parts[0] * agent.w,))


@graphs
@pytest.mark.parametrize(
    ("name", "world"),
    [("sgp", LAGGING), ("sgp", STRAGGLERS), ("osgp", LAGGING), ("osgp", STRAGGLERS), ("osgp:tau=2", LAGGING)],
)
def test_it_is_its_matrix_recursion(name: str, world: World, graph: str | Topology) -> None:
    """In whatever world, with two gradients an exchange where all messages come during the first of them."""
    task = quadratic(6)
    sim = started(name, task, world, graph, lr=0.05)
    sim.run(150)
    a, x, w, reached = sim.topology.a.toarray(), np.zeros((6, 3)), np.ones((6, 1)), []
    for _ in range(max(agent.round for agent in sim.agents) + 1):
        reached.append(x / w)
        step = 0.05 * task.h[:, None] * (x / w - task.b)
        x, w = (a @ (x - step) if name == "sgp" else a @ x - step), a @ w
        if name == "osgp:tau=2":
            x = x - 0.05 * task.h[:, None] * (x / w - task.b)
    ends = [agent.round for agent in sim.agents]
    wanted = np.array([reached[k][i] for i, k in enumerate(ends)])
    between = [i for i, agent in enumerate(sim.agents) if getattr(agent, "count", 0)]
    settled = [i for i in range(6) if i not in between]
    assert min(ends) > 10 and settled
    assert models(sim)[settled] == pytest.approx(wanted[settled], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("pushing", "mixing"), [("sgp", "dpsgd"), ("osgp", "dsgd")])
def test_with_symmetric_weights_it_is_the_algorithm_that_mixes(pushing: str, mixing: str) -> None:
    sims = [started(name, quadratic(noise=0.5), STRAGGLERS, "ring") for name in (pushing, mixing)]
    for sim in sims:
        sim.run(100)
    assert sims[0].steps == sims[1].steps
    assert models(sims[0]) == pytest.approx(models(sims[1]), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ["sgp", "osgp"])
def test_it_ends_at_its_limit_on_a_directed_graph(name: str) -> None:
    task = quadratic(6)
    sim = started(name, task, World(seed=3, slow_compute={1: 3.0}), ONE_WAY, lr=0.1, check=False)
    sim.run(1000)
    assert np.ptp([agent.w for agent in cast(list[Any], sim.agents)]) > 0.1, "weights differ there"
    assert models(sim) == pytest.approx(limit(name, task, ONE_WAY, 0.1), abs=1e-9)
    with pytest.raises(SettingError, match="No limit is known of osgp:tau=2: expected it without tau"):
        limit("osgp:tau=2", task, ONE_WAY, 0.1)


@graphs
@names
def test_sums_and_weights_are_kept_at_every_instant(name: str, graph: str | Topology) -> None:
    sim = started(name, quadratic(6), replace(STRAGGLERS, slow_compute={4: 3.0}), graph, rule=Nothing)
    spread_out(sim)
    before = sum(x for x, _ in shares(sim))
    for time in np.arange(0.7, 60, 2.3):
        sim.run(float(time))
        assert sum(x for x, _ in shares(sim)) == pytest.approx(before, abs=1e-12)
        assert sum(w for _, w in shares(sim)) == pytest.approx(6.0, abs=1e-12)
        assert all(w > 0 for _, w in shares(sim))


@names
@pytest.mark.parametrize("returns", [False, True])
def test_weights_are_as_many_as_agents_when_one_is_lost_or_returns(name: str, returns: bool) -> None:
    """With symmetric weights: what was given to who is lost is taken back, or had been answered."""
    for at in np.arange(9.25, 13, 0.37):
        crash = Crash(4, float(at), float(at) + 8.0 if returns else None)
        sim = started(name, quadratic(noise=0.5), World(seed=3, crashes=(crash,)), check=False)
        for time in (9, 14, 16, 20, 25, 30, 40):
            sim.run(time)
            left, right = shared_weights(sim)
            assert left == pytest.approx(right, abs=1e-12)


@names
def test_on_directed_graphs_models_stay_means_whoever_is_lost(name: str) -> None:
    """Without gradients all stay within the models of the beginning (and 0, where first shares are from)."""
    for agent in range(6):
        crashes = (Crash(agent, 7.3, 15.1), Crash((agent + 2) % 6, 11.2, 30.2))
        sim = started(
            name, quadratic(6), World(seed=agent, crashes=crashes), ONE_WAY, rule=Nothing, check=False
        )
        spread_out(sim)
        low, high = np.minimum(models(sim).min(0), 0), np.maximum(models(sim).max(0), 0)
        for time in (8, 12, 16, 31, 60):
            sim.run(time)
            before = list(sim.steps)
            assert all(w > 0 for _, w in shares(sim))
            assert (models(sim) >= low - 1e-12).all() and (models(sim) <= high + 1e-12).all()
        sim.run(90)
        assert all(now > then for now, then in zip(sim.steps, before, strict=True)), "nobody stands still"
