"""The timetable of algorithms that never wait, settled without a heap; segment by segment in a long run.

An agent that computes gradient after gradient, and gives something to all its listeners after each, or after
each h-th, has a calendar of its own: what the others do changes what it mixes, not when. So each agent's
gradients and transmissions follow from its own random streams, and which version of whom is mixed is found by
sorting all instants. A segment of time needs of those before only the newest versions, what was heard last,
and what is on its way. Where agents crash, something takes no time, or two things begin as well as end at the
same instants, the order of handlers is the simulator's to say, and there is no timetable.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from offbeat.core.agent import View
from offbeat.core.system.streams import BufferedStream, Purpose, uniform
from offbeat.engines.sim.ahead.instants import Instants, NoTimetable, apart, as_it_comes, inverse, order_of
from offbeat.engines.sim.ahead.timetable import Bools, Floats, Ints, Mail, Timetable, begin_of, ranges
from offbeat.engines.sim.ahead.update_form import Rhythm
from offbeat.world.changes import Cut, finish
from offbeat.world.sending import senders, slowdowns, why_no_timetable
from offbeat.world.world import World

USUAL = Rhythm()


Passed = tuple[Ints, Ints, Floats]  # edges, transmissions, when they are there


@dataclass(frozen=True, eq=False)
class _Taken:
    """What gradients take in.

    Attributes:
        first, terms: where the writes that each takes in begin, and these
        heard: what is handed over, in that order: before which write, transmission, when, to whom
        mixed: write, neighbour, transmission
        there: of what passed, whether it is there
    """

    first: Ints
    terms: Ints
    heard: tuple[Ints, Ints, Floats, Ints]
    mixed: tuple[Ints, Ints, Ints]
    there: Bools
    mail: Mail | None = None


class Schedule:
    """The timetables of a run, segment by segment. Raises NoTimetable where agents crash.

    Args:
        size: of a model, in bytes
        rhythm: when all agents give something away, and how
    """

    def __init__(self, views: Sequence[View], world: World, size: int, rhythm: Rhythm = USUAL) -> None:
        if why_no_timetable(world):
            raise NoTimetable
        self.n, self.size, self.now, self.rhythm = len(views), size, -1.0, rhythm
        self.lossy = world.lossy and not rhythm.mail
        self._world, self._supplies, self._more = world, dict[tuple[Purpose, int], BufferedStream](), True
        everybody = range(self.n)
        self._width = np.array([len(view.w) for view in views])
        self._listeners = np.array([len(view.listeners) for view in views])
        heard = ((i, j, column) for i in everybody for column, j in enumerate(views[i].w))
        edges = [(i, j, column) for i, j, column in heard if i in views[j].listeners]
        self._receiver, self._source, self._column = np.array(edges, dtype=np.int64).reshape(-1, 3).T
        self._senders = senders(world, everybody)
        self._slower = [slowdowns(world, i, sends=False) for i in everybody]
        self._to = [view.listeners for view in views]
        self._cuts = [change for change in world.changes if isinstance(change, Cut)]
        self._uniform = all(sender.uniform for sender in self._senders)
        self._there = [np.zeros((0, len(to))) for to in self._to]  # of the old ones, see `Instants`
        self._place, self._loss = np.zeros(0, dtype=np.int64), np.zeros(0)
        if self.lossy or rhythm.mail or not self._uniform:
            self._place = np.array([views[j].listeners.index(i) for i, j, _ in edges], dtype=np.int64)
            self._loss = np.array([self._senders[j].loss(j, i) for i, j, _ in edges])
        self._due = [-1.0] * self.n  # the running gradient's end
        self._applied, self._count = np.zeros(self.n), np.zeros(self.n, dtype=np.int64)  # the newest write
        self._own = np.full(self.n, -1)  # and how it is named
        self._sent, self._free = [0] * self.n, [-1.0] * self.n  # the newest sent, by number; when it is there
        self._handed = np.zeros(len(edges), dtype=np.int64)  # the newest version handed over
        self._counted = np.zeros(self.n, dtype=np.int64)  # of mail: how many neighbours have been heard
        # transmissions that are still heard, or on their way: start, end, version, sender, name of the write
        self._old = (np.zeros(0), np.zeros(0), *np.zeros((3, 0), dtype=np.int64))
        self._awaited = np.zeros(0, dtype=np.bool_)  # edge by edge: which of its sender's pass it

    def segment(self, until: float, more: bool) -> Timetable:
        """The next one, up to `until`. more: whether another follows. Raises NoTimetable, see above."""
        self._more, low, done, sent = more, self.now, int(self._count.sum()), np.array(self._sent)
        at, new = self._instants(until)
        passed = self._passed(at, new)
        by_time, left, self.now = np.argsort(at.applied), at.left(), until
        place, number = inverse(by_time), np.arange(len(at.time)) - at.begin[at.agent]
        own = np.where(number > 0, np.roll(place, 1), self._own[at.agent])
        # the write that each transmission carries
        made, waited = at.made(), (at.version == at.before[at.sender]) | (at.name == -1)
        older = np.where(waited, self._own[at.sender], at.name)
        names = np.where(made >= 0, np.append(place, -1)[made], older)
        version = at.before[at.agent] + number + 1
        writes = (at.time[by_time], at.began[by_time], at.agent[by_time], version[by_time])
        if self.rhythm.mail:
            taken = self._mail(at, low, passed, by_time, names, sent)
        else:
            taken = self._registers(at, passed, by_time, names)
        write, what, when, whom = taken.heard
        self._count = at.before + np.diff(at.begin)
        newest = np.where(np.diff(at.begin) > 0, place[at.begin[1:] - 1] if len(place) else -1, self._own)
        kept = self._keep(at, passed, taken.there, names) if more else names[:0]
        oldest, shown = self._count.copy(), at.version - self.rhythm.before
        np.minimum.at(oldest, self._old[3], self._old[2])
        return Timetable(
            self.n, low, until, done, *writes, taken.first, taken.terms, own[by_time],
            (at.start[left], at.end[left], at.sender[left], shown[left]),
            (write, inverse(left)[what], when, whom),
            (*taken.mixed[:2], shown[taken.mixed[2]]),
            np.concatenate([[-1], newest, kept]), np.maximum(oldest - self.rhythm.before, 0), taken.mail,
        )  # fmt: skip

    def carried(self, sent: Ints) -> dict[tuple[int, int], int]:
        """Bytes by link, sender and receiver, where agents have sent so many to all their listeners."""
        edges = zip(self._source.tolist(), self._receiver.tolist(), strict=True)
        return {(i, j): int(sent[i]) for i, j in edges if sent[i]}

    def _instants(self, until: float) -> tuple[Instants, Ints]:
        """What happens up to then; and how many transmissions of each agent are new."""
        applied = [self._gradients(i, until) for i in range(self.n)]
        sending = [self._transmissions(i, applied[i], until) for i in range(self.n)]
        count, new = np.array([len(each) for each in applied]), np.array([len(each[0]) for each in sending])
        begin, time = begin_of(count), np.concatenate(applied)
        agent, began, some = np.repeat(np.arange(self.n), count), np.roll(time, 1), count > 0
        began[begin[:-1][some]] = self._applied[some]
        self._applied[some] = time[begin[1:][some] - 1]
        columns = [np.concatenate([each[k] for each in sending]) for k in range(3)]
        if not self._uniform:
            both = zip(self._there, sending, strict=True)
            self._there = [
                np.concatenate([old, each[3].reshape(len(each[0]), old.shape[1])]) for old, each in both
            ]
        columns += [np.repeat(np.arange(self.n), new), np.full(len(columns[0]), -1)]
        if len(self._old[0]):
            columns = [np.concatenate(both) for both in zip(self._old, columns, strict=True)]
            order = np.argsort(columns[3], kind="stable")
            columns = [column[order] for column in columns]
        start, end, version, sender, name = columns
        if not (time > began).all() or not (end > start).all():
            raise NoTimetable
        there = [] if self._uniform else self._there
        first = begin_of(np.array([len(each) for each in there])).tolist()
        if not all(
            (each > start[k : k + len(each), None]).all() for each, k in zip(there, first, strict=False)
        ):
            raise NoTimetable
        rank = inverse(order_of(end, start, time, began))
        sent = begin_of(np.bincount(sender, minlength=self.n))
        gradients = (begin, self._count, agent, time, began, rank[len(end) :])
        return Instants(*gradients, sent, sender, start, end, version, name, rank[: len(end)], there), new

    def _supply(self, purpose: Purpose, i: int) -> BufferedStream:
        """A stream of agent i's; kept only if it goes on: thousands of objects wake the garbage collector."""
        supply = self._supplies.get((purpose, i))
        if supply is None:
            world, draw = self._world, uniform
            if purpose is not Purpose.LOSS:
                computes = purpose is Purpose.COMPUTE
                draw = (world.compute_delay(i) if computes else world.communication_delay(i)).draw
            supply = BufferedStream(draw, world.seed, purpose, i)
            if self._more:
                self._supplies[purpose, i] = supply
        return supply

    def _gradients(self, i: int, until: float) -> Floats:
        """When agent i applies its gradients: sums from left to right, as a clock makes them."""
        draw, now, times = self._supply(Purpose.COMPUTE, i), self._due[i], list[float]()
        slower = self._slower[i]
        if now < 0:
            now = finish(0.0, draw(), slower)
        while now <= until:
            times.append(now)
            now = finish(now, draw(), slower) if slower else now + draw()
        self._due[i] = now
        return np.array(times, dtype=np.float64)

    def _transmissions(self, i: int, applied: Floats, until: float) -> tuple[Floats, Floats, Ints, Floats]:
        """Start, end and version of what agent i sends: one at a time, the newest that there is; and, where
        links are not uniform, when each is with each listener.
        """
        if not self._listeners[i]:
            return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0)
        draw, size, sender = self._supply(Purpose.COMMUNICATION, i), self.size, self._senders[i]
        every, free, bandwidth = self.rhythm.every, self._free[i], sender.bandwidth.usual
        before, within = divmod(int(self._count[i]), every)  # how often something was given away
        published, k = applied[every - 1 - within :: every].tolist(), self._sent[i] - before
        starts, ends, versions, there = list[float](), list[float](), list[int](), list[float]()
        while k < len(published):
            if k >= 0 and published[k] >= free:
                start = published[k]
            elif free <= until:
                start = free
                k = bisect_left(published, free) - 1
            else:
                break
            work = draw() * size / size
            if self._uniform:
                free = sender.sent(start, work) if sender.slowdowns else start + work / bandwidth
            else:
                sent = [sender.sent(start, work, j) for j in self._to[i]]
                mail, to = self.rhythm.mail, self._to[i]
                there += [sender.arrives(t, j, waits=mail) for t, j in zip(sent, to, strict=True)]
                free = max(sent)
            starts.append(start)
            ends.append(free)
            k += 1
            versions.append(every * (before + k))
        self._sent[i], self._free[i] = before + k, free
        return np.array(starts), np.array(ends), np.array(versions, dtype=np.int64), np.array(there)

    def _passed(self, at: Instants, new: Ints) -> tuple[Ints, Ints, Floats]:
        """What passes the edges, edge by edge in order of time: edge, transmission, when it is there. new: of
        each sender.
        """
        edge, what = ranges(at.sent[self._source], at.sent[self._source + 1])
        when = at.arrivals(what, self._source, self._place)
        cuts = [] if self.rhythm.mail else self._cuts
        if not self.lossy and not cuts and not len(self._old[0]):
            return edge, what, when
        sender = self._source[edge]
        number = what - at.sent[sender + 1] + new[sender]
        passes = np.ones(len(edge), dtype=np.bool_)
        passes[number < 0] = self._awaited
        if self.lossy:
            count, now = self._listeners * new, number >= 0
            drawn = [
                np.fromiter(islice(self._supply(Purpose.LOSS, i), many), np.float64)
                for i, many in enumerate(count.tolist())
            ]
            place = (begin_of(count)[sender] + number * self._listeners[sender] + self._place[edge])[now]
            passes[now] = np.concatenate(drawn)[place] >= self._loss[edge[now]]
        for cut in cuts:
            parts = np.isin(self._source, [*cut.group]) != np.isin(self._receiver, [*cut.group])
            passes &= ~(
                parts[edge] & (when >= cut.at) & (when < (math.inf if cut.until is None else cut.until))
            )
        return edge[passes], what[passes], when[passes]

    def _registers(self, at: Instants, passed: Passed, by_time: Ints, names: Ints) -> _Taken:
        """Where something is published: at every gradient the newest of each neighbour."""
        into, what, edge, when, fresh = self._newest(at, *passed)
        agent, place = at.agent[by_time], inverse(by_time)
        write, source, width = place[into], at.sender[what], self._width[agent]
        first, terms = begin_of(width), np.repeat(np.arange(len(width)), width)  # itself, but for those heard
        terms[first[write] + self._column[edge]] = names[what]
        fresh = fresh[apart(write[fresh], when[fresh], at.start[what[fresh]])]
        known = np.lexsort((source, write))
        if not all(self.rhythm.mixing):
            step = (at.before[at.agent] + np.arange(len(agent)) - at.begin[at.agent])[by_time]
            known = known[np.array(self.rhythm.mixing)[step % len(self.rhythm.mixing)][write[known]]]
        heard = write[fresh], what[fresh], when[fresh], agent[write[fresh]]
        mixed = write[known], source[known], what[known]
        return _Taken(first, terms, heard, mixed, passed[2] <= self.now)

    def _newest(
        self, at: Instants, edge: Ints, what: Ints, when: Floats
    ) -> tuple[Ints, Ints, Ints, Floats, Ints]:
        """For every gradient, the newest transmission of each neighbour that it has heard.

        Returns gradients, transmissions, edges, when it came; and which rows are newer than what the gradient
        before had.
        """
        by_time = np.argsort(at.applied)
        count, place = len(at.time) + 1, inverse(by_time)
        times = at.time[by_time]  # how many gradients do not hear it:
        before = np.searchsorted(times, when) if at.there else np.searchsorted(times, at.end)[what]
        asks, into = ranges(at.begin[self._receiver], at.begin[self._receiver + 1])
        newest = np.searchsorted(edge * count + before, asks * count + place[into], side="right") - 1
        there = (newest >= 0) & (edge[newest] == asks) if len(edge) else np.zeros(len(asks), dtype=np.bool_)
        asks, into, what, when = asks[there], into[there], what[newest[there]], when[newest[there]]
        version = at.version[what]
        fresh = version != self._handed[asks]
        fresh[1:] &= (what[1:] != what[:-1]) | (asks[1:] != asks[:-1])
        self._handed[asks] = version  # of several the last one stays
        return into, what, asks, when, np.flatnonzero(fresh)

    def _mail(
        self, at: Instants, low: float, passed: Passed, by_time: Ints, names: Ints, sent: Ints
    ) -> _Taken:
        """Where mail comes: at a gradient all that has come since the one before. sent: of each agent the
        newest version that had left before this segment.
        """
        edge, what, when = passed
        order = as_it_comes(when, at.start[what], what, self._place[edge])
        edge, what, when = edge[order], what[order], when[order]
        agent, place, receiver = at.agent[by_time], inverse(by_time), self._receiver[edge]
        before, count = np.searchsorted(at.time[by_time], when), len(at.time) + 1  # writes until it is there
        into = np.searchsorted(at.agent * count + place, receiver * count + before)
        taken = into < at.begin[receiver + 1]
        there = np.zeros(len(order), dtype=np.bool_)
        there[order] = taken | np.isinf(when)
        now = np.flatnonzero((when > low) & (when <= self.now))
        heard = before[now], what[now], when[now], receiver[now]
        edge, what, write = edge[taken], what[taken], place[into[taken]]
        rows = np.argsort(write, kind="stable")
        edge, what, write = edge[rows], what[rows], write[rows]
        early = at.version[what] == 1
        newly = np.bincount(write[early], minlength=len(agent))
        sums = np.append(0, np.cumsum(newly[place]))  # in the order of agents
        counted = sums[1:] + (self._counted - sums[at.begin[:-1]])[at.agent]
        self._counted = self._counted + np.diff(sums[at.begin])
        firsts = np.stack([self._receiver[edge[early]], self._source[edge[early]]], axis=1)
        mail = Mail(self._column[edge], early, counted[by_time], self._alone(at, sent)[by_time], firsts)
        first, none = begin_of(np.bincount(write, minlength=len(agent))), np.zeros(0, dtype=np.int64)
        return _Taken(first, names[what], heard, (none, none, none), there, mail)

    def _alone(self, at: Instants, sent: Ints) -> Bools:
        """For each gradient, whether what was given at the one before has left, and is not added to."""
        gone, before = np.zeros(len(at.time) + 1, dtype=np.bool_), sent == at.before
        gone[at.made()] = True
        before[at.sender[at.version == at.before[at.sender]]] = True
        number = np.arange(len(at.time)) - at.begin[at.agent]
        alone: Bools = np.where(number > 0, np.roll(gone[:-1], 1), before[at.agent])
        return alone

    def _keep(self, at: Instants, passed: Passed, there: Bools, names: Ints) -> Ints:
        """Keep what is on its way, or was published and is there as the last. there: of what passed, what is
        there. Returns the writes that only they still carry.
        """
        edge, what, _ = passed
        last = np.full(len(self._source), -1)
        if not self.rhythm.mail:
            last[edge[there]] = what[there]  # of several the last one stays
        keep = at.end > self.now
        keep[last[last >= 0]] = keep[what[~there]] = True
        many = np.bincount(at.sender[keep], minlength=self.n)
        number = np.cumsum(keep) - 1 - begin_of(many)[at.sender]
        begin, awaited = begin_of(many[self._source]), ~there | (last[edge] == what)
        self._awaited = np.zeros(begin[-1], dtype=np.bool_)
        self._awaited[begin[edge[awaited]] + number[what[awaited]]] = True
        if not self._uniform:
            per_sender = np.split(keep, at.sent[1:-1])
            self._there = [each[kept] for each, kept in zip(self._there, per_sender, strict=True)]
        lone = keep & (at.version < self._count[at.sender])
        name = -1 - self.n - np.cumsum(lone)
        self._old = at.start[keep], at.end[keep], at.version[keep], at.sender[keep], name[keep]
        self._own = -2 - np.arange(self.n)
        return names[lone]
