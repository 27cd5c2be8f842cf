"""The bounds of `offbeat.theory.bounds` hold on recorded runs, with the B and D that are measured in them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pytest
import torch
from runs import quadratic, started

from offbeat import Delay, Quadratic, Vector, World
from offbeat.algorithms.adsgd import ADSGD
from offbeat.algorithms.asbcd import ASBCD
from offbeat.core.vector import Parts, Stamp
from offbeat.engines.trace import Staleness, Trace
from offbeat.theory.bounds import (
    Given,
    Pair,
    block_descent,
    bounds,
    moved_on,
    pair_of_horizon,
    pair_of_rate,
    spectrum,
)
from offbeat.world.topology import build

STRAGGLERS = World(seed=4, slow_compute={4: 10.0}, slow_communication={1: 5.0})
PROMPT = World(seed=5, slow_compute={4: 10.0}, communication=Delay("constant", mean=0.0))
LATE = World(seed=6, communication=Delay("exponential", mean=3.0), loss=0.2)
WORLDS = {"stragglers": STRAGGLERS, "no delay of messages": PROMPT, "late and lost messages": LATE}
GRID = build("grid", 9)
every_world = pytest.mark.parametrize("world", WORLDS)


class FromTheStart(ADSGD):
    """Until a neighbour is heard its first model is mixed, where ADSGD mixes its own: what V_k needs."""

    def start(self) -> None:
        self.heard = {j: Vector(self.x.parts, Stamp(j, 0)) for j in self.view.w if j != self.me}
        super().start()


@dataclass(frozen=True, eq=False)
class Recorded:
    """A run: `x` are all models before every iteration, and after the last one, [K + 1, n, d]."""

    x: np.ndarray
    trace: Trace

    @cached_property
    def moves(self) -> np.ndarray:
        """||x^{k+1} - x^k||^2, [K]."""
        return np.asarray((np.diff(self.x, axis=0) ** 2).sum((1, 2)))

    @cached_property
    def measured(self) -> Staleness:
        return self.trace.staleness()


def run(agent: Any, task: Any, world: World, lr: float, until: float, topology: str = "grid") -> Recorded:
    history: list[tuple[int, np.ndarray]] = []

    def observe(time: float, i: int, model: Vector) -> None:
        history.append((i, model.parts[0].numpy()))

    sim = started(agent, task, world, topology, lr=lr, check=False, observers=[observe])
    first = task.initial()[0].numpy()
    sim.run(until)
    trace = sim.recorder.trace()
    assert trace.iterations().tolist() == [*range(len(history))], "one agent writes at a time"
    x = np.tile(first, (len(history) + 1, task.agents, 1))
    for k, (i, model) in enumerate(history):
        x[k + 1] = x[k]
        x[k + 1, i] = model
    return Recorded(x, trace)


@cache
def given(
    world: str, noise: float = 0.0, until: float = 60, from_start: bool = False
) -> tuple[Quadratic, Given]:
    """A task, and what theory asks of it and of the run: nobody waits, so B and D do not depend on rates."""
    task = quadratic(noise=noise)
    agent = FromTheStart() if from_start else ADSGD()
    found = run(agent, task, WORLDS[world], 0.01, until)
    assert found.measured.D is not None
    start = float((task.h / 2 * (task.b**2).sum(1)).sum())
    sigma = noise * task.b.shape[1] ** 0.5
    known = Given(
        9, spectrum(GRID), L=task.h.max(), D=found.measured.D, B=found.measured.B, K=len(found.moves)
    )
    return task, Given(known.n, known.w, known.L, known.D, known.B, known.K, start, sigma)


def of_pair(
    pair: Pair, world: str, noise: float = 0.0, until: float = 60, from_start: bool = False
) -> Recorded:
    task, known = given(world, noise, until, from_start)
    found = run(
        (FromTheStart if from_start else ADSGD)(theta=pair.theta), task, WORLDS[world], pair.alpha, until
    )
    assert (found.measured.B, found.measured.D) == (known.B, known.D)
    return found


@every_world
@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("alpha", [None, 0.3, 0.05])
def test_bounds_of_two_step_sizes_hold_on_runs(world: str, noise: float, alpha: float | None) -> None:
    task, known = given(world, noise)
    pair = pair_of_horizon(known) if alpha is None else pair_of_rate(known, alpha)
    x, sure = of_pair(pair, world, noise).x[:-1], bounds(known, pair)
    mixed = np.einsum("ij,kjd->kid", np.eye(9) - GRID.dense_w(), x) / pair.alpha
    mean = x.mean(1, keepdims=True)
    auxiliary = ((task.h[:, None] * (x - task.b) + mixed) ** 2).sum((1, 2)).mean()
    consensus = ((x - mean) ** 2).sum((1, 2)).mean()
    average = ((task.h[:, None] * (mean - task.b)).sum(1) ** 2).sum(1).mean()
    assert 0 < auxiliary <= sure.auxiliary
    assert 0 < consensus <= sure.consensus
    assert 0 < average <= min(sure.average, sure.sharper)


def auxiliary_loss(task: Quadratic, x: np.ndarray, alpha: float) -> np.ndarray:
    """L_alpha of models [K, n, d]."""
    own = (task.h / 2 * ((x - task.b) ** 2).sum(-1)).sum(-1)
    return np.asarray(own + np.einsum("kid,ij,kjd->k", x, np.eye(9) - GRID.dense_w(), x) / (2 * alpha))


def descending(loss: np.ndarray, moves: np.ndarray, D: int, L: float) -> np.ndarray:
    """V_k = loss + L/2 sum_{t=k-D}^{k-1} (t - (k - D) + 1) ||x^{t+1} - x^t||^2."""
    weighted = [
        sum((t - (k - D) + 1) * moves[t] for t in range(max(0, k - D), k)) for k in range(len(moves) + 1)
    ]
    return np.asarray(loss + L / 2 * np.array(weighted))


@every_world
def test_twice_the_step_of_the_condition_still_descends(world: str) -> None:
    """V_k never rises for gamma < 2 / ((2 D + 1) L_A), without noise, and the condition is not idle."""
    task, known = given(world, from_start=True)
    half = pair_of_rate(known, 0.2)
    pair = Pair(0.2, min(0.2, 1.98 * half.gamma))
    found = of_pair(pair, world, from_start=True)
    v = descending(auxiliary_loss(task, found.x, 0.2), found.moves, known.D, pair.smoothness(known))
    assert (np.diff(v) <= 1e-12).all() and v[-1] < v[0]


@every_world
def test_lemma_c1_of_adsgd(world: str) -> None:
    found, (_, known) = of_pair(Pair(0.1, 0.1), world), given(world)
    k, then = found.trace.selected()
    mixed, apart = found.trace.mixed, np.zeros(known.K)
    old = found.x[then, mixed["source"]]
    np.add.at(apart, k, ((found.x[k, mixed["source"]] - old) ** 2).sum(1))
    most = moved_on(known.D, found.moves)
    assert (apart <= most + 1e-12).all()
    assert not known.D or (apart > moved_on(1, found.moves)).any(), "a smaller D would not do"


# -- block coordinate descent ----------------------------------------------------------------------


class Coupled:
    """f(x) = 1/2 x^T Q x - c^T x, the same for all agents; its blocks depend on each other."""

    name, measure, agents = "coupled", "loss", 9

    def __init__(self, noise: float = 0.0) -> None:
        rng = np.random.default_rng(2)
        a = rng.normal(size=(9, 9))
        self.q, self.c, self.noise = a @ a.T / 18 + np.eye(9), rng.normal(size=9), noise
        self.L = float(np.linalg.eigvalsh(self.q)[-1])
        self.start = float(self.c @ np.linalg.solve(self.q, self.c) / 2)

    def initial(self) -> Parts:
        return (torch.zeros(self.agents, dtype=torch.float64),)

    def draw(self, agent: int, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.noise * rng.normal(size=(count, self.agents))

    def gradients(self, agents: Sequence[int], samples: Sequence[np.ndarray], models: Parts) -> Parts:
        exact = models[0].numpy() @ self.q - self.c
        return (torch.from_numpy(exact + np.stack(samples)),)


@dataclass(frozen=True, eq=False)
class Blocks:
    """A run of `asbcd`: the blocks [K + 1, 9], what every gradient was taken at [K, 9], the oldest of it."""

    x: np.ndarray
    at: np.ndarray
    D: int
    messages: int
    B: int

    @cached_property
    def moves(self) -> np.ndarray:
        return np.asarray((np.diff(self.x, axis=0) ** 2).sum(1))


def of_blocks(task: Coupled, world: World, lr: float, until: float = 60) -> Blocks:
    """One number a block, so that block i is x_i."""
    found = run(ASBCD(), task, world, lr, until)
    writer, versions = found.trace.writes["agent"], np.zeros((9, 9), dtype=int)
    K, own = len(writer), [np.flatnonzero(writer == i) for i in range(9)]
    at, oldest, late, rows = np.zeros((K, 9)), 0, 0, found.trace.table()
    ends = [np.append(each, K) for each in own]

    def age(k: int, i: int) -> int:
        return max(k - min(k, int(ends[j][versions[i, j]])) for j in range(9) if j != i)

    for k, i in enumerate(writer):
        at[k] = found.x[k, i]
        oldest = max(oldest, age(k, i))
        for j, version in rows[k]["versions"].items():
            versions[i, j] = version
        late = max(late, age(k, i))
    x = found.x[:, range(9), range(9)]
    assert oldest == found.measured.D
    return Blocks(x, at, oldest, late, found.measured.B)


@every_world
def test_lemma_c1_and_d_of_blocks(world: str) -> None:
    """D of who reads when a gradient begins is that of the messages, and B; or what was measured of it."""
    found = of_blocks(Coupled(), WORLDS[world], 0.05)
    apart = ((found.x[:-1] - found.at) ** 2).sum(1)
    assert (apart <= moved_on(found.D, found.moves) + 1e-12).all()
    known = Given(9, spectrum(GRID), D=found.messages, B=found.B)
    assert known.both >= found.D == replace(known, read=found.D).both


@every_world
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_rate_of_blocks_holds_on_runs(world: str, noise: float) -> None:
    task = Coupled(noise)
    D, B = (found := of_blocks(task, WORLDS[world], 0.01)).D, found.B
    lr = 1 / ((2 * D + 1) * task.L)
    found = of_blocks(task, WORLDS[world], lr)
    gradients = ((found.x[:-1] @ task.q - task.c) ** 2).sum(1)
    most = block_descent(len(gradients), B, D, task.L, lr, task.start, noise)
    assert 0 < gradients.mean() <= most


@every_world
def test_blocks_descend_up_to_twice_that_step(world: str) -> None:
    task = Coupled()
    D = of_blocks(task, WORLDS[world], 0.01).D
    found = of_blocks(task, WORLDS[world], 1.98 / ((2 * D + 1) * task.L))
    x = found.x
    loss = np.einsum("ki,ij,kj->k", x, task.q, x) / 2 - x @ task.c
    v = descending(loss, found.moves, D, task.L)
    assert (np.diff(v) <= 1e-12).all() and v[-1] < v[0]


# -- rates, as slopes ------------------------------------------------------------------------------


def slope(lengths: Sequence[int], errors: Sequence[float]) -> float:
    return float(np.polyfit(np.log(lengths), np.log(errors), 1)[0])


HORIZONS = 150, 900  # simulated times; two agents make twice as many updates
PAIR = World(seed=1)


class TwoBlocks(Coupled):
    """Of two agents."""

    agents = 2

    def __init__(self) -> None:
        self.q, self.c, self.noise = np.array([[1.0, 0.3], [0.3, 1.0]]), np.array([3.0, -2.0]), 0.3
        self.L, self.start = 1.3, float(self.c @ np.linalg.solve(self.q, self.c) / 2)


def test_the_rate_of_blocks_on_a_log_log_fit() -> None:
    """lr = 1 / ((2 D + 1) L) at the shorter horizon and less as K^(-1/2): so falls the mean squared gradient,
    of Algorithm 1 itself at learning rates that theory admits.
    """
    task, lengths, errors = TwoBlocks(), [], []
    found = run(ASBCD(), task, PAIR, 0.01, max(HORIZONS), "chain")
    known = Given(2, spectrum(build("chain", 2)), L=task.L, D=found.measured.D or 0, B=found.measured.B)
    for until in HORIZONS:
        lr = (HORIZONS[0] / until) ** 0.5 / ((2 * known.D + 1) * task.L)
        x = run(ASBCD(), task, PAIR, lr, until, "chain").x[:-1, range(2), range(2)]
        lengths.append(len(x))
        errors.append(((x @ task.q - task.c) ** 2).sum(1).mean())
        assert errors[-1] <= block_descent(len(x), known.B, known.D, task.L, lr, task.start, task.noise)
    assert -0.6 < slope(lengths, errors) < -0.45


def test_the_rate_of_adsgd_on_a_log_log_fit() -> None:
    """The pair of the horizon, of Algorithm 2 itself: the mean squared gradient at the mean model falls as
    K^(-1/3). Links are prompt, so D = 0: the longer messages take, the later that shows.
    """
    task = Quadratic(np.array([[3.0], [2.0]]), np.ones(2), noise=0.3)
    lengths, errors, graph = [], [], spectrum(build("chain", 2))
    prompt = World(seed=1, communication=Delay("constant", mean=0.0))
    for until in HORIZONS:
        known = Given(2, graph, K=2 * until, start=6.5, sigma=0.3)
        pair = pair_of_horizon(known)
        found = run(ADSGD(theta=pair.theta), task, prompt, pair.alpha, until, "chain")
        known = replace(known, K=len(found.moves), B=found.measured.B)
        assert found.measured.D == 0 and pair.admissible(known)
        lengths.append(len(found.moves))
        errors.append(((found.x[:-1].mean(1) * 2 - task.b.sum(0)) ** 2).sum(1).mean())
        assert errors[-1] <= bounds(known, pair).average
    assert -0.35 < slope(lengths, errors) < -0.27, "the start still counts"
