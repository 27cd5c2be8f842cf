"""Compressed messages in the simulator: what a class says of them, conservation, order, replay."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import minibatches, models, quadratic, started
from scripted import CONSTANT
from under_way import array
from worlds import WORLDS

import offbeat
from offbeat import SGD, Agent, Crash, SettingError, Vector, World
from offbeat.algorithms import ALGORITHMS, MemoryEfficientADSGD, find
from offbeat.algorithms.adsgd_memory import Change
from offbeat.core.agent import Accumulate
from offbeat.core.codecs import codec_of
from offbeat.core.system.devices import one_thread
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.engines.outbox import Receivers, Transmission
from offbeat.engines.sim.executors import evaluate
from offbeat.engines.sim.replay import Replay
from offbeat.engines.sim.simulator import Simulator

MIXED = [
    ("adsgd", "bf16"), ("adsgd", "int8"), ("rfast", "int8"), ("dsgd", "int8"), ("adpsgd", "int8"),
    ("apsgd", "bf16"), ("easgd", "int8"), ("asbcd", "int8"), ("adsgd:memory-efficient", "int8"),
    ("adsgd:memory-efficient", "top-k:0.3"),
]  # fmt: skip


def run(algorithm: str | Agent, said: str, how: str = "event-by-event", **world: Any) -> Simulator:
    """A noisy run, with losses where they may be."""
    there = {"loss": 0.3} if "loss" in find(algorithm).tolerates else {}
    task, world_ = quadratic(d=8, noise=0.5), World(seed=3, **(there | world))
    sim = started(algorithm, task, world_, how=how, lr=0.02, check=False, codec=codec_of(said))
    sim.run(12)
    return sim


def replayed(sim: Simulator, algorithm: str | Agent, said: str) -> None:
    """Fresh agents that meet the same events do the same, to the bit."""
    trace, task, new = sim.recorder.trace(), sim.task, find(algorithm).new
    draws, seen = [minibatches(task, 3, i) for i in range(9)], [list[np.ndarray]() for _ in range(9)]

    def gradient(i: int, k: int, x: Vector) -> Vector:
        while len(seen[i]) <= k:
            seen[i].append(draws[i]())
        return evaluate(task, i, x, seen[i][k])

    chance = [python_stream(3, Purpose.ALGORITHM, i) for i in range(9)]
    rng, start, codec = (lambda i, _: chance[i]), task.initial(), codec_of(said)
    replay = Replay(trace, sim.topology, new, lambda: SGD(0.02), rng, start, gradient, codec=codec)
    with one_thread():
        again = replay.run()
    assert again.table() == trace.table()
    assert np.array_equal(replay.stacked()[0].numpy(), models(sim))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_class_says_which_messages_carry_models_and_which_are_accumulated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim, agent = started(name, quadratic(), check=False), ALGORITHMS[name].prototype
    seen, give = set[tuple[type, type]](), sim.links.give

    def watched(sender: int, medium: Any, to: tuple[int, ...], message: Any, letter: int) -> None:
        seen.add((medium, type(message)))
        give(sender, medium, to, message, letter)

    monkeypatch.setattr(sim.links, "give", watched)
    sim.run(9)
    summed = {kind for medium, kind in seen if medium is Accumulate}
    assert summed == {*agent.sends_changes}
    assert {*agent.sends_models} <= {kind for _, kind in seen} - summed


@dataclass(frozen=True)
class Added:
    d: Vector


@dataclass(frozen=True)
class Total:
    x: Vector


@dataclass
class Teller(Agent):
    """Accumulates what it adds, and tells everybody, or one, the sum now and then; hears nothing wrong."""

    sends_changes = (Added,)
    sums: dict[int, Vector] = field(init=False, default_factory=dict)
    count: int = field(init=False, default=0)
    told: int = field(init=False, default=0)

    def on_gradient(self, g: Vector) -> None:
        u, self.count = self.rule(g), self.count + 1
        self.x = self.x - u
        self.accumulate(self.view.listeners, Added(-u))
        if self.count % 3 == 0:
            self.send(self.view.listeners if self.count % 2 else self.view.listeners[0], Total(self.x))
        self.compute(self.x)

    def on_message(self, src: int, message: Added | Total) -> None:
        match message:
            case Added(d):
                self.sums[src] = self.sums[src] + d if src in self.sums else d
            case Total(x):
                self.told += 1
                assert array(self.sums[src]) == pytest.approx(array(x), abs=1e-12)


CODECS = ["bf16", "int8", "top-k:0.3"]


@pytest.mark.parametrize("said", CODECS)
@pytest.mark.parametrize("sending", ["multicast", "unicast"])
def test_before_mail_arrives_all_that_was_accumulated_before_it(said: str, sending: str) -> None:
    sim = run(Teller(), said, sending=sending, bandwidth=2.0)
    agents: Sequence[Any] = sim.agents
    assert all(agent.told > 1 for agent in agents)
    replayed(sim, Teller(), said)


@pytest.mark.parametrize(("name", "said"), MIXED)
def test_executors_agree_and_a_replay_is_exact(name: str, said: str) -> None:
    one, other = (run(name, said, how) for how in ("event-by-event", "batched"))
    assert one.recorder.trace().digest() == other.recorder.trace().digest()
    assert np.array_equal(models(one), models(other))
    replayed(one, name, said)


def changes_under_way(sim: Simulator) -> dict[tuple[int, int], np.ndarray]:
    """By sender and receiver, the sum of what has not arrived: kept, waiting, on its way."""
    boxes = sim.links.outbox
    waiting = [item for box in boxes for item in [*box.queue, *box.kept.values()]]
    there: list[tuple[Transmission, Receivers]] = [(item, item.receivers) for item in waiting]
    for *_, handler, args in sim.heap.events:
        if handler == sim.links._arrive:
            _, item, receivers, _ = args  # not all, where some get it before others
            there.append((item, receivers))
    flows = [] if sim.links.fair is None else sim.links.fair.flows
    there += [(flow.item, ((flow.receiver, flow.incarnation),)) for flow in flows]
    found: dict[tuple[int, int], np.ndarray] = defaultdict(lambda: np.zeros(8))
    for item, receivers in there:
        for j, life in receivers:
            if isinstance(item.message, Change) and life == sim.heap.incarnation[j]:
                found[item.sender, j] = found[item.sender, j] + array(item.message.d)
    return found


@settings(max_examples=6)
@given(WORLDS, st.sampled_from(CODECS), st.sampled_from([(), (Crash(2, 5.0),), (Crash(2, 5.0, 11.0),)]))
def test_what_is_accumulated_has_arrived_or_is_on_its_way_or_kept(
    world: World, said: str, crashes: tuple[Crash, ...]
) -> None:
    """Algorithm 3's y_i = sum_j w_ij (x_j - what has not arrived of its changes), over those who count."""
    options: dict[str, Any] = {"codec": codec_of(said), "lr": 0.02, "check": False}
    task, world = quadratic(6, noise=0.5, d=8), replace(world, crashes=crashes)
    sim = started("adsgd:memory-efficient", task, world, "ring", **options)
    for time in (3.0, 9.0, 16.0):
        sim.run(time)
        late = changes_under_way(sim)
        for i in sorted(sim.alive):
            agent, expected = cast(MemoryEfficientADSGD, sim.agents[i]), np.zeros(8)
            for j in agent.counted:
                expected += agent.view.w[j] * (array(sim.agents[j].x) - late[j, i])
            assert array(agent.y) == pytest.approx(expected, abs=1e-11)


