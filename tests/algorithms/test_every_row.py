"""Every row of the table of algorithms, and every option, held to what `entries.ENTRIES` says of it.

Golden traces, live runs and checkpoints of every row are in tests/theory/test_golden.py and tests/live.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from entries import ENTRIES, OTHER_OBJECTIVE
from runs import minibatches, models, quadratic, started

from offbeat import SGD, Crash, Quadratic, SettingError, Vector, World
from offbeat.algorithms import ALGORITHMS, find, row_of
from offbeat.core.optimizers import Steps
from offbeat.core.system.devices import one_thread
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.engines.sim.executors import evaluate
from offbeat.engines.sim.replay import Replay
from offbeat.engines.sim.simulator import Simulator
from offbeat.theory import limit

STRAGGLER = World(seed=3, slow_compute={4: 10.0}, slow_communication={4: 10.0})
STEPS = (
    Steps.of("nesterov:0.7", "warmup:3+cosine", 20.0),
    Steps.of("momentum", "step:2+factor=0.8+by=steps", 20.0),
    Steps.of("adamw:weight_decay=0.1", "sqrt:5", 20.0),
)
every = pytest.mark.parametrize("name", ENTRIES)


def tolerating(what: str) -> Sequence[str]:
    return [name for name in ENTRIES if what in find(name).tolerates]


def world_of(name: str, world: World = STRAGGLER) -> World:
    return replace(world, loss=0.3) if "loss" in find(name).tolerates else world


@cache
def mixed_up(name: str, how: str, check: bool = False) -> Simulator:
    """Everything that the algorithm tolerates at once, with noise, to 36; to 60 where rounds are long."""
    world, row = world_of(name), find(name)
    if "crash" in row.tolerates:
        world = replace(world, crashes=(Crash(1, 8.3, 20.1 if "return" in row.tolerates else None),))
    sim = started(name, quadratic(noise=0.5), world, how=how, lr=0.02, check=check)
    sim.run(36 if "crash" in row.tolerates else 60)
    return sim


def test_every_algorithm_and_option_has_an_entry() -> None:
    assert {row.name for row in map(row_of, ENTRIES) if row} == {*ALGORITHMS}
    assert {*ALGORITHMS} <= {*ENTRIES}, "each as it is, too, besides its options"
    named = {(row_of(name).name, option) for name in ENTRIES for option in _set(name)}  # type: ignore[union-attr]
    assert named == {(row.name, option) for row in ALGORITHMS.values() for option in row.options}


def _set(name: str) -> list[str]:
    return [option for option, (_, value, usual) in find(name).chosen().items() if value != usual]


@every
def test_a_row_says_what_a_reader_asks(name: str) -> None:
    row = find(name)
    assert row.title and row.paper and row.sends and row.waits_for and row.needs
    assert {"crash", "return"} <= row.tolerates or row.note, "why not is said"
    doc = type(row.prototype).__doc__ or ""
    assert "Differs from the paper" in doc or "textbook" in row.paper
    assert " <- " in doc or " = " in doc, "its equation"


@every
def test_executors_agree_and_one_seed_gives_the_same(name: str) -> None:
    one, other = (mixed_up(name, how) for how in ("event-by-event", "batched"))
    assert one.recorder.trace().digest() == other.recorder.trace().digest()
    assert np.array_equal(models(one), models(other))
    assert min(one.steps[i] for i in one.alive) > 0


@every
def test_the_contract_is_kept_and_agents_can_be_pickled_at_any_time(name: str) -> None:
    checked, free = mixed_up(name, "event-by-event", check=True), mixed_up(name, "event-by-event")
    assert checked.recorder.trace().digest() == free.recorder.trace().digest()


@every
def test_every_optimizer_and_schedule_steps_alike_in_all_executors(name: str) -> None:
    """With what an agent keeps of its gradients, and a learning rate that changes; forms take turns."""
    task, prototype = quadratic(noise=0.5), find(name).prototype
    steps = STEPS[[*ENTRIES].index(name) % len(STEPS)]
    if getattr(prototype, "l1", 0.0):
        with pytest.raises(SettingError, match="Expected --optimizer sgd"):
            started(name, task, rule=steps.rule)
        return
    sims = [
        started(name, task, world_of(name), lr=0.02, how=how, rule=steps.rule, check=how == "batched")
        for how in ("event-by-event", "batched")
    ]
    for sim in sims:
        sim.run(20)
    assert sims[0].recorder.trace().digest() == sims[1].recorder.trace().digest()
    assert np.array_equal(models(sims[0]), models(sims[1]))
    assert np.isfinite(models(sims[0])).all()


@every
def test_its_trace_is_replayed_to_the_bit(name: str) -> None:
    """Fresh agents meet what was recorded, with losses, and do the same."""
    task = quadratic(noise=0.5)
    sim = started(name, task, world_of(name), lr=0.02, check=False)
    sim.run(30)
    draws = [minibatches(task, STRAGGLER.seed, i) for i in range(9)]
    seen: list[list[np.ndarray]] = [[] for _ in range(9)]

    def gradient(i: int, k: int, x: Vector) -> Vector:
        while len(seen[i]) <= k:
            seen[i].append(draws[i]())
        return evaluate(task, i, x, seen[i][k])

    chance = [python_stream(STRAGGLER.seed, Purpose.ALGORITHM, i) for i in range(9)]
    trace, new = sim.recorder.trace(), find(name).new
    replay = Replay(
        trace, sim.topology, new, lambda: SGD(0.02), lambda i, _: chance[i], task.initial(), gradient
    )
    with one_thread():
        again = replay.run()
    assert again.table() == trace.table()
    assert np.array_equal(replay.stacked()[0].numpy(), models(sim))


@every
def test_one_agent_alone_is_sgd(name: str) -> None:
    factor, task = ENTRIES[name].alone, quadratic(1, noise=0.3)
    if isinstance(factor, str):
        pytest.skip(factor)
    sim = started(name, task, World(seed=5), "ring")
    sim.run(30)
    (x,), sample = task.initial(), minibatches(task, 5, 0)
    for _ in range(sim.steps[0]):
        x = x - factor * 0.05 * task.gradients([0], [sample()], (x[None],))[0][0]
    assert sim.steps[0] > 20
    assert models(sim)[0] == pytest.approx(x.numpy(), rel=1e-12, abs=1e-12)


@every
def test_it_ends_at_its_limit(name: str) -> None:
    entry, task = ENTRIES[name], quadratic(4)
    if isinstance(entry.near, str):
        pytest.skip(entry.near)
    world = world_of(name, World(seed=3, slow_compute={1: 3.0}, slow_communication={2: 3.0}))
    sim = started(name, task, world, "ring", lr=entry.lr, check=False)
    sim.run(entry.until)
    found, parts = models(sim), 100 if entry.expected else 0
    for part in range(parts):
        sim.run(entry.until * (1 + 3 * (part + 1) / parts))
        found = found + models(sim)
    wanted = limit(name, task, sim.topology, entry.lr, sim.steps)
    assert found / (parts + 1) == pytest.approx(wanted, abs=entry.near)


@every
def test_it_keeps_what_it_conserves(name: str) -> None:
    law = ENTRIES[name].conserved
    if isinstance(law, str):
        pytest.skip(law)
    sim = started(name, quadratic(noise=0.5), world_of(name), lr=0.02)
    for time in range(1, 40, 4):
        sim.run(time)
        left, right = law(sim)
        assert left == pytest.approx(right, abs=1e-11)


@pytest.mark.parametrize("name", tolerating("crash"))
def test_the_others_go_on_when_an_agent_crashes(name: str) -> None:
    sim = started(name, quadratic(noise=0.1), World(seed=2, crashes=(Crash(4, 10.5),)), lr=0.02, check=False)
    sim.run(30)
    before = list(sim.steps)
    sim.run(80)
    assert all(sim.steps[i] > before[i] + 5 for i in range(9) if i != 4)
    assert np.isfinite(models(sim)).all()


@pytest.mark.parametrize("name", tolerating("return"))
def test_who_returns_takes_part_again(name: str) -> None:
    world = World(seed=2, crashes=(Crash(4, 10.5, 30.5),))
    sim = started(name, quadratic(noise=0.1), world, lr=0.02, check=False)
    sim.run(30)
    before = list(sim.steps)
    sim.run(120)  # a server that answers one agent after another does so once in 8 units of time
    assert all(sim.steps[i] > before[i] + 5 for i in range(9))


class Far(Quadratic):
    """Starts far from every minimiser."""

    def initial(self) -> tuple[torch.Tensor, ...]:
        return (super().initial()[0] + 100.0,)


@every
def test_no_gradients_and_equal_models_stay_as_they_are(name: str) -> None:
    """Constant consensus is a fixed point of every way to mix."""
    if ENTRIES[name].alone == OTHER_OBJECTIVE:
        pytest.skip(OTHER_OBJECTIVE)
    task = Far(np.full((9, 3), 100.0), np.ones(9))
    sim = started(name, task, world_of(name), lr=0.1, check=False)
    sim.run(25)
    assert models(sim) == pytest.approx(np.full((9, 3), 100.0), rel=1e-12)
