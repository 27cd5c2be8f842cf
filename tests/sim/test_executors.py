"""The batched executor against the oracle: the same trace always, the same bits where gradients allow it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import ALL, quadratic, started
from torch import nn

from offbeat import SGD, AdamW, Crash, ModuleTask, Momentum, Vector, World, tasks
from offbeat.algorithms import find
from offbeat.core.forms import piece, replaced
from offbeat.core.rules import Rule
from offbeat.core.system.streams import Purpose, stream
from offbeat.engines.sim import recording
from offbeat.engines.sim.recording import EXECUTORS, ORACLE
from offbeat.tasks.data import load
from offbeat.tasks.task import Task


@pytest.fixture(scope="module")
def digits() -> Task:
    return tasks.build("digits", 9, seed=0)


def width_independent(task: Task) -> bool:
    """Whether a gradient has the same bits alone and beside others: a property of torch's build."""
    rng = stream(0, Purpose.DATA, 0)
    samples = [task.draw(i, rng, 1)[0] for i in range(9)]
    models = tuple(torch.randn(9, part.numel()).to(part.dtype) for part in task.initial())
    together = task.gradients(range(9), samples, models)
    alone = [task.gradients([i], [samples[i]], tuple(m[i : i + 1] for m in models)) for i in range(9)]
    return all(torch.equal(part[i], alone[i][p][0]) for p, part in enumerate(together) for i in range(9))


def agree(
    task: Task, algorithm: str, world: World, until: float, rule: Callable[[float], Rule] = SGD
) -> None:
    runs = [
        started(algorithm, task, world, how=how, lr=0.05, check=how == ORACLE, rule=rule) for how in EXECUTORS
    ]
    for sim in runs:
        sim.run(until)
    batched, oracle = runs
    assert oracle.recorder.trace().digest() == batched.recorder.trace().digest()
    for a, b in zip(oracle.stacked(), batched.stacked(), strict=True):
        if width_independent(task):
            assert torch.equal(a, b)
        else:
            assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)


@settings(max_examples=12)
@given(
    st.integers(0, 1000), st.sampled_from([*ALL, "a2cid2", "asbcd", "diloco"]), st.booleans(),
    st.sampled_from([SGD, Momentum, AdamW]), st.sampled_from([1, 7, 300]),
)  # fmt: skip
def test_batched_equals_event_by_event_on_quadratics(
    seed: int, algorithm: str, faults: bool, rule: Callable[[float], Rule], longest: int
) -> None:
    """However many records are computed at a time."""
    world = World(seed=seed, slow_compute={4: 10.0}, slow_communication={4: 10.0})
    if faults and "crash" in find(algorithm).tolerates:
        world = replace(world, loss=0.2, crashes=(Crash(1, 8.3, 20.1), Crash(4, 13.7)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recording, "LONGEST", longest)
        patched.setattr(recording, "PER_AGENT", 0)
        agree(quadratic(noise=0.5), algorithm, world, 24, rule)


@pytest.mark.parametrize("algorithm", ALL)
def test_batched_equals_event_by_event_on_digits(algorithm: str, digits: Task) -> None:
    agree(digits, algorithm, World(seed=1, slow_compute={4: 10.0}, slow_communication={4: 10.0}), 20)


@pytest.mark.parametrize("vectorized", [True, False])
def test_batched_equals_event_by_event_on_a_module(vectorized: bool) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(180, 5), torch.randint(3, (180,))
    module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    task = ModuleTask(module, nn.functional.cross_entropy, (x, y), batch=4, vectorized=vectorized)
    agree(task, "adsgd", World(seed=1), 10)


def test_closed_form_gradients_are_autograds(digits: Task) -> None:
    """The closed form of the logistic task against torch.autograd on its written-out loss."""
    rng = stream(3, Purpose.DATA, 0)
    samples = [digits.draw(i, rng, 1)[0] for i in range(3)]
    models = torch.randn(3, 650)
    (closed,) = digits.gradients([0, 1, 2], samples, (models,))
    data = load("digits")
    for r in range(3):
        flat = models[r].clone().requires_grad_(True)
        index = torch.from_numpy(samples[r])
        logits = data.train_x[index] @ flat[:640].view(10, 64).T + flat[640:]
        loss = (
            nn.functional.cross_entropy(logits, data.train_y[index]) + 0.001 * (flat**2 / (1 + flat**2)).sum()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        assert flat.grad is not None
        assert torch.allclose(closed[r], flat.grad, rtol=1e-4, atol=1e-6)


def test_a_linear_module_is_the_logistic_task(digits: Task) -> None:
    """The same trajectory through torch.func and through the closed form."""
    data = load("digits")
    linear = nn.Linear(64, 10)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    shards = digits.minibatches.shards  # type: ignore[attr-defined]
    module = ModuleTask(
        linear, nn.functional.cross_entropy, (data.train_x, data.train_y), (data.test_x, data.test_y),
        reg=0.001, shards=shards,
    )  # fmt: skip
    ends = []
    for task in (digits, module):
        sim = started("adsgd", task, World(seed=2), lr=0.01, how="batched")
        sim.run(15)
        x = sim.stacked()
        ends.append((x[0].numpy(), task.losses(x), task.accuracies(x)))
    for a, b in zip(*ends, strict=True):
        assert np.asarray(a) == pytest.approx(np.asarray(b), rel=1e-4, abs=1e-5)


def test_what_is_recorded_of_pieces_is_what_torch_makes(digits: Task) -> None:
    """Pieces of models, and vectors as long that are none: in forms, and in place of pieces of a model."""
    numbers = torch.Generator().manual_seed(0)
    x, y = (Vector(tuple([torch.randn(p.shape, generator=numbers) for p in digits.initial()])) for _ in "xy")
    short = Vector(tuple([part.clone() for part in piece(y, 4, 1).parts]))
    made = []
    for how in EXECUTORS.values():
        with how(digits).scope:
            one = short + piece(x, 4, 1)
            two = piece(x, 4, 1) - piece(0.3 * y, 4, 1)
            made.append(
                [one, two, *[replaced(x, 4, {1: each, 3: piece(y, 4, 3)}) for each in (two, short, one)]]
            )
    for ours, expected in zip(*made, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.parts, expected.parts, strict=True))


def test_what_nobody_takes_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that come too late for Amelie are not computed, nor are their sums; models are the same."""
    task, counted = quadratic(9), list[int]()
    gradients = type(task).gradients

    def counting(self: Any, agents: Any, *args: Any) -> Any:
        counted.append(len(agents))
        return gradients(self, agents, *args)

    monkeypatch.setattr(type(task), "gradients", counting)
    models, made = [], dict[str, int]()
    for how in EXECUTORS:
        counted.clear()
        sim = started("amelie", task, World(seed=1), lr=0.01, how=how)
        sim.run(60)
        models.append(sim.everybody())
        made[how] = sum(counted)
    assert all(torch.equal(a, b) for a, b in zip(*models, strict=True))
    assert made["batched"] < 0.95 * made[ORACLE]
