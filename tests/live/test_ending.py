"""How an agent's life ends: what is told once, tried again, kept; and no failure goes unsaid."""

import json
import os
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner
from warm import Started, finished, needs_shared_memory, until

from offbeat import Vector
from offbeat.cli.commands import app
from offbeat.core.agent import Agent
from offbeat.core.errors import FINAL, MISSING, ContractError, DiskError, SettingError
from offbeat.core.rules import SGD
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node import enter
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.ending import FORGIVEN, Ending, Failure, take, tell
from offbeat.engines.live.node.log import Log
from offbeat.engines.live.node.performer import Clock, Performer
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.settings import RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import Board, Order, Row, State
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed
from offbeat.training.export import export
from offbeat.world.topology import build

pytestmark = needs_shared_memory

SCRIPT = """
import os, sys, time
import torch
import offbeat

agent = offbeat.join({algorithm})
model = torch.nn.Linear(2, 2)
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))

def steps(until):
    while agent.steps < until:
        optimizer.zero_grad()
        model(torch.ones(2)).sum().backward()
        optimizer.step()
        time.sleep(0.002)

"""


def launch(folder: Path, script: str, *arguments: str, algorithm: str = "") -> Started:
    """Two agents with this script, after what all scripts here begin with."""
    words = ["launch", "-n", "2", "--out", "out", "--checkpoint-every", "5"]
    whole = SCRIPT.format(algorithm=algorithm) + script
    return finished(folder, *words, *arguments, "train.py", script=whole)


def failure(where: str = "train.py:3", text: str = "ValueError: no") -> Failure:
    return Failure(text, ("ValueError", where), text)


def life(k: int, steps: int, made: int, code: int = 1, failed: Failure | None = None) -> Ending:
    return Ending(0, code, k, steps, made, failed, ("its last words",))


# -- who gets another life -------------------------------------------------------------------------


def test_the_same_error_without_progress_is_final() -> None:
    first = life(1, 20, 20, failed=failure())
    assert first.why_final(None, True, False, 0, 3) == ""
    at_once, as_far = life(2, 20, 0, failed=failure()), life(2, 40, 20, failed=failure())
    for again in (at_once, as_far):
        assert "as it had failed before" in again.why_final(first, True, False, 1, 3)
        assert "ValueError: no" in again.why_final(first, True, False, 1, 3)
    for other in (
        life(2, 33, 13, failed=failure()),
        life(2, 20, 0, failed=failure("train.py:4")),
        life(2, 20, 0, code=-9),
    ):
        assert other.why_final(first, True, False, 1, 3) == ""
        assert "3 restarts of an agent had been allowed" in other.why_final(first, True, False, 3, 3)


def test_what_cannot_heal_is_final_at_once() -> None:
    for ending, said in (
        (
            life(1, 20, 20, code=FINAL, failed=failure()),
            "failed at step 20, and no restart can help. ValueError: no",
        ),
        (
            life(1, 20, 20, code=DiskError.exit_code, failed=failure()),
            "cannot write its results. ValueError: no",
        ),
        (
            life(1, 20, 0, failed=failure()),
            "failed before its first step, so no restart can help. ValueError: no",
        ),
        (life(1, 20, 20, code=0), "ended at step 20 without having left the run"),
    ):
        assert said in ending.why_final(None, True, False, 0, 3)
    elsewhere = replace(life(1, 20, 0, failed=failure()), machine=3)
    said = elsewhere.why_final(None, True, False, 0, 3)
    assert said.startswith("Agent 0 (on machine 3) failed before its first step")
    crashed = life(1, 20, 20, code=-11)
    said = "Agent 0 died (killed by SIGSEGV), and the algorithm "
    assert crashed.why_final(None, False, True, 0, 3).startswith(f"{said}cannot go on without it")
    assert crashed.why_final(None, False, False, 0, 3).startswith(f"{said}takes nobody back")
    assert "its last words" in life(1, 20, 20, code=-11).why_final(None, True, False, 0, 0)


