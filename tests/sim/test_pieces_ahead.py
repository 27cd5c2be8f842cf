"""By levels, pieces of models: what is read of them, and that they come out as the simulator makes them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from setups import FREE, WORLDS, prepared, same

from offbeat import SGD, Agent, Vector, World
from offbeat.algorithms import find
from offbeat.algorithms.asbcd import ASBCD, Block
from offbeat.core.forms import Piece, piece, pieces, pin, replaced
from offbeat.core.rules import Momentum
from offbeat.core.system.streams import Purpose, stream
from offbeat.engines.sim.ahead import reading
from offbeat.engines.sim.ahead.fields import frozen
from offbeat.engines.sim.ahead.levels import Levels
from offbeat.engines.sim.ahead.placeholders import GRADIENT, HEARD, MADE, STATE, UNSEEN
from offbeat.engines.sim.ahead.probing import why_not_read
from offbeat.engines.sim.ahead.reading import Reading
from offbeat.engines.sim.ahead.rhythm import readings
from offbeat.engines.sim.ahead.schedule import Schedule
from offbeat.engines.sim.ahead.scheduled import ScheduledRun
from offbeat.engines.sim.ahead.states import GIVEN, MODEL
from offbeat.engines.sim.ahead.unchanged import Unchanged
from offbeat.engines.sim.recording import EXECUTORS, ORACLE
from offbeat.engines.sim.simulator import Simulator
from offbeat.experiments.runs import Job, run_one
from offbeat.experiments.segments import time_segments
from offbeat.experiments.setup import Setup
from offbeat.world.topology import build


@dataclass(frozen=True)
class Part:
    """A piece of something."""

    v: Vector


@dataclass
class Summed(Agent):
    """Everybody steps along one piece, and sends the steps, summed while they wait, to all others."""

    beyond_graph = True
    got: dict[int, Vector] = field(init=False, default_factory=dict)

    def others(self) -> tuple[int, ...]:
        return tuple(j for j in range(self.n) if j != self.me)

    def on_message(self, src: int, message: Part) -> None:
        self.got[src] = self.got[src] + message.v if src in self.got else pin(message.v)

    def on_gradient(self, g: Vector) -> None:
        step = pin(piece(self.rule(g), self.n, self.me))
        steps = {**self.got, self.me: step}
        self.accumulate(self.others(), Part(step))
        self.x = replaced(self.x, self.n, {j: piece(self.x, self.n, j) - u for j, u in steps.items()})
        self.got = {}
        self.compute(self.x)


def test_pieces_are_read_off_the_class() -> None:
    """Of five agents' the one in the middle: its block has two of twelve numbers."""
    found, rhythm = readings(ASBCD, lambda: SGD(0.25), build("ring", 5).views(), torch.zeros(12))
    asbcd = found[2]
    heard = asbcd.hear(asbcd.gradient(asbcd.start).then, (0, 1, 2, 3)).then
    made = asbcd.gradient(heard)
    block, model = made.cells
    assert block == ((STATE, MODEL, 1.0), (GRADIENT, 0, -0.25)) and made.cuts[0] == (Piece(5, 2),) * 2
    assert [each[:2] for each in model] == [(HEARD, 0), (HEARD, 1), (MADE, 0), (HEARD, 2), (HEARD, 3)]
    assert made.cuts[1] == pieces(5) and {c for _, _, c in model} == {1.0}
    assert made.mixed == (0, 1, 2, 3) and asbcd.steady(heard) and not asbcd.steady(asbcd.start)
    assert [each.slots[0].nbytes for each in found] == [12, 12, 8, 8, 8] and rhythm.size == 48
    early = asbcd.gradient(asbcd.hear(asbcd.start, (3,)).then).cells[1]
    assert [each[:2] for each in early] == [*[(STATE, MODEL)] * 2, (MADE, 0), (STATE, MODEL), (HEARD, 3)]


