"""The timetable of algorithms that never wait, settled without a heap; segment by segment in a long run.

An agent that computes gradient after gradient, and gives the same things to the same listeners after each, or
after each h-th, has a calendar of its own (`calendars`): what the others do changes what it mixes, not when.
Which version of whom is there at a gradient is found by sorting all instants; what the agent makes of it is
read off its class (`reading`, `playing`). A segment of time needs of those before only where each agent is,
what was heard last, and what is on its way. Where agents crash, something takes no time, or two things begin
as well as end at the same instants, the order of handlers is the simulator's to say: there is no timetable.
"""

import math
from collections.abc import Sequence

import numpy as np

from offbeat.engines.sim.ahead.calendars import Calendars
from offbeat.engines.sim.ahead.instants import Instants, NoTimetable, apart, as_it_comes, inverse, order_of
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.playing import Players, Taken
from offbeat.engines.sim.ahead.reading import Reading
from offbeat.engines.sim.ahead.rhythm import Rhythm
from offbeat.engines.sim.ahead.timetable import Bools, Floats, Ints, Timetable, begin_of, ranges
from offbeat.world.changes import Cut
from offbeat.world.sending import why_no_timetable
from offbeat.world.world import World

Passed = tuple[Ints, Ints, Floats]  # edges, transmissions, when they are there


