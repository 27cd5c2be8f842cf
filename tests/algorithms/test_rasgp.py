"""What is particular to gradient-push."""

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from runs import LOCKSTEP, models, quadratic, started
from under_way import Nothing, array, pushed_mass

from offbeat import Crash, Vector, World
from offbeat.engines.sim.simulator import Simulator
from offbeat.world.topology import Topology, build

WORLD = World(seed=7, slow_compute={1: 2.0}, slow_communication={2: 3.0}, loss=0.3)
ONE_WAY = build(nx.cycle_graph(6, create_using=nx.DiGraph), 6)
graphs = pytest.mark.parametrize("graph", ["ring", "star", ONE_WAY], ids=["ring", "star", "one-way"])


def numerators(sim: Simulator) -> np.ndarray:
    """The sum of x, at agents and on links: the other half of the mass."""
    live: list[Any] = [sim.agents[i] for i in sorted(sim.alive)]
    mass: np.ndarray = sum((array(agent.x) for agent in live), np.zeros(3))
    for taker in live:
        for j, used in taker.used.items():
            mass = mass + array(sim.agents[j].phi) - array(used.x)
    return mass


@graphs
@pytest.mark.parametrize("returns", [True, False])
def test_mass_changes_with_who_is_lost_or_returns_and_with_nothing_else(
    graph: str | Topology, returns: bool
) -> None:
    world = replace(WORLD, crashes=(Crash(0, 14.5, 26.5 if returns else None),))
    sim = started("rasgp", quadratic(6, noise=0.5), world, graph, lr=0.02)
    mass = []
    for time in (3, 8, 14, 15, 20, 26, 36, 39, 42):
        sim.run(time)
        mass.append(float(pushed_mass(sim)[0]))
    assert mass[:3] == pytest.approx([6.0] * 3, abs=1e-12)
    assert 0 < mass[3] < 6
    assert mass[3:6] == pytest.approx([mass[3]] * 3, abs=1e-12)
    # by then all books with who returned are open
    assert mass[6:] == pytest.approx([mass[3] + returns] * 3, abs=1e-12)
    assert all(agent.y > 0 for agent in sim.agents)  # type: ignore[attr-defined]


@graphs
def test_without_gradients_all_agree_on_the_mean(graph: str | Topology) -> None:
    """On directed graphs too: it is the mean that they keep, and not what the weights make of it."""
    sim = started("rasgp", quadratic(6), WORLD, graph, rule=Nothing, check=False)
    rng = np.random.default_rng(0)
    begun = rng.normal(size=(6, 3))
    for agent, x in zip(sim.agents, begun, strict=True):
        agent.x = Vector((torch.from_numpy(x),))
    assert numerators(sim) == pytest.approx(begun.sum(0))
    sim.run(700)
    assert numerators(sim) == pytest.approx(begun.sum(0), abs=1e-11)
    assert models(sim) == pytest.approx(np.tile(begun.mean(0), (6, 1)), abs=0.05)


def test_slow_agents_make_up_for_the_slots_of_the_fastest() -> None:
    sim = started("rasgp", world=World(seed=3, slow_compute={4: 10.0}, loss=0.3), lr=0.01, check=False)
    sim.run(150)
    slots = [agent.round for agent in sim.agents]
    assert sim.steps[4] < 0.15 * max(sim.steps)
    assert max(slots) - min(slots) <= 15, "up to what is under way"
    assert max(slots) < 1.15 * max(sim.steps)


def test_in_lockstep_it_is_push_sum_with_one_step_a_slot() -> None:
    """x, y <- A (x - lr g, y), z = x / y is what equal slots make of it; messages are one slot late."""
    task, graph = quadratic(5), build("ring", 5)
    sim = started("rasgp", task, LOCKSTEP, graph, lr=0.05)
    x, y, z = np.zeros((5, 3)), np.ones((5, 1)), np.zeros((5, 3))
    late_x, late_y = np.zeros((5, 3)), np.zeros((5, 1))
    to = np.roll(np.eye(5), 1, 0) + np.roll(np.eye(5), -1, 0)
    for slot in range(1, 12):
        x = (x - 0.05 * task.h[:, None] * (z - task.b)) / 3
        y = y / 3
        sent_x, sent_y = to @ x, to @ y
        x, y, late_x, late_y = x + late_x, y + late_y, sent_x, sent_y
        z = x / y
        sim.run(slot + 0.5)
        assert models(sim) == pytest.approx(z, abs=1e-12)
