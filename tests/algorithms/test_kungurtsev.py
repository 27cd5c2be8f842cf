"""What is particular to gradient tracking with one running sum."""

import numpy as np
import pytest
from runs import models, quadratic, started
from under_way import tracked_mass

from offbeat import Crash, Delay, World
from offbeat.theory import limit

AT_ONCE = World(seed=3, communication=Delay("constant", 0.0), slow_compute={1: 3.0})


def test_with_equal_weights_it_is_rfast() -> None:
    """On a ring with three weights of 1/3, where messages take no time: they are fewer here."""
    one, other = (started(name, quadratic(6, noise=0.3), AT_ONCE, "ring") for name in ("kungurtsev", "rfast"))
    for sim in (one, other):
        sim.run(60)
    assert models(one) == pytest.approx(models(other), abs=1e-12)
    assert np.abs(models(one)).max() > 0.1, "they have moved"


def test_on_a_directed_graph_it_ends_at_the_optimum() -> None:
    task = quadratic(8)
    sim = started("kungurtsev", task, World(seed=3, loss=0.2), "exponential", lr=0.7, check=False)
    sim.run(1500)
    assert models(sim) == pytest.approx(limit("kungurtsev", task, sim.topology, 0.7), abs=1e-3)


def test_without_who_is_lost_what_is_tracked_is_the_sum_of_the_others_gradients() -> None:
    world = World(seed=3, loss=0.3, crashes=(Crash(2, 10.3), Crash(5, 20.1)))
    sim = started("kungurtsev", quadratic(noise=0.5), world, lr=0.02)
    for time in range(1, 60, 4):
        sim.run(time)
        left, right = tracked_mass(sim)
        assert left == pytest.approx(right, abs=1e-11)