class Schedule:
    """The timetables of a run, segment by segment. Raises NoTimetable where agents crash.

    Args:
        found: what all agents do, and what they give one another (`rhythm.readings`)
    """

    def __init__(self, found: tuple[Sequence[Reading], Rhythm], world: World) -> None:
        if why_no_timetable(world):
            raise NoTimetable
        readings, self.rhythm = found
        if self.rhythm.mail and world.sending == "unicast":
            raise NotLinear("what is summed while it waits goes to each receiver by itself")
        self.n, self.now, r = len(readings), -1.0, self.rhythm
        self.players, self.calendars = Players(readings, r), Calendars(r, world)
        self.lossy = world.lossy and not r.mail
        self._cuts = [change for change in world.changes if isinstance(change, Cut) and not r.mail]
        self._receiver, self._source, self._width = r.receiver, r.sender, r.width
        self.queue, self._place = self.calendars.edge_queues()
        self._loss, self._kinds = np.zeros(0), list[tuple[str, float]]()
        self._number = np.zeros(
            len(self.calendars.kinds), dtype=np.int64
        )  # of each kind, as the trace has it
        if self.lossy:
            order = np.lexsort((self._place, self.queue))
            pairs = zip(self._source[order].tolist(), self._receiver[order].tolist(), strict=True)
            self._loss = np.array([self.calendars.senders[j].loss(j, i) for j, i in pairs])
        self._applied, self._count = np.zeros(self.n), np.zeros(self.n, dtype=np.int64)  # the newest write
        self._handed = np.zeros(len(self._receiver), dtype=np.int64)  # the newest version handed over
        # transmissions that are still heard, or on their way: start, end, version, queue, name of the write
        self._old = (np.zeros(0), np.zeros(0), *np.zeros((3, 0), dtype=np.int64))
        # of these, receiver by receiver: when they are there, and whether they will be
        self._old_there, self._old_passes = np.zeros(0), np.zeros(0, dtype=np.bool_)

    def segment(self, until: float, more: bool) -> Timetable:
        """The next one, up to `until`. more: whether another follows. Raises NoTimetable, see above."""
        self.calendars.more, low, done = more, self.now, int(self._count.sum())
        gone = self.calendars.sent.copy()
        at = self._instants(until)
        passed = self._passed(at)
        by_time, left, self.now = np.argsort(at.applied), at.left(), until
        place, number = inverse(by_time), np.arange(len(at.time)) - at.begin[at.agent]
        own = np.where(number > 0, np.roll(place, 1), -2 - at.agent)
        made = at.made()  # the write that each transmission carries
        before = np.where(at.name < -1, at.name, -2 - at.sender)
        name = np.where(made >= 0, np.append(place, -1)[made], before)
        version = at.before[at.agent] + number + 1
        writes = (at.time[by_time], at.began[by_time], at.agent[by_time], version[by_time])
        if self.rhythm.mail:
            taken = self._mail(at, low, passed, by_time, gone)
        else:
            taken = self._registers(at, passed, by_time)
        write, what, when, whom = taken.heard
        self._count = at.before + np.diff(at.begin)
        kept = self._keep(at, passed, taken.there) if more else np.zeros((2, 0), dtype=np.int64)
        oldest, shown = self._count.copy(), at.version - self.rhythm.before
        np.minimum.at(oldest, self.calendars.owner[self._old[3]], self._old[2])
        self._name_kinds(at.queue[left], at.start[left])
        played = self.players.play(*writes[2:], own[by_time], taken, at.sender, shown)
        kind = self._number[self.calendars.kind[at.queue]]
        sent = at.start[left], at.end[left], at.sender[left], shown[left], kind[left], at.queue[left]
        return Timetable(
            self.n, low, until, done, *writes, sent,
            (write, inverse(left)[what], when, whom), played, name, self.calendars.first[at.queue], kept,
            np.maximum(oldest - self.rhythm.before, 0), tuple(self._kinds), self.calendars.bytes,
            self.rhythm.mail, self._share(writes[0], writes[3]),
        )  # fmt: skip

    def _share(self, time: Floats, version: Ints) -> Floats:
        """How much of the learning rate there is at each write."""
        if (schedule := self.rhythm.schedule) is None:
            return np.ones(len(time))
        at, usual = (version if schedule.by_steps else time), schedule.of_delay(0, self.n)
        return np.array([schedule.at(float(t)) * usual for t in at.tolist()], dtype=np.float64)

    def carried(self, sent: Ints) -> dict[tuple[int, int], int]:
        """Bytes by link, sender and receiver, where each queue has sent so much."""
        links: dict[tuple[int, int], int] = {}
        edges = zip(self._source.tolist(), self._receiver.tolist(), sent[self.queue].tolist(), strict=True)
        for i, j, size in edges:
            if size:
                links[i, j] = links.get((i, j), 0) + size
        return links

    def _name_kinds(self, queue: Ints, start: Floats) -> None:
        """Kinds of messages are numbered as the first of each leaves. Of transmissions, as they leave."""
        known, names = {name for name, _ in self._kinds}, self.calendars.kinds
        codes, firsts = np.unique(self.calendars.kind[queue], return_index=True)
        for at, code in sorted(zip(firsts.tolist(), codes.tolist(), strict=True)):
            if names[code] not in known:
                self._number[code] = len(self._kinds)
                self._kinds.append((names[code], float(start[at])))

    def _instants(self, until: float) -> Instants:
        """What happens up to then."""
        calendars, count = self.calendars, self._count.tolist()
        applied = [calendars.gradients(i, until) for i in range(self.n)]
        sending = [
            calendars.transmissions(i, each, k, until)
            for i, (each, k) in enumerate(zip(applied, count, strict=True))
        ]
        counts = np.array([len(each) for each in applied])
        begin, time = begin_of(counts), np.concatenate(applied)
        agent, began, some = np.repeat(np.arange(self.n), counts), np.roll(time, 1), counts > 0
        began[begin[:-1][some]] = self._applied[some]
        self._applied[some] = time[begin[1:][some] - 1]
        *new, there = [np.concatenate([each[k] for each in sending]) for k in range(5)]
        np.maximum.at(calendars.sent, new[3], new[2])
        there, passes = np.concatenate([self._old_there, there]), self._passes(new[3])
        columns = [np.concatenate(both) for both in zip(self._old[:4], new, strict=True)]
        columns += [np.concatenate([self._old[4], np.full(len(new[0]), -1)])]
        columns += [begin_of(calendars.many[columns[3]])[:-1]]
        if (np.diff(columns[3]) < 0).any():
            order = np.argsort(columns[3], kind="stable")
            columns = [column[order] for column in columns]
        start, end, version, queue, name, first = columns
        if not (time > began).all() or not (end > start).all():
            raise NoTimetable
        if len(there):
            which, at = ranges(first, first + calendars.many[queue])
            if not (there[at] > start[which]).all():
                raise NoTimetable
        rank = inverse(order_of(end, start, time, began))
        sent = begin_of(np.bincount(queue, minlength=len(calendars.many)))
        return Instants(
            begin, self._count, agent, time, began, rank[len(end) :], sent, queue, calendars.owner[queue],
            start, end, version, name, rank[: len(end)], first, there, passes,
        )  # fmt: skip

    def _passes(self, queue: Ints) -> Bools:
        """Whether what is sent comes through, receiver by receiver: the old ones; these, as they leave."""
        begin = begin_of(self.calendars.many)
        _, place = ranges(begin[queue], begin[queue + 1])
        if self.lossy:
            sender = self.calendars.owner[queue]
            counts = np.bincount(sender, self.calendars.many[queue], self.n).astype(np.int64)
            now = self.calendars.losses(counts.tolist()) >= self._loss[place]
        elif len(self._old_passes):
            now = np.ones(len(place), dtype=np.bool_)
        else:
            return self._old_passes
        return np.concatenate([self._old_passes, now])

    def _passed(self, at: Instants) -> Passed:
        """What passes the edges, edge by edge in order of time: edge, transmission, when it is there."""
        edge, what = ranges(at.sent[self.queue], at.sent[self.queue + 1])
        place = at.first[what] + self._place[edge] if len(at.there) or len(at.passes) else what
        when = at.there[place] if len(at.there) else at.end[what]
        if not len(at.passes) and not self._cuts:
            return edge, what, when
        passes = at.passes[place] if len(at.passes) else np.ones(len(edge), dtype=np.bool_)
        for cut in self._cuts:
            parts = np.isin(self._source, [*cut.group]) != np.isin(self._receiver, [*cut.group])
            passes &= ~(
                parts[edge] & (when >= cut.at) & (when < (math.inf if cut.until is None else cut.until))
            )
        return edge[passes], what[passes], when[passes]

    def _registers(self, at: Instants, passed: Passed, by_time: Ints) -> Taken:
        """Where something is published: at every gradient the newest of each neighbour."""
        into, what, edge, when, fresh = self._newest(at, *passed)
        agent, write = at.agent[by_time], inverse(by_time)[into]
        first = begin_of(self._width[agent])
        terms = np.full(first[-1], -1)
        terms[first[write] + self.rhythm.input[edge]] = what
        fresh = fresh[apart(write[fresh], when[fresh], at.start[what[fresh]])]
        told = write[fresh], self.rhythm.input[edge[fresh]], what[fresh]
        heard = told[0], what[fresh], when[fresh], agent[told[0]]
        return Taken(first, terms, heard, told, passed[2] <= self.now)

    def _newest(
        self, at: Instants, edge: Ints, what: Ints, when: Floats
    ) -> tuple[Ints, Ints, Ints, Floats, Ints]:
        """For every gradient, the newest transmission that it has heard over each edge.

        Returns gradients, transmissions, edges, when it came; and which rows are newer than what the gradient
        before had.
        """
        by_time = np.argsort(at.applied)
        count, place = len(at.time) + 1, inverse(by_time)
        times = at.time[by_time]  # how many gradients do not hear it:
        before = np.searchsorted(times, when) if len(at.there) else np.searchsorted(times, at.end)[what]
        asks, into = ranges(at.begin[self._receiver], at.begin[self._receiver + 1])
        newest = np.searchsorted(edge * count + before, asks * count + place[into], side="right") - 1
        there = (newest >= 0) & (edge[newest] == asks) if len(edge) else np.zeros(len(asks), dtype=np.bool_)
        asks, into, what, when = asks[there], into[there], what[newest[there]], when[newest[there]]
        version = at.version[what]
        fresh = version != self._handed[asks]
        fresh[1:] &= (what[1:] != what[:-1]) | (asks[1:] != asks[:-1])
        self._handed[asks] = version  # of several the last one stays
        return into, what, asks, when, np.flatnonzero(fresh)

    def _mail(self, at: Instants, low: float, passed: Passed, by_time: Ints, gone: Ints) -> Taken:
        """Where mail comes: at a gradient all that has come since the one before. gone: of each queue the
        newest version that had left before this segment.
        """
        edge, what, when = passed
        order = as_it_comes(when, at.start[what], what, self._place[edge])
        edge, what, when = edge[order], what[order], when[order]
        place, receiver = inverse(by_time), self._receiver[edge]
        before, count = np.searchsorted(at.time[by_time], when), len(at.time) + 1  # writes until it is there
        into = np.searchsorted(at.agent * count + place, receiver * count + before)
        taken = into < at.begin[receiver + 1]
        there = np.zeros(len(order), dtype=np.bool_)
        there[order] = taken | np.isinf(when)
        now = np.flatnonzero((when > low) & (when <= self.now))
        heard = before[now], what[now], when[now], receiver[now]
        edge, what, write = edge[taken], what[taken], place[into[taken]]
        rows = np.argsort(write, kind="stable")
        told = write[rows], self.rhythm.input[edge[rows]], what[rows]
        none = np.zeros(len(at.time) + 1, dtype=np.int64)
        return Taken(none, none[:0], heard, told, there, self._alone(at, gone)[by_time])

    def _alone(self, at: Instants, gone: Ints) -> Bools:
        """For each gradient, whether what was given last before it has left, and is not added to."""
        left, every = np.zeros(len(at.time) + 1, dtype=np.bool_), self.rhythm.every
        left[at.made()] = True
        newest, old = np.zeros(self.n, dtype=np.int64), at.version <= at.before[at.sender]
        newest[self.calendars.owner] = gone
        np.maximum.at(newest, at.sender[old], at.version[old])
        place = np.arange(len(at.time))
        number = place - at.begin[at.agent] - every  # of the giving before, in this segment
        alone: Bools = np.where(
            number >= 0, left[place - every], newest[at.agent] == at.before[at.agent] + number + 1
        )
        return alone

    def _keep(self, at: Instants, passed: Passed, there: Bools) -> Ints:
        """Keep what is on its way, or was published and is there as the last. there: of what passed, what is
        there. Returns those whose content is not their agent's newest, and how many vectors that is.
        """
        edge, what, _ = passed
        last = np.full(len(self._source), -1)
        if not self.rhythm.mail:
            last[edge[there]] = what[there]  # of several the last one stays
        keep = at.end > self.now
        keep[last[last >= 0]] = keep[what[~there]] = True
        many = self.calendars.many[at.queue[keep]]
        number, begin, awaited = np.cumsum(keep) - 1, begin_of(many), ~there | (last[edge] == what)
        self._old_passes = np.zeros(begin[-1], dtype=np.bool_)
        self._old_passes[begin[number[what[awaited]]] + self._place[edge[awaited]]] = True
        if len(at.there):
            self._old_there = at.there[ranges(at.first[keep], at.first[keep] + many)[1]]
        lone = keep & (at.version < self._count[at.sender])
        names = np.where(lone, -1 - self.n - np.cumsum(lone), -1)
        self._old = at.start[keep], at.end[keep], at.version[keep], at.queue[keep], names[keep]
        return np.stack([np.flatnonzero(lone), self.calendars.fields[at.queue[lone]]])
