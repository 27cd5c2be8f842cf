"""What is particular to local steps with an outer optimizer."""

import numpy as np
import pytest
import torch
from runs import minibatches, models, quadratic, started, vector

from offbeat import World
from offbeat.theory import limit


def test_with_one_local_step_and_no_momentum_it_is_allreduce() -> None:
    one, other = (
        started(name, quadratic(5, noise=0.5), World(seed=3), "ring")
        for name in ("diloco:h=1+outer_lr=1+outer_momentum=0", "allreduce")
    )
    for sim in (one, other):
        sim.run(60)
    phi = np.array([vector(one, i, "phi") for i in range(5)])
    assert phi == pytest.approx(models(other), abs=1e-12)
    assert np.abs(phi).max() > 0.1, "they have moved"


def test_the_outer_step_is_that_of_torch() -> None:
    """Two agents, h = 3, noisy gradients: torch's Nesterov on the mean of what both changed."""
    task = quadratic(2, noise=0.3)
    sim = started("diloco:h=3", task, World(seed=5), "chain", lr=0.1)
    sim.run(60)
    outer = torch.nn.Parameter(task.initial()[0].clone())
    optimizer = torch.optim.SGD([outer], lr=0.7, momentum=0.9, nesterov=True)
    samples = [minibatches(task, 5, i) for i in range(2)]
    rounds = min(sim.steps) // 3
    seen = []
    for _ in range(rounds):
        changes = []
        for i in range(2):
            x = outer.detach().clone()
            for _ in range(3):
                x = x - 0.1 * task.gradients([i], [samples[i]()], (x[None],))[0][0]
            changes.append(outer.detach() - x)
        outer.grad = (changes[0] + changes[1]) / 2
        optimizer.step()
        seen.append(outer.detach().numpy().copy())
    assert rounds > 5
    for i in range(2):
        assert min(np.abs(vector(sim, i, "phi") - each).max() for each in seen[-2:]) < 1e-12


@pytest.mark.parametrize("h", [1, 4])
def test_phi_ends_where_the_mean_of_local_steps_is_zero(h: int) -> None:
    task, name = quadratic(4), f"diloco:h={h}+outer_momentum=0.5"
    sim = started(name, task, World(seed=3, slow_compute={1: 3.0}), "ring", lr=0.2, check=False)
    sim.run(800)
    wanted = limit(name, task, sim.topology, 0.2)
    for i in range(4):
        assert vector(sim, i, "phi") == pytest.approx(wanted[i], abs=1e-9)
    off = np.abs(wanted[0] - task.optimum).max()
    assert (off < 1e-12) if h == 1 else (off > 0.02), "the optimum for one step, elsewhere for several"
