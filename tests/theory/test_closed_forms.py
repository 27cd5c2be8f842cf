"""Limits that are known exactly, on quadratics f_i(x) = h_i/2 ||x - b_i||^2 with deterministic gradients."""

from itertools import pairwise

import numpy as np
import pytest
from runs import LOCKSTEP, models, quadratic, settled, started, vector

from offbeat import Quadratic, World
from offbeat.world.topology import Topology, build

SLOW = {
    "equal speeds": World(seed=1),
    "computes 10 times slower": World(seed=2, slow_compute={4: 10.0}),
    "sends 10 times slower": World(seed=3, slow_communication={4: 10.0}),
    "both, and loses 30 %": World(seed=4, slow_compute={4: 10.0}, slow_communication={4: 10.0}, loss=0.3),
}


def adsgd_limit(topology: Topology, task: Quadratic, lr: float) -> np.ndarray:
    """X* = (lr H + I - W)^-1 lr H b."""
    h = lr * np.diag(task.h)
    limit: np.ndarray = np.linalg.solve(h + np.eye(task.agents) - topology.dense_w(), h @ task.b)
    return limit


@pytest.mark.parametrize("world", SLOW.values(), ids=SLOW.keys())
@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
def test_adsgd_and_dsgd_reach_their_common_limit_whatever_the_speeds(algorithm: str, world: World) -> None:
    task = quadratic()
    sim = started(algorithm, task, world, lr=0.3, check=False)
    limit = adsgd_limit(sim.topology, task, 0.3)
    found = settled(sim, limit, 2500 if algorithm == "dsgd" else 900, 1e-9)
    assert found == pytest.approx(limit, abs=1e-9)


def test_the_average_is_exact_for_equal_curvature() -> None:
    task = quadratic(equal=True)
    sim = started("adsgd", task, SLOW["both, and loses 30 %"], lr=0.3, check=False)
    found = settled(sim, adsgd_limit(sim.topology, task, 0.3), 900, 1e-10)
    assert found.mean(0) == pytest.approx(task.b.mean(0), abs=1e-9)


def test_two_agents() -> None:
    """n = 2, w_12 = w, b = (-1, 1), h = 1: x* = -+ lr / (lr + 2 w)."""
    task = Quadratic(np.array([[-1.0], [1.0]]), np.ones(2))
    sim = started("adsgd", task, World(seed=1), "chain", lr=0.1, check=False)
    sim.run(500)
    assert models(sim)[:, 0] == pytest.approx([-1 / 11, 1 / 11], abs=1e-12)


def test_halving_the_step_about_halves_bias_and_consensus_error() -> None:
    task, grid = quadratic(), build("grid", 9)
    bias, spread = [], []
    for lr in (0.01, 0.005):
        x = adsgd_limit(grid, task, lr)
        bias.append(np.abs(x.mean(0) - task.optimum).max())
        spread.append(np.abs(x - x.mean(0)).max())
    assert bias[0] / bias[1] == pytest.approx(2, rel=0.1)
    assert spread[0] / spread[1] == pytest.approx(2, rel=0.1)


def test_rfast_reaches_the_optimum_exactly_under_stragglers_and_loss() -> None:
    task = quadratic()
    sim = started("rfast", task, World(seed=4, slow_compute={4: 10.0}, loss=0.3), lr=0.4, check=False)
    errors = []
    for time in (300, 600, 900, 1200):
        sim.run(time)
        errors.append(np.abs(models(sim) - task.optimum).max())
    assert all(later < earlier / 10 for earlier, later in pairwise(errors)), "linear convergence, no floor"
    assert errors[-1] < 1e-6
    assert max(np.abs(vector(sim, i, "z")).max() for i in range(9)) < 1e-6


def test_allreduce_reaches_the_optimum() -> None:
    task = quadratic()
    sim = started("allreduce", task, SLOW["computes 10 times slower"], lr=0.5, check=False)
    limit = np.tile(task.optimum, (9, 1))
    assert settled(sim, limit, 800, 1e-9) == pytest.approx(limit, abs=1e-9)


def weighted(task: Quadratic, p: np.ndarray) -> np.ndarray:
    """The minimiser of sum_i p_i f_i."""
    best: np.ndarray = (p * task.h) @ task.b / (p @ task.h)
    return best


def test_adpsgd_goes_to_the_frequency_weighted_optimum_as_the_step_goes_to_zero() -> None:
    """Agent 4 computes 10 times slower: what all others prefer weighs more, by the measured update
    frequencies.
    """
    task, distances = quadratic(seed=3), []
    for lr in (0.1, 0.0125):
        sim = started("adpsgd", task, World(seed=7, slow_compute={4: 10.0}), lr=lr, check=False)
        sim.run(20 / lr)
        mean, count = np.zeros(3), 0
        for time in np.arange(20 / lr, 60 / lr, 10.0):
            sim.run(time)
            mean, count = mean + models(sim).mean(0), count + 1
        p = np.array(sim.steps) / sum(sim.steps)
        assert p[4] < 0.05
        distances.append(np.abs(mean / count - weighted(task, p)).max())
        biased = np.abs(task.optimum - weighted(task, p)).max()
    assert distances[1] < distances[0]
    assert distances[1] < 0.1 * biased, "far from the true optimum, close to the weighted one"


@pytest.mark.parametrize("algorithm", ["dsgd", "adsgd"])
def test_noise_floor_of_the_average_model(algorithm: str) -> None:
    """Unit curvature, noise sigma, lockstep: Var(mean x) = lr sigma^2 / (n (2 - lr)), per coordinate."""
    task = Quadratic(np.zeros((9, 50)), np.ones(9), noise=1.0)
    sim = started(algorithm, task, LOCKSTEP, lr=0.2, how="batched", check=False)
    sim.run(50)
    squares = []
    for time in range(51, 651, 2):
        sim.run(time)
        squares.append((models(sim).mean(0) ** 2).mean())
    assert np.mean(squares) == pytest.approx(0.2 / (9 * 1.8), rel=0.05)


def test_noise_floor_of_one_agent() -> None:
    """SGD: Var(x) = lr sigma^2 / (2 - lr)."""
    task = Quadratic(np.zeros((1, 400)), np.ones(1), noise=1.0)
    sim = started("adsgd", task, LOCKSTEP, "ring", lr=0.2, check=False)
    squares = []
    for time in range(40, 640, 2):
        sim.run(time)
        squares.append((models(sim) ** 2).mean())
    assert np.mean(squares) == pytest.approx(0.2 / 1.8, rel=0.05)
