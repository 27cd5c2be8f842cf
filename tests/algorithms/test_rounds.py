"""What is particular to the algorithms that go by rounds, besides what every row is held to."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import models, quadratic, started
from under_way import array

from offbeat import Agent, ContractError, Crash, Delay, Quadratic, SettingError, World
from offbeat.algorithms import find
from offbeat.core.rounds import Rounds
from offbeat.world.topology import build

LAGGING = World(compute=Delay("constant"), communication=Delay("constant", mean=0.3))
STRAGGLERS = World(seed=3, slow_compute={4: 5.0}, slow_communication={2: 5.0, 4: 5.0})


def gradient(task: Quadratic, x: np.ndarray) -> np.ndarray:
    slopes: np.ndarray = task.h[:, None] * (x - task.b)
    return slopes


Recursion = Callable[[np.ndarray, Quadratic, np.ndarray, float], Iterator[np.ndarray]]
"""From the start, W, and a learning rate: the models of each round, as matrices."""


def dpsgd(x: np.ndarray, task: Quadratic, w: np.ndarray, lr: float) -> Iterator[np.ndarray]:
    while True:
        yield x
        x = w @ (x - lr * gradient(task, x))


def dsgt(x: np.ndarray, task: Quadratic, w: np.ndarray, lr: float) -> Iterator[np.ndarray]:
    y = g = gradient(task, x)
    while True:
        yield x
        x = w @ (x - lr * y)
        before, g = g, gradient(task, x)
        y = w @ y + g - before


def d2(x: np.ndarray, task: Quadratic, w: np.ndarray, lr: float) -> Iterator[np.ndarray]:
    before, x = x, w @ (x - lr * gradient(task, x))
    yield before
    while True:
        yield x
        change = gradient(task, x) - gradient(task, before)
        before, x = x, w @ (2 * x - before - lr * change)


def exact_diffusion(x: np.ndarray, task: Quadratic, w: np.ndarray, lr: float) -> Iterator[np.ndarray]:
    return d2(x, task, (np.eye(len(w)) + w) / 2, lr)


def quasi_global(x: np.ndarray, task: Quadratic, w: np.ndarray, lr: float) -> Iterator[np.ndarray]:
    beta, m = 0.9, np.zeros_like(x)
    while True:
        yield x
        before, x = x, w @ (x - lr * (gradient(task, x) + beta * m))
        m = beta * m + (1 - beta) * (before - x) / lr


RECURSIONS: dict[str, Recursion] = {
    "dpsgd": dpsgd,
    "dsgt": dsgt,
    "d2": d2,
    "d2:theta=0.5": exact_diffusion,
    "qg-dsgdm": quasi_global,
}


@pytest.mark.parametrize("world", [LAGGING, STRAGGLERS], ids=["constant", "stragglers"])
@pytest.mark.parametrize("name", RECURSIONS)
def test_it_is_its_matrix_recursion_whatever_the_delays(name: str, world: World) -> None:
    task = quadratic()
    sim = started(name, task, world, lr=0.05)
    sim.run(150)
    rounds = [agent.round for agent in sim.agents]
    recursion = RECURSIONS[name](np.zeros((9, 3)), task, sim.topology.dense_w(), 0.05)
    reached = [x for x, _ in zip(recursion, range(max(rounds) + 1), strict=False)]
    assert min(rounds) > 8
    wanted = np.array([reached[k][i] for i, k in enumerate(rounds)])
    assert models(sim) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("lost", [(), (Crash(4, 20.5),)], ids=["all", "one lost"])
def test_trackers_sum_to_the_gradients_and_corrections_to_nothing(lost: tuple[Crash, ...]) -> None:
    """With equal delays all are in one round. What is left of who was lost does not change any more."""
    left: dict[str, list[np.ndarray]] = {"dsgt": [], "d2": []}
    for name, offsets in left.items():
        sim = started(name, quadratic(noise=0.5), replace(LAGGING, crashes=lost))
        for time in np.arange(1.4, 60, 1.3):
            sim.run(float(time))
            live: list[Any] = [sim.agents[i] for i in sorted(sim.alive)]
            assert len({agent.round for agent in live}) == 1
            books = [(agent.y, agent.g) if name == "dsgt" else (agent.c,) for agent in live]
            offsets.append(
                np.sum([array(b[0]) - (array(b[1]) if len(b) > 1 else 0.0) for b in books], axis=0)
            )
        assert np.array(offsets[:10]) == pytest.approx(0.0, abs=1e-13)
        after = np.array(offsets[20:])
        assert after == pytest.approx(np.tile(after[-1], (len(after), 1)), abs=1e-13)
        assert (np.abs(after).max() > 1e-3) == bool(lost)


def test_without_memory_quasi_global_momentum_is_dpsgd() -> None:
    one, other = (started(name, quadratic(noise=0.5), STRAGGLERS) for name in ("qg-dsgdm:beta=0", "dpsgd"))
    for sim in (one, other):
        sim.run(80)
    assert models(one) == pytest.approx(models(other), rel=1e-12)


def test_d2_refuses_weights_on_which_it_diverges() -> None:
    """A torus of 4 x 4 has the eigenvalue -3/5; theta = 5/6 makes it -1/3."""
    torus = build("torus:4x4", 16)
    with pytest.raises(SettingError, match=r"have -0.6. Expected theta=0.83 or less"):
        find("d2").check(torus)
    find("d2:theta=0.83").check(torus)
    sizes = []
    for name in ("d2", "d2:theta=0.83"):
        sim = started(name, quadratic(16), LAGGING, torus, check=False)
        sim.run(150)
        sizes.append(np.abs(models(sim)).max())
    assert sizes[0] > 1e3 and sizes[1] < 3


def test_rounds_need_to_know_what_to_do() -> None:
    with pytest.raises(ContractError, match="override adapt"):
        started(Rounds, quadratic(4), LAGGING, "ring").run(3)
    assert issubclass(Rounds, Agent)
