"""What is particular to outer steps in random pairs."""

from collections import Counter

import numpy as np
import pytest
from runs import quadratic, started, vector

from offbeat import Quadratic, World
from offbeat.core.pairs import partners
from offbeat.theory import limit
from offbeat.world.topology import build


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_all_draw_the_same_pairs_and_all_pairs_come_equally_often(n: int) -> None:
    seen = Counter[tuple[int, int]]()
    for k in range(2000):
        other = partners(k, n)
        assert all(other[j] == i for i, j in enumerate(other))
        assert sum(i == j for i, j in enumerate(other)) == n % 2
        seen.update((i, j) for i, j in enumerate(other) if j != i)
    assert len(seen) == n * (n - 1)
    share = 1 / (n - 1 + n % 2) if n > 1 else 0
    assert all(abs(count / 2000 - share) < 0.05 for count in seen.values())


def rounds_of(task: Quadratic, count: int, lr: float, h: int, beta: float, outer: float = 0.7) -> np.ndarray:
    """phi of all agents after each of so many outer steps, [count + 1, n, d], by the formula."""
    n, s = task.agents, 1 - (1 - lr * task.h[:, None]) ** h
    seen = [np.tile(task.initial()[0].numpy(), (n, 1))]
    m = np.zeros_like(seen[0])
    for k in range(1, count + 1):
        phi, d = seen[-1], s * (task.b - seen[-1])
        other = [*partners(k, n)]
        m = beta * m + outer * ((d + d[other]) / 2 + (phi + phi[other]) / 2 - phi)
        seen.append(phi + m)
    return np.array(seen)


@pytest.mark.parametrize("n", [2, 4, 5])
def test_it_is_its_formula_however_fast_agents_are(n: int) -> None:
    task = quadratic(n)
    sim = started("noloco:h=3", task, World(seed=3, slow_compute={1: 2.0}), "ring", lr=0.1)
    sim.run(100)
    wanted = rounds_of(task, 60, 0.1, 3, 0.3)
    for i in range(n):
        made = sim.steps[i] // 3
        assert made > 5
        near = wanted[made - 1 : made + 1, i]  # it may wait for its partner
        assert np.abs(vector(sim, i, "phi") - near).max(axis=1).min() < 1e-12


@pytest.mark.parametrize("n", [4, 5])
def test_no_pair_moves_the_sum_and_phi_is_on_average_where_theory_says(n: int) -> None:
    task, name = quadratic(n), "noloco:h=2+outer_momentum=0.1"
    found, s = rounds_of(task, 8000, 0.1, 2, 0.1), 1 - (1 - 0.1 * task.h[:, None]) ** 2
    total, d = found.sum(axis=1), (s * (task.b - found)).sum(axis=1)
    m = np.diff(total, axis=0)
    assert m[1:] == pytest.approx(0.1 * m[:-1] + 0.7 * d[1:-1], abs=1e-12)
    wanted = limit(name, task, build("ring", n), 0.1)
    assert found[100:].mean(axis=0) == pytest.approx(wanted, abs=0.04)
    assert np.abs(wanted - task.optimum).max() > 0.1, "apart, as each is drawn to its own minimiser"
