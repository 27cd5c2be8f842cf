"""Algorithms that must coincide: the most convincing tests there are."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from entries import ENTRIES
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import ALL, LOCKSTEP, minibatches, models, quadratic, settled, started

from offbeat import Delay, Momentum, Quadratic, World
from offbeat.core.rules import SGD, AdamW, Nesterov, NewRule
from offbeat.engines.sim.heap import Heap
from offbeat.theory import limit
from offbeat.world.topology import build, with_weights

UNEQUAL = World(seed=3, slow_compute={4: 10.0}, slow_communication={4: 10.0})
UNEQUAL_FOUR = World(seed=3, slow_compute={1: 3.0}, slow_communication={2: 3.0})


@settings(max_examples=12)
@given(
    st.sampled_from(["grid", "ring", "complete", "star", "chain", "exponential"]),
    st.integers(1, 9),
    st.booleans(),
)
def test_adsgd_in_lockstep_is_dsgd_bit_for_bit(topology: str, n: int, after: bool) -> None:
    n = {5: 6, 7: 8}.get(n, n) if topology == "grid" else n
    task = quadratic(n, noise=0.1)
    runs = [
        started(name, task, LOCKSTEP, build(topology, n))
        for name in ("adsgd", "dsgd:after" if after else "dsgd")
    ]
    for sim in runs:
        sim.run(30)
        assert sim.steps == [30] * n
    assert np.array_equal(models(runs[0]), models(runs[1]))


def test_adsgd_in_lockstep_has_no_staleness() -> None:
    sim = started("adsgd", world=LOCKSTEP)
    sim.run(20)
    staleness = sim.recorder.trace().staleness()
    assert (staleness.B, staleness.D) == (1, 0)


def reference_dsgd(w: np.ndarray, task: Quadratic, lr: float, gradients: int, h: int) -> np.ndarray:
    """x <- W x - lr (the sum of h gradients, each at what those before it made of x)."""
    x = y = np.zeros_like(task.b)
    for k in range(1, gradients + 1):
        y = y - lr * task.h[:, None] * (y - task.b)
        if k % h == 0:
            x = y = w @ x + (y - x)
    return y


@pytest.mark.parametrize(("name", "h"), [("dsgd", 1), ("dsgd:local_steps=3", 3)])
def test_dsgd_is_the_matrix_recursion_whatever_the_delays(name: str, h: int) -> None:
    task = quadratic()
    sim = started(name, task, UNEQUAL)
    sim.run(500)
    assert min(sim.steps) > 10
    reached = [reference_dsgd(sim.topology.dense_w(), task, 0.05, k, h)[i] for i, k in enumerate(sim.steps)]
    assert models(sim) == pytest.approx(np.array(reached), rel=1e-12, abs=1e-12)


SAME_LOCAL_STEPS = [
    ("allreduce:local_steps=3", "diloco:h=3+outer_lr=1+outer_momentum=0", UNEQUAL),
    ("sgp:local_steps=3", "dpsgd:local_steps=3", UNEQUAL),
    ("dsgd:local_steps=3", "dsgd:after+local_steps=3", LOCKSTEP),
]


@pytest.mark.parametrize(("one", "other", "world"), SAME_LOCAL_STEPS)
def test_with_local_steps_too_what_coincides_coincides(one: str, other: str, world: World) -> None:
    """Local SGD is DiLoCo without outer momentum; and so on."""
    sims = [started(name, quadratic(noise=0.1), world) for name in (one, other)]
    for sim in sims:
        sim.run(90)
    assert sims[0].steps == sims[1].steps
    assert models(sims[0]) == pytest.approx(models(sims[1]), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("synchronous", ["allreduce", "spsgd"])
def test_it_is_gradient_descent_on_the_mean(synchronous: str) -> None:
    task = quadratic()
    sim = started(synchronous, task, UNEQUAL, lr=0.1)
    sim.run(400)
    x, steps = np.zeros(3), min(sim.steps)
    for _ in range(steps):
        x = x - 0.1 * (task.h[:, None] * (x - task.b)).mean(0)
    slowest = [i for i, k in enumerate(sim.steps) if k == steps]
    assert models(sim)[slowest] == pytest.approx(np.tile(x, (len(slowest), 1)), rel=1e-12, abs=1e-12)
    assert max(sim.steps) - steps <= 1 < steps


LIKE_TORCH: dict[NewRule, Callable[[list[torch.Tensor]], torch.optim.Optimizer]] = {
    SGD: lambda x: torch.optim.SGD(x, lr=0.05),
    Momentum: lambda x: torch.optim.SGD(x, lr=0.05, momentum=0.9),
    Nesterov: lambda x: torch.optim.SGD(x, lr=0.05, momentum=0.9, nesterov=True),
    AdamW: lambda x: torch.optim.AdamW(x, lr=0.05),
}


@pytest.mark.parametrize("rule", LIKE_TORCH)
@pytest.mark.parametrize("algorithm", ALL)
def test_one_agent_alone_is_the_local_optimizer_bit_for_bit(algorithm: str, rule: NewRule) -> None:
    alone, rounded = ENTRIES[algorithm].alone, ENTRIES[algorithm].rounded
    if alone != 1.0:
        pytest.skip(f"not with the same learning rate: {alone}")
    task = quadratic(1, noise=0.3)
    sim = started(algorithm, task, World(seed=5), "ring", rule=rule)
    sim.run(30)
    (x,) = task.initial()
    x.requires_grad_(True)
    optimizer = LIKE_TORCH[rule]([x])
    sample = minibatches(task, 5, 0)
    for _ in range(sim.steps[0]):
        x.grad = task.gradients([0], [sample()], (x.detach()[None],))[0][0]
        optimizer.step()
    assert sim.steps[0] > 20
    if rule is not AdamW and not rounded:
        assert np.array_equal(models(sim)[0], x.detach().numpy())
    else:
        assert models(sim)[0] == pytest.approx(x.detach().numpy(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
def test_with_the_identity_as_w_every_agent_is_alone(algorithm: str) -> None:
    task = quadratic(noise=0.1)
    grid = build("grid", 9)
    together = started(algorithm, task, UNEQUAL, with_weights(grid.graph, np.eye(9)))
    together.run(100)
    x = np.zeros_like(task.b)
    for i in range(9):
        noise = minibatches(task, UNEQUAL.seed, i)
        for _ in range(together.steps[i]):
            x[i] = x[i] - 0.05 * (task.h[i] * (x[i] - task.b[i]) + noise())
    assert models(together) == pytest.approx(x, rel=1e-12, abs=1e-12)


def test_complete_mixing_of_equal_curvature_follows_allreduce() -> None:
    """With w_ij = 1/n and affine gradients of equal Hessian, DSGD's average model is parallel SGD's."""
    task = quadratic(equal=True)
    complete = build("complete", 9)
    uniform = with_weights(complete.graph, np.full((9, 9), 1 / 9))
    dsgd, allreduce = started("dsgd", task, LOCKSTEP, uniform), started("allreduce", task, LOCKSTEP, complete)
    for sim in (dsgd, allreduce):
        sim.run(30)
    assert models(dsgd).mean(0) == pytest.approx(models(allreduce).mean(0), rel=1e-12)


def test_double_step_adsgd_has_the_same_limit() -> None:
    """The limit depends on lr = alpha alone, and not on the step theta * alpha."""
    ring = build("ring", 4)
    for theta in (0.1, 0.5, 1.0):
        sim = started(f"adsgd:theta={theta:g}", quadratic(4), UNEQUAL_FOUR, ring, lr=0.3, check=False)
        end = limit("adsgd", quadratic(4), ring, 0.3)
        assert settled(sim, end, 300 / theta, 1e-9) == pytest.approx(end, abs=1e-9)


def test_double_step_adsgd_is_adsgd_with_other_weights_and_another_step() -> None:
    """W~ = (1 - theta) I + theta W, step theta * alpha: equation (7)."""
    grid = build("grid", 9)
    other = with_weights(grid.graph, 0.7 * np.eye(9) + 0.3 * grid.dense_w())
    named = started("adsgd:theta=0.3", world=UNEQUAL, lr=0.1)
    weighted = started("adsgd", world=UNEQUAL, topology=other, lr=0.3 * 0.1)
    for sim in (named, weighted):
        sim.run(60)
    assert models(named) == pytest.approx(models(weighted), rel=1e-12)


def test_shuffled_ties_leave_lockstep_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody relies on the order of what happens at one instant: numbers count down instead of up."""
    plain = {name: started(name, world=LOCKSTEP) for name in ("adsgd", "dsgd")}
    original = Heap.at

    def reversed_ties(self: Heap, *args: object) -> None:
        self.number -= 2
        original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Heap, "at", reversed_ties)
    for name, sim in plain.items():
        shuffled = started(name, world=LOCKSTEP)
        shuffled.run(30)
        monkeypatch.setattr(Heap, "at", original)
        sim.run(30)
        monkeypatch.setattr(Heap, "at", reversed_ties)
        assert np.array_equal(models(sim), models(shuffled))


def test_constant_delays_make_adsgd_periodic() -> None:
    world = World(compute=Delay("constant"), communication=Delay("constant", mean=0.25))
    sim = started("adsgd", world=world)
    sim.run(40)
    rows = sim.recorder.trace().table()
    assert all(
        row["versions"] == dict.fromkeys(row["versions"], row["step"] - 1) for row in rows if row["step"] > 1
    )
