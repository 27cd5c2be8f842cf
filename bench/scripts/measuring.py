"""Starts the processes that `bench/live.py` measures, and reads what they wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from paced import STEP

from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.settings import CheckpointPolicy, RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import Row, State
from offbeat.engines.trace import Trace

SCRIPTS = Path(__file__).parent
PACED, RACE, ONE_STEP = (SCRIPTS / f"{name}.py" for name in ("paced", "race", "one_step"))
Steps = np.ndarray[Any, Any]
Cycle = dict[str, dict[int, Steps]]
Watch = Callable[[Launcher], None]
MEGABYTE, FORTY = 262_144, 10_000_000
"""float32 numbers of two models."""
NEVER = 1_000_000
"""Steps between checkpoints: one is saved at the end."""


def tell(text: str) -> None:
    """Progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


@dataclass
class Samples:
    """Memory every half second, in bytes: each agent's private, what each has in shared memory, all (after
    when).
    """

    last: float = 0.0
    private: dict[int, list[int]] = field(default_factory=dict)
    shared: dict[int, int] = field(default_factory=dict)
    total: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, launcher: Launcher) -> None:
        """Take a sample of a run with offbeat, if it is time."""
        running = launcher.children.running
        if (
            not launcher.board.zero
            or len(running) < launcher.board.n
            or not self.add([running[i].pid for i in range(launcher.board.n)])
        ):
            return
        for i in range(launcher.board.n):
            self.shared[i] = size_of(launcher.shared, f"register.{i}.*", f"mail.{i}.*")
        everything = sum(rows[-1] for rows in self.private.values()) + size_of(launcher.shared, "*")
        self.total.append((self.last, float(everything)))

    def add(self, pids: Sequence[int]) -> bool:
        """Take a sample of these processes, if it is time; whether it was."""
        if time.monotonic() - self.last < 0.5:
            return False
        self.last = time.monotonic()
        for i, pid in enumerate(pids):
            self.private.setdefault(i, []).append(anonymous(pid))
        return True


@dataclass
class Killer:
    """Kills agents 1, 2, ... `most`, one after the other, each once all have run a while; remembers what
    happened when.

    kills: (agent, when); first: seconds from exec to the first step; back: when the first step of the next
        life ended
    """

    most: int
    kills: list[tuple[int, float]] = field(default_factory=list)
    first: dict[int, float] = field(default_factory=dict)
    back: dict[int, float] = field(default_factory=dict)
    calm: float = 0.0

    def __call__(self, launcher: Launcher) -> None:
        """Look, and kill if it is time."""
        now, rows = time.monotonic(), launcher.board.rows
        for i, child in launcher.children.running.items():
            ended = int(rows[i, Row.FIRST]) / 1e9
            if ended and child.incarnation == 1:
                self.first.setdefault(i, ended - child.started)
            elif ended:
                self.back.setdefault(i, ended)
        everybody = (
            len(launcher.children.running) == 4
            and all(rows[:, Row.FIRST])
            and all(rows[:, 0] == State.RUNNING)
        )
        self.calm = (self.calm or now) if everybody else 0.0
        victim = len(self.kills) + 1
        if self.calm and now > self.calm + 3 and victim <= self.most:
            self.kills.append((victim, now))
            self.calm = 0.0
            launcher.children.signal(signal.SIGKILL, [victim])


def anonymous(pid: int) -> int:
    """Bytes of a process's private memory that are backed by no file; 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return 1024 * int(line.split()[1])
    return 0


def size_of(folder: Path, *patterns: str) -> int:
    """Bytes of these files."""
    total = 0
    for pattern in patterns:
        for path in folder.glob(pattern):
            with suppress(OSError):
                total += path.stat().st_blocks * 512
    return total


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for a run."""
    with tempfile.TemporaryDirectory(prefix="bench-live-") as made:
        yield Path(made)


def launch(
    where: Path,
    script: Path,
    arguments: Sequence[str],
    agents: int,
    topology: str = "ring",
    watch: Watch = lambda launcher: None,
) -> Trace:
    """A run of a script with offbeat, as `offbeat launch` starts it; its trace."""
    program = ScriptProgram(topology, (str(script), *arguments))
    policy = CheckpointPolicy(NEVER)
    settings = RunSettings(agents=agents, folder=where, program=program, checkpoint_every=policy)
    launcher = Launcher(settings, ["-m", "offbeat.training.child", *program.command])
    launcher.run(lambda agent, line: tell(f"[{agent}] {line}"), watch)
    return launcher.trace()


def processes(
    script: Path,
    arguments: Sequence[str],
    n: int,
    watch: Callable[[list[int]], object] = lambda pids: None,
    begun: Callable[[int, list[str]], list[str]] = lambda rank, command: command,
    link: str = "lo",
) -> None:
    """n plain processes of a script, which get RANK from the environment; `watch` gets their ids now and
    then.

    Args:
        begun: of a rank and its command, the one that begins that where it is to run
        link: the network interface between them
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": link}
    command = [sys.executable, str(script), *arguments]
    running = [
        subprocess.Popen(begun(rank, command), env={**environment, "RANK": str(rank)}) for rank in range(n)
    ]
    try:
        while any(process.poll() is None for process in running):
            watch([process.pid for process in running])
            time.sleep(0.25)
    finally:
        for process in running:
            process.kill()
            process.wait()
    if any(process.returncode for process in running):
        raise SystemExit(f"{script.name} failed.")


def write_pace(where: Path, **pace: Any) -> str:
    """The file of settings of `paced.py`."""
    path = where / "pace.json"
    path.write_text(json.dumps({"folder": str(where), **pace}))
    return str(path)


def steps_of(where: Path) -> dict[int, Steps]:
    """What every agent recorded in all its lives, one after the other."""
    found: dict[int, list[Steps]] = {}
    for path in sorted(where.glob("steps.*"), key=lambda path: int(path.suffix[1:])):
        content = path.read_bytes()
        whole = len(content) // STEP.itemsize * STEP.itemsize
        found.setdefault(int(path.name.split(".")[1]), []).append(np.frombuffer(content[:whole], dtype=STEP))
    return {agent: np.concatenate(lives) for agent, lives in found.items()}


def phases_of(
    steps: Mapping[int, Steps], letters: str, length: float, guard: float
) -> list[dict[str, dict[int, Steps]]]:
    """Whole cycles of phases: phase -> agent -> its steps that began and ended in it, `guard` s after its
    begin.
    """
    begin = max(rows["began"][0] for rows in steps.values())
    end = min(rows["ended"][-1] for rows in steps.values())
    first = int(np.ceil(begin / length))
    cycles = []
    while (first + len(letters)) * length <= end:
        cycle: Cycle = {}
        for number in range(first, first + len(letters)):
            low, high = number * length + guard, (number + 1) * length
            cycle[letters[number % len(letters)]] = {
                i: rows[(rows["began"] >= low) & (rows["ended"] <= high)] for i, rows in steps.items()
            }
        cycles.append(cycle)
        first += len(letters)
    return cycles


def rate(steps: Steps) -> float:
    """Steps per second."""
    if len(steps) < 3:
        return float("nan")
    return float((len(steps) - 1) / (steps["ended"][-1] - steps["ended"][0]))


def shown(values: Sequence[float], digits: str = ".2f") -> str:
    """Median [smallest - largest]."""
    if not values:
        return "-"
    return f"{median(values):{digits}} [{min(values):{digits}} - {max(values):{digits}}]"