@settings(max_examples=5, deadline=None)
@given(WORLDS, st.sampled_from([0, 3, 16]), st.sampled_from(["sgd", "momentum"]), st.integers(40, 400))
def test_a_run_by_pieces_is_the_oracles(world: World, few: int, rule: str, rows: int) -> None:
    """Models, curve, trace and digest, in segments too, whether what is heard is read together or not."""
    p = prepared(topology="star", agents=5, until=8.0, eval_every=4.0, optimizer=rule)
    p = replace(p, world=world)
    with patch.object(reading, "FEW", few), patch("offbeat.experiments.segments.SEGMENT", rows):
        ours, wanted = (run_one(Job(p, find("asbcd"), 0.05, how)) for how in ("levels", "event-by-event"))
    assert same(ours, wanted) and ours.trace is not None and ours.trace.blocks
    assert ours.models[0].numpy().tobytes() == wanted.models[0].numpy().tobytes()


@settings(max_examples=6, deadline=None)
@given(WORLDS, st.sampled_from(FREE))
def test_what_is_heard_may_be_read_together(world: World, name: str) -> None:
    p = replace(prepared(topology="complete", agents=5, until=5.0), world=world)
    with patch.object(reading, "FEW", 0):
        assert same(run_one(Job(p, find(name), 0.05, "levels")), run_one(Job(p, find(name), 0.05, "batched")))


def by_levels(p: Setup, new: Callable[[], Agent], rule: Callable[[], Any]) -> torch.Tensor:
    """Its models, of a class of one's own, whose runs go event by event else."""
    (start,) = p.task.initial()
    schedule = Schedule(readings(new, rule, p.topology.views(), start), p.world)
    streams = [stream(p.world.seed, Purpose.DATA, i) for i in range(schedule.n)]
    draws = [partial(p.task.draw, i, each) for i, each in enumerate(streams)]
    made = Levels([ScheduledRun(schedule, [p.until], draws, False)], p.task, (start,))
    made.run(p.until)
    return made.stacked(0)[0]


@pytest.mark.parametrize("rule", [SGD, Momentum])
def test_pieces_that_are_summed_while_they_wait(rule: Callable[[float], Any]) -> None:
    p = prepared(agents=4, until=20.0, communication="lognormal 0.5 mean 3")
    made = by_levels(p, Summed, lambda: rule(0.05))
    world = (p.topology, p.task, p.world, EXECUTORS[ORACLE](p.task))
    oracle = Simulator(Summed, lambda: rule(0.05), *world)
    oracle.start()
    oracle.run(p.until)
    assert torch.equal(made, oracle.stacked()[0])


@dataclass
class Other(ASBCD):
    """ASBCD that does something else with its block."""

    def on_gradient(self, g: Vector) -> None:
        self.publish(tuple(j for j in range(self.n) if j != self.me), Part(self.made(g)))
        self.x = self.x - self.rule(g)
        self.compute(self.x)

    def made(self, g: Vector) -> Vector:
        raise NotImplementedError


class Mixed(Other):
    def made(self, g: Vector) -> Vector:
        return piece(self.x, 4, 0) + piece(g, 4, 1)


class Misplaced(Other):
    def made(self, g: Vector) -> Vector:
        return replaced(self.x, 4, {0: piece(g, 4, 1)})


class Finer(Other):
    def made(self, g: Vector) -> Vector:
        return piece(piece(self.x, 4, 0), 2, 1)


class Seen(Other):
    def made(self, g: Vector) -> Vector:
        return piece(self.x, 4, 0) * piece(self.x, 4, 0).norm()


class Near(Other):
    beyond_graph = False

    def made(self, g: Vector) -> Vector:
        return piece(g, self.n, self.me)


class Turning(Other):
    def made(self, g: Vector) -> Vector:
        self.round = (self.round + 1) % 4
        return piece(self.x, 4, self.round)


