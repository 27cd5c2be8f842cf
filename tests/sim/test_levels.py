"""Timetables and levels: the trace and the models of the simulator, row by row and bit by bit, without its
heap.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from setups import FREE, GRAPHS, TABLES, WORLDS, prepared, same, schedule_of
from worlds import LINKED

import offbeat
from offbeat import SGD, SettingError, World
from offbeat.algorithms import ALGORITHMS, find
from offbeat.core.rules import Rule
from offbeat.engines.sim import executors
from offbeat.engines.sim.ahead import levels
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.placeholders import GRADIENT, HEARD, STATE
from offbeat.engines.sim.ahead.probing import why_not_read
from offbeat.engines.sim.ahead.reading import Reading
from offbeat.engines.sim.ahead.rhythm import readings
from offbeat.engines.sim.ahead.schedule import Schedule
from offbeat.engines.sim.ahead.scheduled import ScheduledRun
from offbeat.engines.sim.ahead.states import MODEL
from offbeat.engines.sim.ahead.timetable import Timetable
from offbeat.engines.sim.executors import WIDEST
from offbeat.experiments.runs import Job, run_many, run_one, simulator
from offbeat.experiments.setup import Setup
from offbeat.world.topology import build
from offbeat.world.world import Crash


def timetable(p: Setup, name: str = "adsgd") -> Timetable | None:
    """The timetable of the whole run in one segment, if there is one."""
    try:
        return schedule_of(p, name).segment(p.until, more=False)
    except NoTimetable:
        return None


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(WORLDS, LINKED), GRAPHS, st.sampled_from([9, 16]), st.sampled_from([3.0, 25.0]),
    st.sampled_from(FREE),
)  # fmt: skip
def test_the_timetable_is_what_the_simulator_records(
    world: World, graph: str, n: int, until: float, name: str
) -> None:
    """All tables, byte by byte, at the end and at any time before."""
    p = prepared(topology=graph, agents=n)
    p = replace(p, world=world, until=until)
    sim, table = simulator(Job(p, find(name), 0.01)), timetable(p, name)
    assume(table is not None)  # a delay may be so short that the clock stands still
    assert table is not None
    sim.start()
    for now in (0.0, until / 3, until):
        sim.run(now)
        ours, theirs = table.trace(-1.0, now), sim.recorder.trace()
        for each in TABLES:
            assert getattr(ours, each).tobytes() == getattr(theirs, each).tobytes(), each
        assert ours.kinds == theirs.kinds
        assert (table.writes(now), table.messages(now)) == sim.counts()[:2]
        assert ours.updates().tolist() == sim.steps


OTHER_WORLDS: list[dict[str, Any]] = [
    {"topology": "complete", "agents": 9, "loss": 0.4},
    {"agents": 1, "task": "digits"},
    {"agents": 2, "skew": 0.0, "latency": "0.7"},
]


STEPS = (
    {"optimizer": "momentum", "schedule": "warmup:3+cosine"},
    {"optimizer": "nesterov:0.5", "schedule": "step:2+by=steps"},
)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        *((name, {"case": "combined", "task": "digits"}) for name in FREE),
        *((name, w) for name in ("adsgd", "adsgd:memory-efficient", "rfast") for w in OTHER_WORLDS),
        *((name, steps | {"case": "combined"}) for name in ("adsgd", "rfast", "asbcd") for steps in STEPS),
    ],
)
def test_all_executors_give_the_same_run(name: str, changed: dict[str, Any]) -> None:
    p = prepared(until=20.0, **changed)
    runs = [run_one(Job(p, find(name), 0.05, how)) for how in ("auto", "levels", "batched", "event-by-event")]
    assert all(same(runs[0], run) for run in runs[1:])


def test_a_run_is_the_same_alone_and_beside_others() -> None:
    """Seeds and steps, among them one that diverges, on data that is split anew for every seed."""
    worlds = [prepared(seed, task="digits", case="comp-straggler", until=20.0) for seed in range(3)]
    jobs = [Job(p, ALGORITHMS["adsgd"], lr) for lr in (0.05, 1e38) for p in worlds]
    together = [*run_many(jobs)]
    assert len({run.digest for run in together}) == len(jobs)
    assert [run.diverged_at is not None for run in together] == [False] * 3 + [True] * 3
    for job, run in zip(jobs, together, strict=True):
        assert same(run, run_one(replace(job, keep_trace=True)))
        assert same(run, run_one(replace(job, executor="batched", keep_trace=True)))


def test_runs_lie_side_by_side_only_where_gradients_can_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quadratics of different seeds are different; of one seed, with two steps, they are the same."""
    widths = []
    made = levels.Levels.__init__

    def counted(self: levels.Levels, sides: Any, *rest: Any) -> None:
        widths.append(len(sides))
        made(self, sides, *rest)

    monkeypatch.setattr(levels.Levels, "__init__", counted)
    offbeat.compare("adsgd", task="quadratic", until=2, seeds=2, lr=[0.1, 0.2])
    assert widths == [1, 1, 1, 1]
    widths.clear()
    offbeat.compare("adsgd", task="quadratic", until=2, lr=[0.1, 0.2])
    offbeat.compare("adsgd,dsgd", task="digits", until=2, seeds=3)
    offbeat.compare("adsgd", task="digits", until=2, seeds=10)
    assert widths == [2, 3, 8, 2]


