"""What is particular to the algorithms that go by rounds, besides what every row is held to."""

import numpy as np
import pytest
from runs import models, quadratic, started

from offbeat import Agent, ContractError, Delay, Quadratic, World
from offbeat.core.rounds import Rounds

LAGGING = World(compute=Delay("constant"), communication=Delay("constant", mean=0.3))
STRAGGLERS = World(seed=3, slow_compute={4: 5.0}, slow_communication={2: 5.0, 4: 5.0})


def gradient(task: Quadratic, x: np.ndarray) -> np.ndarray:
    slopes: np.ndarray = task.h[:, None] * (x - task.b)
    return slopes


@pytest.mark.parametrize("world", [LAGGING, STRAGGLERS])
def test_dpsgd_is_its_matrix_recursion_whatever_the_delays(world: World) -> None:
    task = quadratic()
    sim = started("dpsgd", task, world)
    sim.run(150)
    reached, x, w = [], np.zeros((9, 3)), sim.topology.dense_w()
    for _ in range(max(sim.steps) + 1):
        reached.append(x)
        x = w @ (x - 0.05 * gradient(task, x))
    rounds = [agent.round for agent in sim.agents]
    assert min(rounds) > 5
    assert models(sim) == pytest.approx(np.array([reached[k][i] for i, k in enumerate(rounds)]), rel=1e-12)


def test_rounds_need_to_know_what_to_do() -> None:
    with pytest.raises(ContractError, match="override adapt"):
        started(Rounds, quadratic(4), LAGGING, "ring").run(3)
    assert issubclass(Rounds, Agent)
