"""A run by levels, as an engine: its timetable, segment by segment, and what is recorded; its minibatches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from offbeat.core.system.streams import CHUNK
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.recorded import Recorded
from offbeat.engines.sim.ahead.schedule import Schedule
from offbeat.engines.sim.ahead.timetable import Ints
from offbeat.engines.trace import Trace, TraceSummary

if TYPE_CHECKING:
    from offbeat.engines.sim.ahead.levels import Levels

Draws = Sequence[Callable[[int], np.ndarray]]

BLOCK = 16_384, 8
"""Writes for which minibatches are drawn at a time: at least so many, and so many for each agent."""


class ScheduledRun:
    """One of the runs side by side, as an engine: segment after segment (they end at `ends`) its timetable,
    and what is recorded. Whichever is asked first runs all. Raises NoTimetable where the first has none.
    """

    levels: Levels  # that make it
    number: int  # of the runs there

    def __init__(self, schedule: Schedule, ends: Sequence[float], draws: Draws, keep: bool) -> None:
        self.draws = draws
        self.schedule, self._ends, self.now = schedule, [*ends], 0.0
        # in the segments before: by agent; in all; by queue
        self._writes, self._messages, self._sent = (
            np.zeros(schedule.n, dtype=np.int64),
            0,
            np.zeros(len(schedule.calendars.bytes), dtype=np.int64),
        )
        self._since, self._recorded = -1.0, Recorded(schedule.n, keep, schedule.rhythm.blocks)
        self.enter()

    @property
    def more(self) -> bool:
        return bool(self._ends)

    def enter(self) -> None:
        """Go into the next segment. Raises NoTimetable where only the simulator can tell how it goes on."""
        end = self._ends.pop(0)
        self.table = self.schedule.segment(end, self.more)

    def leave(self) -> None:
        """Record this segment to its end, and drop it."""
        table = self.table
        self._record(table.high)
        self._recorded.forget(table.oldest)
        self._writes += table.steps(table.high)
        self._messages += table.messages(table.high)
        self._sent += table.carried(table.high)
        del self.table

    def start(self) -> None:
        """Nothing happens before the first write."""

    def run(self, until: float) -> None:
        self.levels.run(until)
        self.now = until

    @property
    def living(self) -> range:
        """All agents: none crashes."""
        return range(self.schedule.n)

    def stacked(self) -> Parts:
        return self.levels.stacked(self.number)

    everybody = stacked

    def stalled(self) -> None:
        """Never: its agents compute gradient after gradient."""

    @property
    def steps(self) -> Ints:
        """How many gradients each agent has applied."""
        return self._writes + self.table.steps(self.now)

    def counts(self) -> tuple[int, int, int]:
        messages = self._messages + self.table.messages(self.now)
        writes = int(self._writes.sum()) + self.table.writes(self.now)
        return writes, messages, int((self._sent + self.table.carried(self.now)).sum())

    def carried(self, sent: np.ndarray) -> dict[tuple[int, int], int]:
        """Bytes by link: sender, receiver; `sent` is not needed here."""
        return self.schedule.carried(self._sent + self.table.carried(self.now))

    def traced(self) -> Trace | TraceSummary:
        self._record(self.now)
        return self._recorded.traced()

    def _record(self, until: float) -> None:
        if until > self._since:
            self._recorded.add(self.table.trace(self._since, until))
            self._since = until


class Samples:
    """The minibatches of all writes, drawn for a block of them at a time, agent by agent."""

    def __init__(self, draws: Draws) -> None:
        self._draws, self._size = draws, max(BLOCK[0], BLOCK[1] * len(draws))
        self._left: list[list[np.ndarray]] = [[] for _ in draws]

    def follow(self, agent: Ints) -> None:
        """The next writes are those of these agents, numbered from 0."""
        self._agent, self._low, self._high = agent, 0, 0
        self._drawn = np.zeros(0)

    def reach(self, low: int) -> int:
        """Draw for the next block if need be. Up to which write there are minibatches."""
        if low == self._high:
            self._low, self._high = low, min(low + self._size, len(self._agent))
            agent = self._agent[self._low : self._high]
            counts = np.bincount(agent, minlength=len(self._draws))
            drawn = [self._next(i, count) for i, count in enumerate(counts.tolist()) if count]
            by_agent = np.concatenate(drawn)
            self._drawn = np.empty_like(by_agent)
            self._drawn[np.argsort(agent, kind="stable")] = by_agent
        return self._high

    def __getitem__(self, writes: Ints) -> np.ndarray:
        """Those of these writes, of the present block: [m, ...]."""
        chosen: np.ndarray = self._drawn[writes - self._low]
        return chosen

    def _next(self, i: int, count: int) -> np.ndarray:
        """Agent i's next ones, in portions of the size in which the simulator draws them."""
        portions = self._left[i]
        while sum(map(len, portions)) < count:
            portions.append(self._draws[i](CHUNK))
        drawn = portions[0] if len(portions) == 1 else np.concatenate(portions)
        self._left[i] = [drawn[count:]]
        return drawn[:count]
