"""Live runs, with real processes: where they end, what their replay gives, who is killed or stopped
meanwhile.
"""

import math
import re
import shutil
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recorded import exact_replay, table_of
from warm import finished, needs_shared_memory, until

from offbeat import SGD, Quadratic
from offbeat.algorithms import find
from offbeat.algorithms.adsgd import Model
from offbeat.core.agent import Publish
from offbeat.core.pairs import Ask
from offbeat.core.system.devices import one_thread
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Stamp, Vector
from offbeat.engines.events import (
    MIXED,
    TRANSMISSION,
    WRITE,
    Event,
    GradientDone,
    MailReceived,
    RegisterMoved,
    Started,
    ViewChanged,
    rows_of,
)
from offbeat.engines.live.node import enter
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.link import Link
from offbeat.engines.live.node.log import Log
from offbeat.engines.live.node.performer import Clock, Performer
from offbeat.engines.live.node.snapshots import ModelSnapshots
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.settings import RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import Board, Row, State
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.sim.executors import evaluate
from offbeat.engines.sim.replay import Replay
from offbeat.engines.trace import Trace
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.live.running import Watcher, all_alike
from offbeat.experiments.replaying import replayed
from offbeat.experiments.setup import prepare
from offbeat.tasks.quadratic import random_quadratic
from offbeat.world.delays import parse
from offbeat.world.topology import build
from offbeat.world.world import World

pytestmark = needs_shared_memory

EXACT = (
    "import offbeat.tasks as t; from functools import partial; "
    "t.random_quadratic = partial(t.random_quadratic, noise=0.0)"
)


# -- runs of the simulator's experiments -----------------------------------------------------------


