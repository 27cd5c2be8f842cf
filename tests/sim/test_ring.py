"""Rings of sums without a heap: the recurrence of their hops against the oracle, event by event."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offbeat import SGD
from offbeat.algorithms import find
from offbeat.core.ring import Ring
from offbeat.core.vector import Vector
from offbeat.engines.sim.ahead import ring
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.ring import RingRun
from offbeat.engines.sim.ahead.ring_handlers import HandledValues
from offbeat.engines.sim.ahead.ring_reading import read_ring
from offbeat.engines.sim.ahead.ring_values import RowValues
from offbeat.engines.sim.simulator import Simulator
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, engines, run_one
from offbeat.experiments.setup import prepare
from offbeat.world.delays import Delay

RINGS = ["allreduce", "allreduce:local_steps=2", "diloco:h=3", "diloco:h=1"]


def job(name: str = "allreduce", seed: int = 0, **settings: Any) -> Job:
    usual: dict[str, Any] = {"task": "quadratic", "topology": "ring", "agents": 4, "until": 40.0}
    return Job(prepare(Experiment(**(usual | {"eval_every": 40.0} | settings)), seed), find(name), 0.05)


def run_ring(made: Job) -> Any:
    """The values of its engine, which goes to the end."""
    (engine,) = engines([made])
    assert isinstance(engine, RingRun)
    engine.run(made.setup.until)
    return engine._values


def same(made: Job) -> None:
    """The run is the oracle's, whether its trace is kept or not."""
    got, oracle = run_one(made), run_one(replace(made, executor="event-by-event"))
    assert got.digest == run_one(replace(made, keep_trace=False)).digest == oracle.digest
    for name in ("curve", "staleness", "updates", "messages", "megabytes"):
        assert getattr(got, name) == getattr(oracle, name)


@settings(max_examples=16)
@given(
    st.integers(0, 1000), st.sampled_from(RINGS), st.sampled_from(["quadratic", "digits"]),
    st.sampled_from([2, 3, 9]), st.sampled_from(["base", "combined", "slow-comm"]),
    st.sampled_from(["gamma 0.25", "lognormal 1", "exponential"]),
    st.sampled_from(["sgd", "momentum", "nesterov", "adamw"]), st.sampled_from(["constant", "cosine"]),
    st.sampled_from([0.8, 7.3, 40.0]),
)  # fmt: skip
def test_a_ring_is_the_simulators_to_the_byte(
    seed: int, name: str, task: str, n: int, case: str, delay: str, optimizer: str, schedule: str,
    every: float,
) -> None:  # fmt: skip
    made = job(
        name, seed, task=task, agents=n, case=case, compute=delay, communication=delay, optimizer=optimizer,
        until=20.0, eval_every=min(every, 20.0), schedule=schedule, topology="complete",
    )  # fmt: skip
    linear = task == "digits" and optimizer != "adamw" and schedule == "constant"
    assert isinstance(run_ring(made), RowValues if linear else HandledValues)
    same(made)


@pytest.mark.parametrize("task", ["digits", "quadratic"])
def test_a_ring_is_the_same_in_pieces(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded averaging by averaging, gradients made one after the other."""
    made = job("diloco:h=3", task=task)
    whole = run_one(made).digest
    monkeypatch.setattr(ring, "PIECE", 1)
    monkeypatch.setattr(ring, "AT_ONCE", 1)
    run_ring(made)
    assert run_one(made).digest == run_one(replace(made, keep_trace=False)).digest == whole


def test_what_is_no_such_ring_goes_by_the_heap() -> None:
    """More agents than numbers; pairs in place of the ring; agents in lockstep: events coincide."""
    for made in (job(agents=16), job("noloco:h=1")):
        assert isinstance(engines([made])[0], Simulator)
    tied = job(compute="constant", communication="constant")
    with pytest.raises(NoTimetable):
        engines([tied])[0].run(40.0)
    assert run_one(tied).digest == run_one(replace(tied, executor="event-by-event")).digest


@pytest.mark.parametrize("name", RINGS)
def test_events_that_coincide_come_as_in_the_simulator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what was begun first, unless that is at one instant too: then there is no timetable. Here times are
    multiples of a 16th, so that there are many.
    """
    drawn, told = Delay.drawn, 0
    monkeypatch.setattr(Delay, "drawn", lambda *asked: np.ceil(16 * drawn(*asked)) / 16)
    for seed in range(24):
        made = job(name, seed, until=12.0, eval_every=12.0)
        try:
            (engine,) = engines([made])
            engine.run(12.0)
        except NoTimetable:
            continue
        trace = run_one(made).trace
        assert trace is not None
        told += int((np.diff(np.sort(trace.events["time"][4:])) == 0).sum())
        same(made)
    assert told > 5


@dataclass
class Lengthening(Ring):
    """One step more of its own before each averaging."""

    wanted: int = 1
    made: int = 0

    def on_gradient(self, g: Vector) -> None:
        self.x, self.made = self.x - self.rule(g), self.made + 1
        if self.made < self.wanted:
            self.compute(self.x)
        else:
            self.made, self.wanted = 0, self.wanted + 1
            self.average(self.x)

    def averaged(self, mean: Vector) -> None:
        self.x = mean
        self.compute(self.x)


class Standing(Lengthening):
    """It takes a gradient in vain."""

    def on_gradient(self, g: Vector) -> None:
        self.made += 1
        if self.made % 2:
            self.compute(self.x)
        else:
            self.average(g)


@pytest.mark.parametrize("kind", [Lengthening, Standing])
def test_who_does_not_always_do_the_same_is_no_such_ring(kind: type[Ring]) -> None:
    with pytest.raises(NotLinear):
        read_ring(kind, lambda: SGD(0.1), 4)
    setup = job().setup
    with pytest.raises(NoTimetable):
        RingRun(kind, lambda: SGD(0.1), setup.topology, setup.task, setup.world, False).run(40.0)
