"""Rounds without a heap: the recurrence of their times, and what is made in them, against the oracle."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offbeat.algorithms import ALGORITHMS, find
from offbeat.core.rounds import Rounds
from offbeat.core.rules import SGD
from offbeat.core.vector import Vector
from offbeat.engines.sim.ahead import rounds
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.round_reading import read_rounds
from offbeat.engines.sim.ahead.rounds import RoundRun
from offbeat.engines.sim.simulator import Simulator
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, engines, run_one
from offbeat.experiments.setup import prepare
from offbeat.world.topology import build

GRAPHS = [("ring", 2), ("grid", 9), ("complete", 4), ("star", 6), ("exponential", 8), ("chain", 5)]
SPECS = ["dsgd", "dsgd:after", "dpsgd", "dsgt", "d2", "d2:theta=0.5", "qg-dsgdm", "sgp", "osgp"]


def job(name: str, seed: int = 0, **settings: Any) -> Job:
    usual: dict[str, Any] = {"task": "quadratic", "topology": "ring", "agents": 5, "until": 40.0}
    return Job(prepare(Experiment(**(usual | {"eval_every": 40.0} | settings)), seed), find(name), 0.05)


def agree(made: Job) -> None:
    """The run by rounds is the oracle's, to the byte."""
    assert isinstance(engines([made])[0], RoundRun)
    mine, oracle = run_one(made), run_one(replace(made, executor="event-by-event"))
    assert mine.digest == run_one(replace(made, keep_trace=False)).digest == oracle.digest
    for name in ("curve", "staleness", "updates", "messages", "megabytes", "details"):
        assert getattr(mine, name) == getattr(oracle, name)


@settings(max_examples=40)
@given(
    st.sampled_from(SPECS), st.integers(0, 1000),
    st.sampled_from(GRAPHS),
    st.sampled_from(["base", "combined", "slow-comm", "comp-straggler"]),
    st.sampled_from(["gamma 0.25", "lognormal 1", "exponential"]), st.sampled_from(["multicast", "unicast"]),
    st.sampled_from(["sgd", "momentum", "nesterov"]), st.sampled_from([1.3, 7.3, 40.0]),
    st.sampled_from([8, 1 << 18]),
)  # fmt: skip
def test_rounds_are_the_simulators_to_the_byte(
    name: str, seed: int, graph: tuple[str, int], case: str, delay: str, sending: str, optimizer: str,
    every: float, piece: int,
) -> None:  # fmt: skip
    made = job(
        name, seed, topology=graph[0], agents=graph[1], case=case, compute=delay, communication=delay,
        sending=sending, optimizer=optimizer, eval_every=every,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "PIECE", piece)
        agree(made)


@pytest.mark.parametrize("name", SPECS)
def test_so_they_are_with_a_compiled_gradient(name: str) -> None:
    agree(job(name, task="digits", topology="grid", agents=9, case="combined", eval_every=11.0, until=60.0))


def test_what_is_no_such_run_goes_by_the_heap() -> None:
    """Crashes, links that are not alike, changes of speed, a graph that changes or has one-way links, steps
    that are no forms or follow a schedule, and rounds of several gradients.
    """
    for made in (
        job("dsgd", crash="agent 1 at 5 until 9"), job("dsgd", event="agent 0 slows by 2 at 3"),
        job("dsgd", topology="one-peer-exponential", agents=4), job("dsgd", latency=0.1),
        job("dsgd", optimizer="adamw"),
        job("dsgd", schedule="cosine"), job("dsgd:local_steps=2"), job("osgp:tau=2"),
    ):  # fmt: skip
        assert isinstance(engines([made])[0], Simulator)


@pytest.mark.parametrize("name", ["dsgd", "dpsgd"])
def test_where_events_coincide_there_is_no_timetable(name: str) -> None:
    tied = job(name, compute="constant", communication="constant")
    with pytest.raises(NoTimetable):
        engines([tied])[0].run(40.0)
    assert run_one(tied).digest == run_one(replace(tied, executor="event-by-event")).digest


@dataclass(frozen=True)
class Note:
    """A letter."""

    k: int
    x: Vector


@dataclass
class Plain(Rounds):
    """Mixes its neighbours' models evenly."""

    first: int = field(init=False, default=-1)

    def begin(self) -> None:
        self.compute(self.x)
        self.post(Note(self.round, self.x))

    def adapt(self, g: Vector) -> None:
        self.x = self.x - self.rule(g)

    def combine(self, heard: dict[int, Note]) -> None:
        self.x = sum([1 / len(heard) * each.x for each in heard.values()], start=0.0 * self.x)


class InOrder(Plain):
    """Whose letter came first counts twice."""

    def adapt(self, g: Vector) -> None: ...

    def on_message(self, src: int, message: Note) -> None:
        self.first = src if self.first < 0 else self.first
        super().on_message(src, message)

    def combine(self, heard: dict[int, Note]) -> None:
        self.x = 0.5 * self.x + 0.5 * heard[self.first].x
        self.first = -1


class Turns(Plain):
    """Something else in every other round."""

    def adapt(self, g: Vector) -> None: ...

    def combine(self, heard: dict[int, Note]) -> None:
        self.x = self.x if self.round % 2 else 0.5 * self.x


class Old(Plain):
    """Sends what it has sent before."""

    kept: Vector = field(init=False, repr=False)

    def start(self) -> None:
        self.kept = self.x
        super().start()

    def begin(self) -> None:
        self.compute(self.x)
        self.post(Note(self.round, self.kept))

    def adapt(self, g: Vector) -> None: ...


@dataclass(frozen=True)
class Counted(Note):
    """A letter with a number."""

    w: float


class Asks(Plain):
    """Goes by what the numbers of its letters are."""

    def begin(self) -> None:
        self.compute(self.x)
        self.post(Counted(self.round, self.x, 0.5))

    def adapt(self, g: Vector) -> None: ...

    def combine(self, heard: dict[int, Note]) -> None:
        most = max(each.w for each in heard.values() if isinstance(each, Counted))
        self.x = most * self.x


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Asks, "depends on its numbers"),
        (Plain, "in the middle"),
        (InOrder, "order"),
        (Turns, "number of its round"),
        (Old, "sent before"),
    ],
)
def test_what_a_recurrence_would_get_wrong_is_found_out(kind: Callable[[], Rounds], why: str) -> None:
    views = build("ring", 5).views()
    with pytest.raises(NotLinear, match=why):
        read_rounds(kind, partial(SGD, 0.1), 2, 5, views[2])


def test_all_rounds_of_the_table_are_read() -> None:
    """Whoever adds one sees whether it is."""
    read, views = set(), build("ring", 5).views()
    for name in ALGORITHMS:
        if isinstance(find(name).prototype, Rounds):
            try:
                read_rounds(find(name).new, partial(SGD, 0.1), 2, 5, views[2])  # type: ignore[arg-type]
            except NotLinear:
                continue
            read.add(name)
    assert read == {"dsgd", "dpsgd", "dsgt", "d2", "qg-dsgdm", "sgp", "osgp"}
