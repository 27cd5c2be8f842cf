"""What rings of sums leave in a trace. Of what happens at one instant first pieces come, then gradients, and
of either what was begun first, as in the simulator; where that does not tell there is no timetable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offbeat.engines.events import EVENT, TRANSMISSION, WRITE, GradientDone, MailReceived, Started, fill
from offbeat.engines.sim.ahead.instants import NoTimetable, order_of
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

    def _in_order(self, at: Ints, times: Floats, causes: Callable[[Ints], Sequence[Floats]]) -> Ints:
        """These places by their times; at one instant by what causes them, of which the last counts most."""
        time = times[at]
        order = np.argsort(time)
        at, time = at[order], time[order]
        (first,) = np.nonzero(time[1:] == time[:-1])
        if (np.diff(first) > 1).all():  # two at most, as a piece that comes and the link that it has left
            turned = np.zeros(len(first), dtype=np.bool_)
            for one, other in zip(causes(at[first]), causes(at[first + 1]), strict=True):
                turned = (other < one) | ((other == one) & turned)
            swapped = first[turned]
            at[swapped], at[swapped + 1] = at[swapped + 1], at[swapped]
        else:
            several = np.union1d(first, first + 1)
            at[several] = at[several][np.lexsort((*causes(at[several]), time[several]))]
        return at

    def events(self) -> np.ndarray[Any, Any]:
        """Of agents. Raises NoTimetable if two coincide that were begun at one instant."""
        ends, there = self._column(lambda each: each.end), self._column(lambda each: each.there)
        starts, began = self._column(lambda each: each.start), self._column(lambda each: each.began)
        mail, own = self._within(ends), self._within(there)
        time, order = (
            np.concatenate([ends[mail], there[own]]),
            order_of(ends[mail], starts[mail], there[own], began[own]),
        )
        time = time[order]
        if len(time) and time[0] <= 0:
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
            start=starts[at], end=time,
        )  # fmt: skip
        rows = np.flatnonzero(order >= len(mail))
        at = own[order[rows] - len(mail)]
        number, step, i = self._where(at, h)
        rows += begin
        fill(events, rows, GradientDone, agent=i, step=number * h + step, start=began[at])
        events["source"][rows] = events["kind"][rows] = -1
        return events

    def written(self) -> np.ndarray[Any, Any]:
        """Models: at gradients, and of means, which are each a step if a gradient is asked for."""
        h, many = self._writes.h, self._writes.versions
        times = self._column(lambda each: np.concatenate([each.there[: many - 1], each.done[None]]))
        at = self._in_order(self._within(times), times, lambda at: self._written_upon(at, times[at]))
        number, row, i = self._where(at, many)
        before = np.minimum(row + 1, h - 1)
        step = number * h + np.where(row == many - 1, h, before)
        return table(WRITE, time=times[at], agent=i, step=step)

    def _written_upon(self, at: Ints, now: Floats) -> tuple[Floats, Floats]:
        """When what they are written upon was begun, and whether it is a gradient."""
        h, n, hops = self._writes.h, self._n, 2 * (self._n - 1)
        number, row, i = self._where(at, self._writes.versions)
        number -= self._first
        gradient = (number * h + np.minimum(row, h - 1)) * n + i
        piece = (number * hops + hops - 1) * n + (i - 1) % n
        upon = self._column(lambda each: each.there)[gradient] == now
        starts, began = self._column(lambda each: each.start), self._column(lambda each: each.began)
        return np.where(upon, began[gradient], starts[piece]), upon.astype(np.float64)

    def left(self, sizes: Ints) -> np.ndarray[Any, Any]:
        """Transmissions; hops are of so many bytes."""
        starts, ends = self._column(lambda each: each.start), self._column(lambda each: each.end)
        at = self._in_order(self._within(starts), starts, lambda at: self._left_upon(at, starts, ends))
        _, hop, i = self._where(at, len(sizes))
        sent = sizes.ravel()[hop * self._n + i]
        return table(TRANSMISSION, start=starts[at], end=ends[at], agent=i, bytes=sent)

    def _left_upon(self, at: Ints, starts: Floats, ends: Floats) -> tuple[Floats, Floats, Floats]:
        """Upon what hops leave, the last of: the piece from the left is there, the gradient is, the own hop
        before has ended. Whether it was the link that they waited for, for of one end first the receiver is
        told; when what they leave upon was begun; and whether it is a gradient.
        """
        h, n, now = self._writes.h, self._n, starts[at]
        number, hop, i = self._where(at, 2 * (n - 1))
        gradient = ((number - self._first) * h + h - 1) * n + i
        upon = self._column(lambda each: each.there)[gradient] == now
        own = at - n  # of a hop before those that there are: it has ended long ago
        come, free = (
            np.where(there & (ends[before] == now), starts[before], -1.0)
            for before, there in ((own - i + (i - 1) % n, hop > 0), (own, own >= 0))
        )
        begun = np.where(upon, self._column(lambda each: each.began)[gradient], np.maximum(come, free))
        return (~upon & (free > come)).astype(np.float64), begun, upon.astype(np.float64)
