"""What must be conserved at every instant, under any delays, losses and crashes."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import models, quadratic, started
from under_way import Applied, Nothing, array, displaced, on_their_way, tracked_mass

from offbeat import Crash, Delay, Quadratic, Vector, World
from offbeat.core.pairs import Ask, Moved
from offbeat.engines.sim.simulator import Simulator

worlds = st.builds(
    World,
    seed=st.integers(0, 10_000),
    slow_compute=st.dictionaries(st.integers(0, 5), st.sampled_from([0.3, 10.0]), max_size=2),
    slow_communication=st.dictionaries(st.integers(0, 5), st.sampled_from([0.1, 10.0]), max_size=2),
    loss=st.sampled_from([0.0, 0.3]),
)
graphs = st.sampled_from(["ring", "grid", "complete", "star", "chain", "binary-tree"])


# -- R-FAST ----------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(worlds, graphs)
def test_rfast_keeps_its_mass_under_loss_and_delay(world: World, graph: str) -> None:
    sim = started("rfast", quadratic(6, noise=0.5), world, graph, lr=0.02)
    for time in range(2, 40, 3):
        sim.run(time)
        mass, gradients = tracked_mass(sim)
        assert mass == pytest.approx(gradients, abs=1e-11)


@settings(max_examples=8)
@given(worlds, st.integers(0, 5), st.booleans())
def test_rfast_keeps_its_mass_among_the_living_when_agents_crash(
    world: World, who: int, returns: bool
) -> None:
    crash = Crash(who, 10.5, 21.5 if returns else None)
    other = Crash((who + 1) % 6, 14.5, None)
    world = World(world.seed, slow_compute=world.slow_compute, loss=world.loss, crashes=(crash, other))
    sim = started("rfast", quadratic(6, noise=0.5), world, "complete", lr=0.02)
    for time in range(2, 40, 3):
        sim.run(time)
        mass, gradients = tracked_mass(sim)
        assert mass == pytest.approx(gradients, abs=1e-11)
    assert len(sim.alive) == (5 if returns else 4)


class Linear(Quadratic):
    """f_i(x) = b_i x: constant gradients."""

    def gradients(self, agents: Any, samples: Any, models: Any) -> Any:
        return (torch.from_numpy(self.b[list(agents)]),)


def test_rfast_effective_step_on_the_grid() -> None:
    """Constant gradients c_i in lockstep: the models drift by -0.23288 lr mean(c) a round.

    lr n sum_i pi_i a_ii pi_i = 0.3778 lr is what moves when neighbours' v are of the same round; they are one
    round old here (everybody reads before anybody is heard), which divides it by 1 + (1 - mean w_ii) =
    1.6222.
    """
    c = np.random.default_rng(1).normal(size=(9, 3))
    world = World(compute=Delay("constant"), communication=Delay("constant", mean=0.0))
    sim = started("rfast", Linear(c, np.ones(9)), world, lr=1e-3, check=False)
    sim.run(100)
    before = models(sim).mean(0)
    sim.run(150)
    drift = (models(sim).mean(0) - before) / 50
    assert drift / (-1e-3 * c.mean(0)) == pytest.approx([0.377778 / 1.622222] * 3, rel=1e-5)


# -- AD-PSGD ---------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(worlds, graphs, st.sampled_from(["adpsgd", "adpsgd:wait"]))
def test_adpsgd_sum_with_displacements_in_flight(world: World, graph: str, algorithm: str) -> None:
    """sum_i x_i - displacements in flight = x(0) - everything that was applied, at every instant."""
    Applied.total = np.zeros(3)
    sim = started(algorithm, quadratic(6, noise=0.5), world, graph, rule=Applied)
    for time in range(2, 60, 4):
        sim.run(time)
        assert models(sim).sum(0) - displaced(sim) == pytest.approx(-Applied.total, abs=1e-12)
    asking = sum(isinstance(i.message, Ask) for i in on_their_way(sim))
    assert asking <= 6, "an agent has at most one question under way"


@settings(max_examples=8)
@given(
    worlds,
    st.sampled_from(["grid", "chain", "star", "binary-tree"]),
    st.sampled_from(["atomic", "atomic+wait"]),
)
def test_atomic_adpsgd_never_increases_the_spread_and_keeps_the_mean(
    world: World, graph: str, options: str
) -> None:
    """Without gradients: after every complete averaging the mean is the same and the spread is no larger."""
    sim = started(f"adpsgd:{options}", quadratic(6), world, graph, rule=Nothing)
    spread_out(sim)
    mean, spread = models(sim).mean(0), np.inf
    for time in range(5, 100, 5):
        sim.run(time)
        flying = [i for i in on_their_way(sim) if isinstance(i.message, Moved)]
        landed = {i.to[0]: array(i.message.d) for i in flying}
        x = np.array([models(sim)[i] - landed.get(i, 0.0) for i in range(6)])
        assert x.mean(0) == pytest.approx(mean, abs=1e-12)
        now = ((x - mean) ** 2).sum()
        assert now <= spread + 1e-12
        spread = now


def spread_out(sim: Simulator) -> None:
    """Different models to begin with, before anything has happened: also in the questions of the start."""
    rng = np.random.default_rng(0)
    for actor in sim.actors:
        actor.agent.x = actor.model = Vector((torch.from_numpy(rng.normal(size=3)),))
    for item in on_their_way(sim):
        item.message = Ask(sim.agents[item.sender].x)


def test_two_agents_agree_after_one_averaging() -> None:
    sim = started("adpsgd:atomic", quadratic(2), World(seed=1), "chain", rule=Nothing)
    spread_out(sim)
    sim.run(10)
    assert models(sim)[0] == pytest.approx(models(sim)[1], abs=1e-15)


# -- mixing ----------------------------------------------------------------------------------------


@settings(max_examples=5)
@given(worlds, graphs)
def test_adsgd_without_gradients_agrees_within_the_initial_range(world: World, graph: str) -> None:
    """Row-stochastic mixing does not keep the mean; it stays in the convex hull, and reaches consensus."""
    sim = started("adsgd", quadratic(6), world, graph, rule=Nothing, check=False)
    spread_out(sim)
    low, high = models(sim).min(0), models(sim).max(0)
    for time in (10, *range(50, 801, 50)):
        sim.run(time)
        assert (models(sim) >= low - 1e-12).all()
        assert (models(sim) <= high + 1e-12).all()
        if np.ptp(models(sim), axis=0).max() < 1e-3:
            break
    assert np.ptp(models(sim), axis=0).max() < 1e-3


@settings(max_examples=8)
@given(worlds, graphs, st.sampled_from(["adsgd", "dsgd", "adpsgd", "rfast"]))
def test_consensus_is_a_fixed_point_without_gradients(world: World, graph: str, algorithm: str) -> None:
    sim = started(algorithm, quadratic(6), world, graph, rule=Nothing)
    sim.run(30)
    assert models(sim) == pytest.approx(np.zeros((6, 3)), abs=1e-15)