@pytest.mark.parametrize(
    "chosen", [{"compute": "constant"}, {"communication": "constant mean 0"}, {"crash": "1 at 5"}]
)
def test_where_the_order_of_handlers_matters_the_simulator_decides(chosen: dict[str, Any]) -> None:
    p = prepared(**chosen)
    assert timetable(p) is None
    assert same(
        run_one(Job(p, ALGORITHMS["adsgd"], 0.05)),
        run_one(Job(p, ALGORITHMS["adsgd"], 0.05, "event-by-event")),
    )
    with pytest.raises(SettingError, match="cannot be run by levels"):
        run_one(Job(p, ALGORITHMS["adsgd"], 0.05, "levels"))


def test_what_cannot_be_run_by_levels_is_refused_first() -> None:
    common: dict[str, Any] = {"task": "quadratic", "until": 5.0, "executor": "levels"}
    with pytest.raises(
        SettingError, match="dsgd cannot be run by levels: it does more than to ask for a gradient"
    ):
        offbeat.compare("adsgd,dsgd", **common)
    for name, why in [
        ("rasgp", "gives numbers away"),
        ("prox-dgd:l1=0.1", "makes a function of its numbers"),
    ]:
        with pytest.raises(SettingError, match=f"{name} cannot be run by levels: .*{why}"):
            offbeat.compare(name, **common)
        with pytest.raises(SettingError, match=why):
            run_one(Job(prepared(), find(name), 0.1, "levels"))
    with pytest.raises(SettingError, match="agents crash"):
        offbeat.compare("adsgd", crash=Crash(1, 2.0, 3.0), **common)


def reading(name: str, rule: Rule, graph: str = "ring") -> Reading:
    """That of agent 2 of five."""
    found, _ = readings(find(name).new, lambda: rule, build(graph, 5).views(), torch.zeros(12))
    return found[2]


def test_the_forms_are_read_off_the_class() -> None:
    """On a ring: w_ij are thirds. What stands first is added first."""
    w = 1 / 3
    adsgd, atc, swift = (reading(name, SGD(0.25)) for name in ("adsgd", "dgd-atc", "swift:every=2"))
    alone = adsgd.gradient(adsgd.start)
    both = adsgd.gradient(adsgd.hear(alone.then, (0, 1)).then)
    (terms,) = both.cells
    assert [what[:2] for what in terms] == [(HEARD, 0), (STATE, MODEL), (HEARD, 1), (GRADIENT, 0)]
    assert [c for _, _, c in terms] == pytest.approx([w, w, w, -0.25])
    assert [what[:2] for what in alone.cells[0][:3]] == [(STATE, MODEL)] * 3
    assert both.mixed == (0, 1) and alone.mixed == () and adsgd.steady(both.then)
    step, mixed = atc.gradient(atc.start).cells[:2]
    assert step == ((STATE, MODEL, 1.0), (GRADIENT, 0, -0.25)) and len(mixed) == 3
    assert [slot.before for slot in swift.slots] == [True] and swift.every == 1


