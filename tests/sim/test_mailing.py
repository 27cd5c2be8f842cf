"""Pairs and registers without handlers: events as the simulator has them, and what is made at each, against
the oracle.
"""

import math
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offbeat.algorithms import ALGORITHMS, find
from offbeat.core.agent import Agent
from offbeat.core.forms import larger, mix, pin, total
from offbeat.core.rules import SGD
from offbeat.core.server import Model, Served
from offbeat.core.vector import Vector
from offbeat.engines.sim.ahead import discovered, mailing
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.machine import BEGIN, COMPUTED, Machine
from offbeat.engines.sim.ahead.mailing import MailRun
from offbeat.engines.sim.ahead.numbers import Drawn, Question
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.post import Post
from offbeat.engines.sim.simulator import Simulator
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, engines, run_one, simulator
from offbeat.experiments.setup import prepare
from offbeat.world.topology import build

GRAPHS = [("ring", 2), ("grid", 9), ("complete", 4), ("star", 6), ("exponential", 8), ("chain", 5)]
SPECS = [
    "adpsgd",
    "adpsgd:wait",
    "adpsgd:local_steps=3",
    "adpsgd:wait+local_steps=2",
    "easgd",
    "easgd:momentum=0.9+every=2",
    "a2cid2",
    "a2cid2:eta=0.3+alpha=0.7",
    "a2cid2:eta=0",
    "rasgp",
    "apsgd",
    "ringmaster",
    "ringmaster:r=2",
    "ringleader",
    "spsgd",
]
WORLDS: list[dict[str, Any]] = [
    {}, {"latency": 0.1}, {"bandwidth": 0.5}, {"compute": "constant", "communication": "constant"},
    {"event": "agent 0 slows by 2 at 3"}, {"loss": 0.2}, {"loss": 0.4, "latency": 0.3},
    {"event": "cut {0} from the rest at 4 until 9"},
]  # fmt: skip


def job(name: str, seed: int = 0, **settings: Any) -> Job:
    usual: dict[str, Any] = {"task": "digits", "topology": "ring", "agents": 5, "until": 20.0}
    return Job(prepare(Experiment(**(usual | {"eval_every": 20.0} | settings)), seed), find(name), 0.05)


def agree(made: Job) -> None:
    """The run by known handlers is the oracle's, to the byte."""
    engine = engines([made])[0]
    assert isinstance(engine, MailRun)
    engine.start()
    engine.run(made.setup.until)  # or it would be made by the simulator
    mine, oracle = run_one(made), run_one(replace(made, executor="event-by-event"))
    assert mine.digest == run_one(replace(made, keep_trace=False)).digest == oracle.digest
    for name in ("curve", "staleness", "updates", "messages", "megabytes", "details"):
        assert getattr(mine, name) == getattr(oracle, name)


@settings(max_examples=30)
@given(
    st.sampled_from(SPECS), st.integers(0, 1000), st.sampled_from(GRAPHS), st.sampled_from(WORLDS),
    st.sampled_from(["base", "combined", "slow-comm", "comp-straggler"]),
    st.sampled_from(["multicast", "unicast"]), st.sampled_from(["sgd", "momentum", "nesterov"]),
    st.sampled_from([1.3, 7.3, 20.0]), st.sampled_from([8, 1 << 17]),
)  # fmt: skip
def test_pairs_are_the_simulators_to_the_byte(
    name: str, seed: int, graph: tuple[str, int], world: dict[str, Any], case: str, sending: str,
    optimizer: str, every: float, piece: int,
) -> None:  # fmt: skip
    more = {"sending": sending, "optimizer": optimizer, "eval_every": every} | world
    made = job(name, seed, topology=graph[0], agents=graph[1], case=case, **more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mailing, "PIECE", piece)
        agree(made)


def test_so_they_are_on_a_bipartite_graph() -> None:
    agree(job("adpsgd:atomic", topology="grid", agents=9, case="combined", eval_every=11.0))


