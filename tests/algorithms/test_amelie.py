"""What is particular to steps of as many gradients as all can make, along a spanning tree."""

from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import pytest
from runs import quadratic, started, vector

from offbeat import World
from offbeat.algorithms import Amelie
from offbeat.world.topology import build


@pytest.mark.parametrize("graph", ["ring", "star", "grid", "chain", "complete"])
def test_the_tree_spans_the_graph_with_the_fewest_hops(graph: str) -> None:
    topology = build(graph, 9)
    views = topology.views()
    root = views[0].server
    hops = nx.single_source_shortest_path_length(topology.graph, root)
    assert [i for i, view in enumerate(views) if view.parent is None] == [root]
    for i, view in enumerate(views):
        assert all(views[j].parent == i and j in view.peers for j in view.children)
        assert view.parent is None or hops[view.parent] == hops[i] - 1
    assert sum(len(view.children) for view in views) == 8


@pytest.mark.parametrize("graph", ["ring", "star", "grid"])
def test_it_is_gradient_descent_whatever_the_delays(graph: str) -> None:
    task = quadratic(4)
    sim = started("amelie:batch=2", task, World(seed=3, slow_compute={1: 5.0}), graph, lr=0.2)
    sim.run(150)
    x, steps = task.initial()[0].numpy(), sim.agents[0].round
    for _ in range(steps):
        x = x - 0.2 * (task.h[:, None] * (x - task.b)).mean(0)
    assert steps > 5
    assert vector(sim, 0, "point") == pytest.approx(x, abs=1e-12)


@dataclass
class Noted(Amelie):
    """Notes how many gradients went into each sum."""

    noted: list[tuple[int, int]] = field(init=False, default_factory=list)

    def move(self, k: int, x):  # type: ignore[no-untyped-def]
        self.noted = [*self.noted, (k, self.s)]
        super().move(k, x)


def test_every_step_has_enough_gradients_and_the_fast_give_more() -> None:
    sim = started(Noted(batch=3.0), quadratic(4), World(seed=3, slow_compute={1: 5.0}), "ring", lr=0.02)
    sim.run(300)
    noted = [agent.noted for agent in sim.agents if isinstance(agent, Noted)]
    counts = np.array([[s for _, s in each[:12]] for each in noted])
    assert [[k for k, _ in each[:12]] for each in noted] == [[*range(1, 13)]] * 4
    assert (4 / (1 / counts).sum(0) >= 3.0).all()
    assert counts[1].mean() < 3.0 < counts[[0, 2, 3]].mean()
