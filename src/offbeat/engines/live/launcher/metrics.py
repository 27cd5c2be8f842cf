"""A run's metrics while it runs: a file of JSON lines and, if asked for, TensorBoard.

All of it is read from shared memory by the launcher, so no agent ever notices. A line of metrics.jsonl is one
agent at one look; what is not known, or is no finite number, is null:

    time       seconds since the run's clock began; then the agent
    state      starting, running, stopping, restarting, left, missing (for good) or ended
    step       steps in all its lives
    rate       steps per second since the last look, or since the last step that was seen before it
    loss       what the agent logged last, and `metric`
    age        mean age of what it mixed last, in seconds
    waited     seconds that it has waited for others, in all; 0 for an algorithm that does not wait
    mixing     fraction of the time since the last look that its steps spent on mixing, waiting left out
    restarts   how often it was started again
    skipped    updates that were not finite and therefore skipped, in all its lives
    consensus  root mean square distance of all agents' newest models from their mean; not in every look
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.core.errors import SettingError
from offbeat.core.system.devices import one_thread
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node.ending import Missing
from offbeat.engines.live.node.transport import model_of
from offbeat.engines.live.shm.board import Order, Row, State
from offbeat.engines.live.shm.slots import SLOTS

EVERY, SHORTEST = 1.0, 0.1  # seconds between looks, and that give a rate
CONSENSUS_EVERY, SPARED = 5 * 10**9, 50  # ns between looks at models, which take one part in SPARED at most
LARGEST = 256_000_000  # bytes of all models together, beyond which they are not copied
LINES = "metrics.jsonl"
SCALARS = ("loss", "rate", "age", "waited", "metric")
COUNTED = [Row.STEPS, Row.WAITED, Row.MIXED, Row.LAST]


@dataclass
class Metrics:
    """Call it with the launcher, often; it looks once a second. `close` it at the end.

    Raises SettingError if it cannot write for TensorBoard.
    """

    folder: Path  # where metrics.jsonl goes; lines are appended
    tensorboard: Path | None = None  # the folder for TensorBoard's files
    rows: list[dict[str, Any]] = field(default_factory=list)  # the lines of the last look
    error: str = ""  # the first thing that could not be written, if any; the run goes on

    def __post_init__(self) -> None:
        self._writer = None if self.tensorboard is None else _writer(self.tensorboard)
        self._handle, self._models_at, self._over = -1, 0, False
        self.missing: Mapping[int, Missing] = {}  # who was left out of the run
        self._last, self._before = 0, np.zeros((0, len(COUNTED)), dtype=np.int64)

    def __call__(self, launcher: Launcher) -> None:
        """Look, if a second has passed since the last time, or if all agents have left meanwhile."""
        self.missing = launcher.missing
        if not (board := launcher.board).zero or self._over:
            return
        now, counted = time.monotonic_ns(), board.rows[:, COUNTED].copy()
        if not self._last:
            self._last, self._before = now, counted
        new = len(counted) - len(self._before)  # agents that have joined since
        self._before = np.pad(self._before, ((0, new), (0, 0)))
        self._over = launcher.all_left
        passed = (now - self._last) / 1e9
        if passed < EVERY and not self._over:
            return
        known = {"time": round((now - board.zero) / 1e9, 3), "consensus": self._look_at_models(launcher)}
        pairs = enumerate(zip(counted.tolist(), self._before.tolist(), strict=True))
        self.rows = [known | _row(launcher, i, *both, passed) for i, both in pairs]
        self._last, self._before = now, counted
        self._append("".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows).encode())
        self._draw(self._show)

    @property
    def remarks(self) -> list[str]:
        """What is to be said of the run once it has ended."""
        counts = [f"agent {row['agent']}: {row['skipped']:,}" for row in self.rows if row["skipped"]]
        said = f"Updates that were not finite were skipped: {', '.join(counts)}." if counts else ""
        return [*filter(None, (said, self.error)), *map(str, self.missing.values())]

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._draw(lambda writer: writer.close())
        self._handle, self._writer = -1, None

    def _look_at_models(self, launcher: Launcher) -> float | None:
        began = time.monotonic_ns()
        if began < self._models_at and not self._over:
            return None
        found, ended = consensus_of(launcher), time.monotonic_ns()
        self._models_at = ended + max(CONSENSUS_EVERY, SPARED * (ended - began))
        return found

    def _append(self, lines: bytes) -> None:
        """Write whole lines: a part, where there is no more room, is taken back."""
        path = self.folder / LINES
        try:
            if self._handle < 0:
                self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o644)
            before = os.fstat(self._handle).st_size
            if os.write(self._handle, lines) < len(lines):
                os.ftruncate(self._handle, before)
                raise OSError("no room is left")
        except OSError as error:
            self.error = self.error or f"Cannot write {path}: {error.strerror or error}."

    def _show(self, writer: Any) -> None:
        for row in self.rows:
            named = {f"agent-{row['agent']}/{name}": row[name] for name in SCALARS}
            named |= {} if row["agent"] else {"all/consensus": row["consensus"]}
            for name, value in named.items():
                if value is not None:
                    writer.add_scalar(name, value, round(row["time"]))

    def _draw(self, what: Callable[[Any], None]) -> None:
        """For TensorBoard, whose writer has a thread of its own, and raises what that met, whatever it is."""
        try:
            if self._writer is not None:
                what(self._writer)
        except Exception as error:
            self.error = self.error or f"Cannot write for TensorBoard: {error}"
            self._writer = None


def state_of(launcher: Launcher, i: int) -> str:
    """Where an agent is, in one word: see `state` above."""
    state = int(launcher.board.rows[i, Row.STATE])
    if state == State.LEFT:
        return "left"
    if i not in launcher.children.running:
        return "restarting" if i in launcher.again else "missing" if i in launcher.missing else "ended"
    if launcher.board.order >= Order.FINISH:
        return "stopping"
    return "running" if state == State.RUNNING else "starting"


def consensus_of(launcher: Launcher) -> float | None:
    """The number of that name; None before two agents have a model, and where these are too large to copy."""
    shared, board = launcher.shared, launcher.board
    launcher.children.see_models(LARGEST / board.n)
    largest = max((path.stat().st_size for path in shared.glob("register.*")), default=0)
    if board.n * largest / SLOTS > LARGEST:
        return None
    with one_thread():  # the other cores are the agents'
        models = [found[0].parts for i in range(board.n) if (found := model_of(shared, board, i)) is not None]
        if len(models) < 2:
            return None
        stacked = [torch.stack(parts).double() for parts in zip(*models, strict=True)]
        square = sum(float((part - part.mean(0)).square().sum()) for part in stacked)
        return _finite(math.sqrt(square / len(models)))


def _row(launcher: Launcher, i: int, now: list[int], before: list[int], passed: float) -> dict[str, Any]:
    """One agent: its counters now and at the last look, and the seconds in between."""
    row, floats = launcher.board.rows[i], launcher.board.numbers[i]
    steps, waited, mixed, between = (new - old for new, old in zip(now, before, strict=True))
    seen = max(passed, between / 1e9 if before[-1] else 0.0)  # of another machine steps may be seen late
    resumed = before[0] == 0 and launcher.elapsed > 0  # its steps of before appear all at once
    return {
        "agent": i, "state": state_of(launcher, i), "step": now[0],
        "loss": _finite(floats[Row.LOSS]), "metric": _finite(floats[Row.METRIC]),
        "age": _finite(floats[Row.AGE]),
        "rate": None if resumed or passed < SHORTEST else max(0, steps) / seen, "waited": now[1] / 1e9,
        "mixing": None if passed < SHORTEST else min(1.0, max(0.0, (mixed - waited) / 1e9 / seen)),
        "restarts": launcher.restarts[i], "skipped": int(row[Row.SKIPPED]),
    }  # fmt: skip


def _finite(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder), flush_secs=10)
    except ImportError:
        raise SettingError("Writing for TensorBoard needs more: pip install offbeat[tensorboard].") from None
    except OSError as error:
        raise SettingError(f"Cannot write TensorBoard to {folder}: {error.strerror or error}.") from None