def test_restarts_are_forgiven_for_healthy_time_and_who_has_none_left_is_left_out(tmp_path: Path) -> None:
    """A clock that nobody waits for: its times are those of an agent's first and last step in a life."""
    settings = RunSettings(agents=3, folder=tmp_path, program=ScriptProgram("ring"), max_restarts=1)
    said: list[str] = []

    def dies(launcher: Launcher, agent: int, healthy: float, code: int = -9) -> None:
        row, life = launcher.board.rows[agent], launcher.restarts[agent] + 1
        row[[Row.STEPS, Row.FIRST, Row.LAST]] = row[Row.STEPS] + 10, 10**9, int((1 + healthy) * 1e9)
        output = SimpleNamespace(lines=[], keep=lambda text: None)
        child: Any = SimpleNamespace(agent=agent, incarnation=life, code=code, output=output)
        launcher._ended(child)
        launcher.steps_before[agent] = int(row[Row.STEPS])

    def begun(on_death: str, needed: tuple[int, ...] = ()) -> Launcher:
        launcher = Launcher(replace(settings, on_death=on_death), [], needed=needed)
        (shared := tmp_path / str(len([*tmp_path.iterdir()]))).mkdir()
        launcher.shared, launcher.board, launcher.bells = shared, Board.create(shared / "board", 3), []
        launcher.on_output = lambda agent, line: said.append(f"[{agent}] {line}")
        launcher.board.begin()
        return launcher

    on = begun("continue")
    for healthy in (FORGIVEN - 1, FORGIVEN + 1, 3 * FORGIVEN):
        dies(on, 2, healthy)
    assert (on.restarts, on.counted, on.missing) == ([0, 0, 3], [0, 0, 1], {})
    assert said == ["[2] died (killed by SIGKILL); restart 1 of 1 in 0 s"] * 3
    dies(on, 2, FORGIVEN - 1)
    assert said[3:] == ["[2] died (killed by SIGKILL) and is left out; the others go on"]
    assert str(on.missing[2]).startswith("Agent 2 is missing since 0.0 s, its step 40: the others went on")
    dies(on, 1, 1.0, DiskError.exit_code)
    assert "Agent 1 cannot write its results" in on.reason, "that is no fault of one agent"
    last = begun("continue")
    for agent in (0, 0, 1, 1, 2, 2):
        dies(last, agent, 1.0)
    assert [*last.missing] == [0, 1] and last.reason.startswith("Agent 2 died"), "nobody would be left"
    for launcher in (begun("stop"), begun("continue", needed=(2,))):
        dies(launcher, 2, 1.0)
        dies(launcher, 2, 1.0)
        assert not launcher.missing and "1 restarts of an agent had been allowed" in launcher.reason


def test_an_error_is_told_without_our_own_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFBEAT_RUN", str(tmp_path))
    monkeypatch.setenv("OFFBEAT_RANK", "1")
    hooked: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: hooked.append(str(error)))

    def fails(error: Exception) -> int:
        try:
            exec(compile("def f(error):\n    raise error\nf(error)", "train.py", "exec"), {"error": error})
        except Exception as raised:
            return tell(raised, __file__)
        raise AssertionError

    assert fails(ValueError("so")) == 1
    told = take(tmp_path, 1)
    assert told == Failure(
        "ValueError: so",
        ("ValueError", "train.py:3", "train.py:2"),
        '  File "train.py", line 3, in <module>\n  File "train.py", line 2, in f\nValueError: so',
    )
    assert take(tmp_path, 1) is None, "it is told once"
    assert hooked == ["so"], "a hook that the script has set is called"
    assert (fails(SettingError("b")), fails(ContractError("c")), fails(DiskError("d"))) == (FINAL, FINAL, 74)
    (tmp_path / "failure.1").write_text('{"what": 3')
    assert take(tmp_path, 1) is None
    assert hooked == ["so"]


# -- with real processes ---------------------------------------------------------------------------


def test_an_error_in_the_last_line_shows_one_traceback_and_costs_nothing(tmp_path: Path) -> None:
    done = launch(tmp_path, "steps(20)\nprint(los)\n")
    everything = done.said + done.complained
    assert done.code == 1
    assert everything.count("File ") == 1, everything
    assert "failed at step 20 as it had failed before" in done.complained
    assert "restart 2" not in everything
    assert "offbeat export out" in done.complained.replace(f"{tmp_path}/", "")
    assert "--resume --out out" in done.complained.replace(f"{tmp_path}/", "")
    assert any("NameError" in path.read_text() for path in (tmp_path / "out").glob("agent-*.log"))
    assert replayed(Trace.load(tmp_path / "out" / "trace.npz")).same
    assert max(source.step for source in export(tmp_path / "out", allow_missing=True).sources) == 20


def test_the_others_go_on_without_an_agent_that_dies_for_ever(tmp_path: Path) -> None:
    """It is said at once, in the metrics and at the end; what is left replays."""
    words = ("-n", "3", "--on-death", "continue", "--max-restarts", "0", "--fault", "kill agent 1 at step 20")
    done = launch(tmp_path, "steps(60)", *words)
    assert done.code == MISSING, done.complained
    assert "[1] died (killed by SIGKILL) and is left out; the others go on" in done.said
    assert "Agent 1 is missing since " in done.complained
    assert "its step 20: the others went on without it." in done.complained
    last = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-3:]]
    assert [(row["state"], row["step"]) for row in last] == [("left", 60), ("missing", 20), ("left", 60)]
    trace = Trace.load(tmp_path / "out" / "trace.npz")
    assert trace.updates().tolist() == [60, 20, 60]
    assert trace.settings["missing"][0].startswith("agent 1 from ")
    assert replayed(trace).same


@pytest.mark.parametrize("command", [["launch", "train.py"], ["live", "--task", "quadratic"]])
def test_an_algorithm_that_needs_all_of_its_agents_cannot_leave_one_out(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    name = {"launch": "--algorithm", "live": "--algorithms"}[command[0]]
    words = [command[0], "--on-death", "continue", name, "allreduce", *command[1:]]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, SettingError)
    assert "--on-death continue: allreduce cannot go on without any one of its" in str(refused.exception)
    assert [*tmp_path.iterdir()] == [tmp_path / "train.py"]


