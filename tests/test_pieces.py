"""Long runs: timetables and traces piece by piece are those of one piece, and memory does not grow with time."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_levels import SIZE, TABLES, WORLDS, prepared, same

from offbeat import Crash, SettingError, Trace, World, memory, trace
from offbeat.algorithms import ALGORITHMS
from offbeat.delays import empirical
from offbeat.experiment import Experiment, Prepared, prepare
from offbeat.runs import Job, engines, run_many, run_one, simulator
from offbeat.sim.levels import Lane
from offbeat.sim.schedule import NoTimetable, Schedule
from offbeat.trace import EVENT, MIXED, TRANSMISSION, WRITE, Tally, joined

ADSGD = ALGORITHMS["adsgd"]
CUTS = st.lists(st.floats(0.0, 1.0, exclude_min=True, exclude_max=True), max_size=6, unique=True).map(sorted)


def equal(a: Trace, b: Trace) -> bool:
    """Byte by byte."""
    return a.kinds == b.kinds and all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in TABLES)


def parts(p: Prepared, ends: list[float]) -> tuple[list[Trace], Tally]:
    """The parts of the trace of a run by levels, and what is left of them."""
    schedule, since, made, tally = Schedule(p.topology.views(), p.world, SIZE), -1.0, list[Trace](), Tally(p.topology.n)
    for end in ends:
        table = schedule.piece(end, more=end < ends[-1])
        made.append(table.trace(since, end, "Model", SIZE))
        tally.add(made[-1])
        tally.forget(table.oldest)
        since = end
    return made, tally


def rough(seed: int, values: int = 64) -> Prepared:
    """A world with so few different delays that things happen at the same instant."""
    delays = empirical(np.arange(values // 2, values // 2 + values) / values, None)
    p = prepared(seed, topology="grid", agents=9)
    return replace(
        p, world=World(seed=seed, compute=replace(delays, mean=1.0), communication=replace(delays, mean=1.0))
    )


@settings(max_examples=60, deadline=None)
@given(WORLDS, st.sampled_from(["ring", "grid", "star", "complete", "chain"]), st.sampled_from([9, 16]),
       st.sampled_from([3.0, 25.0]), CUTS)  # fmt: skip
def test_pieces_continue_one_another(world: World, name: str, n: int, until: float, cuts: list[float]) -> None:
    """Wherever they are cut, at the instant of an event too."""
    p = replace(prepared(topology=name, agents=n), world=world)
    try:
        (whole,), _ = parts(p, [until])
    except NoTimetable:
        assume(False)
    border = [float(whole.writes["time"][len(whole.writes) // 2])] if len(whole.writes) else []
    arrived = whole.transmissions["end"][whole.transmissions["end"] < until]
    border += [float(arrived[len(arrived) // 2])] if len(arrived) else []
    made, tally = parts(p, sorted({*[until * cut for cut in cuts if until * cut < until], *border} - {until}) + [until])
    assert equal(joined(made), whole)
    assert tally.staleness() == whole.staleness()
    assert tally.digest(b"models") == whole.digest(b"models")


def test_what_happens_at_the_same_instant_is_ordered_as_by_the_simulator() -> None:
    """Unless it began at the same instant, too."""
    known = ties = 0
    for seed in range(30):
        p = rough(seed, 256)
        p = replace(p, until=12.0)
        sim = simulator(p, ADSGD, 0.01)
        sim.start()
        sim.run(p.until)
        expected = sim.recorder.trace()
        try:
            made, _ = parts(p, [5.0, p.until])
        except NoTimetable:
            continue
        assert equal(joined(made), expected)
        known += 1
        instants = np.concatenate([expected.writes["time"], expected.transmissions["end"]])
        ties += len(instants) - len(np.unique(instants))
    assert known > 5 and ties > 20, (known, ties)


def in_pieces(monkeypatch: pytest.MonkeyPatch, rows: int = 400) -> None:
    """Cut runs into pieces of so many rows."""
    monkeypatch.setattr(memory, "PIECE", rows)


@pytest.mark.parametrize("keep_trace", [True, False])
@pytest.mark.parametrize(
    "changed",
    [
        {"case": "combined"},
        {"topology": "complete", "agents": 9, "loss": 0.4, "eval_every": 40.0},
        {"agents": 1, "until": 1000.0},
        {"agents": 2, "skew": 0.0, "until": 200.0, "communication": "lognormal 5 mean 3"},
        {"agents": 50, "eval_every": 0.5},
        {"task": "quadratic", "topology": "star", "until": 100.0},
    ],
)
def test_a_run_in_pieces_is_the_same(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], keep_trace: bool
) -> None:
    p = prepared(**({"task": "digits"} | changed))
    wanted = run_one(p, ADSGD, 0.05, "event-by-event")
    whole = run_one(p, ADSGD, 0.05, "levels")
    in_pieces(monkeypatch)
    assert len(memory.pieces(p, 1)) > 1
    run = run_one(p, ADSGD, 0.05, "levels", keep_trace=keep_trace)
    assert same(run, wanted) and same(run, whole)
    assert (run.trace is not None) == keep_trace
    assert run.trace is None or (wanted.trace is not None and equal(run.trace, wanted.trace))
    assert run.models[0].numpy().tobytes() == wanted.models[0].numpy().tobytes()


@settings(max_examples=25, deadline=None)
@given(WORLDS, st.sampled_from(["ring", "grid", "star"]), st.sampled_from([40, 100, 250]), st.sampled_from([7, 64]))
def test_models_are_the_same_bits_in_pieces(world: World, name: str, rows: int, window: int) -> None:
    """Also where evaluations fall on the borders of the pieces, and windows are small."""
    p = replace(prepared(topology=name, agents=9), world=world, until=16.0)
    with pytest.MonkeyPatch.context() as patched:
        in_pieces(patched, rows)
        patched.setattr("offbeat.sim.levels.WINDOW", (window, window))
        p = replace(p, eval_times=sorted({*np.linspace(0.0, 16.0, 9).tolist(), *memory.pieces(p, 1)}))
        assert len(memory.pieces(p, 1)) > 1
        wanted = run_one(p, ADSGD, 0.05, "batched")
        assert same(run_one(p, ADSGD, 0.05, keep_trace=False), wanted)


def test_runs_side_by_side_are_cut_at_the_same_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds and steps, one of which diverges in the midst of a piece, with traces and without."""
    in_pieces(monkeypatch, 500)
    worlds = [prepared(seed, task="digits", case="comp-straggler") for seed in range(3)]
    jobs = [Job(p, ADSGD, lr, keep_trace=False) for lr in (0.05, 1e38) for p in worlds]
    assert len(engines(jobs)) == 6
    together = [*run_many(jobs)]
    assert [run.diverged_at is not None for run in together] == [False] * 3 + [True] * 3
    for job, run in zip(jobs, together, strict=True):
        assert same(run, run_one(job.p, job.row, job.lr, "batched"))
    kept = [replace(job, keep_trace=True) for job in jobs]
    assert len(engines(kept)) == 1, "a long run of which the trace is held is made alone"
    assert len(engines([jobs[0], *kept])) == 1