def live(folder: Path, algorithm: str, units: float, *options: str, setup: str = "", ms: float = 2.0) -> Path:
    """`offbeat live` on quadratics with four agents on a ring; the folder of its trace."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    words = (
        f"live --task quadratic --agents 4 --algorithms {algorithm} --unit {ms}ms --until {units} --out out"
    )
    run = finished(folder, *words.split(), *options, setup=setup)
    assert run.code == 0, run.said + run.complained
    (made,) = (folder / "out").glob("*-lr*")
    return made


@pytest.fixture
def without_noise(monkeypatch: pytest.MonkeyPatch) -> str:
    """Quadratics have none, here and in the processes of a run with this setup."""
    monkeypatch.setattr("offbeat.tasks.random_quadratic", partial(random_quadratic, noise=0.0))
    return EXACT


def limit(algorithm: str, task: Quadratic, topology: str, lr: float) -> np.ndarray:
    """Where it ends: at x = W x - lr H (x - b) (ADSGD and DSGD), or at the optimum of the sum (others)."""
    if "dsgd" not in algorithm:
        return np.tile(task.optimum, (task.agents, 1))
    h = lr * np.diag(task.h)
    fixed: np.ndarray = np.linalg.solve(
        h + np.eye(task.agents) - build(topology, task.agents).dense_w(), h @ task.b
    )
    return fixed


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd", "rfast"])
def test_a_run_ends_where_the_simulator_does(algorithm: str, tmp_path: Path, without_noise: str) -> None:
    """Closed forms, to 1e-6, with a straggler and delays. Four times as long if the machine was busy."""
    for units in (600, 2400):
        words = ["--lr", "0.2", "--case", "combined", "--slowdown", "3"]
        folder = live(tmp_path, algorithm, units, *words, setup=without_noise)
        outcome = exact_replay(folder)
        task = prepare(Experiment(**Trace.load(folder / "trace.npz").settings["experiment"]), 0).task
        assert isinstance(task, Quadratic)
        error = np.abs(outcome.models[0].numpy() - limit(algorithm, task, "ring", 0.2)).max()
        if error < 1e-6:
            return
    pytest.fail(f"{algorithm} is {error} from its limit")


def test_adpsgd_keeps_the_mean_and_comes_close_to_the_weighted_optimum(
    tmp_path: Path, without_noise: str
) -> None:
    """It has no limit. Exactly: mean x(0) - mean x(K) is the mean of what was applied, what is on its way
    counted.
    """
    lr, algorithm = 0.02, "adpsgd"
    folder = live(tmp_path, algorithm, 400, "--lr", str(lr), "--case", "comp-straggler", setup=without_noise)
    exact_replay(folder)
    trace = Trace.load(folder / "trace.npz")
    task = prepare(Experiment(**trace.settings["experiment"]), 0).task
    assert isinstance(task, Quadratic)
    applied: list[Vector] = []

    def counted(g: Vector) -> Vector:
        applied.append(SGD(lr)(g))
        return applied[-1]

    replay = Replay(
        trace, build("ring", 4), find(algorithm).new, lambda: counted,
        lambda i, life: python_stream(0, Purpose.ALGORITHM, i, life), task.initial(),
        lambda i, k, x: evaluate(task, i, x, np.zeros(0)),
    )  # fmt: skip
    with one_thread():
        replay.run()
    x = replay.stacked()[0].numpy()
    moving = [
        letter.message.d.parts[0].numpy()
        for each in replay.agents
        for letters in each.mail.values()
        for letter in letters
        if hasattr(letter.message, "d")
    ]
    steps = sum(u.parts[0].numpy() for u in applied)
    np.testing.assert_allclose(x.sum(0) - sum(moving), -steps, atol=1e-12)
    # The optimum, weighted by who stepped how often and how lately: the machine may be busy at times.
    weighted, steps_of = np.zeros_like(task.optimum), [0] * task.agents
    for _, i, step in np.sort(trace.writes, order="time").tolist():
        if step > steps_of[i]:
            weighted, steps_of[i] = weighted + lr / task.agents * task.h[i] * (task.b[i] - weighted), step
    assert steps_of == trace.updates().tolist()
    assert np.abs(x.mean(0) - weighted).max() < 0.1


# -- replays ---------------------------------------------------------------------------------------


def test_a_replay_orders_what_was_simultaneous_as_the_trace_does(tmp_path: Path) -> None:
    """Two agents may write in the same nanosecond; DSGD's rounds bring them close."""
    folder = live(tmp_path, "dsgd", 100, "--lr", "0.1")
    trace = Trace.load(folder / "trace.npz")
    writes, mixed = trace.writes.copy(), trace.mixed.copy()
    place = np.arange(len(writes))
    for k in range(0, len(writes) - 1, 2):
        if writes["agent"][k] > writes["agent"][k + 1]:
            writes["time"][k] = writes["time"][k + 1]
            writes[[k, k + 1]] = writes[[k + 1, k]]
            place[[k, k + 1]] = k + 1, k
    assert (place != np.arange(len(place))).any()
    mixed["write"] = place[mixed["write"]]
    mixed = mixed[np.argsort(mixed["write"], kind="stable")]
    assert replayed(replace(trace, writes=writes, mixed=mixed), folder).same


def test_it_says_now_and_then_which_run_this_is_and_how_far_where_there_is_no_terminal(
    tmp_path: Path,
) -> None:
    words = (
        "live --task quadratic --agents 2 --algorithms adsgd,dsgd --lr 0.1 --unit 2ms --until 100 --out out"
    )
    at_once = "from offbeat.engines.live.launcher import screen; screen.SAID_EVERY = 0.0"
    run = finished(tmp_path, *words.split(), setup=at_once)
    assert run.code == 0, run.complained
    for name in ("adsgd-lr0.1 (1 of 2)", "dsgd-lr0.1 (2 of 2)"):
        assert re.search(re.escape(name) + r", time \d+ of 100; \d s: 2 left", run.complained)
    assert " s: " not in run.said, "the table alone"


