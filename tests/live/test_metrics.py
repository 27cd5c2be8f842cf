"""What is seen of a run while it runs: the metrics and the screen, on real boards and registers."""

from __future__ import annotations

import builtins
import io
import json
import math
import os
import platform
import pty
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fcntl import ioctl
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, TextIO

import pytest
import torch
from rich.console import Console, ConsoleDimensions
from warm import ran

from offbeat.core.errors import SettingError
from offbeat.core.vector import Scope, Stamp, Vector
from offbeat.engines.live.launcher import metrics as metrics_module
from offbeat.engines.live.launcher import screen as screen_module
from offbeat.engines.live.launcher import view as view_module
from offbeat.engines.live.launcher.children import MachineSeen
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.screen import Screen
from offbeat.engines.live.launcher.view import View
from offbeat.engines.live.settings import CheckpointPolicy, RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import Board, Order, Row, State
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.wire import layout_of

pytestmark = pytest.mark.skipif(
    sys.platform != "linux"
    or platform.machine().lower() not in ("x86_64", "amd64")
    or not Path("/dev/shm").is_dir(),
    reason="needs Linux on x86-64 and /dev/shm",
)
SECOND = 10**9


@dataclass(frozen=True)
class Model:
    x: Vector


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.ns = time.monotonic_ns()

    def monotonic_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return self.ns / 1e9

    def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (metrics_module, screen_module, view_module):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def launcher(clock: Clock, tmp_path: Path) -> Iterator[Launcher]:
    """Four agents that run, as far as the board says."""
    with TemporaryDirectory(dir="/dev/shm", prefix="offbeat-test-") as folder:
        n = 4
        settings = RunSettings(agents=n, folder=tmp_path, program=ScriptProgram("ring"))
        made = Launcher(settings, [])
        made.shared = Path(folder)
        made.board = Board.create(made.shared / "board", n)
        running = {
            i: SimpleNamespace(started=clock.monotonic(), output=SimpleNamespace(newest="")) for i in range(n)
        }
        children: Any = SimpleNamespace(running=running, links={}, see_models=lambda most: None)
        made.children = children
        made.board.begin()
        made.board.words[4] = clock.ns
        made.board.rows[:, Row.STATE] = State.RUNNING
        yield made


def lines(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line, parse_constant=pytest.fail)
        for line in (folder / "metrics.jsonl").read_text().split("\n")[:-1]
    ]


def publish(launcher: Launcher, agent: int, *parts: torch.Tensor) -> None:
    register = Register.create(launcher.shared / f"register.{agent}.1.0", layout_of(Model(Vector(parts))))
    with Scope():
        (placed,) = register.begin([Vector(parts, Stamp(agent, 1))])
    register.finish(Model(placed), Tag())
    launcher.board.rows[agent, [Row.INCARNATION, Row.MODEL]] = 1, 1