def test_a_transmission_takes_as_long_as_its_bytes() -> None:
    """d * size / model, of 8 numbers of 8 bytes; what every agent sent is counted as sent."""
    for said, size in {"none": 64, "bf16": 16, "int8": 8 + 8}.items():
        sim = started("adsgd", quadratic(d=8), CONSTANT, codec=codec_of(said))
        sim.run(9.5)
        sent = sim.recorder.trace().transmissions
        assert {*sent["bytes"].tolist()} == {size}
        assert (sent["end"] - sent["start"]).tolist() == pytest.approx([size / 64] * len(sent))
        assert sim.counts()[2] == size * len(sent)
        assert {*sim.links.carried.values()} == {size * 9}


@pytest.mark.parametrize("name", ["adsgd", "dsgd", "dgd-atc"])
def test_models_end_within_what_int8_rounds_of_the_limit(name: str) -> None:
    """|x - limit| <= max_i (1 - w_ii) (s / 2) / (lr min h) in every number, where rounding has no end.

    x <- W x - lr (h x - ..) contracts by 1 - lr h in the largest number, and is off by (1 - w_ii) s / 2.
    """
    task, lr = quadratic(4), 0.1
    options: dict[str, Any] = {"topology": "ring", "lr": lr, "check": False}
    exact, rounded = (started(name, task, codec=codec_of(said), **options) for said in ("none", "int8"))
    for sim in (exact, rounded):
        sim.run(250)
    scale = float(np.abs(models(exact)).max()) / 127
    off = float(np.abs(models(rounded) - models(exact)).max())
    assert 0 < off <= (2 / 3) * scale / 2 / (lr * 0.5)  # curvatures are at least 0.5


def test_what_has_nothing_to_compress_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match=r"allreduce sends nothing.*expected one of adsgd, .*rfast, dsgd"):
        offbeat.compare(["adsgd", "allreduce"], task="quadratic", compress="int8", until=5)
    with pytest.raises(SettingError, match=r"adsgd accumulates nothing.*one of adsgd:memory-efficient\."):
        offbeat.compare(["adsgd"], task="quadratic", compress="top-k:0.1", until=5)
    with pytest.raises(SettingError, match="cannot be run by levels: what is sent is compressed"):
        offbeat.compare(["adsgd"], task="quadratic", compress="bf16", until=5, executor="levels")
    with pytest.raises(SettingError, match=r"Mine sends nothing.*sends_models"):
        offbeat.compare([Mine], task="quadratic", compress="bf16", until=5)


class Mine(Agent):
    def on_gradient(self, g: Vector) -> None:
        self.x = self.x - self.rule(g)
        self.compute(self.x)
