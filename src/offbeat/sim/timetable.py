"""Who writes when and mixes which versions, for algorithms that never wait: settled at once, without a heap.

An agent that computes gradient after gradient, and after each gives its model to all its listeners, has a calendar of
its own: what the others do changes what it mixes, not when. So each agent's gradients and transmissions follow from its
own random streams, and which version of whom is mixed is found by sorting all instants once. The result is the trace
that `Simulator` records for such an algorithm, row by row; where two events coincide, or agents crash, the order of
handlers matters and there is no timetable.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from offbeat.agent import View
from offbeat.streams import Purpose, Supply, stream, uniform
from offbeat.trace import EVENT, EVENT_CODE, MIXED, TRANSMISSION, WRITE, Trace
from offbeat.world import World

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Timetable:
    """A run without its values. Writes are in the order of time; write w is version `version[w]` of agent `agent[w]`.

    time, began:  when the gradient was applied, and when it was begun: [W]
    first, terms: the models mixed, `terms[first[w] : first[w + 1]]`: writes, or -1 for what all start from, in the
                  order of the agent's row of W; whoever has not been heard is replaced by the agent itself
    own:          the agent's write before: [W]
    sent:         transmissions by when they leave: start, end, agent, version
    heard:        what was handed over, in that order: write, transmission
    mixed:        write, neighbour, version
    """

    n: int
    time: Floats
    began: Floats
    agent: Ints
    version: Ints
    first: Ints
    terms: Ints
    own: Ints
    sent: tuple[Floats, Floats, Ints, Ints]
    heard: tuple[Ints, Ints]
    mixed: tuple[Ints, Ints, Ints]

    def steps(self, until: float) -> Ints:
        """Gradients applied by each agent by then: [n]."""
        done = np.searchsorted(self.time, until, side="right")
        return np.bincount(self.agent[:done], minlength=self.n)

    def messages(self, until: float) -> int:
        """Transmissions begun by then."""
        return int(np.searchsorted(self.sent[0], until, side="right"))

    def trace(self, until: float, kind: str, size: int) -> Trace:
        """What `Simulator` records until then. kind: of the message; size: its bytes."""
        done, sent = int(np.searchsorted(self.time, until, side="right")), self.messages(until)
        writes = np.zeros(done, dtype=WRITE)
        writes["time"], writes["agent"], writes["step"] = self.time[:done], self.agent[:done], self.version[:done]
        transmissions = np.zeros(sent, dtype=TRANSMISSION)
        for name, column in zip(("start", "end", "agent"), self.sent, strict=False):
            transmissions[name] = column[:sent]
        transmissions["bytes"] = size
        known = int(np.searchsorted(self.mixed[0], done))
        mixed = np.zeros(known, dtype=MIXED)
        for name, column in zip(("write", "source", "version"), self.mixed, strict=True):
            mixed[name] = column[:known]
        return Trace(self.n, (kind,) * (sent > 0), self._events(done), writes, mixed, transmissions)

    def _events(self, done: int) -> np.ndarray[Any, Any]:
        """Everybody starts; then what is handed over for a gradient comes just before it."""
        into, what = self.heard
        into = into[: np.searchsorted(into, done)]
        what = what[: len(into)]
        start, end, source, version = self.sent
        events = np.zeros(self.n + done + len(into), dtype=EVENT)
        events["source"] = events["kind"] = events["version"] = events["start"] = events["end"] = -1
        events["agent"][: self.n], events["event"][: self.n] = np.arange(self.n), EVENT_CODE["start"]
        applied = self.n + np.arange(done) + np.searchsorted(into, np.arange(done), side="right")
        events["time"][applied], events["agent"][applied] = self.time[:done], self.agent[:done]
        events["event"][applied], events["version"][applied] = EVENT_CODE["gradient"], self.version[:done] - 1
        events["start"][applied], events["end"][applied] = self.began[:done], self.time[:done]
        handed = self.n + np.arange(len(into)) + into
        events["time"][handed], events["agent"][handed] = self.time[into], self.agent[into]
        events["event"][handed], events["kind"][handed] = EVENT_CODE["register"], 0
        events["source"][handed], events["version"][handed] = source[what], version[what]
        events["start"][handed], events["end"][handed] = start[what], end[what]
        return events


def timetable(views: Sequence[View], world: World, until: float, model_bytes: int) -> Timetable | None:
    """The timetable of a run of these agents that ends at `until`; None where only the simulator can tell."""
    if world.crashes:
        return None
    n = len(views)
    applied = [_gradients(world, i, until) for i in range(n)]
    sent = [_transmissions(world, i, applied[i], model_bytes) if views[i].listeners else _NOTHING for i in range(n)]
    time = np.concatenate(applied)
    start, end, version = (np.concatenate([each[k] for each in sent]) for k in range(3))
    instants = np.concatenate([time, end])
    order = np.argsort(instants, kind="stable")
    if (np.diff(instants[order]) == 0).any() or not (time > 0).all() or not (end > start).all():
        return None
    rank = _inverse(order)
    count, many = np.array([len(each) for each in applied]), np.array([len(each[0]) for each in sent])
    agent, sender = np.repeat(np.arange(n), count), np.repeat(np.arange(n), many)
    begin, by_time, by_start = begin_of(count), np.argsort(time, kind="stable"), np.argsort(start, kind="stable")
    number, place = np.arange(len(time)) - begin[agent] + 1, _inverse(by_time)
    before = np.where(number > 1, np.roll(place, 1), -1)
    heard = _heard(views, world, rank[: len(time)], rank[len(time) :], begin, begin_of(many))
    made = place[begin[sender[heard.what]] + version[heard.what] - 1]  # the write that each of them is
    first, terms = _terms(views, heard, agent, before, place, made)
    fresh = heard.fresh[np.lexsort((rank[len(time) :][heard.what[heard.fresh]], place[heard.into[heard.fresh]]))]
    known = np.lexsort((sender[heard.what], place[heard.into]))
    return Timetable(
        n, time[by_time], np.where(number > 1, np.roll(time, 1), 0.0)[by_time], agent[by_time], number[by_time],
        first, terms, before[by_time], (start[by_start], end[by_start], sender[by_start], version[by_start]),
        (place[heard.into[fresh]], _inverse(by_start)[heard.what[fresh]]),
        (place[heard.into[known]], sender[heard.what[known]], version[heard.what[known]]),
    )  # fmt: skip


_NOTHING = (np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))


def _gradients(world: World, i: int, until: float) -> Floats:
    """When agent i applies its gradients, up to `until`: sums from left to right, as a clock makes them."""
    draw = Supply(partial(world.compute_delay(i).draw, stream(world.seed, Purpose.COMPUTE, i)))
    times, now = [], 0.0 + draw()
    while now <= until:
        times.append(now)
        now = now + draw()
    return np.array(times, dtype=np.float64)


def _transmissions(world: World, i: int, applied: Floats, size: int) -> tuple[Floats, Floats, Ints]:
    """Start, end and version of what agent i sends: one at a time, the newest that there is."""
    draw = Supply(partial(world.communication_delay(i).draw, stream(world.seed, Purpose.COMMUNICATION, i)))
    published = applied.tolist()
    starts, ends, versions = [], [], []
    k, free = 0, -1.0
    while k < len(published):
        if published[k] >= free:
            start = published[k]
        else:
            start = free
            k = bisect_right(published, free) - 1
        free = start + draw() * size / size
        starts.append(start)
        ends.append(free)
        k += 1
        versions.append(k)
    return np.array(starts), np.array(ends), np.array(versions, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Heard:
    """For every gradient and neighbour that has been heard by then: the newest transmission of it.

    into: the gradient, what: the transmission, both counted agent by agent; column: the neighbour's in the agent's row
    of W; fresh: those that are newer than what the gradient before had
    """

    into: Ints
    what: Ints
    column: Ints
    fresh: Ints


def _heard(
    views: Sequence[View], world: World, applied: Ints, arrived: Ints, begin: Ints, sent: Ints
) -> _Heard:  # fmt: skip
    """applied, arrived: the ranks of gradients and arrivals among all instants; begin, sent: where an agent's start."""
    n, instants = len(views), len(applied) + len(arrived)
    edges = [(i, j, column) for i in range(n) for column, j in enumerate(views[i].w) if i in views[j].listeners]
    receiver, source, column = np.array(edges, dtype=np.int64).reshape(-1, 3).T
    edge, what = ranges(sent[source], sent[source + 1])
    if world.loss:
        place = np.array([views[j].listeners.index(i) for i, j, _ in edges], dtype=np.int64)
        arrives = ~_missed(world, views, sent, source[edge], what, place[edge])
        edge, what = edge[arrives], what[arrives]
    asks, into = ranges(begin[receiver], begin[receiver + 1])
    newest = np.searchsorted(edge * instants + arrived[what], asks * instants + applied[into]) - 1
    there = (newest >= 0) & (edge[newest] == asks) if len(edge) else np.zeros(len(asks), dtype=bool)
    asks, into, what = asks[there], into[there], what[newest[there]]
    fresh = np.ones(len(what), dtype=bool)
    fresh[1:] = (what[1:] != what[:-1]) | (asks[1:] != asks[:-1])
    return _Heard(into, what, column[asks], np.flatnonzero(fresh))