def test_what_is_no_such_run_goes_by_the_heap() -> None:
    """Crashes; steps that are no forms, or follow a schedule; no compiled gradient."""
    for made in (
        job("adpsgd", crash="agent 1 at 5 until 9"), job("adpsgd", optimizer="adamw"),
        job("adpsgd", schedule="cosine"), job("a2cid2", schedule="warmup:5"), job("adpsgd", task="quadratic"),
        replace(job("adpsgd"), check=True), replace(job("adpsgd"), executor="batched"),
    ):  # fmt: skip
        try:
            engine = engines([made])[0]
            engine.start()
            engine.run(made.setup.until)
        except NoTimetable:
            continue
        assert isinstance(engine, Simulator)


def test_where_most_of_what_agents_do_is_new_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made = job("adpsgd", topology="complete", agents=12)
    monkeypatch.setattr(discovered, "WORTH", (100, 50))
    engine = engines([made])[0]
    with pytest.raises(NoTimetable):
        engine.start()
        engine.run(made.setup.until)
    assert run_one(made).digest == run_one(replace(made, executor="event-by-event")).digest


@dataclass(frozen=True)
class Note:
    """A letter."""

    x: Vector


@dataclass
class Plain(Agent):
    """Writes to those who listen at each gradient, and mixes what it hears."""

    def on_gradient(self, g: Vector) -> None:
        self.x = self.x - self.rule(g)
        self.send(self.view.listeners, Note(self.x))
        self.compute(self.x)

    def on_message(self, src: int, message: Note) -> None:
        self.x = 0.5 * (self.x + message.x)


class Becomes(Plain):
    """What it hears."""

    def on_message(self, src: int, message: Note) -> None:
        self.x = message.x


@dataclass
class Old(Plain):
    """Sends what it has sent before."""

    first: Vector = field(init=False, repr=False)

    def start(self) -> None:
        self.first = pin(self.x)
        super().start()

    def on_message(self, src: int, message: Note) -> None:
        self.send(src, Note(self.first))


class Passes(Plain):
    """On what it hears."""

    def on_message(self, src: int, message: Note) -> None:
        self.publish(src, message)


class Rings(Plain):
    """A bell."""

    def on_message(self, src: int, message: Note) -> None:
        self.alarm(1.0, "now")


class Equals(Plain):
    """Draws among numbers that are equal, and are not the same."""

    def on_message(self, src: int, message: Note) -> None:
        self.x = self.rng.choice((1, 1.0)) * self.x


class Unknown(Plain):
    """Draws one that is not known."""

    def on_message(self, src: int, message: Note) -> None:
        self.x = self.rng.choice((self.now, 1.0)) * self.x


class Random(Plain):
    """A number that does not come again."""

    def on_message(self, src: int, message: Note) -> None:
        self.x = self.rng.random() * self.x


class Late(Plain):
    """Looks at the time."""

    def on_message(self, src: int, message: Note) -> None:
        self.x = math.sqrt(self.now) * self.x


def both(kind: type[Agent], **settings: Any) -> tuple[MailRun, Simulator]:
    """Two engines that are to make the same."""
    made = replace(job("adpsgd", **settings), executor="event-by-event")
    made = Job(made.setup, find(kind), made.lr, made.executor)
    setup = made.setup
    rule, world = (lambda: setup.steps.rule(made.lr)), (setup.topology, setup.task, setup.world)
    return MailRun(made.spec.new, rule, *world, keep_trace=True), simulator(made)


@dataclass(frozen=True)
class Answer:
    """Another."""

    x: Vector


class Answers(Plain):
    """With its model, as it is, and nothing else."""

    def on_message(self, src: int, message: Note | Answer) -> None:
        if isinstance(message, Note):
            self.send(src, Answer(self.x))
        else:
            self.x = 0.5 * (self.x + message.x)


