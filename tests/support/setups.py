"""Set-ups of small experiments, random worlds, and when two runs are the same."""

from typing import Any

from hypothesis import strategies as st

from offbeat import SGD, World
from offbeat.algorithms import find
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.rhythm import readings
from offbeat.engines.sim.ahead.schedule import Schedule
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import Setup, prepare
from offbeat.results.run import Run
from offbeat.world.delays import parse

FREE = (
    "adsgd", "adsgd:theta=0.5", "adsgd:local_steps=3", "adsgd:memory-efficient", "swift", "swift:every=3",
    "dgd-atc", "dgd-atc:local_steps=2", "rfast", "kungurtsev",
    "adsgd:memory-efficient+local_steps=3", "asbcd",
)  # fmt: skip
"""Free-running algorithms of all kinds."""

TABLES = ("events", "writes", "mixed", "transmissions")

SMALL: dict[str, Any] = {
    "task": "quadratic",
    "until": 3.0,
    "eval_every": 0.5,
    "agents": 3,
    "topology": "ring",
}
"""A run of some milliseconds."""


def prepared(seed: int = 0, **changed: Any) -> Setup:
    """Small runs; they are evaluated twenty times."""
    chosen: dict[str, Any] = {"task": "quadratic", "until": 40.0, "topology": "ring", "agents": 6} | changed
    return prepare(Experiment(**{"eval_every": chosen["until"] / 20} | chosen), seed)


def schedule_of(p: Setup, name: str = "adsgd") -> Schedule:
    """The timetables of a run. Raises NoTimetable."""
    (model,) = p.task.initial()
    try:
        return Schedule(readings(find(name).new, lambda: SGD(0.05), p.topology.views(), model), p.world)
    except NotLinear:  # sums by unicast
        raise NoTimetable from None


def same(a: Run, b: Run) -> bool:
    """Everything but how long it took."""
    assert a.digest == b.digest
    assert repr(a.curve) == repr(b.curve), "NaN is not itself"
    one, two = ((run.updates, run.messages, run.megabytes, run.staleness, repr(run.final)) for run in (a, b))
    return one == two


WORLDS = st.builds(
    lambda seed, cv, compute, mean, loss, slow: World(
        seed=seed, compute=parse(f"{compute} {cv}"), communication=parse(f"lognormal {cv} mean {mean}"),
        loss=loss, slow_compute={0: slow}, slow_communication={1: slow},
    ),
    st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 2.0]), st.sampled_from(["gamma", "lognormal"]),
    st.sampled_from([0.05, 1.0, 7.0]), st.sampled_from([0.0, 0.3, 0.9]), st.sampled_from([1.0, 0.2, 20.0]),
)  # fmt: skip

GRAPHS = st.sampled_from(["ring", "grid", "star", "complete", "chain"])