def test_a_look_writes_a_line_for_every_agent(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    rows, numbers, metrics = launcher.board.rows, launcher.board.numbers, Metrics(tmp_path)
    metrics(launcher)
    clock.sleep(0.9)
    metrics(launcher)
    assert not (tmp_path / "metrics.jsonl").exists(), "a second has not passed"
    rows[:, Row.STEPS] = 10, 20, 0, 40
    rows[1, Row.WAITED], rows[1, Row.MIXED] = SECOND // 2, SECOND
    numbers[0, [Row.LOSS, Row.METRIC, Row.AGE]] = 0.25, math.nan, 0.125
    numbers[1, Row.LOSS] = -math.inf
    launcher.restarts[2] = 3
    del launcher.children.running[3]
    launcher.again[3] = clock.monotonic() + 5
    clock.sleep(1.1)
    metrics(launcher)
    metrics(launcher)
    got = lines(tmp_path)
    assert metrics.rows == got and [row["agent"] for row in got] == [0, 1, 2, 3]
    assert {row["time"] for row in got} == {2.0} and {row["consensus"] for row in got} == {None}
    assert [row["step"] for row in got] == [10, 20, 0, 40]
    assert [row["rate"] for row in got] == pytest.approx([5.0, 10.0, 0.0, 20.0])
    assert [row["waited"] for row in got] == [0.0, 0.5, 0.0, 0.0]
    assert [row["mixing"] for row in got] == [0.0, 0.25, 0.0, 0.0], (
        "a second in steps, of which a half was waiting"
    )
    assert (got[0]["loss"], got[0]["metric"], got[0]["age"]) == (0.25, None, 0.125)
    assert (got[1]["loss"], got[1]["metric"], got[1]["age"]) == (None, None, None)
    assert [row["restarts"] for row in got] == [0, 0, 3, 0]
    assert [row["state"] for row in got] == ["running", "running", "running", "restarting"]
    rows[0, Row.STEPS] = 13
    clock.sleep(1.0)
    metrics(launcher)
    assert [row["rate"] for row in lines(tmp_path)[4:]] == pytest.approx([3.0, 0.0, 0.0, 0.0])


def test_states_and_the_last_look(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    states, metrics = launcher.board.rows[:, Row.STATE], Metrics(tmp_path)
    launcher.board.words[4] = 0
    clock.sleep(3.0)
    metrics(launcher)
    clock.sleep(3.0)
    metrics(launcher)
    assert metrics.rows == [], "the clock has not begun"
    launcher.board.words[4] = clock.ns
    metrics(launcher)
    states[:] = State.RUNNING, State.JOINED, State.LEFT, State.ABSENT
    del launcher.children.running[3]
    clock.sleep(1.0)
    metrics(launcher)
    assert [row["state"] for row in metrics.rows] == ["running", "starting", "left", "ended"]
    launcher.board.order = Order.STOP
    clock.sleep(1.0)
    metrics(launcher)
    assert [row["state"] for row in metrics.rows] == ["stopping", "stopping", "left", "ended"]
    states[:] = State.LEFT
    clock.sleep(0.01)
    metrics(launcher)
    assert [(row["state"], row["rate"]) for row in metrics.rows] == [("left", None)] * 4
    clock.sleep(5.0)
    metrics(launcher)
    assert len(lines(tmp_path)) == 12, "nothing happens after the end"


def test_steps_that_are_seen_late_are_no_burst(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    """As where the gateway of a machine was away for three seconds."""
    metrics, rows = Metrics(tmp_path), launcher.board.rows
    rows[:, Row.STEPS], rows[:, Row.LAST] = 10, clock.ns
    for _ in range(3):
        metrics(launcher)
        clock.sleep(1.0)
    rows[:, Row.STEPS], rows[:, Row.LAST] = 160, clock.ns
    metrics(launcher)
    assert [row["rate"] for row in lines(tmp_path)[-4:]] == pytest.approx([50.0] * 4)


def test_steps_of_a_former_run_are_no_rate(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    launcher.elapsed = 100.0
    metrics(launcher)
    for steps in (5000, 5007):
        launcher.board.rows[:, Row.STEPS] = steps
        clock.sleep(1.0)
        metrics(launcher)
    assert [row["rate"] for row in lines(tmp_path)] == [None] * 4 + [pytest.approx(7.0)] * 4


def test_consensus_is_the_distance_from_the_mean(
    launcher: Launcher, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics(tmp_path)
    metrics(launcher)
    for i, x in enumerate((0.0, 2.0)):
        publish(launcher, i, torch.full((8,), x), torch.full((2,), x, dtype=torch.float64))
    for _ in range(6):
        clock.sleep(1.0)
        metrics(launcher)
    got = [row["consensus"] for row in lines(tmp_path)]
    assert got[:4] == [pytest.approx(math.sqrt(10.0))] * 4, "ten numbers, each 1 away from the mean"
    assert got[4:20] == [None] * 16 and got[20:] == got[:4], "every 5 seconds"
    monkeypatch.setattr(metrics_module, "LARGEST", 4 * 8 * 4)
    clock.sleep(6.0)
    metrics(launcher)
    assert metrics.rows[0]["consensus"] is None, "too large to be copied"


def test_a_file_that_cannot_be_written_ends_nothing(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "metrics.jsonl").symlink_to("/dev/full")
    for folder, why in ((tmp_path / "missing", "No such file"), (tmp_path / "full", "No space left")):
        metrics = Metrics(folder)
        for _ in range(3):
            clock.sleep(1.0)
            metrics(launcher)
        assert why in metrics.error and str(folder) in metrics.error
        assert len(metrics.rows) == 4
        metrics.close()


def test_a_disk_that_fills_up_leaves_whole_lines(
    launcher: Launcher, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, write = Metrics(tmp_path), os.write
    metrics(launcher)
    for k in range(3):
        monkeypatch.setattr(os, "write", (lambda handle, data: write(handle, data[:-7])) if k == 1 else write)
        clock.sleep(1.0)
        metrics(launcher)
    metrics.close()
    assert [row["time"] for row in lines(tmp_path)] == [1.0] * 4 + [3.0] * 4
    assert "no room" in metrics.error


@pytest.mark.filterwarnings("default")
def test_tensorboard_gets_the_same_numbers(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(tmp_path, tmp_path / "board")
    metrics(launcher)
    publish(launcher, 0, torch.zeros(4))
    publish(launcher, 1, torch.ones(4))
    for k in range(1, 3):
        launcher.board.rows[:, Row.STEPS] = 8 * k
        launcher.board.numbers[2, Row.LOSS] = 1 / k
        clock.sleep(1.0)
        metrics(launcher)
    metrics.close()
    assert metrics.error == ""
    read = EventAccumulator(str(tmp_path / "board"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("agent-2/loss")] == [(1, 1.0), (2, 0.5)]
    assert [e.value for e in read.Scalars("agent-3/rate")] == pytest.approx([8.0, 8.0])
    assert [e.value for e in read.Scalars("all/consensus")] == pytest.approx([1.0])
    assert "agent-0/loss" not in read.Tags()["scalars"]


def test_tensorboard_that_is_missing_is_said_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    Metrics(tmp_path)
    with pytest.raises(SettingError, match=r"pip install offbeat\[tensorboard\]"):
        Metrics(tmp_path, tmp_path / "board")


# -- the screen ------------------------------------------------------------------------------------


class Terminal:
    """A terminal of a given size; `read` is what has been written to it."""

    def __init__(self, width: int, height: int) -> None:
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        os.set_blocking(self.master, False)
        self.file: TextIO = os.fdopen(slave, "w")
        environment = {"TERM": "xterm"}
        self.console = Console(
            file=self.file, force_terminal=True, _environ=environment, width=width, height=height
        )

    def abandon(self) -> None:
        """Close what can no longer be written."""
        with suppress(OSError):
            self.file.close()

    def read(self) -> str:
        content = b""
        try:
            while data := os.read(self.master, 1 << 16):
                content += data
        except OSError:
            pass
        return content.decode()


def running(launcher: Launcher, clock: Clock, tmp_path: Path) -> Metrics:
    """Metrics after two seconds, with 10 steps a second."""
    metrics = Metrics(tmp_path)
    metrics(launcher)
    row = launcher.board.rows
    row[:, Row.FIRST] = clock.ns
    clock.sleep(2.0)
    row[:, Row.STEPS], row[:, Row.LAST] = 1020, clock.ns
    metrics(launcher)
    return metrics


def test_the_table_has_a_line_for_every_agent(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    terminal, metrics = Terminal(100, 30), running(launcher, clock, tmp_path)
    with Screen(terminal.console, terminal.console) as screen:
        screen.update(launcher, metrics)
        first = terminal.read()
        assert "1,020" in first and "510.0/s" in first and "2 s: 4 running, 4,080 steps, 2,040.0/s" in first
        clock.sleep(0.1)
        screen.print("[2] hello")
        screen.update(launcher, metrics)
        assert terminal.read() == "", "at most four times a second"
        clock.sleep(0.2)
        screen.update(launcher, metrics)
        second = terminal.read()
        assert second.index("[2] hello") < second.index("1,020"), "output goes above the table"
        launcher.children.running.pop(1)
        launcher.again[1] = clock.monotonic() + 7
        clock.sleep(1.0)
        screen.update(launcher, metrics)
        assert "restarting in 6 s" in terminal.read()
    terminal.file.close()


def test_an_agent_whose_steps_stop_is_called_out(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    metrics = running(launcher, clock, tmp_path)
    screen = Screen(Console(file=io.StringIO()), Console(file=io.StringIO()))
    rows = launcher.board.rows
    assert screen.view.state(launcher, 0) == screen.view.state(launcher, 1) == "running"
    for _ in range(3):
        clock.sleep(4.0)
        rows[1, Row.STEPS] += 1
        rows[1, Row.LAST] = clock.ns
        assert screen.view.state(launcher, 1) == "running"
    assert screen.view.state(launcher, 0) == "no step for 12 s"
    clock.sleep(12.0)
    assert screen.view.state(launcher, 1) == "running", "12 s is not long for steps of 4 s"
    clock.sleep(30.0)
    assert screen.view.state(launcher, 1) == "no step for 42 s"
    rows[1, Row.STATE] = State.LEFT
    assert screen.view.state(launcher, 1) == "left"
    assert metrics.error == ""


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (8, 4), (20, 5), (40, 3)])
def test_a_tiny_terminal(launcher: Launcher, clock: Clock, tmp_path: Path, width: int, height: int) -> None:
    terminal, metrics = Terminal(width, height), running(launcher, clock, tmp_path)
    with Screen(terminal.console, terminal.console) as screen:
        for _ in range(3):
            screen.update(launcher, metrics)
            clock.sleep(0.3)
        shown = terminal.read()
        assert shown and all(len(line) <= width for line in screen_lines(shown))
    terminal.file.close()


def test_agents_that_need_a_look_are_shown_where_not_all_can_be(
    launcher: Launcher, clock: Clock, tmp_path: Path
) -> None:
    terminal, metrics = Terminal(100, 5), running(launcher, clock, tmp_path)
    launcher.board.rows[3, Row.STATE] = State.LEFT
    with Screen(terminal.console, terminal.console) as screen:
        screen.update(launcher, metrics)
        shown = screen_lines(terminal.read())
    assert [line.split()[:2] for line in shown if "/s" in line][:2] == [["0", "running"], ["3", "left"]]
    assert any("(2 agents not shown)" in line for line in shown)
    terminal.file.close()


def screen_lines(shown: str) -> list[str]:
    """Lines without the sequences that move the cursor."""
    plain = "".join(
        piece if k == 0 else piece.lstrip("0123456789;?[").removeprefix("m")
        for k, piece in enumerate(shown.split("\x1b"))
    )
    return [line.lstrip("AKlh") for line in plain.replace("\r", "\n").split("\n")]


def test_a_line_now_and_then_where_there_is_no_terminal(
    launcher: Launcher, clock: Clock, tmp_path: Path
) -> None:
    metrics = running(launcher, clock, tmp_path)
    err, out = io.StringIO(), io.StringIO()
    with Screen(Console(file=err), Console(file=out)) as screen:
        for _ in range(101):
            screen.update(launcher, metrics)
            clock.sleep(0.25)
        screen.print("[2] hello")
    assert out.getvalue() == "[2] hello\n"
    assert err.getvalue() == (
        "12 s: 4 running, 4,080 steps, 2,040.0/s\n22 s: 4 running, 4,080 steps, 2,040.0/s\n"
    )


def test_a_progress_bar_is_shown_before_its_line_ends(
    launcher: Launcher, clock: Clock, tmp_path: Path
) -> None:
    metrics = running(launcher, clock, tmp_path)
    launcher.children.running[2].output.newest = "45%|####     |"
    err, out, terminal = io.StringIO(), io.StringIO(), Terminal(100, 30)
    with Screen(Console(file=err), Console(file=out)) as screen:
        for _ in range(41):
            screen.update(launcher, metrics)
            clock.sleep(0.25)
    assert out.getvalue() == "[2] 45%|####     |\n", "with the line that comes now and then"
    with Screen(terminal.console, terminal.console) as screen:
        screen.update(launcher, metrics)
        shown = [line for line in screen_lines(terminal.read()) if line.strip()]
    assert shown[-2].startswith("[2] 45%|####     |"), "below the table"
    terminal.file.close()


def test_the_summary_begins_with_which_run_this_is(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    terminal, metrics = Terminal(100, 30), running(launcher, clock, tmp_path)
    with Screen(terminal.console, terminal.console) as screen:
        screen.view.about = "adsgd (1 of 2), time 20 of 100"
        screen.update(launcher, metrics)
        last = [line for line in screen_lines(terminal.read()) if line.strip()][-1]
        assert last.startswith("adsgd (1 of 2), time 20 of 100; 2 s: 4 running, 4,080 steps")
    terminal.file.close()


def test_before_all_have_joined_it_is_said_how_long_that_has_taken(launcher: Launcher, clock: Clock) -> None:
    launcher.board.words[4] = 0
    view = View()
    clock.sleep(7.0)
    assert view.line(launcher, Metrics(Path())) == "7 s since the start, no step yet: 4 running"


def test_of_several_machines_it_is_shown_where_agents_are_and_how_the_links_are(
    launcher: Launcher, clock: Clock, tmp_path: Path
) -> None:
    """Of the table's columns, `age` has no room any more; a machine that is silent is in the line for all."""
    metrics, view, size = running(launcher, clock, tmp_path), View(), ConsoleDimensions(80, 30)
    launcher.processes = lambda *_: launcher.children
    children: Any = launcher.children
    children.machine = lambda agent: agent // 2

    def shown(age: float, received: int) -> list[str]:
        children.links = {1: MachineSeen("machine 1 (oak)", age, received)}
        console = Console(file=io.StringIO(), width=80)
        with console.capture() as captured:
            console.print(view.drawing(launcher, metrics, size))
        return [line.rstrip() for line in captured.get().splitlines()]

    first = shown(0.04, 5_000_000)
    assert [line.split()[:3] for line in first[:5]] == [
        ["agent", "machine", "state"], *([str(i), str(i // 2), "running"] for i in range(4))
    ]  # fmt: skip
    assert first[5] == "machine 1 (oak): heard 40 ms ago, 0.0 MB/s from there"
    clock.sleep(2.0)
    assert shown(0.04, 65_000_000)[5] == "machine 1 (oak): heard 40 ms ago, 30.0 MB/s from there"
    assert "4 running, machine 1 (oak) silent for 7 s, 4,080 steps" in shown(7.0, 65_000_000)[-1]


def test_a_closed_stderr(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    terminal, metrics = Terminal(80, 24), running(launcher, clock, tmp_path)
    closed = io.StringIO()
    closed.close()
    for console in (terminal.console, Console(file=closed), Console(file=closed, force_terminal=True)):
        with Screen(console, Console(file=io.StringIO())) as screen:
            for k in range(60):
                screen.update(launcher, metrics)
                screen.print("[0] still there")
                clock.sleep(0.3)
                if k == 5 and console is terminal.console:
                    os.close(terminal.master)
        assert metrics.error == ""
    assert terminal.console.quiet
    terminal.abandon()


def test_a_stopped_terminal_stops_nothing(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    terminal, metrics = Terminal(100, 30), running(launcher, clock, tmp_path)
    with Screen(terminal.console, terminal.console) as screen:
        screen.update(launcher, metrics)
        terminal.read()
        termios.tcflow(terminal.file.fileno(), termios.TCOOFF)
        for _ in range(20):
            clock.sleep(0.3)
            screen.print("[0] " + 100 * "x")
            screen.update(launcher, metrics)
        assert terminal.read() == ""
        termios.tcflow(terminal.file.fileno(), termios.TCOON)
        clock.sleep(0.3)
        terminal.read()
    terminal.file.close()


def test_who_has_not_joined_for_long_and_whom_ctrl_c_waits_for_is_said_once(
    launcher: Launcher, clock: Clock, tmp_path: Path
) -> None:
    metrics, out, board = Metrics(tmp_path), io.StringIO(), launcher.board
    board.order, board.rows[:, Row.STATE] = Order.WAIT, State.ABSENT
    board.rows[1, Row.STATE] = State.JOINED
    with Screen(Console(file=io.StringIO()), Console(file=out, width=300)) as screen:
        for _ in range(59):
            clock.sleep(1.0)
            screen.update(launcher, metrics)
        assert out.getvalue() == ""
        for _ in range(70):
            clock.sleep(1.0)
            screen.update(launcher, metrics)
        said = out.getvalue()
        assert said.startswith("agents 0, 2, 3 have not called offbeat.join() and agent.wrap(...) yet")
        assert said.count("\n") == 1
        board.order, board.rows[:, Row.STATE] = Order.STOP, [State.LEFT, *[State.RUNNING] * 3]
        launcher.stopped_by = 2
        launcher.settings = replace(launcher.settings, checkpoint_every=CheckpointPolicy(9))
        for _ in range(20):
            clock.sleep(1.0)
            screen.update(launcher, metrics)
        asked = out.getvalue().removeprefix(said)
        assert asked.startswith("Interrupted: agents 1, 2, 3 are to end with their step and save")
        assert "30 s" in asked and "A second Ctrl-C ends" in asked and asked.count("\n") == 1


# -- a real run ------------------------------------------------------------------------------------


WATCHED = """
import io, json
from pathlib import Path
from rich.console import Console
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.screen import Screen
from offbeat.engines.live.settings import ExperimentProgram, RunSettings

experiment = {"task": "quadratic", "agents": 2, "topology": "ring", "until": 65.0}
program = ExperimentProgram(experiment, 0.05)
settings = RunSettings(agents=2, folder=Path.cwd(), program=program, unit=0.02)
metrics, err, out = Metrics(Path.cwd()), io.StringIO(), io.StringIO()
files = len([*Path("/proc/self/fd").iterdir()])
with Screen(Console(file=err), Console(file=out)) as screen:

    def watch(launcher):
        metrics(launcher)
        screen.update(launcher, metrics)

    launcher = Launcher(settings, ["-m", "offbeat.experiments.live.program"])
    launcher.run(lambda agent, line: screen.print(f"[{agent}] {line}"), watch)
metrics.close()
left = len([*Path("/proc/self/fd").iterdir()]) - files
print(json.dumps([left, metrics.error, out.getvalue(), err.getvalue()]))
"""


def test_a_real_run(tmp_path: Path) -> None:
    done = ran(tmp_path, WATCHED)
    assert done.code == 0, done.complained
    left, error, out, err = json.loads(done.said)
    assert left <= 1, "a series of runs must not use them up; the board is the launcher's as long as it lives"
    assert error == out == ""
    assert all(" step" in line for line in err.splitlines())
    got = lines(tmp_path)
    assert [row["agent"] for row in got] == [0, 1] * (len(got) // 2) and len(got) >= 4
    assert all(row["waited"] == 0 and row["restarts"] == 0 for row in got), "this algorithm does not wait"
    assert got[0]["state"] == "running" and got[0]["rate"] > 0 and 0 <= got[0]["mixing"] < 1
    assert [row["state"] for row in got[-2:]] == ["left", "left"]
    assert all(row["step"] > 5 and row["consensus"] > 0 and row["age"] > 0 for row in got[-2:])
