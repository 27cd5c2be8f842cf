"""All-reduce without a heap: the recurrence of its hops against the oracle, event by event."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offbeat.algorithms import find
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.ring import RingRun
from offbeat.engines.sim.simulator import Simulator
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, engines, run_one
from offbeat.experiments.setup import prepare


def job(name: str = "allreduce", seed: int = 0, **settings: Any) -> Job:
    usual: dict[str, Any] = {"task": "quadratic", "topology": "ring", "agents": 4, "until": 40.0}
    return Job(prepare(Experiment(**(usual | {"eval_every": 40.0} | settings)), seed), find(name), 0.05)


@settings(max_examples=12)
@given(
    st.integers(0, 1000), st.sampled_from([2, 3, 9]), st.sampled_from(["base", "combined", "slow-comm"]),
    st.sampled_from(["gamma 0.25", "lognormal 1", "exponential"]),
    st.sampled_from(["sgd", "momentum", "adamw"]), st.sampled_from([7.3, 40.0]),
)  # fmt: skip
def test_a_ring_is_the_simulators_to_the_byte(
    seed: int, n: int, case: str, delay: str, optimizer: str, every: float
) -> None:
    made = job(
        seed=seed, agents=n, case=case, compute=delay, communication=delay, optimizer=optimizer,
        eval_every=every, schedule="cosine", topology="complete",
    )  # fmt: skip
    assert isinstance(engines([made])[0], RingRun)
    ring, oracle = run_one(made), run_one(replace(made, executor="event-by-event"))
    assert ring.digest == run_one(replace(made, keep_trace=False)).digest == oracle.digest
    for name in ("curve", "staleness", "updates", "messages", "megabytes"):
        assert getattr(ring, name) == getattr(oracle, name)


def test_what_is_no_such_ring_goes_by_the_heap() -> None:
    """Local steps between two averagings; more agents than numbers; agents in lockstep: events coincide."""
    for made in (job("diloco"), job("allreduce:local_steps=2"), job(agents=16)):
        assert isinstance(engines([made])[0], Simulator)
    tied = job(compute="constant", communication="constant")
    with pytest.raises(NoTimetable):
        engines([tied])[0].run(40.0)
    assert run_one(tied).digest == run_one(replace(tied, executor="event-by-event")).digest
