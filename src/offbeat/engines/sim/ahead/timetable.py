"""Who writes when and mixes which versions, without values: what `Schedule` settles of a segment of a run. It
gives the trace that `Simulator` records of the same run, row by row.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from offbeat.engines.events import (
    EVENT,
    MIXED,
    TRANSMISSION,
    WRITE,
    GradientDone,
    MailReceived,
    RegisterRead,
    Started,
    fill,
)
from offbeat.engines.trace import Trace

if TYPE_CHECKING:
    from offbeat.engines.sim.ahead.playing import Played

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class Timetable:
    """What happens after `low` and up to `high` in a run of n agents, without values.

    Writes are in the order of time; write w is version `version[w]` of agent `agent[w]`. Content that a
    transmission carries is named by the write that made it, and where in that its vectors begin; -2 - i is
    agent i's newest of the segment before, and -2 - n - c is `kept[c]` of that.
    """

    n: int
    low: float
    high: float
    done: int  # writes in the segments before
    time: Floats  # when the gradient was applied, [W]
    began: Floats  # and when it was begun
    agent: Ints
    version: Ints
    sent: tuple[Floats, Floats, Ints, Ints, Ints, Ints]
    """Start, end, agent, version, kind, queue of the transmissions that are heard, by when they leave."""
    heard: tuple[Ints, Ints, Floats, Ints]
    """What is handed over, in that order: the write before which it is, transmission, arrival, to whom."""
    played: "Played"  # what its agents make of it
    name: Ints  # of each transmission its content: the write; they are in another order than in `sent`
    content: Ints  # and where it begins
    kept: Ints  # what else the next segment may mix: of which transmissions the content, how many vectors
    oldest: Ints  # of each agent the oldest version that a later segment may mix, [n]
    kinds: tuple[tuple[str, float], ...]  # of messages: their names, and when the first of each left
    bytes: Ints  # of a transmission, by queue
    mail: bool
    share: Floats  # of each write, how much of the learning rate there is

    def writes(self, until: float) -> int:
        """Gradients applied by then, in this segment."""
        return int(np.searchsorted(self.time, until, side="right"))

    def steps(self, until: float) -> Ints:
        """The same by agent: [n]."""
        return np.bincount(self.agent[: self.writes(until)], minlength=self.n)

    def messages(self, until: float) -> int:
        """Transmissions begun by then, in this segment."""
        before, now = np.searchsorted(self.sent[0], [self.low, until], side="right").tolist()
        return int(now - before)

    def carried(self, until: float) -> Ints:
        """The bytes of the transmissions begun by then, in this segment, by queue."""
        low, high = np.searchsorted(self.sent[0], [self.low, until], side="right")
        return np.bincount(self.sent[5][low:high], minlength=len(self.bytes)) * self.bytes

    def trace(self, since: float, until: float) -> Trace:
        """What `Simulator` records after `since` and up to `until`."""
        low, high = self.writes(since), self.writes(until)
        time, agent, step = self.time[low:high], self.agent[low:high], self.version[low:high]
        sent = slice(*np.searchsorted(self.sent[0], [since, until], side="right").tolist())
        start, end, sender, _, kind, queue = (column[sent] for column in self.sent)
        rows = slice(*np.searchsorted(self.played.mixed[0], [low, high]).tolist())
        write, source, version = (column[rows] for column in self.played.mixed)
        return Trace(
            self.n, tuple([name for name, at in self.kinds if at <= until]), self._events(since, until),
            table(WRITE, time=time, agent=agent, step=step),
            table(MIXED, write=write + self.done, source=source, version=version),
            table(TRANSMISSION, start=start, end=end, agent=sender, kind=kind, bytes=self.bytes[queue]),
        )  # fmt: skip

    def _events(self, since: float, until: float) -> np.ndarray[Any, Any]:
        """Everybody starts; a register is read just before a gradient, mail when it comes."""
        low, high = self.writes(since), self.writes(until)
        into, what, end, receiver = self.heard
        if not self.mail:
            rows = slice(*np.searchsorted(into, [low, high]).tolist())
        else:
            rows = slice(*np.searchsorted(end, [since, until], side="right").tolist())
        into, what, end, receiver = into[rows], what[rows], end[rows], receiver[rows]
        start, _, source, version, number, _ = (column[what] for column in self.sent)
        begin = self.n if since < 0 else 0
        events = np.zeros(begin + high - low + len(into), dtype=EVENT)
        events["source"] = events["kind"] = events["version"] = events["start"] = events["end"] = -1
        fill(events, slice(begin), Started, time=0.0, agent=np.arange(begin))
        writes = np.arange(low, high)
        applied = begin + writes - low + np.searchsorted(into, writes, side="right")
        time, agent, step = self.time[low:high], self.agent[low:high], self.version[low:high] - 1
        done = {"time": time, "agent": agent, "step": step, "start": self.began[low:high], "end": time}
        fill(events, applied, GradientDone, **done)
        kind, then = (MailReceived, end) if self.mail else (RegisterRead, self.time[into])
        fill(
            events, begin + np.arange(len(into)) + into - low, kind, time=then, agent=receiver, source=source,
            kind=number, version=version, start=start, end=end,
        )  # fmt: skip
        return events


def table(dtype: np.dtype[Any], **columns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A table of these columns; all others are 0."""
    made = np.zeros(len(next(iter(columns.values()))), dtype)
    for name, values in columns.items():
        made[name] = values
    return made


def ranges(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """(k, low[k]), (k, low[k] + 1), ..., (k, high[k] - 1) for every k in turn."""
    count = high - low
    which = np.repeat(np.arange(len(count)), count)
    return which, np.arange(len(which)) - begin_of(count)[which] + low[which]


def begin_of(count: Ints) -> Ints:
    """Where each of consecutive runs of these lengths begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