@dataclass
class Keeps(Plain):
    """Letters, and mixes the newest two at a gradient."""

    letters: list[Vector] = field(init=False, repr=False, default_factory=list)

    def on_message(self, src: int, message: Note) -> None:
        self.letters = [*self.letters[-1:], message.x]

    def on_gradient(self, g: Vector) -> None:
        self.x = total([0.1 * x for x in self.letters], start=0.8 * self.x) - self.rule(g)
        self.send(self.view.listeners, Note(self.x))
        self.compute(self.x)


@dataclass(frozen=True)
class Counted:
    """A model, how often it was made, and by how many letters."""

    x: Vector
    steps: int
    share: float


@dataclass
class Reads(Plain):
    """Registers of two types, late and pinned; with numbers of both kinds, one of them a coefficient."""

    heard: dict[int, Counted] = field(init=False, repr=False, default_factory=dict)
    before: dict[int, Vector] = field(init=False, repr=False, default_factory=dict)
    share: float = field(init=False, default=1.0)

    def on_message(self, src: int, message: Counted | Note) -> None:
        if isinstance(message, Note):
            self.x = 0.9 * self.x + 0.1 * message.x
        else:
            self.heard[src] = message
            self.round = larger(self.round, message.steps)

    def on_gradient(self, g: Vector) -> None:
        self.round += 1
        for j in self.view.listeners:
            if j in self.heard:
                self.x = self.x + 0.1 * self.heard[j].x - 0.1 * self.before.get(j, self.x)
        if sum([each.share for each in self.heard.values()]) > 2.0 * self.share:
            self.before = {j: pin(each.x) for j, each in sorted(self.heard.items())}
        self.x = self.x - (self.share / self.round) * self.rule(g)
        self.share = 0.5 + self.share / 2.0 + 1.0 / self.round
        self.publish(self.view.listeners, Counted(pin(self.x), self.round, self.share))
        self.publish(self.view.listeners, Note(self.x))
        self.compute(self.x)


@dataclass(frozen=True)
class Dated:
    """A model, and when it was sent."""

    x: Vector
    sent: float


class Forgets(Plain):
    """The dates that it hears, once it has gone by them."""

    def on_gradient(self, g: Vector) -> None:
        self.x = self.x - self.rule(g)
        self.send(self.view.listeners, Dated(self.x, self.now))
        self.compute(self.x)

    def on_message(self, src: int, message: Any) -> None:
        if self.now - message.sent > 0.7:
            self.x = 0.8 * self.x + 0.2 * message.x


@dataclass
class Deals(Plain):
    """Writes to others in a random order, to each once before it begins again."""

    left: list[int] = field(init=False, default_factory=list)

    def on_gradient(self, g: Vector) -> None:
        self.x = self.x - self.rule(g)
        self.left = self.left or [*self.view.listeners]
        j = self.rng.choice(self.left)
        self.left.remove(j)
        self.send(j, Note(self.x))
        self.compute(self.x)


@pytest.mark.parametrize("kind", [Answers, Keeps, Reads, Forgets, Deals])
@pytest.mark.parametrize("world", [{}, {"loss": 0.3, "latency": 0.4, "sending": "unicast"}])
def test_who_answers_keeps_letters_or_reads_registers_is_the_simulators(
    kind: type[Agent], world: dict[str, Any]
) -> None:
    mine, oracle = both(kind, **world)
    for engine in (mine, oracle):
        engine.start()
        engine.run(20.0)
    assert mine.traced().digest() == oracle.traced().digest()
    assert all(a.equal(b) for a, b in zip(mine.everybody(), oracle.everybody(), strict=True))


class Weighs(Plain):
    """Mixes by its weights."""

    def on_message(self, src: int, message: Note) -> None:
        self.x = mix(self.view.w, {src: message.x}, self.x)


