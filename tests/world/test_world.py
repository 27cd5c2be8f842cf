"""Delays, transmissions, losses and crashes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import ALL, models, quadratic, started

import offbeat
from offbeat import Agent, Crash, Delay, SettingError, Vector, World, empirical
from offbeat.algorithms import find
from offbeat.core.agent import Publish, Send
from offbeat.core.errors import DataError
from offbeat.core.forms import zero
from offbeat.core.system.streams import Purpose, stream
from offbeat.engines.events import GradientDone, rows_of
from offbeat.engines.outbox import Outbox, Transmission
from offbeat.world.delays import parse, with_overhead
from offbeat.world.files import read_values
from offbeat.world.world import apply_case, parse_crash

TOLERANT = [name for name in ALL if "crash" in find(name).tolerates]
CONSTANT = World(compute=Delay("constant"), communication=Delay("constant"))


# -- distributions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delay", "cv"),
    [
        (Delay("gamma", 3.0), 0.25),
        (Delay("gamma", 3.0, cv=0.7), 0.7),
        (Delay("lognormal", 3.0), 1.0),
        (Delay("lognormal", 3.0, cv=0.3), 0.3),
        (Delay("exponential", 3.0), 1.0),
        (Delay("constant", 3.0), 0.0),
        (empirical([1.0, 2.0, 3.0], mean=3.0), np.std([1, 2, 3]) / 2),
    ],
    ids=str,
)
def test_the_mean_is_the_parameter_and_the_shape_is_the_familys(delay: Delay, cv: float) -> None:
    drawn = np.array(delay.draw(np.random.default_rng(0), 200_000))
    assert (drawn >= 0).all()
    assert drawn.mean() == pytest.approx(3.0, rel=0.02)
    assert drawn.std() / drawn.mean() == pytest.approx(cv, rel=0.05)
    assert np.mean(delay.times(2).draw(np.random.default_rng(0), 200_000)) == pytest.approx(2 * drawn.mean())


def test_measured_delays_keep_their_mean_unless_told() -> None:
    assert empirical(np.array([2.0, 4.0])).mean == 3.0
    assert sorted(set(empirical([2.0, 4.0]).draw(np.random.default_rng(0), 50))) == [2.0, 4.0]


def test_measured_delays_from_files(tmp_path: Path, real_data: Path) -> None:
    np.save(tmp_path / "d.npy", np.array([1.0, 2.0, 3.0]))
    np.savez(tmp_path / "d.npz", np.array([1, 2, 3]))
    (tmp_path / "d.txt").write_text("# measured\n1\n2\n\n3  # ms\n")
    for name in ("d.npy", "d.npz", "d.txt"):
        assert read_values(tmp_path / name).tolist() == [1, 2, 3]
    rtt = parse(f"file {real_data / 'traces' / 'seattle_rtt.npz'}:all")
    assert np.mean(rtt.draw(np.random.default_rng(0), 100_000)) == pytest.approx(1.0, rel=0.05)
    assert "seattle_rtt.npz:all: " in rtt.source and "numbers" in rtt.source


TABLE = "time,latency\n100,0.5\n101,0.7\n"


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (TABLE, "line 1 has 2 values: 'time latency'"),
        ("100,0.5\n101,0.7\n", "line 1 has 2 values: '100 0.5'"),
        ("0,5\n0,7\n", "are these decimal commas? Write 0.5, not 0,5"),
        ("1,5;2,5\n", "are these decimal commas?"),
        ("1 2 3\n", "line 1 has 3 values"),
        ("latency\n1\n", "line 1 has 'latency', which is no number"),
        ("1\n-2\n", "number 2 of 2 is -2.0"),
        ("1\nnan\n", "number 2 of 2 is nan"),
        ("1_000\n", "line 1 has '1_000'"),
        ("0\n0\n", "all of its 2 numbers are 0"),
        ("# nothing\n", "it holds no number"),
    ],
)
def test_what_is_not_one_delay_a_line_is_refused(text: str, fragment: str, tmp_path: Path) -> None:
    """Times, columns and names are numbers too: taken for delays, they would give a wrong world without a
    word.
    """
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        parse(f"file {tmp_path / 'd.csv'}")
    assert fragment in str(refused.value)
    assert "expected measured delays, one number a line" in str(refused.value)


def test_a_column_of_a_file_is_chosen_by_number_or_name(tmp_path: Path) -> None:
    path, table, named = tmp_path / "d.csv", tmp_path / "t.npy", tmp_path / "n.npz"
    path.write_text(TABLE)
    np.save(table, np.array([[9.0, 1.0], [9.0, 3.0]]))
    np.savez(named, rtt=np.array([1.0, 3.0]), at=np.array([9.0, 9.0]))
    assert read_values(path, "latency").tolist() == read_values(path, "2").tolist() == [0.5, 0.7]
    assert read_values(table, "2").tolist() == read_values(named, "rtt").tolist() == [1.0, 3.0]
    assert parse(f"file {path}:latency").source == f"{path}:latency: 2 numbers from 0.5 to 0.7, mean 0.6"
    assert parse(f"file {path}:2 mean 3").mean == 3
    for wrong, column, fragment in (
        (path, "3", "it has no column '3': there are 2, named time, latency"),
        (table, "x", "no column 'x'"),
        (table, None, r"its array has the shape \(2, 2\)"),
        (named, None, "it holds the arrays rtt, at; name one"),
    ):
        with pytest.raises(DataError, match=fragment):
            read_values(wrong, column)
    colon = tmp_path / "a:1"
    colon.write_text("4\n")
    assert parse(f"file {colon}").source == f"{colon}: 1 numbers from 4 to 4, mean 4", (
        "a path may have a colon"
    )


@pytest.mark.parametrize("half", [np.tril, np.triu])
def test_the_zeros_of_a_triangular_matrix_are_no_delays(
    half: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "m.npy"
    np.save(path, half(np.arange(1.0, 10.0).reshape(3, 3)))
    with pytest.raises(DataError, match="one half of its matrix is all zeros; put NaN"):
        read_values(path, "all")
    np.save(path, np.where(half(np.ones((3, 3))) > 0, np.arange(1.0, 10.0).reshape(3, 3), np.nan))
    assert len(read_values(path, "all")) == 6


def test_delays_as_text() -> None:
    assert parse("gamma 0.25") == Delay("gamma", cv=0.25)
    assert parse("constant") == Delay("constant")
    for text in ("gama", "gamma -1", "gamma x", "constant 2", "gamma nan", "file"):
        with pytest.raises(SettingError):
            parse(text)
    for mean, cv in ((-1.0, None), (float("nan"), None), (1.0, 0.0)):
        with pytest.raises(SettingError):
            Delay("gamma", mean, cv)


@given(st.integers(0, 5), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_drawing_in_chunks_is_drawing_one_by_one(seed: int, chunks: list[int]) -> None:
    for delay in (Delay("gamma"), Delay("lognormal"), Delay("exponential"), empirical([1.0, 5.0])):
        rng = stream(seed, Purpose.COMPUTE, 3)
        pieces = [x for n in chunks for x in delay.draw(rng, n)]
        assert pieces == delay.draw(stream(seed, Purpose.COMPUTE, 3), sum(chunks))


# -- the world -------------------------------------------------------------------------------------


def test_the_five_cases() -> None:
    base = World(seed=1)
    assert apply_case(base, "base", (4,)) == base
    assert apply_case(base, "slow-comm", (4,)).communication.mean == 10
    for name, computes, sends in (
        ("comp-straggler", 10.0, 1.0),
        ("comm-straggler", 1.0, 10.0),
        ("combined", 10.0, 10.0),
    ):
        world = apply_case(base, name, (4,))
        assert (world.compute_delay(4).mean, world.communication_delay(4).mean) == (computes, sends)
        assert (world.compute_delay(3).mean, world.communication_delay(3).mean) == (1.0, 1.0)
    with pytest.raises(SettingError, match="Did you mean 'combined'"):
        apply_case(base, "combind", (4,))


def test_crashes_as_text() -> None:
    assert parse_crash("agent 3 at 100 until 200") == Crash(3, 100.0, 200.0)
    assert parse_crash(str(Crash(3, 1.5))) == Crash(3, 1.5)
    for text in ("", "agent 3", "agent x at 3", "agent 3 at 5 until 4", "agent 3 at 1.2.3"):
        with pytest.raises(SettingError):
            parse_crash(text)


@pytest.mark.parametrize("algorithm", ["adpsgd", "rfast", "dsgd"])
def test_every_algorithm_meets_the_same_delays(algorithm: str) -> None:
    """The k-th gradient of an agent takes the same time under every algorithm, and so does its k-th
    transmission.
    """
    world = World(seed=9, slow_compute={4: 3.0})
    traces = []
    for name in ("adsgd", algorithm):
        sim = started(name, world=world)
        sim.run(20)
        traces.append(sim.recorder.trace())
    for i in range(9):
        lengths = []
        for trace in traces:
            done = rows_of(trace.events, GradientDone)
            mine = done[done["agent"] == i]
            lengths.append((mine["end"] - mine["start"])[:3])
        assert len(lengths[1]) > 0
        assert lengths[0][: len(lengths[1])] == pytest.approx(lengths[1])
        sent = [t.transmissions[t.transmissions["agent"] == i] for t in traces]
        times = [(s["end"] - s["start"])[:3] for s in sent]
        count = min(len(times[0]), len(times[1]))
        assert times[0][:count] == pytest.approx(times[1][:count])


@pytest.mark.parametrize("algorithm", ALL)
def test_slow_links_leave_the_update_counts_of_asynchronous_algorithms_alone(algorithm: str) -> None:
    counts = []
    for factor in (1.0, 10.0):
        sim = started(algorithm, world=World(seed=2, slow_communication={4: factor}))
        sim.run(60)
        counts.append(sim.steps)
    if find(algorithm).waits_for == "nothing":
        assert counts[0] == counts[1]
    elif algorithm.startswith("adpsgd:atomic"):  # agent 4 asks, so only itself waits for its slow questions
        assert counts[1][4] < 0.5 * counts[0][4]
    elif find(algorithm).waits_for == "the server's answer":  # which the server's own link delays, and more
        assert counts[1][4] < 0.75 * counts[0][4]
    else:
        assert sum(counts[1]) < 0.75 * sum(counts[0])


def test_a_tenfold_computation_straggler_makes_a_tenth_of_the_updates() -> None:
    sim = started("adsgd", world=World(seed=1, slow_compute={4: 10.0}), check=False)
    sim.run(500)
    assert sim.steps[4] == pytest.approx(50, rel=0.1)
    assert np.mean(sim.steps[:4]) == pytest.approx(500, rel=0.03)


# -- one server a sender ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Note:
    x: Vector
    n: int = 0


@dataclass(frozen=True)
class Other:
    x: Vector


@dataclass
class Scripted(Agent):
    """Agent 0 sends what its script says at every gradient; everybody writes down what comes."""

    medium: str = "publish"
    each: int = 3
    log: list[tuple[float, int, int, float]] = field(init=False, default_factory=list)
    count: int = field(init=False, default=0)

    def on_message(self, src: int, message: Note) -> None:
        self.log.append((self.now, src, message.n, float(message.x.parts[0][0])))

    def on_gradient(self, g: Vector) -> None:
        if self.me == 0:
            for _ in range(self.each):
                self.count += 1
                one = zero(self.x)
                one.parts[0].add_(1.0)
                getattr(self, self.medium)(self.view.listeners, Note(one, self.count))
        self.compute(self.x)


def scripted(
    medium: str, each: int, until: float, world: World = CONSTANT
) -> list[tuple[float, int, int, float]]:
    sim = started(Scripted(medium, each), quadratic(2), world, "chain", check=False)
    sim.run(until)
    receiver = sim.agents[1]
    assert isinstance(receiver, Scripted)
    return receiver.log


def test_mail_arrives_in_order_exactly_once_one_transmission_after_the_other() -> None:
    log = scripted("send", 3, 10.5)
    assert [n for _, _, n, _ in log] == list(range(1, 10))
    assert [t for t, _, _, _ in log] == [float(t) for t in range(2, 11)]


def test_a_register_is_replaced_while_it_waits_and_read_with_the_gradient() -> None:
    """Three are published at 1, 2, 3, ...: the first leaves at once, of the others only the newest."""
    log = scripted("publish", 3, 10.5)
    assert [(t, n) for t, _, n, _ in log][:4] == [(2.0, 1), (3.0, 3), (4.0, 6), (5.0, 9)]


def test_what_has_not_left_is_accumulated_and_nothing_is_lost() -> None:
    """Three ones are given at 1, 2, 3, ...; the first leaves at once, then all that has come together."""
    log = scripted("accumulate", 3, 30.5)
    assert [value for _, _, _, value in log] == [1.0, 2.0, *[3.0] * 27]


def test_a_register_that_is_replaced_keeps_its_place() -> None:
    box, x = Outbox(), Vector()
    box.put(Transmission(0, Publish, (1,), Note(x, 1)))
    box.put(Transmission(0, Send, (1,), Other(x)))
    box.put(Transmission(0, Publish, (1,), Note(x, 2)))
    box.put(Transmission(0, Publish, (2,), Note(x, 3)))
    order = []
    while (item := box.take()) is not None:
        order.append((type(item.message).__name__, item.to, getattr(item.message, "n", None)))
    assert order == [("Note", (1,), 2), ("Other", (1,), None), ("Note", (2,), 3)]
    box.put(Transmission(0, Publish, (1,), Note(x, 4)))
    assert box.take() is not None


def test_payload_scales_the_delay_and_numbers_are_free() -> None:
    sim = started("allreduce", world=CONSTANT)
    sim.run(30)
    sent = sim.recorder.trace().transmissions
    assert set(sent["bytes"].tolist()) == {8, 0}, "three numbers in nine pieces: some are empty"
    assert set(np.round(sent["end"] - sent["start"], 12).tolist()) == {round(1 / 3, 12), 0.0}


@pytest.mark.parametrize("loss", [0.0, 0.4])
def test_loss_is_per_receiver_and_never_hits_mail(loss: float) -> None:
    quick = World(seed=1, compute=Delay("constant"), communication=Delay("constant", mean=0.1), loss=loss)
    kept = scripted("publish", 1, 2000.5, quick)
    assert len(kept) == pytest.approx(2000 * (1 - loss), rel=0.05)
    mail = scripted("send", 1, 200.5, replace(CONSTANT, loss=loss))
    assert len(mail) == 199


# -- crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", TOLERANT)
@pytest.mark.parametrize("until", [None, 24.0])
def test_the_others_go_on_and_who_returns_contributes(algorithm: str, until: float | None) -> None:
    task = quadratic()
    sim = started(algorithm, task, World(seed=5, crashes=(Crash(4, 12.2, until), Crash(1, 16.4, until))))
    sim.run(20)
    before = list(sim.steps)
    sim.run(60)
    for i in range(9):
        moved = sim.steps[i] - before[i]
        assert (moved == 0) if until is None and i in (1, 4) else (moved > 5), (i, before, sim.steps)
    dead = [] if until else [1, 4]
    rows = [row for row in sim.recorder.trace().table() if row["time"] > 20 and row["agent"] in dead]
    assert rows == []
    if until and "memory-efficient" not in algorithm:  # a sum does not say of which versions it is
        versions = [row["versions"] for row in sim.recorder.trace().table() if row["time"] > 40]
        assert any(4 in v for v in versions), "the returned agent is mixed again"
    assert np.isfinite(models(sim)).all()


def test_allreduce_stands_still_when_an_agent_is_lost() -> None:
    sim = started("allreduce", world=World(seed=5, crashes=(Crash(4, 30.2, 60.0),)))
    sim.run(200)
    assert all(row["time"] < 45 for row in sim.recorder.trace().table())


def test_a_returned_dsgd_agent_takes_part_in_the_barrier_again() -> None:
    sim = started("dsgd", world=World(seed=5, crashes=(Crash(4, 10.2, 20.0),)))
    sim.run(130)
    assert max(agent.round for agent in sim.agents) - min(agent.round for agent in sim.agents) <= 4
    for row in sim.recorder.trace().table():
        if row["time"] > 50:
            assert len(row["versions"]) == len(sim.topology.peers(row["agent"]))


@given(st.integers(0, 10_000), st.sampled_from(TOLERANT), st.data())
def test_no_schedule_of_crashes_stops_the_living(seed: int, algorithm: str, data: st.DataObject) -> None:
    """Random crashes and returns on a random graph: whoever lives goes on, and the contract holds."""
    times = st.floats(1, 16, allow_nan=False)
    crashes = []
    for i in data.draw(st.lists(st.integers(0, 5), max_size=4, unique=True)):
        at, away = data.draw(times), data.draw(st.none() | times)
        crashes.append(Crash(i, at, None if away is None else at + away))
    graph = data.draw(st.sampled_from(["chain", "star", "grid", "binary-tree"]))
    sim = started(algorithm, quadratic(6), World(seed=seed, crashes=tuple(crashes), loss=0.1), graph)
    sim.run(40)
    before = list(sim.steps)
    sim.run(64)
    assert all(sim.steps[i] > before[i] for i in sim.alive)


def test_all_agents_may_crash() -> None:
    sim = started("adsgd", quadratic(2), World(crashes=(Crash(0, 5.0, 20.0), Crash(1, 6.0))), "chain")
    sim.run(40)
    assert sim.alive == {0}
    assert sim.steps[0] > 15


# -- overheads, and worlds that are given ----------------------------------------------------------


def test_no_slowdown_multiplies_an_overhead() -> None:
    """Each value keeps its own, and is drawn with it."""
    delay = with_overhead(np.array([1.0, 3.0]), np.array([0.5, 0.25]))
    slow = World(own_compute={1: delay}, slow_compute={1: 10.0}).compute_delay(1)
    assert set(delay.draw(stream(0, Purpose.COMPUTE, 0), 50)) == {1.5, 3.25}
    assert set(slow.draw(stream(0, Purpose.COMPUTE, 0), 50)) == {10.5, 30.25}
    assert (delay.expected, slow.expected) == (2.375, 20.375)
    idle = with_overhead(np.zeros(2), np.array([0.5, 0.0])).times(7.0)
    assert set(idle.draw(stream(0, Purpose.COMPUTE, 0), 50)) == {0.5, 0.0}
    assert with_overhead(np.zeros(2), np.zeros(2)) == Delay("constant", 0.0)
    with pytest.raises(SettingError, match="overhead"):
        Delay("empirical", values=bytes(16), overhead=bytes(8))
    world = apply_case(World(own_communication={0: delay}), "slow-comm", ())
    assert world.communication_delay(0).expected == 20.375


def test_an_experiment_may_be_given_its_world() -> None:
    """The same as from its settings; the case comes on top."""
    common: dict[str, Any] = {"task": "quadratic", "agents": 4, "until": 20.0, "case": "comp-straggler"}
    said = offbeat.compare("adsgd,dsgd", compute="lognormal 0.5", loss=0.2, seeds=2, **common)
    world = World(compute=Delay("lognormal", cv=0.5), loss=0.2)
    held = offbeat.compare("adsgd,dsgd", world=world, seeds=2, **common)
    assert [run.digest for run in held.runs] == [run.digest for run in said.runs]
    assert held.runs[0].settings["own"] == [] and held.runs[0].settings["loss"] == 0.2
    with pytest.raises(SettingError, match="Expected a world or 'loss'"):
        offbeat.compare("adsgd", world=world, loss=0.1, **common)
    with pytest.raises(SettingError, match=r"must be an offbeat\.World"):
        offbeat.compare("adsgd", world="here", **common)
