"""Long runs: timetables and traces by segments are those of one segment, and memory does not grow."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from setups import FREE, GRAPHS, TABLES, WORLDS, prepared, same, schedule_of
from warm import finished, on_linux
from worlds import LINKED

from offbeat import Crash, SettingError, Trace, World
from offbeat.algorithms import ALGORITHMS, find
from offbeat.engines import recorder
from offbeat.engines.events import EVENT, MIXED, TRANSMISSION, WRITE, RegisterRead, rows_of
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.scheduled import ScheduledRun
from offbeat.engines.sim.simulator import Simulator
from offbeat.engines.trace import TraceSummary, joined
from offbeat.experiments import segments
from offbeat.experiments.runs import Job, engines, run_many, run_one, simulator
from offbeat.experiments.segments import time_segments
from offbeat.experiments.setup import Setup
from offbeat.world.delays import empirical

ADSGD = ALGORITHMS["adsgd"]
CUTS = st.lists(st.floats(0.0, 1.0, exclude_min=True, exclude_max=True), max_size=6, unique=True).map(sorted)


def equal(a: Trace, b: Trace) -> bool:
    """Byte by byte."""
    return a.kinds == b.kinds and all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in TABLES
    )


def parts(p: Setup, ends: list[float], name: str = "adsgd") -> tuple[list[Trace], TraceSummary]:
    """The parts of the trace of a run by levels, and what is left of them."""
    schedule, since, made, summary = schedule_of(p, name), -1.0, list[Trace](), TraceSummary(p.topology.n)
    for end in ends:
        table = schedule.segment(end, more=end < ends[-1])
        made.append(table.trace(since, end))
        summary.add(made[-1])
        summary.forget(table.oldest)
        since = end
    return made, summary


def rough(seed: int, values: int = 64) -> Setup:
    """A world with so few different delays that things happen at the same instant."""
    delays = empirical(
        np.arange(values // 2, values // 2 + values + 1) / values
    )  # with mean 1, so sums are exact
    p = prepared(seed, topology="grid", agents=9)
    return replace(p, world=World(seed=seed, compute=delays, communication=delays.times(2.0)))


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(WORLDS, LINKED), GRAPHS, st.sampled_from([9, 16]), st.sampled_from([3.0, 25.0]), CUTS,
    st.sampled_from(FREE),
)  # fmt: skip
def test_segments_continue_one_another(
    world: World, graph: str, n: int, until: float, cuts: list[float], name: str
) -> None:
    """Wherever they are cut, at the instant of an event too."""
    p = replace(prepared(topology=graph, agents=n), world=world)
    try:
        (whole,), _ = parts(p, [until], name)
    except NoTimetable:
        assume(False)
    border = [float(whole.writes["time"][len(whole.writes) // 2])] if len(whole.writes) else []
    arrived = whole.transmissions["end"][whole.transmissions["end"] < until]
    border += [float(arrived[len(arrived) // 2])] if len(arrived) else []
    ends = {*[until * cut for cut in cuts if until * cut < until], *border} - {until}
    made, summary = parts(p, [*sorted(ends), until], name)
    assert equal(joined(made), whole)
    assert summary.staleness() == whole.staleness()
    assert summary.digest(b"models") == whole.digest(b"models")


def test_what_happens_at_the_same_instant_is_ordered_as_by_the_simulator() -> None:
    """Unless it began at the same instant, too."""
    known = ties = 0
    for seed in range(30):
        p = rough(seed, 256)
        p = replace(p, until=12.0)
        sim = simulator(Job(p, ADSGD, 0.01))
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


def in_segments(monkeypatch: pytest.MonkeyPatch, rows: int = 400) -> None:
    """Cut runs into segments of so many rows."""
    monkeypatch.setattr(segments, "SEGMENT", rows)


@pytest.mark.parametrize(
    "changed",
    [
        {"case": "combined"},
        {"topology": "complete", "agents": 9, "loss": 0.4, "eval_every": 40.0},
        {"agents": 1, "until": 1000.0},
        {"agents": 2, "skew": 0.0, "until": 200.0, "communication": "lognormal 5 mean 3"},
        {"agents": 50, "eval_every": 0.5},
        {"task": "quadratic", "topology": "star", "until": 100.0},
        {"target": 0.4, "stop_at": "target"},
    ],
)
def test_a_run_in_segments_is_the_same(monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]) -> None:
    """Also where its trace is kept."""
    p = prepared(**({"task": "digits"} | changed))
    wanted = run_one(Job(p, ADSGD, 0.05, "event-by-event"))
    whole = run_one(Job(p, ADSGD, 0.05, "levels"))
    in_segments(monkeypatch)
    assert len(time_segments(p, 1)) > 1
    dropped = run_one(Job(p, ADSGD, 0.05, "levels", keep_trace=False))
    kept = run_one(Job(p, ADSGD, 0.05, "levels"))
    for run in (dropped, kept):
        assert same(run, wanted) and same(run, whole)
        assert run.models[0].numpy().tobytes() == wanted.models[0].numpy().tobytes()
    assert dropped.trace is None and kept.trace is not None and wanted.trace is not None
    assert equal(kept.trace, wanted.trace)


@settings(max_examples=14, deadline=None)
@given(
    st.one_of(WORLDS, LINKED), st.sampled_from(["ring", "grid", "star"]), st.sampled_from([20, 100, 250]),
    st.sampled_from([7, 64]), st.sampled_from(FREE),
)  # fmt: skip
def test_models_are_the_same_bits_in_segments(
    world: World, graph: str, rows: int, window: int, name: str
) -> None:
    """Also where evaluations fall on the borders of the segments, and windows are small."""
    p = replace(prepared(topology=graph, agents=9), world=world, until=16.0)
    with pytest.MonkeyPatch.context() as patched:
        in_segments(patched, rows)
        patched.setattr("offbeat.engines.sim.ahead.levels.WINDOW", (window, window))
        p = replace(p, eval_times=sorted({*np.linspace(0.0, 16.0, 9).tolist(), *time_segments(p, 1)}))
        assert len(time_segments(p, 1)) > 1
        wanted = run_one(Job(p, find(name), 0.05, "batched"))
        assert same(run_one(Job(p, find(name), 0.05, keep_trace=False)), wanted)


def test_runs_side_by_side_are_cut_at_the_same_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds and steps, one of which diverges in the midst of a segment, with traces and without."""
    in_segments(monkeypatch, 500)
    worlds = [prepared(seed, task="digits", case="comp-straggler") for seed in range(3)]
    jobs = [Job(p, ADSGD, lr, keep_trace=False) for lr in (0.05, 1e38) for p in worlds]
    assert len(engines(jobs)) == 6
    together = [*run_many(jobs)]
    assert [run.diverged_at is not None for run in together] == [False] * 3 + [True] * 3
    for job, run in zip(jobs, together, strict=True):
        assert same(run, run_one(replace(job, executor="batched", keep_trace=True)))
    kept = [replace(job, keep_trace=True) for job in jobs]
    assert len(engines(kept)) == 1, "a long run of which the trace is held is made alone"
    assert len(engines([jobs[0], *kept])) == 1


