"""What is particular to pairwise averaging with a continuous momentum."""

from typing import Any

import numpy as np
import pytest
from runs import models, quadratic, started
from under_way import Applied, array, displaced

from offbeat import SettingError, World
from offbeat.world.topology import build

WORLD = World(seed=3, slow_compute={1: 5.0}, slow_communication={2: 5.0})


@pytest.mark.parametrize("alpha", ["", "+alpha=0.7"])
def test_without_flow_it_is_adpsgd(alpha: str) -> None:
    one, other = (
        started(name, quadratic(6, noise=0.5), WORLD) for name in (f"a2cid2:eta=0{alpha}", "adpsgd")
    )
    for sim in (one, other):
        sim.run(60)
    assert one.recorder.trace().digest() == other.recorder.trace().digest()
    assert np.array_equal(models(one), models(other))


def test_the_sum_of_both_models_is_kept_with_displacements_in_flight() -> None:
    """sum_i (x_i + xt_i) - (1 + 2 alpha) displacements in flight = -2 times all that was applied."""
    Applied.total = np.zeros(3)
    sim = started("a2cid2", quadratic(6, noise=0.5), WORLD, "ring", rule=Applied)
    agents: list[Any] = sim.agents
    _, alpha = agents[0].rates(agents[0].view)
    apart = 0.0
    for time in range(2, 60, 4):
        sim.run(time)
        both = sum(array(agent.x) + array(agent.tilde) for agent in agents)
        assert both - (1 + 2 * alpha) * displaced(sim) == pytest.approx(-2 * Applied.total, abs=1e-12)
        apart = max(apart, *(float(abs(array(a.x) - array(a.tilde)).max()) for a in agents))
    assert apart > 0.1, "the two are two"


def test_chi_of_a_ring_and_of_a_complete_graph() -> None:
    """Ring: rates 1, lambda_2 = 2 - 2 cos(2 pi / n), resistance (n - 1) / n. Complete: rates 2 / (n - 1)."""
    assert build("ring", 16).chi == pytest.approx((1 / (2 - 2 * np.cos(np.pi / 8)), 15 / 32))
    assert build("complete", 9).chi == pytest.approx((8 / 18, 8 / 18))


def test_on_a_large_graph_both_numbers_are_asked_for() -> None:
    with pytest.raises(SettingError, match="expected both numbers"):
        started("a2cid2:eta=0.1", quadratic(501), topology="ring")
