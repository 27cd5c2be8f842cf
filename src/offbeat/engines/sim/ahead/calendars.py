"""What each agent does when, from its own random streams alone: its gradients, one after the other, and its
transmissions, one at a time. What waits to leave is a queue of slots: the newest version of each, or its sum.
"""

from bisect import bisect_left
from collections.abc import Sequence
from heapq import heapreplace
from itertools import islice

import numpy as np

from offbeat.core.system.streams import BufferedStream, Purpose, uniform
from offbeat.engines.sim.ahead.rhythm import Rhythm
from offbeat.engines.sim.ahead.timetable import Floats, Ints, begin_of
from offbeat.world.changes import finish
from offbeat.world.sending import senders, slowdowns
from offbeat.world.world import World


class Calendars:
    """All agents' gradients and transmissions, segment by segment.

    Attributes:
        begin: where the queues of each agent begin, among all: one for each slot, or, where each receiver is
            sent its own copy, one for each of them
        owner, many: of each whose it is, and how many receivers it has
        fields, bytes, kind: of what each sends, and how many vectors that is
        first: where these begin among the sender's vectors (`Slot.first`)
        kinds: of messages, by number
    """

    def __init__(self, rhythm: Rhythm, world: World) -> None:
        self.n, self._world, self._rhythm = len(rhythm.slots), world, rhythm
        self._supplies, self.more = dict[tuple[Purpose, int], BufferedStream](), True
        everybody = range(self.n)
        self.senders = senders(world, everybody)
        self._slower = [slowdowns(world, i, sends=False) for i in everybody]
        self.uniform = all(sender.uniform for sender in self.senders)
        alone = world.sending == "unicast"
        self._queues = [
            [(slot, each) for slot, to in slots for each in ([(j,) for j in to] if alone else [to])]
            for slots in rhythm.slots
        ]
        self.begin = begin_of(np.array([len(queues) for queues in self._queues], dtype=np.int64))
        self.many = np.array([len(to) for queues in self._queues for _, to in queues], dtype=np.int64)
        flat = [slot for queues in self._queues for slot, _ in queues]
        self.owner = np.repeat(np.arange(self.n), np.diff(self.begin))
        self.fields = np.array([len(slot.fields) for slot in flat], dtype=np.int64)
        self.bytes = np.array([slot.nbytes for slot in flat], dtype=np.int64)
        self.first = np.array([slot.first for slot in flat], dtype=np.int64)
        self.kinds = [*dict.fromkeys(slot.kind for slot in flat)]
        number = {kind: code for code, kind in enumerate(self.kinds)}
        self.kind = np.array([number[slot.kind] for slot in flat], dtype=np.int64)
        self._due = [-1.0] * self.n  # the running gradient's end
        # of each queue what leaves next: the number of the giving with which it came, its place there
        self._waiting = [[(0, k) for k in range(len(queues))] for queues in self._queues]
        self._free = [-1.0] * self.n  # when the newest transmission is there
        self.sent = np.full(len(self.many), 0)  # of each queue the newest version that has left

    def edge_queues(self) -> tuple[Ints, Ints]:
        """Of each edge its queue, and the receiver's place there."""
        r = self._rhythm
        if self._world.sending != "unicast":
            return self.begin[r.sender] + r.slot, r.place
        firsts = [begin_of(np.array([len(to) for _, to in slots])).tolist() for slots in self._rhythm.slots]
        first = [firsts[j][s] for j, s in zip(r.sender.tolist(), r.slot.tolist(), strict=True)]
        return self.begin[r.sender] + np.array(first, dtype=np.int64) + r.place, np.zeros_like(r.place)

    def supply(self, purpose: Purpose, i: int) -> BufferedStream:
        """A stream of agent i's; kept only if it goes on: thousands of objects wake the garbage collector."""
        supply = self._supplies.get((purpose, i))
        if supply is None:
            world, draw = self._world, uniform
            if purpose is not Purpose.LOSS:
                computes = purpose is Purpose.COMPUTE
                draw = (world.compute_delay(i) if computes else world.communication_delay(i)).draw
            supply = BufferedStream(draw, world.seed, purpose, i)
            if self.more:
                self._supplies[purpose, i] = supply
        return supply

    def gradients(self, i: int, until: float) -> Floats:
        """When agent i applies its gradients: sums from left to right, as a clock makes them."""
        draw, now, times = self.supply(Purpose.COMPUTE, i), self._due[i], list[float]()
        slower = self._slower[i]
        if now < 0:
            now = finish(0.0, draw(), slower)
        while now <= until:
            times.append(now)
            now = finish(now, draw(), slower) if slower else now + draw()
        self._due[i] = now
        return np.array(times, dtype=np.float64)

    def losses(self, counts: Sequence[int]) -> Floats:
        """So many numbers of each agent's, one agent after the other."""
        drawn = [islice(self.supply(Purpose.LOSS, i), count) for i, count in enumerate(counts)]
        return np.concatenate([np.fromiter(each, np.float64) for each in drawn])

    def transmissions(
        self, i: int, applied: Floats, count: int, until: float
    ) -> tuple[Floats, Floats, Ints, Ints, Floats]:
        """What agent i sends, one at a time, as it leaves: start, end, version and queue; and, where links
        are not uniform, when it is with each of its receivers. count: its gradients before.
        """
        queues, waiting, free = self._queues[i], self._waiting[i], self._free[i]
        if not waiting:
            none = np.zeros(0, dtype=np.int64)
            return np.zeros(0), np.zeros(0), none, none, np.zeros(0)
        draw, size, sender = self.supply(Purpose.COMMUNICATION, i), self._rhythm.size, self.senders[i]
        every, bandwidth, mail = self._rhythm.every, sender.bandwidth.usual, self._rhythm.mail
        before, within = divmod(count, every)  # how often something was given away
        given = applied[every - 1 - within :: every].tolist()
        sizes = self.bytes[self.begin[i] : self.begin[i + 1]].tolist()
        starts, ends, versions, which, there = (
            list[float](),
            list[float](),
            list[int](),
            list[int](),
            list[float](),
        )
        last, slow = before + len(given), bool(sender.slowdowns)
        while True:
            number, q = waiting[0]
            if number >= last:
                break
            k = number - before
            if k >= 0 and given[k] >= free:
                start = given[k]
            elif free <= until:
                start = free
                k = bisect_left(given, free) - 1
            else:
                break
            work = draw() * sizes[q] / size
            if self.uniform:
                free = sender.sent(start, work) if slow else start + work / bandwidth
            else:
                sent = [sender.sent(start, work, j) for j in queues[q][1]]
                there += [sender.arrives(t, j, waits=mail) for t, j in zip(sent, queues[q][1], strict=True)]
                free = max(sent)
            starts.append(start)
            ends.append(free)
            which.append(q)
            k += before + 1
            versions.append(every * k)
            heapreplace(waiting, (k, q))
        self._free[i] = free
        columns = np.array(versions, dtype=np.int64), self.begin[i] + np.array(which, dtype=np.int64)
        return np.array(starts), np.array(ends), *columns, np.array(there)