def late() -> Setup:
    """A world in which, after some segments, two things happen that no timetable can order."""
    for seed in range(200):
        p = replace(rough(seed, 64), until=30.0, eval_times=[0.0, 10.0, 20.0, 30.0])
        schedule, known = schedule_of(p), 0.0
        try:
            for known in range(3, 33, 3):
                schedule.segment(float(known), more=True)
        except NoTimetable:
            if known > 12:
                return p
    raise AssertionError("no such world")


def test_where_a_timetable_fails_late_the_simulator_makes_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start; runs beside it are still made by levels, and everybody is told of all evaluations in
    the end.
    """
    in_segments(monkeypatch, 100)
    p = late()
    assert isinstance(engines([Job(p, ADSGD, 0.05)])[0], ScheduledRun), "it does not show at the beginning"
    told: list[float] = []
    run = run_one(Job(p, ADSGD, 0.05), progress=lambda name, now, until, curve: told.append(now))
    assert same(run, run_one(Job(p, ADSGD, 0.05, "batched")))
    assert told[-4:] == run.curve.time == [0.0, 10.0, 20.0, 30.0]
    with pytest.raises(SettingError, match="cannot be run by levels here"):
        run_one(Job(p, ADSGD, 0.05, "levels"))
    smooth = replace(p, world=World(seed=1))
    late_alone, smooth_alone = (run_one(Job(each, ADSGD, 0.05, "event-by-event")) for each in (p, smooth))
    simulated: list[Setup] = []

    def noted(job: Job) -> Simulator:
        simulated.append(job.setup)
        return simulator(job)

    monkeypatch.setattr("offbeat.experiments.runs.simulator", noted)
    for order in ([smooth, p, smooth], [p, smooth, smooth], [smooth, smooth, p]):
        runs = run_many([Job(each, ADSGD, 0.05, keep_trace=False) for each in order])
        simulated.clear()
        made = [*runs]
        assert simulated == [p]
        for each, run in zip(order, made, strict=True):
            assert same(run, late_alone if each is p else smooth_alone)


# -- the trace, part by part ------------------------------------------------------------------------


def selected(made: Trace) -> tuple[np.ndarray, np.ndarray]:
    """k and s_ij^k from their definition, row by row."""
    k = np.cumsum([0, *(np.diff(made.writes["time"]) != 0)])[: len(made.writes)]
    own = [k[made.writes["agent"] == i] for i in range(made.agents)]
    then = [min(k[w], own[j][r]) if r < len(own[j]) else k[w] for w, j, r in made.mixed.tolist()]
    return k[made.mixed["write"]], np.array(then, dtype=np.int64)


def staleness(made: Trace) -> tuple[int, int | None]:
    """B and D from their definition."""
    k = np.cumsum([0, *(np.diff(made.writes["time"]) != 0)])[: len(made.writes)]
    ends = [-1], [int(k[-1]) + 1 if len(k) else 0]
    own = [np.concatenate([ends[0], k[made.writes["agent"] == i], ends[1]]) for i in range(made.agents)]
    now, then = selected(made)
    heard = len(rows_of(made.events, RegisterRead)) > 0
    return max(int(np.diff(each).max()) for each in own), int((now - then).max(initial=0)) if heard else None


@st.composite
def traces(draw: st.DrawFn) -> tuple[Trace, list[Trace]]:
    """A trace of which times may be equal and versions may go back, and parts of it."""
    n, count = draw(st.integers(1, 4)), draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    writes = np.zeros(count, WRITE)
    writes["time"] = np.cumsum(rng.integers(0, 3, count) / 2)
    writes["agent"] = rng.integers(0, n, count)
    number = [int((writes["agent"][:w] == i).sum()) for w, i in enumerate(writes["agent"])]
    writes["step"] = np.array(number, dtype=np.int64) + 1
    mixed = np.zeros(2 * count, MIXED)
    mixed["write"] = np.repeat(np.arange(count), 2)
    mixed["source"] = rng.integers(0, n, 2 * count)
    for row in mixed:
        row["version"] = rng.integers(0, (writes["agent"][: row["write"]] == row["source"]).sum() + 1)
    events, sent = np.zeros(draw(st.integers(0, 9)), EVENT), np.zeros(draw(st.integers(0, 9)), TRANSMISSION)
    events["event"] = rng.integers(2, 5, len(events))
    whole = Trace(n, ("A", "B"), events, writes, mixed, sent)
    parts, low = [], 0
    for high in [*sorted(draw(st.lists(st.integers(0, count), max_size=4))), count]:
        where = [np.searchsorted(mixed["write"], at) for at in (low, high)]
        ends = (
            slice(len(table) * low // max(count, 1), len(table) * high // max(count, 1))
            for table in (events, sent)
        )
        some = [table[each] for table, each in zip((events, sent), ends, strict=True)]
        kinds = ("A", "B")[: 1 + (high == count)]
        parts.append(Trace(n, kinds, some[0], writes[low:high], mixed[slice(*where)], some[1]))
        low = high
    if not count:
        parts = [*parts[:-1], whole]
    return whole, parts


@settings(max_examples=120, deadline=None)
@given(traces(), st.booleans())
def test_what_is_left_of_a_trace_is_what_the_whole_trace_gives(
    made: tuple[Trace, list[Trace]], forget: bool
) -> None:
    """By the definitions, and wherever it was cut; also if what is never mixed again is forgotten."""
    whole, some = made
    summary = TraceSummary(whole.agents)
    for k, part in enumerate(some):
        summary.add(part)
        if forget:
            later = joined([*some[k + 1 :], whole])
            rows = later.mixed[: sum(len(each.mixed) for each in some[k + 1 :])]
            newest = np.bincount(joined(some[: k + 1]).writes["agent"], minlength=whole.agents)
            np.minimum.at(newest, rows["source"], rows["version"])
            summary.forget(newest)
    assert staleness(whole) == (summary.staleness().B, summary.staleness().D)
    assert summary.staleness() == whole.staleness()
    assert summary.digest(b"x") == whole.digest(b"x") != whole.digest(b"y")
    assert equal(joined(some), whole)
    for ours, theirs in zip(whole.selected(), selected(whole), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_the_digest_sees_every_table() -> None:
    made = run_one(Job(prepared(until=15.0), ADSGD, 0.05)).trace
    assert made is not None
    for table in TABLES:
        rows = getattr(made, table).copy()
        rows[len(rows) // 2]["agent" if "agent" in rows.dtype.names else "source"] += 1
        assert replace(made, **{table: rows}).digest() != made.digest(), table
    assert replace(made, agents=made.agents + 1).digest() != made.digest()


@pytest.mark.parametrize("name", ["adsgd", "adpsgd", "rfast", "dsgd", "allreduce", "sgp", "apsgd"])
def test_the_simulator_may_drop_what_it_recorded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Staleness and digest of a run with a crash are those of its trace; no more rows are held than a part
    has.
    """
    monkeypatch.setattr(recorder, "PART", 7)
    p = prepared(loss=0.1)
    if "return" in ALGORITHMS[name].tolerates:
        p = replace(p, world=replace(p.world, crashes=(Crash(2, 9.0, 17.0),)))
    kept = run_one(Job(p, ALGORITHMS[name], 0.05, "batched"))
    dropped = run_one(Job(p, ALGORITHMS[name], 0.05, "batched", keep_trace=False))
    assert dropped.trace is None and kept.trace is not None
    assert same(dropped, kept) and len(kept.trace.writes) > 21
    sim = simulator(Job(p, ALGORITHMS[name], 0.05, keep_trace=False))
    sim.start()
    sim.run(p.until)
    assert len(sim.recorder.writes) < 7