def test_an_agent_that_fails_after_another_is_done_fails_the_run(tmp_path: Path) -> None:
    """All-reduce stops when one is done: the other one's error comes as the run ends."""
    script = """
steps(10)
if agent.rank == 0:
    while agent._driver.transport.board.order < 2:
        time.sleep(0.002)
    raise KeyError("late")
"""
    done = launch(tmp_path, script, "--algorithm", "allreduce")
    assert done.code == 1
    assert "Agent 0 failed as the run was ending" in done.complained
    assert "KeyError: 'late'" in done.complained


def test_the_algorithm_that_a_script_names_is_the_one_that_counts(tmp_path: Path) -> None:
    """All-reduce cannot go on after a death, whatever the launcher had been told; and the trace says
    all-reduce.
    """
    done = launch(tmp_path, "steps(10**6)", "--fault", "kill agent 1 at step 20", algorithm="'allreduce'")
    assert done.code == 1
    assert "Agent 1 died (killed by SIGKILL), and the algorithm cannot go on without it." in done.complained
    trace = Trace.load(tmp_path / "out" / "trace.npz")
    assert trace.settings["algorithm"] == "allreduce"
    assert replayed(trace).same


def test_a_process_that_an_agent_starts_does_not_join(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Workers of a DataLoader that run the script again, say: they inherit the variables."""
    settings = RunSettings(agents=2, folder=tmp_path, program=ScriptProgram("ring"))
    (tmp_path / "run.json").write_text(json.dumps(settings.record()))
    known = {"RUN": str(tmp_path), "RANK": "1", "INCARNATION": "1", "LIFELINE": "0"}
    for name, value in known.items():
        monkeypatch.setenv(f"OFFBEAT_{name}", value)
    monkeypatch.setenv(enter.STARTED, "0")
    monkeypatch.setattr(enter, "end_with_parent", lambda lifeline: None)
    enter.arrive()
    assert enter.agent_context() is not None
    monkeypatch.setenv(enter.STARTED, str(os.getppid()))
    with pytest.raises(SettingError, match=r"no agent of the run.*__main__.*unset OFFBEAT_RUN"):
        enter.agent_context()


NO_ROOM = """
import offbeat.engines.live.launcher.children as children

start, refusals = children.Children.start, [{refusals}]

def full(self, agent, incarnation, *rest):
    if incarnation > 1 and refusals[0]:
        refusals[0] -= 1
        raise children.NoRoom(f"No machine has room for agent {{agent}}.")
    return start(self, agent, incarnation, *rest)

children.Children.start = full
"""


@pytest.mark.parametrize(("refusals", "steps"), [(1, 800), (-1, 100)])
def test_an_agent_for_which_there_is_no_room_waits_for_some_and_nobody_for_it(
    tmp_path: Path, refusals: int, steps: int
) -> None:
    words = ["launch", "-n", "2", "--out", "out", "--fault", "kill agent 1 at step 20", "train.py"]
    script = SCRIPT.format(algorithm="") + f"steps({steps})"
    run = finished(tmp_path, *words, script=script, setup=NO_ROOM.format(refusals=refusals))
    assert "[1] waits: No machine has room for agent 1. It goes on as soon as a machine joins" in run.said
    made = Trace.load(tmp_path / "out").updates().tolist()
    if refusals > 0:
        assert run.code == 0 and made == [steps, steps]
    else:
        assert run.code == 1 and made[0] == steps > made[1]
        assert "No machine has room for agent 1. All others are done, so nobody waits" in run.complained


# -- the second thread -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Letter:
    x: Vector


@dataclass
class Fragile(Agent):
    """Raises when it gets mail."""

    def on_gradient(self, g: Vector) -> None:
        self.compute(self.x)

    def on_message(self, src: int, message: Letter) -> None:
        raise KeyError("in a handler")


def test_an_error_in_the_second_thread_ends_the_script(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", 2)
    transport, other = (Transport(tmp_path, board, i, 1, 8) for i in (0, 1))
    agent, ring = Fragile(), build("ring", 2)
    x = Vector((torch.zeros(1),))
    agent.join(0, 2, x, ring.view(0, frozenset([0, 1])), SGD(0.1), Random(0))
    driver = Driver(Performer(agent, transport, Log(None), Clock()), ring)
    for i in (0, 1):
        board.change(i, 1)
    board.begin()
    driver.join()
    other.meet(0, 1)
    driver.start()
    driver.step(x)
    before = threading.active_count()
    driver.attend()
    assert other.post(0, Letter(x), Tag())
    until(lambda: threading.active_count() == before)
    for what in (lambda: driver.step(x), driver.state, driver.leave, driver.close):
        with pytest.raises(KeyError, match="in a handler"):
            what()
    assert board.order is Order.RUN
    assert State(int(board.rows[0, Row.STATE])) is State.LEFT
