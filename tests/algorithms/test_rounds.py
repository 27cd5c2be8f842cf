"""What is particular to the algorithms that go by rounds, besides what every row is held to."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, repeat
from typing import Any

import numpy as np
import pytest
import torch
from runs import models, quadratic, started
from under_way import array, shares

from offbeat import Agent, ContractError, Crash, Delay, Quadratic, SettingError, Vector, World
from offbeat.algorithms import find
from offbeat.core.rounds import Rounds
from offbeat.world.changing import CHANGING
from offbeat.world.topology import build

LAGGING = World(compute=Delay("constant"), communication=Delay("constant", mean=0.3))
STRAGGLERS = World(seed=3, slow_compute={4: 5.0}, slow_communication={2: 5.0, 4: 5.0})


def gradient(task: Quadratic, x: np.ndarray) -> np.ndarray:
    slopes: np.ndarray = task.h[:, None] * (x - task.b)
    return slopes


Matrices = Iterator[np.ndarray]  # of the rounds, one after another
Recursion = Callable[[np.ndarray, Quadratic, Matrices, float], Iterator[np.ndarray]]
"""From the start, W_0, W_1, ..., and a learning rate: the models of each round, as matrices."""


def dsgd(x: np.ndarray, task: Quadratic, w: Matrices, lr: float) -> Iterator[np.ndarray]:
    while True:
        yield x
        x = next(w) @ x - lr * gradient(task, x)


def dpsgd(x: np.ndarray, task: Quadratic, w: Matrices, lr: float) -> Iterator[np.ndarray]:
    while True:
        yield x
        x = next(w) @ (x - lr * gradient(task, x))


def dsgt(x: np.ndarray, task: Quadratic, w: Matrices, lr: float) -> Iterator[np.ndarray]:
    y = g = gradient(task, x)
    while True:
        yield x
        w_k = next(w)
        x = w_k @ (x - lr * y)
        before, g = g, gradient(task, x)
        y = w_k @ y + g - before


def d2(x: np.ndarray, task: Quadratic, w: Matrices, lr: float) -> Iterator[np.ndarray]:
    before, x = x, next(w) @ (x - lr * gradient(task, x))
    yield before
    while True:
        yield x
        change = gradient(task, x) - gradient(task, before)
        before, x = x, next(w) @ (2 * x - before - lr * change)


def exact_diffusion(x: np.ndarray, task: Quadratic, w: Matrices, lr: float) -> Iterator[np.ndarray]:
    return d2(x, task, ((np.eye(len(x)) + w_k) / 2 for w_k in w), lr)


def quasi_global(x: np.ndarray, task: Quadratic, w: Matrices, lr: float) -> Iterator[np.ndarray]:
    beta, m = 0.9, np.zeros_like(x)
    while True:
        yield x
        before, x = x, next(w) @ (x - lr * (gradient(task, x) + beta * m))
        m = beta * m + (1 - beta) * (before - x) / lr


RECURSIONS: dict[str, Recursion] = {
    "dpsgd": dpsgd,
    "dsgt": dsgt,
    "d2": d2,
    "d2:theta=0.5": exact_diffusion,
    "qg-dsgdm": quasi_global,
    "dsgd": dsgd,
    "sgp": dpsgd,  # where rows sum to 1 as columns do
    "osgp": dsgd,
}
CASES = [(name, "grid", LAGGING) for name in RECURSIONS]
CASES += [
    (name, graph, STRAGGLERS)
    for name in RECURSIONS
    for graph in ("grid", *CHANGING)
    if graph == "grid" or "d2" not in name
]


@pytest.mark.parametrize(("name", "graph", "world"), CASES)
def test_it_is_its_matrix_recursion_whatever_the_delays(name: str, graph: str, world: World) -> None:
    task = quadratic()
    sim = started(name, task, world, graph, lr=0.05, check=False)
    sim.run(150)
    rounds, changing = [agent.round for agent in sim.agents], sim.topology.rounds
    w = repeat(sim.topology.dense_w()) if changing is None else map(changing.matrix, count())
    recursion = RECURSIONS[name](np.zeros((9, 3)), task, w, 0.05)
    reached = [x for x, _ in zip(recursion, range(max(rounds) + 1), strict=False)]
    assert min(rounds) > 7
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


# -- graphs that change ----------------------------------------------------------------------------

BY_ROUNDS = ("dsgd", "dpsgd", "qg-dsgdm", "sgp", "osgp:tau=2")
LOST = World(seed=3, slow_compute={4: 5.0}, crashes=(Crash(1, 8.3, 20.1), Crash(5, 30.2)))


@pytest.mark.parametrize("graph", CHANGING)
@pytest.mark.parametrize("name", (*BY_ROUNDS, "dsgt"))
def test_on_changing_graphs_executors_agree_and_who_returns_takes_part(name: str, graph: str) -> None:
    world = replace(LOST, crashes=(Crash(1, 8.3),)) if name == "dsgt" else LOST
    sims = [
        started(name, quadratic(noise=0.5), world, graph, how=how) for how in ("event-by-event", "batched")
    ]
    for sim in sims:
        sim.run(21)
    before = list(sims[0].steps)
    for sim in sims:
        sim.run(90)
    assert sims[0].recorder.trace().digest() == sims[1].recorder.trace().digest()
    assert np.array_equal(models(sims[0]), models(sims[1])) and np.isfinite(models(sims[0])).all()
    agents: list[Any] = sims[0].agents
    assert all(sims[0].steps[i] > before[i] + 3 for i in sims[0].alive)
    if name != "dsgt":  # whoever has heard another one once waits for it
        heard = [{j for j in each.view.peers if each.later.get(j, 0) is not None} for each in agents]
        assert len(heard[1]) > 1 and any(1 in heard[i] for i in (0, 2, 3, 4, 6, 7, 8))


@pytest.mark.parametrize("graph", CHANGING)
def test_shares_on_changing_graphs_keep_sum_and_weight_at_every_instant(graph: str) -> None:
    sim = started("sgp", quadratic(equal=True, noise=0.0), STRAGGLERS, graph, lr=0.0)
    sim.agents[3].x = Vector((torch.full((3,), 9.0, dtype=torch.float64),))  # before anything is shared
    for time in range(1, 121, 7):
        sim.run(time)
        sums, weights = zip(*shares(sim), strict=True)
        assert np.sum(sums, axis=0) == pytest.approx(np.full(3, 9.0)) and sum(weights) == pytest.approx(9)
    assert models(sim) == pytest.approx(np.ones((9, 3)), abs=0.05)


def test_an_agent_sends_one_model_to_each_who_hears_it_in_the_round() -> None:
    for graph, each in (("one-peer-exponential", 1.0), ("matchings", 1.0), ("base:3", None)):
        sim = started("dpsgd", quadratic(8), replace(LAGGING, sending="unicast"), build(graph, 8))
        sim.run(40.5)
        rounds = sim.topology.rounds
        assert rounds is not None
        heard = [np.count_nonzero(rounds.matrix(k)) / 8 - 1 for k in range(sim.agents[0].round + 1)]
        wanted = sum(heard) if each is None else each * len(heard)
        assert len(sim.recorder.trace().transmissions) / 8 == pytest.approx(
            wanted, abs=3
        )  # of the last round