# -- memory ----------------------------------------------------------------------------------------

MEASURE = """
from pathlib import Path
from offbeat.experiments import memory, runs, segments
from offbeat.engines import recorder
from offbeat.algorithms import find
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import prepare
def peak():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["VmHWM"].split()[0])
segments.SEGMENT = recorder.PART = memory.PART = rows
row, common = find("adsgd"), dict(task="digits", topology="ring")
runs.run_one(runs.Job(prepare(Experiment(agents=9, until=2, **common), 0), row, 0.01, how))
p = prepare(Experiment(agents=agents, until=until, eval_every=until / 2, **common), 0)
before = peak()
job = runs.Job(p, row, 0.01, how, keep_trace=False)
run = runs.run_one(job)
print(peak() - before, memory.need(job).total, run.updates)
raise SystemExit
"""


def measured(folder: Path, how: str, agents: int, until: float, rows: int) -> tuple[float, float, int]:
    """Bytes that a process needed, bytes that were estimated, updates; with parts of so many rows."""
    setup = f"how, agents, until, rows = {how!r}, {agents}, {until}, {rows}\n{MEASURE}"
    peak, estimate, updates = finished(folder, setup=setup).said.split()
    return float(peak), float(estimate), int(updates)


@on_linux
def test_the_memory_of_a_run_does_not_grow_with_its_length(tmp_path: Path) -> None:
    """By levels, with segments of 25,000 rows: held whole, the timetable of this run takes 42 MB."""
    peak, estimate, updates = measured(tmp_path, "levels", 100, 500, 25_000)
    assert updates > 49_000
    assert peak < 25e6
    assert 0.5 < peak / estimate < 1.6, (peak, estimate)


@on_linux
def test_what_the_simulator_drops_is_not_held(tmp_path: Path) -> None:
    """In parts of 6,000 rows: a kept trace of so many updates takes 9 MB or more."""
    peak, estimate, updates = measured(tmp_path, "batched", 9, 2_400, 6_000)
    assert updates > 20_000
    assert 0.5 < peak / estimate < 1.6, (peak, estimate)