def test_an_agent_that_is_gone_counts_as_it_was_last_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the launcher is another one, which goes on from the looks of the first."""
    p = prepare(Experiment(task="quadratic", agents=2, topology="ring", until=9.0, eval_every=3.0), 0)
    (start,) = p.task.initial()
    seen: dict[int, Vector] = {0: Vector((start + 1,)), 1: Vector((start + 2,))}
    monkeypatch.setattr(
        "offbeat.experiments.live.running.model_of",
        lambda shared, board, i: (seen[i], Tag()) if i in seen else None,
    )
    board = Board.create(tmp_path / "board", 2)
    children = SimpleNamespace(see_models=lambda: None)
    launcher: Any = SimpleNamespace(board=board, shared=tmp_path, all_left=False, children=children)
    board.begin(elapsed=3.0)
    board.rows[:, Row.STEPS] = 5, 6
    first = Watcher(p, 1.0, ModelSnapshots(tmp_path / "looks", all_alike(p), anew=True))
    first(launcher)
    first.snapshots.close()
    with (tmp_path / "looks").open("ab") as file:
        file.write(b"half a record")
    del seen[1]
    seen[0] = Vector((start + 3,))
    board.begin(elapsed=6.0)
    board.rows[:, Row.STEPS] = 4, 0
    second = Watcher(p, 1.0, ModelSnapshots(tmp_path / "looks", all_alike(p), anew=False))
    second(launcher)
    second.snapshots.add(math.inf, second.snapshots.taken[-1][1], 12)
    second.snapshots.close()
    looks = ModelSnapshots(tmp_path / "looks", all_alike(p), anew=False)
    assert [(round(now), steps) for now, _, steps in looks.taken] == [(0, 0), (3, 11), (6, 11)]
    means = [[float((x - start).mean()) for x in parts[0]] for _, parts, _ in looks.taken]
    assert means == [[0, 0], [1, 2], [3, 2]]
    assert looks.final is not None
    assert torch.equal(looks.final[0], looks.taken[-1][1][0])


def test_looks_that_cannot_be_written_end_nothing(tmp_path: Path) -> None:
    looks = ModelSnapshots(tmp_path / "nowhere" / "looks", (torch.zeros(2, 3),), anew=True)
    for k in range(2):
        looks.add(float(k), (torch.ones(2, 3),), k)
    looks.close()
    assert looks.error == f"Cannot write {tmp_path / 'nowhere' / 'looks'}: No such file or directory."
    assert len(looks.taken) == 2


def test_who_has_left_still_gets_what_was_sent_before_others_knew(tmp_path: Path) -> None:
    """Agent 0 asks agent 1, hears that it has left, and only then agent 1 answers the question."""
    events: list[Event] = [
        Started(0.0, 0), Started(0.0, 1), GradientDone(1.0, 0, 0, 1.0, -1.0),
        ViewChanged(2.0, 0, 1, False, 1), MailReceived(3.0, 1, 0, 0, 0, 1.0, -1.0),
    ]  # fmt: skip
    writes = np.array([(2.0, 0, 1), (3.0, 1, 0)], dtype=WRITE)
    trace = Trace(
        2, ("Ask", "Moved"), table_of(events), writes, np.zeros(0, dtype=MIXED),
        np.zeros(0, dtype=TRANSMISSION),
    )  # fmt: skip
    x = (torch.zeros(1),)
    replay = Replay(
        trace, build("ring", 2), find("adpsgd").new, lambda: SGD(1.0), lambda i, life: Random(i), x,
        lambda i, k, at: Vector((torch.ones(1),)),
    )  # fmt: skip
    assert replay.run().updates().tolist() == [1, 0]
    assert [each.actor.model.parts[0].item() for each in replay.agents] == [-1.0, 0.0]


def test_allreduce_ends_when_one_dies(tmp_path: Path) -> None:
    words = "live --task quadratic --agents 3 --algorithms allreduce --unit 2ms --until 100000 --out out"
    run = finished(tmp_path, *words.split(), "--fault", "kill agent 1 at step 20")
    assert run.code == 1
    assert "Agent 1 died (killed by SIGKILL), and the algorithm cannot go on without it." in run.complained


def test_what_a_slow_agent_sends_can_be_seen_while_it_computes(tmp_path: Path) -> None:
    """It computes for 20 units, a transmission takes 1: neighbours mix its model before its next step."""
    delays = ["--compute", "constant", "--communication", "constant"]
    folder = live(
        tmp_path,
        "adsgd",
        100,
        "--case",
        "comp-straggler",
        "--straggler",
        "2",
        "--slowdown",
        "20",
        *delays,
        ms=5.0,
    )
    trace = Trace.load(folder / "trace.npz")
    written = trace.writes[trace.writes["agent"] == 2]["time"]
    mixed = trace.mixed[trace.mixed["source"] == 2]
    versions = [v for v in np.unique(mixed["version"]) if v < len(written)]
    first = [trace.writes["time"][mixed["write"][mixed["version"] == v]].min() for v in versions]
    assert len(versions) >= 2
    assert np.mean(first < written[versions]) > 0.5, "before it is done with what it computes next"


def test_an_agent_that_waits_for_the_start_does_not_run_out_of_time(tmp_path: Path) -> None:
    """The time counts from the start of the run, however long the slowest process takes to get there."""
    board = Board.create(tmp_path / "board", 1)
    transport = Transport(tmp_path, Board.attach(tmp_path / "board"), 0, 1, 8)
    agent, ring = find("adsgd").new(), build("ring", 1)
    agent.join(0, 1, Vector((torch.zeros(1),)), ring.view(0, frozenset([0])), SGD(0.1), Random(0))
    driver = Driver(Performer(agent, transport, Log(None), Clock()), ring)
    driver.clock.zero -= 10**12  # the process has been there for a while
    driver.deadline = 900.0

    def launcher() -> None:
        until(lambda: int(board.rows[0, Row.STATE]) == State.JOINED)
        board.change(0, 1)
        board.begin()

    thread = threading.Thread(target=launcher)
    thread.start()
    try:
        driver.join()
    finally:
        thread.join()
    assert driver.clock.now() < 900.0
    transport.bell.close()


def test_a_mailbox_made_while_the_receiver_looks_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender makes one for somebody else, and mine just when I have seen that there is none for me."""
    board = Board.create(tmp_path / "board", 3)
    mine, sender = (Transport(tmp_path, board, i, 1, 8) for i in (0, 1))
    for transport in (mine, sender):
        for j in {0, 1, 2} - {transport.me}:
            transport.meet(j, 1)
    assert sender.post(2, Ask(Vector((torch.zeros(1),))), Tag())
    exists = Path.exists

    def looking(path: Path) -> bool:
        found = exists(path)
        sender.post(0, Ask(Vector((torch.ones(1),))), Tag())
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", looking)
        assert not list(mine.receive())
    assert [source for source, _, _ in mine.receive()] == [1]


