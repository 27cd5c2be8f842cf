"""The launcher: starts a process for every agent, restarts who dies, tells the others, ends the run in order."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offbeat.errors import OffbeatError, SettingError
from offbeat.live.board import LAUNCHER, SAID, Bell, Board, Order, Row, State, bell_path
from offbeat.live.children import Child, Children
from offbeat.live.ending import Ending, take, words
from offbeat.live.enter import joined_with
from offbeat.live.memory import require_ordered_stores
from offbeat.live.output import Say
from offbeat.live.wire import FabricError

SHARED = Path("/dev/shm")
PREFIX = f"offbeat-{os.getuid()}-"
BACK_OFF = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before an agent's first, second, ... restart."""

PATIENCE = 30.0
"""Seconds that an agent has to end when it is asked to."""

TICK = 0.25
"""Seconds between looks at what nobody reports."""

CLOCK_STEPS = 60.0
"""Seconds that the system's time may have been set by between two moments; ages by two clocks are equal within that."""


class RunFailed(OffbeatError):
    """A run ended otherwise than it should; the message says why. began: whether any step had been made."""

    def __init__(self, message: str, began: bool = True, exit_code: int = 1) -> None:
        super().__init__(message)
        self.began, self.exit_code = began, exit_code


@dataclass(frozen=True)
class Job:
    """What to launch.

    n:            how many agents
    command:      what Python is to run, without Python itself
    folder:       where output, traces and checkpoints go; it exists
    settings:     JSON-ready; every agent reads them (`shared/run.json`)
    max_restarts: of one agent; 0: the run ends when one dies
    returns:      whether the algorithm takes an agent back; what the agents join with is what counts
    elapsed:      seconds that a run which is resumed had run before
    """

    n: int
    command: Sequence[str]
    folder: Path
    settings: Mapping[str, Any]
    max_restarts: int = 3
    returns: bool = True
    elapsed: float = 0.0


