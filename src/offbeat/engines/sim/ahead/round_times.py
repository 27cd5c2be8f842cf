"""When what happens in rounds with a barrier among neighbours: a recurrence from round to round.

Agent i's round k begins at B_i^k, its gradient is there at G_i^k, and its letter, given at one of the two, is
with all who listen at E_i^k, when its link is free again. The round ends when gradient and letters are there:

    G_i^k = B_i^k + a compute delay,   E_i^k = max(B_i^k or G_i^k, E_i^{k-1}) + a communication delay
    B_i^{k+1} = max(G_i^k, max_j E_j^k)

Who gives neighbours different letters sends one after the other; by unicast each is a transmission to each
who gets it. Of what happens at one instant
what a transmission brings to several is ordered here, as it names them, and what follows from it at once; if
anything else coincides there is no timetable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offbeat.core.system.streams import BufferedStream
from offbeat.engines.events import EVENT, TRANSMISSION, GradientDone, MailReceived, Started, fill
from offbeat.engines.sim.ahead.instants import NoTimetable, inverse
from offbeat.engines.sim.ahead.timetable import Floats, Ints, table

LAST = 1 << 40  # of what happens at one instant, what comes after all others


@dataclass(frozen=True, eq=False)
class Letters:
    """What is sent in a round, by all: of each transmission who sends it, and which of its sender's it is; of
    each receipt the receiver, the transmission, and the receiver's place in that; those of one receiver lie
    side by side, from `begin` on, [n].
    """

    sender: Ints
    number: Ints
    receiver: Ints
    what: Ints
    place: Ints
    begin: Ints

    @staticmethod
    def of(given: Sequence[Sequence[tuple[int, ...]]], unicast: bool) -> "Letters":
        """Those of agents of whom each gives these its letters, one letter after the other."""
        if unicast:
            given = [[(j,) for to in each for j in to] for each in given]
        sent = [(i, k, to) for i, each in enumerate(given) for k, to in enumerate(each)]
        receipts = sorted((j, m, place) for m, (_, _, to) in enumerate(sent) for place, j in enumerate(to))
        receiver, what, place = np.array(receipts, dtype=np.int64).T.copy()
        sender, number = (np.array([each[k] for each in sent], dtype=np.int64) for k in range(2))
        begin = np.searchsorted(receiver, np.arange(len(given)))
        return Letters(sender, number, receiver, what, place, begin)


@dataclass(frozen=True, eq=False)
class Played:
    """A round of all. [n]: when it began, gradients were there, letters were given, and it ended; rank: the
    order of who began it at one instant; version: that of their letters, the new one already if it is made at
    a gradient that ends the round. [transmissions]: when each left, and was there.
    """

    number: int
    began: Floats
    there: Floats
    given: Floats
    start: Floats
    end: Floats
    done: Floats
    rank: Ints
    version: Ints


class RoundTimes:
    """Round after round of all agents.

    Args:
        begins: whether letters are given as rounds begin, or when gradients are there; fresh: what is given
            then is made then
        size: bytes of a transmission, and of a model, whose transmission is as long as the number drawn
        compute, send: the numbers that are drawn, of each agent
    """

    def __init__(
        self, letters: Letters, begins: bool, fresh: bool, size: tuple[int, int], bandwidth: float,
        compute: Sequence[BufferedStream], send: Sequence[BufferedStream],
    ) -> None:  # fmt: skip
        self.letters, self._begins, self._fresh = letters, begins, fresh
        self._size, self._bandwidth, self._compute, self._send = size, bandwidth, compute, send
        n = len(compute)
        self.began, self._free, self.number, self.rank = np.zeros(n), np.zeros(n), 0, np.arange(n)
        last = int(letters.number.max())
        self._turns = [np.flatnonzero(letters.number == k) for k in range(last + 1)]

    def next(self) -> Played:
        """The next round of all."""
        letters, began, rank = self.letters, self.began, self.rank
        there = began + np.array([draw() for draw in self._compute])
        given = began if self._begins else there
        start, end = self._sent(given)
        arrived = end[letters.what]
        done = np.maximum(there, np.maximum.reduceat(arrived, letters.begin))
        self.rank = np.maximum.reduceat(
            np.where(arrived == done[letters.receiver], letters.place, 0), letters.begin
        )
        version = self.number + ((given == done) & self._fresh)
        made = Played(self.number, began, there, given, start, end, done, rank, version)
        self.began, self.number = done, self.number + 1
        return made

    def _sent(self, given: Floats) -> tuple[Floats, Floats]:
        (bytes_, whole), sender = self._size, self.letters.sender
        start, end = np.empty(len(sender)), np.empty(len(sender))
        for turn in self._turns:
            who = sender[turn]
            drawn = np.array([self._send[i]() for i in who.tolist()])
            start[turn] = begin = np.maximum(given[who], self._free[who])
            end[turn] = self._free[who] = begin + drawn * bytes_ / whole / self._bandwidth
        return start, end


def events(letters: Letters, played: Sequence[Played], since: float, until: float) -> np.ndarray[Any, Any]:
    """The rows of what agents are told after `since` and up to `until`. Raises NoTimetable."""
    n, mail, gradients = len(letters.begin), list[Any](), list[Any]()
    instants = list[Floats]()
    for each in played:
        (at,) = np.nonzero(_within(each.end[letters.what], since, until))
        what = letters.what[at]
        columns = each.end[what], letters.receiver[at], letters.sender[what], each.start[what]
        mail.append((*columns, each.version[letters.sender[what]], letters.place[at]))
        (i,) = np.nonzero(_within(each.there, since, until))
        gradients.append((each.there[i], i, each.began[i], np.full(len(i), each.number)))
        instants += [each.there[i], each.end[_within(each.end, since, until)]]
    together = np.sort(np.concatenate([np.zeros(1), *instants]))
    if (np.diff(together) == 0).any():
        raise NoTimetable
    came, there = _columns(mail, 6), _columns(gradients, 4)
    begin, time = n if since < 0 else 0, np.concatenate([came[0], there[0]])
    place = begin + inverse(np.lexsort((np.append(came[5], 0 * there[0]), time)))
    rows = np.zeros(begin + len(time), dtype=EVENT)
    rows["source"] = rows["kind"] = rows["version"] = rows["start"] = rows["end"] = -1
    fill(rows, slice(begin), Started, time=0.0, agent=np.arange(begin))
    end, agent, source, start, version, _ = came
    heard = {"time": end, "agent": agent, "source": source, "version": version, "start": start, "end": end}
    fill(rows, place[: len(end)], MailReceived, kind=0, **heard)
    end, agent, start, step = there
    done = {"time": end, "agent": agent, "step": step, "start": start, "end": end}
    fill(rows, place[len(came[0]) :], GradientDone, **done)
    return rows


def left(
    letters: Letters, played: Sequence[Played], bytes_: int, since: float, until: float
) -> tuple[np.ndarray[Any, Any], Ints]:
    """The rows of the transmissions that left after `since` and up to `until`; and which of a round each is.

    At the instant at which a link is free again first those who were waiting for what it brought send theirs.
    """
    found = list[Any]()
    for each in played:
        (what,) = np.nonzero(_within(each.start, since, until))
        sender = letters.sender[what]
        at_once = each.start[what] == each.given[sender]
        rank = np.where(at_once & (letters.number[what] == 0), each.rank[sender], LAST)
        found.append((each.start[what], each.end[what], sender, what, rank))
    start, end, agent, what, rank = _columns(found, 5)
    order = np.lexsort((rank, start))
    columns = {"start": start[order], "end": end[order], "agent": agent[order]}
    rows = table(TRANSMISSION, **columns)
    rows["bytes"] = bytes_
    return rows, what[order].astype(np.int64)


def _within(times: Floats, since: float, until: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return (times > since) & (times <= until)


def _columns(rows: Sequence[Sequence[np.ndarray[Any, Any]]], width: int) -> list[np.ndarray[Any, Any]]:
    return [np.concatenate([np.zeros(0), *[row[c] for row in rows]]) for c in range(width)]