def late() -> Prepared:
    """A world in which, after some pieces, two things happen that no timetable can order."""
    for seed in range(200):
        p = replace(rough(seed, 64), until=30.0, eval_times=[0.0, 10.0, 20.0, 30.0])
        schedule, known = Schedule(p.topology.views(), p.world, SIZE), 0.0
        try:
            for known in range(3, 33, 3):
                schedule.piece(float(known), more=True)
        except NoTimetable:
            if known > 12:
                return p
    raise AssertionError("no such world")


def test_where_a_timetable_fails_late_the_simulator_makes_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start; runs beside it are still made by levels, and everybody is told of all evaluations in the end."""
    in_pieces(monkeypatch, 100)
    p = late()
    assert isinstance(engines([Job(p, ADSGD, 0.05)])[0], Lane), "it does not show at the beginning"
    told: list[float] = []
    run = run_one(p, ADSGD, 0.05, progress=lambda name, now, until, curve: told.append(now))
    assert same(run, run_one(p, ADSGD, 0.05, "batched"))
    assert told[-4:] == run.curve.time == [0.0, 10.0, 20.0, 30.0]
    with pytest.raises(SettingError, match="cannot be run by levels here"):
        run_one(p, ADSGD, 0.05, "levels")
    smooth = replace(p, world=World(seed=1))
    for order in ([smooth, p, smooth], [p, smooth, smooth], [smooth, smooth, p]):
        runs = run_many([Job(each, ADSGD, 0.05) for each in order])
        for each, run in zip(order, runs, strict=True):
            assert same(run, run_one(each, ADSGD, 0.05, "event-by-event"))
