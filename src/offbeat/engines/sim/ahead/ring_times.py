"""When what happens in rings of sums: a recurrence.

Hop k of agent i leaves when its piece has come, its own vector is there, and its link is free; it is with the
agent on the right when it ends. So the times of all agents' hop k follow from those of hop k - 1:

    start_i^k = max(end_{i-1}^{k-1}, G_i, end_i^{k-1}),   end_i^k = start_i^k + the length of its piece

where G_i is when the last of h gradients is there, which follow one another.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from offbeat.core.forms import Piece
from offbeat.core.system.streams import BufferedStream, Purpose, stream
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.recorded import bandwidth
from offbeat.engines.sim.ahead.timetable import Floats
from offbeat.world.world import World

AT_ONCE = 1 << 14
"""So many lengths of hops are drawn at a time, for as many averagings as have them, or for one."""


@dataclass(frozen=True, eq=False)
class Averaging:
    """One averaging: when gradients before it began and were there, [h, n]; when links were free, [n]; the
    hops, [2 (n - 1), n]; when means were there, [n].
    """

    number: int
    began: Floats
    there: Floats
    free: Floats
    start: Floats
    end: Floats
    done: Floats


class RingTimes:
    """Averaging after averaging of n agents, with h gradients of each before one.

    Attributes:
        bytes: of what agent i sends in hop k, [2 (n - 1), n]
        there: when the next gradients are there, [h, n]

    Raises NoTimetable where links are not alike, or pieces are empty.
    """

    def __init__(self, world: World, n: int, h: int, initial: Parts) -> None:
        self._bandwidth, self._model_bytes = bandwidth(world, n), sum([part.nbytes for part in initial])
        piece = (np.arange(n) - np.arange(2 * (n - 1))[:, None]) % n
        sizes = [sum([part.nbytes for part in Piece(n, c)(initial)]) for c in range(n)]
        self.bytes = np.array(sizes)[piece]
        compute, send = ([of(i) for i in range(n)] for of in (world.compute_delay, world.communication_delay))
        if n == 1 or not all(sizes):
            raise NoTimetable
        if any(delay.values for delay in send):  # measured ones: how many are drawn at a time may matter
            raise NoTimetable
        self._compute = [
            BufferedStream(each.draw, world.seed, Purpose.COMPUTE, i) for i, each in enumerate(compute)
        ]
        self._send = [
            partial(each.drawn, stream(world.seed, Purpose.COMMUNICATION, i)) for i, each in enumerate(send)
        ]
        self._h, self._work, self._left, self._number = h, list[Floats](), np.arange(-1, n - 1), 0
        self._free = np.zeros(n)
        self._compute_from(np.zeros(n))

    def _compute_from(self, now: Floats) -> None:
        """The next gradients, one after the other."""
        drawn = [[delay() for delay in self._compute] for _ in range(self._h)]
        times = np.cumsum([now, *drawn], axis=0)  # one addition after the other
        self._began, self.there = times[:-1], times[1:]

    def next(self) -> Averaging:
        """The next averaging."""
        start, end = self._hops(self.there[-1])
        done = np.maximum(end[-1].take(self._left), self.there[-1])
        made = Averaging(self._number, self._began, self.there, self._free, start, end, done)
        self._number, self._free = self._number + 1, end[-1]
        self._compute_from(done)
        return made

    def _lengths(self) -> Floats:
        """How long hops take, [2 (n - 1), n]."""
        if not self._work:
            hops, n = self.bytes.shape
            many = max(1, AT_ONCE // self.bytes.size)
            drawn = np.array([draw(many * hops) for draw in self._send]).reshape(n, many, hops)
            work = drawn.transpose(1, 2, 0) * self.bytes / self._model_bytes / self._bandwidth
            self._work = [*np.ascontiguousarray(work)[::-1]]
        return self._work.pop()

    def _hops(self, there: Floats) -> tuple[Floats, Floats]:
        """When each agent's hops start and end."""
        work = self._lengths()
        start, end = np.empty_like(work), np.empty_like(work)
        come, free, left = there, self._free, self._left
        for began, length, ended in zip(start, work, end, strict=True):
            np.maximum(come, free, out=began)
            np.add(began, length, out=ended)
            free, come = ended, ended.take(left)
            np.maximum(come, there, out=come)
        return start, end