@dataclass
class Launcher:
    """Runs a job. `watch`, if given, is called every now and then with the launcher."""

    job: Job
    say: Say
    watch: Callable[[Launcher], None] | None = None
    restarts: list[int] = field(default_factory=list)
    reason: str = ""
    stopped_by: int = 0
    """The signal that ended the run; 0: none did."""

    def run(self) -> None:
        """From start to end. Raises RunFailed, FabricError; whatever happens, nothing is left in shared memory."""
        sweep()
        n = self.job.n
        self.restarts, self.member, self.steps_before = [0] * n, [0] * n, [0] * n
        self.again: dict[int, float] = {}
        self.endings: dict[int, Ending] = {}
        self.exits: dict[int, Ending] = {}
        self.settings, self.returns = dict(self.job.settings), self.job.returns
        self.began = self.killing = False
        self.shared = make_shared(self.job.settings)
        try:
            self.board = Board.create(self.shared / "board", n)
            self.bell = Bell(bell_path(self.shared, LAUNCHER))
            self.bells = [Bell(bell_path(self.shared, i)) for i in range(n)]
            self.children = Children(self.bell.handle, self.say)
            before = {s: signal.signal(s, self._interrupted) for s in (signal.SIGINT, signal.SIGTERM)}
            try:
                self._run()
            finally:
                self.children.close()
                for number, handler in before.items():
                    signal.signal(number, handler)
        finally:
            shutil.rmtree(self.shared, ignore_errors=True)
        if self.reason:
            raise RunFailed(self.reason, self.began)
        if self.exits:
            first = self.exits[min(self.exits)]
            others = f", and {len(self.exits) - 1} others," if len(self.exits) > 1 else ""
            raise RunFailed(
                f"Agent {first.agent}{others} ended the script with an exit code, {first.code}, at step {first.steps}."
                f"{first.said}",
                self.began, first.code,
            )  # fmt: skip

    def stop(self, reason: str = "") -> None:
        """Ask everybody to save and end."""
        self.reason = self.reason or reason
        if self.board.order < Order.STOP:
            self.board.order = Order.STOP
            self.deadline = time.monotonic() + PATIENCE
            self.ring()

    def ring(self) -> None:
        """Wake everybody."""
        for bell in self.bells:
            bell.ring()

    # -- what happens ------------------------------------------------------------------------------

    def _run(self) -> None:
        self.deadline = math.inf
        for i in range(self.job.n):
            self._start(i)
        while self.children.running or self.again:
            now = time.monotonic()
            for i in [i for i, at in self.again.items() if at <= now]:
                del self.again[i]
                self._start(i)
            due = min([now + TICK, *self.again.values()])
            for child in self.children.wait(max(0.0, due - now)):
                self._ended(child)
            self._look()
            if self.watch is not None:
                self.watch(self)
            if self.board.order >= Order.STOP:
                self.again.clear()
                if time.monotonic() > self.deadline:
                    self._overdue()

    def _start(self, i: int) -> None:
        row = self.board.rows[i]
        self.steps_before[i] = int(row[Row.STEPS])
        kept = row[[Row.STEPS, Row.WRITES, Row.WAITED, Row.MIXED]].copy()
        row[:] = 0
        self.board.numbers[i, SAID] = math.nan
        row[[Row.STEPS, Row.WRITES, Row.WAITED, Row.MIXED]] = kept
        incarnation = self.restarts[i] + 1
        environment = {
            "OFFBEAT_RUN": str(self.shared), "OFFBEAT_RANK": str(i), "OFFBEAT_INCARNATION": str(incarnation),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        child = self.children.start(i, incarnation, self.job.command, environment, self.job.folder / f"agent-{i}.log")
        row[Row.PID] = child.process.pid

    def _look(self) -> None:
        """Let in who is ready; let out who is done; end when all are."""
        states = [State(int(state)) for state in self.board.rows[:, Row.STATE]]
        changed = False
        if self.board.order is Order.WAIT:
            if all(state is State.JOINED for state in states):
                self._learn()
                for i in range(self.job.n):
                    self._change(i, self.restarts[i] + 1)
                self.board.begin(self.job.elapsed)
                changed = True
        else:
            for i, state in enumerate(states):
                incarnation = self.restarts[i] + 1
                if state is State.JOINED and self.member[i] != incarnation and i in self.children.running:
                    self._change(i, incarnation)
                    changed = True
                elif state is State.LEFT and self.member[i] > 0:
                    self._change(i, -incarnation)
                    changed = True
                    if not self.returns and self.board.order < Order.STOP and set(states) != {State.LEFT}:
                        if "script" in self.settings:  # else all end at one time anyway
                            self.say(i, "is done; the algorithm cannot go on without it, so the others stop")
                        self.stop()
        stopping = self.board.order is Order.STOP
        awaited = list(self.children.running) if stopping else range(self.job.n)
        if self.board.order < Order.END and all(states[i] is State.LEFT for i in awaited):
            self._end()
        if changed:
            self.ring()

    def _end(self) -> None:
        if self.watch is not None:
            self.watch(self)
        self.board.order = Order.END
        self.deadline = time.monotonic() + PATIENCE
        self.ring()

    def _change(self, i: int, incarnation: int) -> None:
        self.member[i] = incarnation
        self.board.change(i, incarnation)

    def _learn(self) -> None:
        """What the agents have joined with, where they say so: a script may have named its own algorithm."""
        joined = joined_with(self.shared)
        if joined is not None:
            self.settings["algorithm"], self.returns = joined

    def _ended(self, child: Child) -> None:
        i, code, row = child.agent, child.process.returncode, self.board.rows[child.agent]
        failure = take(self.shared, i)
        made = int(row[Row.STEPS]) - self.steps_before[i] if row[Row.FIRST] else 0
        self.began = self.began or bool(made)
        lines = tuple(child.output.lines)
        ending = Ending(i, code, child.incarnation, int(row[Row.STEPS]), made, failure, lines)
        if failure is not None:
            child.output.keep(failure.text)
        elif row[Row.STATE] == State.LEFT:
            if code > 0:
                self.exits[i] = ending
            elif code < 0:
                self.say(i, f"was done, and had saved; its process was {words(code)} then")
            return
        row[Row.STATE] = State.ABSENT
        if self.member[i] > 0:
            self._change(i, -self.member[i])
            self.ring()
        for path in [*self.shared.glob(f"register.{i}.*"), *self.shared.glob(f"mail.{i}.*")]:
            path.unlink(missing_ok=True)
        if self.board.order >= Order.STOP:
            if code and not self.killing:
                self.reason = self.reason or f"Agent {i} failed as the run was ending ({words(code)}).{ending.said}"
            return
        why = ending.why_final(self.endings.get(i), self.returns, self.restarts[i], self.job.max_restarts)
        if why:
            self.stop(why)
            return
        self.endings[i] = ending
        wait = BACK_OFF[min(self.restarts[i], len(BACK_OFF) - 1)]
        self.restarts[i] += 1
        self.again[i] = time.monotonic() + wait
        self.say(i, f"died ({ending.how}); restart {self.restarts[i]} of {self.job.max_restarts} in {wait:g} s")

    def _overdue(self) -> None:
        """Whoever has not ended in time is killed; what is lost by that is said."""
        late = [i for i in self.children.running if self.board.rows[i, Row.STATE] != State.LEFT]
        if late and not self.killing:
            self.reason = self.reason or (
                f"{PATIENCE:g} s after they had been asked to end, these agents had not, and were killed: "
                f"{', '.join(map(str, late))}. What they have done since their last checkpoint is lost."
            )
        self._kill()

    def _kill(self) -> None:
        self.killing = True
        self.children.signal(signal.SIGKILL)

    def _interrupted(self, number: int, _: object) -> None:
        if self.stopped_by:  # the second time: now
            self._kill()
        self.stopped_by = number
        self.stop()


# -- shared memory ---------------------------------------------------------------------------------


def make_shared(settings: Mapping[str, Any]) -> Path:
    """A new folder in shared memory that only this user may enter, with the settings of the run."""
    require_ordered_stores()
    if not SHARED.is_dir():
        raise FabricError(f"There is no {SHARED}: the runtime of real processes needs Linux with shared memory.")
    shared = SHARED / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    shared.mkdir(mode=0o700)
    (shared / "owner").write_text(f"{os.getpid()} {_started(os.getpid())}")
    (shared / "run.json").write_text(json.dumps(dict(settings)))
    return shared


def sweep() -> list[Path]:
    """Remove what runs left whose launcher was killed; which folders those were."""
    dead = [folder for folder in SHARED.glob(f"{PREFIX}*") if is_dead(folder)] if SHARED.is_dir() else []
    for folder in dead:
        shutil.rmtree(folder, ignore_errors=True)
    return dead


def is_dead(folder: Path) -> bool:
    """Whether the process that made this folder is gone.

    Its file `owner` says which process that was. Without one, or with half of one, it was killed before it had said so,
    or is about to: then the process in the folder's name decides. If that one is there, but began after the folder was
    made, it is another one that got the same number.
    """
    with suppress(OSError, ValueError):
        pid, started = (folder / "owner").read_text().split()
        return _started(int(pid)) != started
    pid = folder.name.removeprefix(PREFIX).partition("-")[0]
    if not pid.isdecimal():
        return False
    if not (since_boot := _started(int(pid))):
        return True
    with suppress(OSError):
        its_age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(since_boot) / os.sysconf("SC_CLK_TCK")
        return its_age + CLOCK_STEPS < time.time() - folder.stat().st_mtime
    return False  # somebody else has removed it


def _started(pid: int) -> str:
    """When a process was started, as the kernel counts; empty if there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def job_folder(wanted: Path | None, name: str) -> Path:
    """The folder for the results of a run: `wanted`, or a new one below ./offbeat-runs. Raises SettingError."""
    try:
        if wanted is not None:
            wanted.mkdir(parents=True, exist_ok=True)
            return wanted
        for k in range(10_000):
            folder = Path("offbeat-runs") / f"{name}-{k}"
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
    except OSError as error:
        raise SettingError(f"Cannot make the folder {error.filename} for the results: {error.strerror}.") from None
    raise SettingError(
        "There are 10,000 runs of this name in ./offbeat-runs; remove some, or name a folder with --out."
    )