class Small(Other):
    def on_gradient(self, g: Vector) -> None:
        self.x = 2.0 * piece(self.x, 4, 0)
        self.publish(self.view.listeners, Part(self.x))
        self.compute(self.x)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Mixed, "adds different pieces"),
        (Misplaced, "puts a piece of a model where another belongs"),
        (Finer, "a function of its numbers"),
        (Seen, "looks at the numbers"),
        (Near, "go by numbers of agents"),
        (Turning, "gives other pieces away at other gradients"),
        (Small, "its model is a piece"),
    ],
)
def test_what_else_is_done_with_pieces_is_found_out(kind: type[Agent], why: str) -> None:
    assert why in why_not_read(kind, lambda: SGD(0.1))


@dataclass
class Turned(ASBCD):
    """ASBCD that counts what it hears, as even or odd."""

    odd: bool = False

    def on_message(self, src: int, message: Block) -> None:
        super().on_message(src, message)
        self.odd = not self.odd


def read(kind: Callable[[], Agent]) -> Reading:
    """That of agent 1 of five."""
    found, _ = readings(kind, lambda: SGD(0.25), build("ring", 5).views(), torch.zeros(12))
    return found[1]


def test_what_is_heard_in_vain_is_told_from_what_changes_something() -> None:
    """What has come back to where it was has changed in between."""
    asbcd, turned = read(ASBCD), read(Turned)
    some = asbcd.hear(asbcd.start, (0, 2)).then
    assert asbcd.hear(some, (2, 0, 2)).then is some and some.idle == {0, 2} and not some.told
    asbcd.hear(some, (2, 3, 0, 1))
    assert [*some.told] == [(3, 0, 1)]
    state = turned.hear(turned.start, (0, 1, 2, 3)).then
    assert turned.hear(state, (0, 1)).then is state and turned.hear(state, (1,)).then is not state
    assert not state.idle and not turned.steady(state)


def test_the_sum_of_pieces_is_one() -> None:
    """Of as many numbers, where what was given before still waits."""
    summed = read(Summed)
    made = summed.gradient(summed.start)
    assert made.adding is not None and made.adding.cuts[made.adding.outs[GIVEN]] == (Piece(5, 1),) * 2


def test_reading_takes_no_longer_where_many_are_heard() -> None:
    """Not one look at an agent for each that it hears, but for each time that it hears any."""
    p = prepared(agents=24, task="digits", until=5.0, eval_every=5.0)
    with patch("offbeat.engines.sim.ahead.reading.frozen", wraps=frozen) as looked:
        run = run_one(Job(p, find("asbcd"), 0.05, "levels"))
    assert run.messages > 80 and looked.call_count < 14 * 24


def test_what_is_heard_counts_in_the_length_of_segments() -> None:
    """Of everybody, whatever the graph is."""
    p = prepared(agents=40, until=20.0)
    near, far = (Job(p, find(name), 0.05) for name in ("adsgd", "asbcd"))
    assert (near.heard, far.heard) == (p.topology.degree, 39)
    with patch("offbeat.experiments.segments.SEGMENT", 4_000):
        assert len(time_segments(p, 1, far.heard)) > len(time_segments(p, 1, near.heard)) > 0


def test_whether_an_agent_is_unchanged() -> None:
    """Down to what cannot change; of what is of another kind it is not said."""
    agent, rule, v = ASBCD(), Momentum(0.1), Vector((torch.zeros(2),))
    agent.join(0, 3, v, build("ring", 3).views()[0], rule, UNSEEN)
    agent.heard[1] = v
    unchanged = Unchanged(agent)
    agent.heard[1] = v
    assert unchanged()
    changes: list[tuple[dict[Any, Any], Any, Any]] = [
        (agent.heard, 1, Vector((torch.zeros(2),))), (agent.heard, 2, v), (vars(rule), "m", v),
        (vars(agent), "me", 1),
    ]  # fmt: skip
    for where, name, other in changes:
        before = dict(where)
        where[name] = other
        assert not unchanged()
        where.clear()
        where.update(before)
        assert unchanged()
    agent.seen = {1}  # type: ignore[attr-defined]
    assert not Unchanged(agent)()