class Compares(Plain):
    """Its weights."""

    def on_message(self, src: int, message: Note) -> None:
        if self.view.w[src] == self.view.w[self.me]:
            self.x = 0.5 * (self.x + message.x)


def test_agents_are_alike_whose_weights_alone_differ_and_who_uses_these_is_found_out() -> None:
    alike = {id(machine) for machine in both(Plain, topology="chain")[0].discovered.machines}
    assert len(alike) == 4  # both ends, and of those between them the two sides of the graph
    for kind in (Weighs, Compares):
        run, _ = both(kind, topology="chain")
        with pytest.raises(NoTimetable):
            run.start()
            run.run(20.0)


class Fails(Plain):
    """By an error of its own."""

    def on_message(self, src: int, message: Note) -> None:
        raise KeyError(src)


def test_an_error_of_a_handler_is_the_simulators_to_tell() -> None:
    run, _ = both(Fails)
    with pytest.raises(NoTimetable):
        run.start()
        run.run(20.0)


def test_runs_in_several_threads_do_not_disturb_each_other() -> None:
    """One that is given up among them, whose reason comes out of its own events alone."""
    made = [job("adpsgd", seed) for seed in range(4)]
    long = job("adpsgd", topology="complete", agents=40, until=60.0, eval_every=60.0)
    before = sys.unraisablehook
    with ThreadPoolExecutor(3) as pool:
        runs = [*pool.map(run_one, [*made, long, *made, long, *made])]
    assert sys.unraisablehook is before
    alone = [run_one(each).digest for each in made]
    assert [run.digest for k, run in enumerate(runs) if k % 5 < 4] == [*alone, *alone, *alone]


def nothing(question: Question) -> None:
    """Is asked."""
    pytest.fail(f"{question} was asked")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Becomes, "becomes a vector"), (Old, "had before"), (Passes, "had before"), (Rings, "than gradients"),
        (Random, "draws by random"), (Equals, "equal"), (Unknown, "not known"), (Late, "looks at the time"),
    ],
)  # fmt: skip
def test_what_would_be_wrong_is_found_out(kind: Callable[[], Agent], why: str) -> None:
    machine = Machine(kind, partial(SGD, 0.1), 2, 5, build("ring", 5).views()[2], [])
    begun = machine.look(machine.start, BEGIN, [], nothing)
    with pytest.raises(NotLinear, match=why):
        machine.look(begun.then, (1, Note, False), [], nothing)


def test_what_is_drawn_is_asked_for_and_then_known() -> None:
    """Agent 2 of a ring asks one of its neighbours, and is in another state for each."""
    machine = Machine(find("adpsgd").new, partial(SGD, 0.1), 2, 5, build("ring", 5).views()[2], [])
    asked = list[Question]()

    def ask(question: Question) -> int:
        asked.append(question)
        return 1

    one = machine.look(machine.start, BEGIN, [], ask)
    (question,) = asked
    assert isinstance(question, Drawn) and (question.method, question.args) == ("choice", ((1, 3),))
    other, again = (machine.look(machine.start, BEGIN, [j], nothing) for j in (3, 1))
    assert one.then is not other.then and one.then is again.then
    assert one.computes and [mail.to for mail in one.effects if mail] == [(1,)]
    waits = machine.look(one.then, COMPUTED, [], nothing)
    assert not waits.forms and not waits.wrote and not waits.effects


class Endless(Plain):
    """Answers every letter by one."""

    def on_message(self, src: int, message: Note) -> None:
        self.send(src, Note(self.x))


def test_where_the_clock_stands_the_simulator_says_so() -> None:
    run, _ = both(Endless, communication="constant mean 0")
    with pytest.raises(NoTimetable):
        run.start()
        run.run(20.0)


