"""What all processes of a run can see: who belongs to it, how far everybody is, and whether to stop.

One file of 8-byte words in shared memory:

    head      magic, agents, order, how many changes of the membership there are, time zero (ns),
              the last step of agents that go in step, rows
    changes   (agent, incarnation): joined or came back; (agent, -incarnation): died or left;
              only the launcher adds
    rows      one an agent, written by that agent alone (`Row`), and empty ones for agents that may join

A *bell* is a named pipe: whoever waits for something waits for his bell, and is woken by one byte.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from offbeat.core.system.reading import reading
from offbeat.core.system.signals import readable
from offbeat.engines.live.shm import run_folder
from offbeat.engines.live.shm.layout import SharedMemoryError

MAGIC = 0x6F6666626F617233
HEAD, CHANGES, ROW = 8, 16384, 32
MOST = CHANGES // 2  # agents of a run at most: all of them come, and have to be able to go
ROOM = 64  # agents that may join a run while it goes on


Order = IntEnum("Order", ["WAIT", "RUN", "FINISH", "STOP", "END"], start=0)
"""What the launcher asks of everybody. FINISH: end the loops that train; STOP: save and end; END: all are
done, answer no more mail.
"""

State = IntEnum("State", ["ABSENT", "JOINED", "RUNNING", "LEFT"], start=0)
"""Where an agent is. JOINED: ready, waits for its membership; LEFT: done, but answers mail."""


class Row(IntEnum):
    """The words of a row: int64, but for LOSS, METRIC, AGE, EPOCHS and DEALT, which are float64, and NaN
    before anybody has said them. Times are in ns of the system's monotonic clock.
    """

    STATE = 0
    INCARNATION = 1
    PID = 2
    STEPS = 3
    WRITES = 4
    REGISTERS = 5  # how many it has made
    MODEL = 6  # which of them holds its model, counted from 1
    WAITED = 7  # in all, for others
    LAST = 8  # when its last step ended
    MIXED = 9  # in all, within steps
    FIRST = 10  # when its first step ended
    LOSS = 11
    AGE = 12  # mean age of what it mixes, in seconds
    MAILBOXES = 13  # how many it has made
    METRIC = 14
    SKIPPED = 15  # updates that were not finite, in all
    EPOCHS = 16  # of its share of the data, in all
    WAITING = 17  # 1 while it waits for others within a step
    LEAVES = 18  # the launcher's: LEAVE, and once all have been told that the agent is gone LET_GO
    DEALT = 19  # epochs of all data that its own steps make up, in all, where batches are dealt by speed


LEAVE, LET_GO = 1, 2  # what an agent alone is asked to do: end in order; end its process
FLOAT_FIELDS = [Row.LOSS, Row.METRIC, Row.AGE, Row.EPOCHS, Row.DEALT]

Cells: TypeAlias = "memoryview[Any]"  # words of 8 bytes; storing one is a single store of the processor


class Board:
    """The board of a run; the launcher creates it, agents attach to it.

    Attributes:
        capacity: how many agents may belong to the run
        all_rows: as `rows`, and of those who may join, [capacity, ROW]
    """

    def __init__(self, mapped: Any) -> None:
        self.words = memoryview(mapped).cast("q")
        self.capacity, end = self.words[6], HEAD + 2 * CHANGES
        self.changes = self.words[HEAD:end]
        if not 0 < self.n <= self.capacity:
            raise ValueError(f"it is of {self.n} agents, and has {self.capacity} rows")
        count = self.capacity * ROW
        self.all_rows = np.frombuffer(mapped, np.int64, count, 8 * end).reshape(self.capacity, ROW)
        self._rows, self._numbers = self.words[end:], memoryview(mapped).cast("d")[end:]

    @property
    def n(self) -> int:
        """How many agents have belonged to the run so far; the launcher lets more in."""
        return self.words[1]

    @property
    def rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The rows of these agents, [n, ROW]."""
        return self.all_rows[: self.n]

    @property
    def numbers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The same rows, read as float64."""
        return self.rows.view(np.float64)

    def row(self, agent: int) -> Cells:
        """An agent's row, number by number; an eighth of what `rows` costs."""
        return self._rows[agent * ROW : (agent + 1) * ROW]

    def float_row(self, agent: int) -> Cells:
        """The same row, read as float64."""
        return self._numbers[agent * ROW : (agent + 1) * ROW]

    def column(self, which: Row) -> Cells:
        return self._rows[which : self.n * ROW : ROW]

    @staticmethod
    def create(path: Path, n: int) -> "Board":
        """A board for n agents, none of which belongs to the run yet, with room for more."""
        capacity = min(n + ROOM, MOST)
        head = np.array([MAGIC, n, Order.WAIT, 0, 0, 0, capacity], dtype=np.int64).tobytes()
        board = Board(run_folder.create(path, 8 * (HEAD + 2 * CHANGES + capacity * ROW), head))
        board.all_rows.view(np.float64)[:, FLOAT_FIELDS] = np.nan
        return board

    def grow(self, n: int) -> None:
        """From now on there are n agents. The launcher's, before it tells of those that are new."""
        self.words[1] = n

    @staticmethod
    def attach(path: Path) -> "Board":
        """Map the launcher's board. Raises SharedMemoryError if there is none."""
        mapped = run_folder.attach(path, MAGIC, "the board of a run")
        with reading(path, "the board of a run"):
            return Board(mapped)

    @property
    def order(self) -> Order:
        return Order(self.words[2])

    @order.setter
    def order(self, order: Order) -> None:
        self.words[2] = order

    @property
    def membership(self) -> int:
        return self.words[3]

    @property
    def zero(self) -> int:
        """When the run's clock began, in ns of the monotonic clock."""
        return self.words[4]

    def begin(self, elapsed: float = 0.0) -> None:
        """Start everybody who waits, and the clock at so many seconds."""
        self.words[4] = time.monotonic_ns() - int(1e9 * elapsed)
        self.order = Order.RUN

    @property
    def last_step(self) -> int:
        """After which agents that go in step end, once all are to FINISH."""
        return self.words[5]

    def finish(self, last_step: int) -> None:
        """Have everybody end the loops that train."""
        self.words[5] = last_step
        self.order = Order.FINISH

    def change(self, agent: int, incarnation: int) -> None:
        """Tell everybody that an agent has joined (incarnation > 0) or is gone (< 0). The launcher's."""
        count = self.membership
        if count >= CHANGES:
            raise SharedMemoryError(f"Agents came and went {CHANGES} times; a run can remember no more.")
        self.changes[2 * count], self.changes[2 * count + 1] = agent, incarnation
        self.words[3] = count + 1

    def since(self, count: int) -> list[tuple[int, int]]:
        words = self.changes[2 * count : 2 * self.membership].tolist()
        return [*zip(words[::2], words[1::2], strict=True)]


LAUNCHER = -1  # whose bell is the launcher's


class Bell:
    """A named pipe in the run's folder that wakes the agent whose it is."""

    def __init__(self, folder: Path, agent: int) -> None:
        path = folder / f"bell.{agent}"
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        self.handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def ring(self) -> None:
        """Wake the owner. Never blocks: a full pipe wakes as well."""
        with suppress(BlockingIOError):
            os.write(self.handle, b"\0")

    def wait(self, timeout: float | None, others: Sequence[int] = ()) -> list[int]:
        """Until the bell rings or one of the other files can be read: which ones can."""
        return readable([self.handle, *others], timeout)

    def quiet(self) -> None:
        with suppress(BlockingIOError):
            while len(os.read(self.handle, 4096)) == 4096:
                pass

    def close(self) -> None:
        os.close(self.handle)