def test_what_waits_to_be_sent_is_not_overtaken_when_a_receiver_is_lost_and_returns(tmp_path: Path) -> None:
    """To 1 and 3, twice; to 1, as 3 is gone; to both, as 3 is back: agent 1 never hears an older version."""
    board = Board.create(tmp_path / "board", 4)
    sender, receiver, returned = (
        Transport(tmp_path, board, i, life, 8) for i, life in ((0, 1), (1, 1), (3, 2))
    )
    receiver.meet(0, 1)
    returned.meet(0, 1)
    returned.floor = 2
    agent, ring = find("adsgd").new(), build("ring", 4)
    agent.join(0, 4, Vector((torch.zeros(1),)), ring.view(0, frozenset(range(4))), SGD(0.1), Random(0))
    clock, world = Clock(), World(communication=parse("constant"))
    clock.now = lambda: 0.0  # type: ignore[method-assign]
    sender.link = Link(world, 0, 4)
    performer = Performer(agent, sender, Log(None), clock)
    for version, (to, lives) in enumerate(
        [((1, 3), {1: 1, 3: 1})] * 2 + [((1,), {1: 1}), ((1, 3), {1: 1, 3: 2})]
    ):
        for j in {1, 3} - lives.keys():
            sender.forget(j)
        for j, life in lives.items():
            if sender.alive.get(j) != life:
                sender.meet(j, life)
        sender.membership = max(0, version - 1)
        performer.give(performer.actor, Publish, to, Model(Vector((torch.zeros(1),), Stamp(0, version))))
    heard: dict[int, list[int]] = {1: [], 3: []}
    for now in range(10):
        performer.advance(float(now))
        for j, transport in ((1, receiver), (3, returned)):
            stamps = [reader.vectors[0].stamp for reader in transport.poll((0,))]
            heard[j] += [stamp.version for stamp in stamps if stamp is not None]
    assert heard == {1: [0, 1, 2, 3], 3: [3]}