@pytest.mark.parametrize("call", ["delays", "instants", "lost"])
def test_what_is_raised_while_events_ask_comes_out_of_them(
    call: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (engine,) = engines([job("rasgp", loss=0.5, latency=0.1)])
    engine.start()
    before = sys.unraisablehook
    monkeypatch.setattr(Post, call, Mock(side_effect=ValueError("no number")))
    with pytest.raises(ValueError, match="no number"):
        engine.run(1000.0)
    assert capfd.readouterr() == ("", "") and sys.unraisablehook is before


def test_a_signal_comes_out_of_events_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Python sees to it as soon as it is asked: before a call has begun, whose error C code would not see."""

    def interrupted(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    (engine,) = engines([job("adpsgd")])
    engine.start()
    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            engine.run(1e6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert capfd.readouterr() == ("", "")


@dataclass
class Averages(Served):
    """The last gradients; the server mixes in what it began with, and says how many letters it has heard."""

    keeps_gradients = True
    kept: list[Vector] = field(init=False, repr=False, default_factory=list)
    heard: float = field(init=False, default=0.0)

    def serve(self, j: int, k: int, g: Vector) -> None:
        self.kept = [*self.kept[-2:], g]
        self.heard += self.rng.random() + 0.5 * (self.now > 3.0)
        self.step(total(self.kept[1:], start=self.kept[0]) / (1.0 + self.heard))
        self.x = 0.5 * self.x + 0.25 * pin(self.x) + (self.x - self.kept[-1]) * 0.25
        self.answer(j)


class Parts(Averages):
    """Needs numbers."""

    def serve(self, j: int, k: int, g: Vector) -> None:
        self.step(g, late=int(g.norm() > 1.0))
        self.answer(j)


@dataclass(frozen=True)
class Pair:
    """Two vectors."""

    x: Vector
    y: Vector


class Tokens(Averages):
    """A whole number that no float is."""

    def answer(self, *agents: int) -> None:
        if self.me in agents:
            self.begin()
        self.send([j for j in agents if j != self.me], Model(2**60 + 1, self.x))


class Forwards(Averages):
    """Its model, and a gradient of another."""

    def answer(self, *agents: int) -> None:
        if self.me in agents:
            self.begin()
        self.send([j for j in agents if j != self.me], Pair(self.x, self.kept[0]))

    def on_message(self, src: int, message: Any) -> None:
        if isinstance(message, Pair):
            self.x = pin(message.x)
            self.begin()
        else:
            super().on_message(src, message)


class Registers(Averages):
    """Publishes."""

    def answer(self, *agents: int) -> None:
        self.publish(self.view.listeners, Note(self.x))


class Older(Averages):
    """Answers by the model of before the last step."""

    def serve(self, j: int, k: int, g: Vector) -> None:
        before = self.x
        self.step(g)
        self.send([i for i in [j] if i != self.me], Model(self.round, before))
        if j == self.me:
            self.begin()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_a_server_that_is_called_is_the_simulators(world: dict[str, Any], optimizer: str) -> None:
    mine, oracle = both(Averages, topology="star", optimizer=optimizer, **world)
    for engine in (mine, oracle):
        engine.start()
        engine.run(7.0)
        engine.run(20.0)
    assert mine.traced().digest() == oracle.traced().digest()
    assert all(a.equal(b) for a, b in zip(mine.everybody(), oracle.everybody(), strict=True))


@pytest.mark.parametrize("kind", [Parts, Registers, Older, Tokens, Forwards])
def test_a_called_server_that_does_something_else_is_left_to_the_simulator(kind: type[Agent]) -> None:
    run, oracle = both(kind, topology="star")
    with pytest.raises(NoTimetable):
        run.start()
        run.run(20.0)
    oracle.start()
    oracle.run(20.0)


def test_of_the_table_these_meet() -> None:
    """Whoever adds one sees whether it is known from before."""
    assert {name for name in ALGORITHMS if job(name, topology="grid", agents=9).timed is MailRun} == {
        "adpsgd", "a2cid2", "easgd", "rasgp", "apsgd", "ringmaster", "ringleader", "spsgd",
    }  # fmt: skip