def _missed(
    world: World, views: Sequence[View], sent: Ints, source: Ints, what: Ints, place: Ints
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether these transmissions are missed by the sender's listeners at these places in its list."""
    width, count = np.array([len(view.listeners) for view in views]), np.diff(sent)
    supplies = [Supply(partial(uniform, stream(world.seed, Purpose.LOSS, j))) for j in range(len(views))]
    drawn = [np.array([supply() for _ in range(many)]) for supply, many in zip(supplies, width * count, strict=True)]
    at = begin_of(width * count)[source] + (what - sent[source]) * width[source] + place
    missed: np.ndarray[Any, np.dtype[np.bool_]] = np.concatenate(drawn)[at] < world.loss
    return missed


def _terms(
    views: Sequence[View], heard: _Heard, agent: Ints, before: Ints, place: Ints, made: Ints
) -> tuple[Ints, Ints]:  # fmt: skip
    """What every write mixes: its own agent's model, but for those that it has heard."""
    width = np.array([len(view.w) for view in views])
    many = np.empty(len(agent), dtype=np.int64)
    many[place] = width[agent]
    first = begin_of(many)
    terms = np.empty(first[-1], dtype=np.int64)
    write, position = ranges(first[place], first[place] + width[agent])
    terms[position] = before[write]
    terms[first[place[heard.into]] + heard.column] = made
    return first, terms


def ranges(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """(k, low[k]), (k, low[k] + 1), ..., (k, high[k] - 1) for every k in turn."""
    count = high - low
    which = np.repeat(np.arange(len(count)), count)
    return which, np.arange(len(which)) - begin_of(count)[which] + low[which]


def begin_of(count: Ints) -> Ints:
    """Where each of consecutive runs of these lengths begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)


def _inverse(order: Ints) -> Ints:
    """Of a permutation."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place