def test_what_was_made_for_other_receivers_is_not_handed_over_after_what_is_newer(tmp_path: Path) -> None:
    """Of one sender there may be two registers, for me and others: their versions come in the order in which
    they were made, and none comes after a newer one.
    """
    board = Board.create(tmp_path / "board", 3)
    mine, other = (Transport(tmp_path, board, i, 1, 8) for i in (0, 1))
    mine.meet(1, 1)
    other.meet(2, 1)

    def publish(version: int, *to: int) -> None:
        x = Vector((torch.zeros(1),), Stamp(1, version))
        register = other.register(Model(x), to)
        (placed,) = register.begin([x])
        placed.parts  # noqa: B018
        placed.stamp = x.stamp
        register.finish(Model(placed), Tag(start=version - 0.5, end=float(version)))

    def heard() -> list[int]:
        stamps = [reader.vectors[0].stamp for reader in mine.poll((1,))]
        return [stamp.version for stamp in stamps if stamp is not None]

    publish(1, 0, 2)
    assert heard() == [1]
    publish(2, 0)
    publish(3, 0, 2)
    assert heard() == [2, 3]
    publish(5, 0, 2)
    assert heard() == [5]
    publish(4, 0)  # as if this register had been looked at before it was there, and the other one after that
    assert heard() == []
    publish(6, 0)
    assert heard() == [6]
    mine.forget(1)
    mine.meet(1, 1)  # another life, whose clock may be anything
    assert mine.heard == {1: {}}


def test_agent_0_may_die_while_it_proposes_the_model(tmp_path: Path) -> None:
    """Between the initial values and the description: its next life proposes again."""
    (tmp_path / "initial").write_bytes(b"half")
    here = enter.AgentContext(
        tmp_path, 0, 2, 0, RunSettings(agents=1, folder=tmp_path, program=ScriptProgram("ring"))
    )
    enter.propose(here, {"model": "a"}, Vector((torch.arange(3.0),)))
    assert enter.agree(here, {"model": "a"}).parts[0].tolist() == [0.0, 1.0, 2.0]


def test_a_register_that_moves_on_while_a_handler_reads_it_is_logged(tmp_path: Path) -> None:
    """A handler that looks at the values gets a whole copy; a replay has to know of which version."""
    board = Board.create(tmp_path / "board", 2)
    mine, other = (Transport(tmp_path, board, i, 1, 8) for i in (0, 1))
    mine.meet(1, 1)
    register = other.register(Model(Vector((torch.zeros(1),))), (0,))

    def publish(version: int) -> None:
        x = Vector((torch.full((1,), float(version)),), Stamp(1, version))
        (placed,) = register.begin([x])
        placed.parts  # noqa: B018
        placed.stamp = x.stamp
        register.finish(Model(placed), Tag())

    publish(1)
    agent, ring = find("adsgd").new(), build("ring", 2)
    agent.join(0, 2, Vector((torch.zeros(1),)), ring.view(0, frozenset([0, 1])), SGD(0.5), Random(0))
    log = Log(None)
    Performer(agent, mine, log, Clock())
    (reader,) = mine.poll((1,))
    for version in range(2, 6):
        publish(version)
    assert reader.vectors[0].parts[0].tolist() == [5.0]
    (moved,) = rows_of(log.rows.trace().events, RegisterMoved)
    assert (moved["source"], moved["version"]) == (1, 5)
