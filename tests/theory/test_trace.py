"""The trace: iterations, versions, B and D of arXiv:2505.10322; and its file."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import table_of
from runs import ALL, quadratic, started

from offbeat import Crash, Delay, Trace, Vector, World
from offbeat.algorithms import find
from offbeat.core.errors import DataError
from offbeat.core.system.files import write_atomically
from offbeat.engines.events import (
    KINDS,
    AlarmRang,
    BatchTaken,
    Crashed,
    Event,
    GradientDone,
    LossKnown,
    MailReceived,
    PeerMet,
    RegisterMoved,
    RegisterRead,
    Regrouped,
    Rejoined,
    Resumed,
    Saved,
    Started,
    SumAdded,
    SumEnds,
    ViewChanged,
    records,
    rows_of,
)  # fmt: skip
from offbeat.engines.recorder import Recorder

worlds = st.builds(
    World,
    seed=st.integers(0, 10_000),
    communication=st.sampled_from(
        [Delay("lognormal"), Delay("exponential", mean=3.0), Delay("constant", mean=0.0)]
    ),
    slow_compute=st.dictionaries(st.integers(0, 8), st.just(10.0), max_size=2),
    loss=st.sampled_from([0.0, 0.2]),
)


def by_hand(agents: int, writes: list[int], mixed: list[tuple[int, int, int]], blocks: bool = False) -> Trace:
    """A trace in which writes[k] writes at iteration k; mixed: (write, source, version)."""
    recorder = Recorder(agents, blocks=blocks)
    recorder.event(RegisterRead(0.0, 0, 0, 0, 0, 0.0, 0.0))
    for k, agent in enumerate(writes):
        recorder.write(
            float(k), agent, writes[: k + 1].count(agent), [row[1:] for row in mixed if row[0] == k]
        )
    return recorder.trace()


def test_selected_index_of_the_worked_examples() -> None:
    """s_ij^k = min(k, m_{r+1}): version r stays valid until the (r+1)-st write of its agent.

    Agent 1 (here 0) writes at 5 and at 10; agent 2 (here 1) finishes at 9. If it has heard of the write at 5,
    s = 9; if it still holds the initial model, s = 5. If the write was at 3 and the next one at 7, s = 7.
    """
    writes = [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0]
    for version, s in ((1, 9), (0, 5)):
        now, then = by_hand(2, writes, [(9, 0, version)]).selected()
        assert (now.tolist(), then.tolist()) == ([9], [s])
    writes = [1, 1, 1, 0, 1, 1, 1, 0, 1, 1]
    assert by_hand(2, writes, [(9, 0, 1)]).selected()[1].tolist() == [7]
    assert by_hand(2, writes, [(9, 0, 2)]).selected()[1].tolist() == [9]


@pytest.mark.parametrize(("wrote", "s"), [(5, {4: 4, 9: 5}), (3, {4: 3, 9: 3})])
def test_by_blocks_what_was_read_counts_when_it_is_used(wrote: int, s: dict[int, int]) -> None:
    """The worked examples of block coordinate descent: agent 2 (here 1) begins gradients at 2 and 4, which it
    applies at 4 and 9; of agent 1 (here 0), that writes at 5 or at 3, it has read the initial block alone.
    """
    writes = [2, 2, 2, 2, 1, 2, 2, 2, 2, 1]
    writes[wrote] = 0
    trace = by_hand(3, writes, [(4, 2, 2)], blocks=True)
    rows, (now, then) = trace.used(), trace.selected()
    of = (trace.writes["agent"][rows["write"]] == 1) & (rows["source"] == 0)
    assert dict(zip(now[of].tolist(), then[of].tolist(), strict=True)) == s
    assert trace.staleness().D == max(now - then) == 9 - 2, "what is read of agent 2 ended at 2"


def of_blocks(trace: Trace, agent: int, k: int, source: int) -> int:
    """s_ij^k from the definition, reading by reading: k is that of a write of the agent."""
    rows = trace.table()
    read = [row["versions"] for row in rows if row["agent"] == agent and row["k"] < k]
    version = ([0] + [each[source] for each in read if source in each])[-1]
    ends = [row["k"] for row in rows if row["agent"] == source]
    return int(min([k, *ends[version : version + 1]]))


@settings(max_examples=8)
@given(worlds)
def test_staleness_of_block_descent_is_that_of_the_gradients_that_are_applied(world: World) -> None:
    """Against the definition; and nothing is left of the time of computing if it is left out."""
    sim = started("asbcd", world=world, check=False)
    sim.run(12)
    trace = sim.recorder.trace()
    rows, (now, then) = trace.used(), trace.selected()
    for row, k, s in [*zip(rows.tolist(), now.tolist(), then.tolist(), strict=True)][-40:]:
        agent = int(trace.writes["agent"][row[0]])
        assert s == of_blocks(trace, agent, k, row[1])
    assert max(now - then) == trace.staleness().D
    plain = Trace(9, trace.kinds, *trace.tables.values())
    assert plain.staleness().D < trace.staleness().D  # type: ignore[operator]


def test_b_counts_the_ends_and_writes_of_one_instant_share_an_iteration() -> None:
    assert by_hand(2, [0, 0, 0, 1], []).staleness().B == 4
    assert by_hand(2, [1, 0, 0], []).staleness().B == 3
    assert by_hand(2, [0, 1, 0, 1], []).staleness().B == 2
    recorder = Recorder(2)
    for row in ((1.0, 0, 1), (1.0, 1, 1), (2.0, 1, 2), (2.0, 0, 2)):
        recorder.write(*row, [])
    trace = recorder.trace()
    assert trace.iterations().tolist() == [0, 0, 1, 1]
    assert (trace.staleness().B, trace.staleness().D) == (1, None)


@settings(max_examples=8)
@given(worlds, st.sampled_from(["adsgd", "rfast"]))
def test_lemma_c1_holds_on_every_recorded_trace(world: World, algorithm: str) -> None:
    """||x^k - xhat^k||^2 <= D sum_{t=k-D}^{k-1} ||x^{t+1} - x^t||^2, with the measured D, for every write."""
    history: list[tuple[int, np.ndarray]] = []

    def observe(time: float, agent: int, model: Vector) -> None:
        history.append((agent, model.parts[0].numpy()))

    sim = started(algorithm, quadratic(), world, observers=[observe])
    sim.run(25)
    trace = sim.recorder.trace()
    if (
        algorithm == "rfast"
    ):  # its registers carry v and rho, not models: the indices still obey 0 <= k - s <= D
        now, then = trace.selected()
        assert (then <= now).all()
        return
    staleness = trace.staleness()
    assert staleness.D is not None
    k = trace.iterations()
    x = np.zeros((k[-1] + 2, 9, 3))  # x[k]: all models before iteration k
    for (agent, model), at in zip(history, k, strict=True):
        x[at + 1 :, agent] = model
    moved = ((x[1:] - x[:-1]) ** 2).sum((1, 2))
    now, then = trace.selected()
    assert ((now - then) <= staleness.D).all()
    for write in range(len(k)):
        rows = trace.mixed["write"] == write
        heard = dict(zip(trace.mixed["source"][rows], then[rows], strict=True))
        left = sum(((x[k[write], j] - x[s, j]) ** 2).sum() for j, s in heard.items())
        window = moved[max(0, k[write] - staleness.D) : k[write]].sum()
        assert left <= staleness.D * window + 1e-12


@settings(max_examples=8)
@given(worlds)
def test_what_adsgd_mixes_never_goes_back_and_everybody_is_in_each_window(world: World) -> None:
    sim = started("adsgd", world=world)
    sim.run(30)
    trace = sim.recorder.trace()
    newest: dict[tuple[int, int], int] = {}
    for row in trace.table():
        for source, version in row["versions"].items():
            assert version >= newest.get((row["agent"], source), 0)
            newest[row["agent"], source] = version
    k, b = trace.iterations(), trace.staleness().B
    for start in range(k[-1] - b + 2):
        window = trace.writes["agent"][(k >= start) & (k < start + b)]
        assert set(window.tolist()) == set(range(9))


def test_without_communication_delay_adsgd_has_d_zero() -> None:
    sim = started("adsgd", world=World(communication=Delay("constant", mean=0.0), slow_compute={4: 10.0}))
    sim.run(60)
    staleness = sim.recorder.trace().staleness()
    assert staleness.D == 0
    assert staleness.B > 30


@pytest.mark.parametrize("algorithm", ALL)
def test_dsgd_mixes_the_same_round_and_mail_gives_no_d(algorithm: str) -> None:
    sim = started(algorithm, world=World(seed=1, slow_compute={4: 10.0}))
    sim.run(100)
    trace = sim.recorder.trace()
    if algorithm.startswith("dsgd"):
        for row in trace.table():
            assert set(row["versions"].values()) <= {row["step"] - 1}
    registers = find(algorithm).waits_for == "nothing" and "memory-efficient" not in algorithm
    assert (trace.staleness().D is not None) == registers
    assert trace.updates().tolist() == sim.steps


def test_what_is_no_trace_is_refused_plainly(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a trace")
    with pytest.raises(
        DataError, match=r"notes.txt cannot be read \(File is not a zip file\); expected a trace, a \.npz"
    ):
        Trace.load(path)


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        (0, "is not the folder of a live run"),
        (1, "has not ended: the same command with --resume goes on with it"),
    ],
)
def test_of_a_folder_without_a_trace_it_is_said_why(tmp_path: Path, logs: int, said: str) -> None:
    for i in range(logs):
        (tmp_path / f"agent-{i}.trace").touch()
    with pytest.raises(DataError, match=rf"There is no file .*trace\.npz; expected a trace.* {said}\."):
        Trace.load(tmp_path)


def test_save_and_load(tmp_path: Path) -> None:
    sim = started("rfast", world=World(crashes=(Crash(2, 5.0, 9.0),)))
    sim.run(20)
    trace = sim.recorder.trace()
    trace.save(tmp_path / "trace.npz")
    again = Trace.load(tmp_path / "trace.npz")
    assert Trace.load(tmp_path).digest() == again.digest(), "the folder of a run will do"
    assert again.digest() == trace.digest()
    assert again.table() == trace.table()
    assert [p.name for p in tmp_path.iterdir()] == ["trace.npz"]
    assert {Crashed, Rejoined, ViewChanged} <= {*map(type, records(again.events))}


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_not_replaced(kind: str, tmp_path: Path) -> None:
    """A file that is written whole or not at all takes the place of the one before; a pipe or a device has
    none.
    """
    there = tmp_path / "there"
    os.mkfifo(there) if kind == "pipe" else there.mkdir()
    with pytest.raises(OSError, match="it is"):
        write_atomically(there, b"new")
    assert there.is_fifo() or there.is_dir()


RECORDS: list[Event] = [
    Started(0.0, 1), Rejoined(1.0, 2, 3, 4, 5, 6), Rejoined(1.0, 2, 3, 4), GradientDone(1.0, 2, 3, 4.5, 5.5),
    MailReceived(1.0, 2, 3, 4, 5, 6.5, 7.5), RegisterRead(1.0, 2, 3, 4, 5, 6.5, 7.5), AlarmRang(1.0, 2),
    ViewChanged(1.0, 2, 3, True, 4), ViewChanged(1.0, 2, 3, False), Crashed(1.0, 2), LossKnown(1.0, 2, 0),
    RegisterMoved(1.0, 2, 3, 4, 5, 6.5, 7.5), Saved(1.0, 2, 3), Resumed(1.0, 2, 3), PeerMet(1.0, 2, 3, 4),
    BatchTaken(1.0, 2, 0, 3, 4), Regrouped(1.0, 2, 3), SumAdded(1.0, 2, 3, 4, 5), SumEnds(1.0, 2, 3, 4),
]  # fmt: skip


def test_what_is_recorded_is_read_back_under_its_own_names() -> None:
    """A loss that an agent knows of is no crash of its own, though both have one number in the file."""
    events = table_of(RECORDS)
    assert [*records(events)] == RECORDS and {*map(type, RECORDS)} == {*KINDS}
    for record in RECORDS:
        found = rows_of(events, type(record))
        assert found.dtype.names == record._fields and tuple(record) in found.tolist()
        assert len(found) == [*map(type, RECORDS)].count(type(record))