def test_sums_and_shares_are_vectors_of_the_state() -> None:
    """R-FAST keeps x, z, g; what was given and used, by neighbour. What is fresh is another form."""
    rfast = reading("rfast", SGD(0.25))
    assert [slot.kind for slot in rfast.slots] == ["Given", "Given", "Stepped"] and len(rfast.inputs) == 4
    assert rfast.initial == [False, False, True, True, True, True]
    state = rfast.gradient(rfast.start).then
    told = [state]
    for k in range(4):
        told.append(rfast.hear(told[-1], (k,)).then)
    fresh = rfast.gradient(told[-1])
    assert len(fresh.cells[0]) == 5 and len(rfast.gradient(fresh.then).cells[0]) == 3
    again = rfast.hear(rfast.hear(fresh.then, (2,)).then, (0,))
    assert again.idle and len(rfast.gradient(again.then).cells[0]) == 7


def test_what_is_free_running_is_found_out() -> None:
    """No row of the table says so."""
    found = [name for name, row in ALGORITHMS.items() if not why_not_read(row.new, lambda: SGD(0.1))]
    assert sorted(found) == [
        "adsgd",
        "adsgd:memory-efficient",
        "asbcd",
        "dgd-atc",
        "kungurtsev",
        "prox-dgd",
        "rfast",
        "swift",
    ]


@pytest.mark.parametrize("chosen", [{"optimizer": "adamw"}, {"optimizer": "adamw", "schedule": "cosine"}])
def test_only_with_rules_that_make_linear_forms(chosen: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="adsgd cannot be run by levels"):
        offbeat.compare("adsgd", task="quadratic", until=5.0, executor="levels", **chosen)


def test_what_does_not_repeat_itself_goes_event_by_event() -> None:
    asked: dict[str, Any] = {"task": "quadratic", "until": 5, "agents": 3, "topology": "ring"}
    names = [f"{name}=20000" for name in ("adsgd:local_steps", "swift:every")]
    auto = offbeat.compare(names, **asked).runs
    slow = offbeat.compare(names, executor="event-by-event", **asked).runs
    assert [run.digest for run in auto] == [run.digest for run in slow]
    with pytest.raises(SettingError, match=r"cannot be run by levels: .* not repeated itself after 2,000"):
        offbeat.compare(names[:1], executor="levels", **asked)


def test_an_algorithm_of_the_users_goes_event_by_event() -> None:
    class Mine(type(ALGORITHMS["adsgd"].prototype)):  # type: ignore[misc]
        """As ADSGD, with a model of its own."""

    assert not Job(prepared(), find(Mine), 0.1).by_levels


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 100), st.sampled_from([1, 7, 50]), st.sampled_from([1, 3, 64]), st.sampled_from(FREE))
def test_windows_and_widths_change_nothing(seed: int, window: int, widest: int, name: str) -> None:
    """Rows of the pool are used again at once; whatever is still to be mixed stays."""
    p = prepared(seed, topology="grid", agents=9, case="combined", until=8.0)
    wanted = run_one(Job(p, find(name), 0.05, "event-by-event"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(levels, "WINDOW", (window, window))
        patched.setattr(executors, "WIDEST", widest)
        patched.setattr(levels, "NARROW", widest)
        assert same(run_one(Job(p, find(name), 0.05, "levels")), wanted)


def pooled(agents: int, topology: str, until: float) -> levels.Levels:
    """A run of ADSGD on digits, its timetable ready, nothing made yet."""
    p = prepared(task="digits", topology=topology, agents=agents, until=until)
    (start,) = p.task.initial()
    found = readings(ALGORITHMS["adsgd"].new, lambda: SGD(0.1), p.topology.views(), start)
    schedule = Schedule(found, p.world)
    draws = [lambda count: np.zeros((count, 32), dtype=np.int64)] * agents
    return levels.Levels([ScheduledRun(schedule, [p.until], draws, True)], p.task, (start,))


def test_the_pool_holds_what_lives_and_one_window() -> None:
    """About two versions an agent: its own and an older one that a neighbour still mixes."""
    made = pooled(agents=300, topology="ring", until=12.0)
    made.run(12.0)
    assert len(made.time) > 3000
    assert made.rows < 3 * 300 + WIDEST + 300


def test_rows_are_used_again_within_a_window() -> None:
    """What is made lies where something has just ended, and not where nothing was for a whole window."""
    made = pooled(agents=9, topology="grid", until=100.0)
    made.pool[2:] = np.nan
    made.run(100.0)
    touched = int((~made.pool[2:, 0].isnan()).sum())
    assert len(made.time) > 800 and levels.WINDOW[0] > 300
    assert touched < levels.NARROW + 9 * 6
