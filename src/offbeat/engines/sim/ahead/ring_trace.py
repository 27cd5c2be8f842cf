"""What rings of sums leave in a trace. In which order things happen at one instant is the simulator's to say:
where two events coincide there is no timetable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offbeat.engines.events import EVENT, TRANSMISSION, WRITE, GradientDone, MailReceived, Started, fill
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.ring_times import Averaging
from offbeat.engines.sim.ahead.timetable import Floats, Ints, table


@dataclass(frozen=True)
class Writes:
    """Of which gradients the model is another afterwards: of all but the last of h before an averaging, and
    perhaps of that. By a mean it always is.
    """

    h: int
    last: bool

    @property
    def versions(self) -> int:
        """How many there are from one averaging to the next."""
        return self.h + self.last


class Window:
    """Some averagings of n agents, one after the other, and a time: after `since` and up to `until`."""

    def __init__(self, n: int, writes: Writes, some: Sequence[Averaging], since: float, until: float) -> None:
        self._n, self._writes, self._some, self._since, self._until = n, writes, some, since, until
        self._first = some[0].number if some else 0

    def _column(self, of: Callable[[Averaging], Floats]) -> Floats:
        """Of all of them, agent after agent; where it has rows, row after row."""
        columns = [of(each).ravel() for each in self._some]
        return columns[0] if len(columns) == 1 else np.concatenate([np.zeros(0), *columns])

    def _within(self, times: Floats) -> Ints:
        return np.flatnonzero((times > self._since) & (times <= self._until))

    def _where(self, at: Ints, rows: int) -> tuple[Ints, Ints, Ints]:
        """Of places in a column which averaging, row and agent it is; with so many rows in each."""
        row = at // self._n
        number = row // rows
        return self._first + number, row - number * rows, at - row * self._n

    def events(self) -> np.ndarray[Any, Any]:
        """Of agents. Raises NoTimetable if two coincide."""
        ends, there = self._column(lambda each: each.end), self._column(lambda each: each.there)
        mail, own = self._within(ends), self._within(there)
        time = np.concatenate([ends[mail], there[own]])
        order = np.argsort(time)
        time = time[order]
        if len(time) and ((time[1:] == time[:-1]).any() or time[0] <= 0):
            raise NoTimetable
        begin, n, h = self._n if self._since < 0 else 0, self._n, self._writes.h
        events = np.zeros(begin + len(time), dtype=EVENT)
        for name in ("source", "kind", "version", "start", "end"):
            events[name][:begin] = -1
        fill(events, slice(begin), Started, time=0.0, agent=np.arange(begin))
        if not self._some:
            return events
        at = np.concatenate([mail, np.zeros_like(own)])[order]  # gradients follow
        number, _, i = self._where(at, 2 * (n - 1))
        fill(
            events, slice(begin, None), MailReceived, time=time, agent=(i + 1) % n, source=i, kind=0,
            version=(number + 1) * self._writes.versions - 1,
            start=self._column(lambda each: each.start)[at], end=time,
        )  # fmt: skip
        rows = np.flatnonzero(order >= len(mail))
        at = own[order[rows] - len(mail)]
        number, step, i = self._where(at, h)
        began, rows = self._column(lambda each: each.began)[at], begin + rows
        fill(events, rows, GradientDone, agent=i, step=number * h + step, start=began)
        events["source"][rows] = events["kind"][rows] = -1
        return events

    def written(self) -> np.ndarray[Any, Any]:
        """Models: at gradients, and of means, which are each a step if a gradient is asked for."""
        h, many = self._writes.h, self._writes.versions
        times = self._column(lambda each: np.concatenate([each.there[: many - 1], each.done[None]]))
        at = self._within(times)
        at = at[np.argsort(times[at], kind="stable")]
        number, row, i = self._where(at, many)
        before = np.minimum(row + 1, h - 1)
        step = number * h + np.where(row == many - 1, h, before)
        return table(WRITE, time=times[at], agent=i, step=step)

    def left(self, sizes: Ints) -> np.ndarray[Any, Any]:
        """Transmissions; hops are of so many bytes. Of what starts at one instant first that whose piece has
        come, then what waited for the link.
        """
        starts, ends = self._column(lambda each: each.start), self._column(lambda each: each.end)
        at = self._within(starts)
        at = at[np.argsort(starts[at])]
        start = starts[at]
        (twice,) = np.nonzero(start[1:] == start[:-1])  # two at most: no two events coincide
        waited = [start[twice] == self._free(each, ends) for each in (at[twice], at[twice + 1])]
        turned = twice[waited[0] > waited[1]]
        at[turned], at[turned + 1] = at[turned + 1], at[turned]
        _, hop, i = self._where(at, len(sizes))
        sent = sizes.ravel()[hop * self._n + i]
        return table(TRANSMISSION, start=start, end=ends[at], agent=i, bytes=sent)

    def _free(self, hops: Ints, ends: Floats) -> Floats:
        """When their links were: as the hop before ended, or the last of the averaging before."""
        number, hop, i = self._where(hops, 2 * (self._n - 1))
        before = self._column(lambda each: each.free)
        return np.where(hop > 0, ends[hops - self._n], before[(number - self._first) * self._n + i])
