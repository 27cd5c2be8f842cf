"""Rings of sums without a heap: what happens when in `offbeat.core.ring` is a recurrence.

Hop k of agent i leaves when its piece has come, its own vector is there, and its link is free; it is with the
agent on the right when it ends. So the times of all agents' hop k follow from those of hop k - 1:

    start_i^k = max(end_{i-1}^{k-1}, G_i, end_i^{k-1}),   end_i^k = start_i^k + the length of its piece

where G_i is when the own gradient is there. Pieces are summed in the order of the hops, as agents sum them.
Handlers are called at a gradient and at a mean, two for each agent instead of 2 n. In which order things
happen at one instant is the simulator's to say: where two events coincide there is no timetable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offbeat.core.agent import Compute, Effect
from offbeat.core.forms import Piece, zero
from offbeat.core.ring import Part, Ring
from offbeat.core.rules import Rule
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream, stream
from offbeat.core.vector import Parts, Scope, Vector
from offbeat.engines.events import (
    EVENT,
    MIXED,
    TRANSMISSION,
    WRITE,
    GradientDone,
    MailReceived,
    Started,
    fill,
)
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.recorded import Recorded, bandwidth
from offbeat.engines.sim.ahead.timetable import Floats, Ints
from offbeat.engines.sim.executors import stacked, widest
from offbeat.engines.trace import Trace, TraceSummary
from offbeat.tasks.task import Task
from offbeat.world.topology import Topology
from offbeat.world.world import World


@dataclass(frozen=True, eq=False)
class Averaging:
    """One averaging: when gradients began, were there, links were free, [n]; the hops, [2 (n - 1), n]; when
    means were there, and the models then.
    """

    number: int
    began: Floats
    there: Floats
    free: Floats
    start: Floats
    end: Floats
    done: Floats
    models: list[Vector]


class RingRun:
    """A run of agents that average at every gradient, as an engine. Raises NoTimetable for others."""

    def __init__(
        self,
        new_agent: Callable[[], Ring],
        new_rule: Callable[[], Rule],
        topology: Topology,
        task: Task,
        world: World,
        keep_trace: bool,
    ) -> None:
        n, seed, self._bandwidth = topology.n, world.seed, bandwidth(world, topology.n)
        self.n, self.task, self._initial, self.now = n, task, task.initial(), 0.0
        self._model_bytes = sum([part.nbytes for part in self._initial])
        # of what agent i sends in hop k: bytes, [2 (n - 1), n]
        piece = (np.arange(n) - np.arange(2 * (n - 1))[:, None]) % n
        self._bytes = np.array([self._piece_bytes(Piece(n, c)) for c in range(n)])[piece]
        if n == 1 or not self._bytes.all():
            raise NoTimetable
        compute, send = ([of(i) for i in range(n)] for of in (world.compute_delay, world.communication_delay))
        if any(delay.values for delay in send):  # measured ones: how many are drawn at a time may matter
            raise NoTimetable
        self._compute = [
            BufferedStream(each.draw, seed, Purpose.COMPUTE, i) for i, each in enumerate(compute)
        ]
        self._send = [
            partial(each.draw, stream(seed, Purpose.COMMUNICATION, i)) for i, each in enumerate(send)
        ]
        self._samples = [BufferedStream(partial(task.draw, i), seed, Purpose.DATA, i) for i in range(n)]
        self._given: dict[int, Vector] = {}

        def joined(i: int) -> Ring:
            agent, view = new_agent(), topology.view(i, frozenset(range(n)))
            rng = python_stream(seed, Purpose.ALGORITHM, i)
            agent.join(i, n, Vector(self._initial), view, new_rule(), rng)
            agent.check()
            agent.average = partial(self._given.__setitem__, i)  # type: ignore[method-assign]
            agent.start()
            return agent

        with Scope():
            trial, self.agents = joined(0), [joined(i) for i in range(n)]
            self._at = [self._asked(agent.drain()) for agent in (trial, *self.agents)][1:]
            model = trial.model
            trial.on_gradient(zero(model))
            if trial.effects or trial.model is not model or not self._given:
                raise NoTimetable  # it makes steps between two averagings
        # before the averagings that are open: not recorded to their end
        self._models = [agent.model for agent in self.agents]
        self._began, self._free = np.zeros(n), np.zeros(n)
        self._there = self._began + self._drawn(self._compute)
        self._open, self._number = list[Averaging](), 0
        self._steps, self._messages, self._sent = np.zeros(n, dtype=np.int64), 0, np.zeros(n, dtype=np.int64)
        self._since, self._recorded = -1.0, Recorded(n, keep_trace)

    def _piece_bytes(self, piece: Piece) -> int:
        return sum([part.nbytes for part in piece(self._initial)])

    @staticmethod
    def _drawn(streams: Sequence[BufferedStream]) -> Floats:
        return np.array([stream() for stream in streams])

    @staticmethod
    def _asked(effects: list[Effect]) -> Vector:
        """Where the next gradient is taken. Raises NoTimetable if something else is asked for."""
        if [*map(type, effects)] != [Compute]:
            raise NoTimetable
        return effects[0].x  # type: ignore[union-attr]

    # -- averaging after averaging -----------------------------------------------------------------

    def start(self) -> None:
        """The agents have started."""

    def run(self, until: float) -> None:
        """All up to that time. Raises NoTimetable where two events coincide."""
        while (self._there <= until).any():
            self._average()
        self.now = until
        self._record(until)

    def _average(self) -> None:
        n, there, agents = self.n, self._there, self.agents
        self._given.clear()
        with Scope():
            for agent, g, now in zip(agents, self._gradients(), there.tolist(), strict=True):
                agent.now = now
                agent.on_gradient(g)
        models = self._open[-1].models if self._open else self._models
        changed = any(agent.model is not x for agent, x in zip(agents, models, strict=True))
        if changed or len(self._given) < n or any(agent.effects for agent in agents):
            raise NoTimetable
        sums = _sums([self._given[i].parts for i in range(n)])
        start, end = self._hops(there)
        done = np.maximum(np.roll(end[-1], 1), there)
        with Scope():
            for agent, now in zip(agents, done.tolist(), strict=True):
                agent.now = now
                agent.averaged(Vector(sums) / n)
        self._at = [self._asked(agent.drain()) for agent in agents]
        made = [agent.model for agent in agents]
        self._open.append(Averaging(self._number, self._began, there, self._free, start, end, done, made))
        self._number, self._began, self._free = self._number + 1, done, end[-1]
        self._there = done + self._drawn(self._compute)

    def _gradients(self) -> list[Vector]:
        found, wide = list[Vector](), widest(self._initial, self.n)
        for at in range(0, self.n, wide):
            some = range(at, min(at + wide, self.n))
            samples = [self._samples[i]() for i in some]
            made = self.task.gradients(some, samples, stacked(self._at[i].parts for i in some))
            found += [Vector(tuple([part[row] for part in made])) for row in range(len(some))]
        return found

    def _hops(self, there: Floats) -> tuple[Floats, Floats]:
        """When each agent's hops start and end: [2 (n - 1), n]."""
        hops = len(self._bytes)
        drawn = np.array([draw(hops) for draw in self._send]).T
        work = drawn * self._bytes / self._model_bytes / self._bandwidth
        start, end = np.empty_like(work), np.empty_like(work)
        come, free, left = there, self._free, np.arange(-1, self.n - 1)
        for k in range(hops):
            np.maximum(come, free, out=start[k])
            np.add(start[k], work[k], out=end[k])
            free = end[k]
            come = np.maximum(free.take(left), there)
        return start, end

    # -- as an engine ------------------------------------------------------------------------------

    @property
    def living(self) -> range:
        """All agents: none crashes."""
        return range(self.n)

    def everybody(self) -> Parts:
        """The agents' models, [n, P]."""
        models = [*self._models]
        for each in self._open:
            for i in np.flatnonzero(each.done <= self.now).tolist():
                models[i] = each.models[i]
        return stacked(x.parts for x in models)

    stacked = everybody

    def stalled(self) -> None:
        """Never: every gradient is followed by another."""

    @property
    def steps(self) -> Ints:
        """How many gradients each agent has applied."""
        return self._steps

    def counts(self) -> tuple[int, int, int]:
        return int(self._steps.sum()), self._messages, int(self._sent.sum())

    def carried(self, sent: np.ndarray) -> dict[tuple[int, int], int]:
        """Bytes by link: all that an agent has `sent` went to the right."""
        return {(i, (i + 1) % self.n): size for i, size in enumerate(sent.tolist()) if size}

    def traced(self) -> Trace | TraceSummary:
        return self._recorded.traced()

    def _record(self, until: float) -> None:
        """What happens since the last time and up to this one."""
        sent, mixed = self._left(until), np.empty(0, MIXED)
        self._messages += len(sent)
        self._sent += np.bincount(sent["agent"], sent["bytes"], self.n).astype(np.int64)
        kinds = (Part.__name__,) * (self._messages > 0)
        part = Trace(self.n, kinds, self._events(until), self._written(until), mixed, sent)
        self._steps += np.bincount(part.writes["agent"], minlength=self.n)
        self._since = until
        self._recorded.add(part)
        self._recorded.forget(self._steps)  # no model of another is mixed
        while self._open and self._open[0].done.max() <= until:
            self._models = self._open.pop(0).models

    def _between(self, times: Floats, until: float) -> tuple[Ints, ...]:
        return np.nonzero((times > self._since) & (times <= until))

    def _events(self, until: float) -> np.ndarray:
        mail, gradients = [], []
        for each in self._open:
            k, i = self._between(each.end, until)
            columns = each.end[k, i], (i + 1) % self.n, i, np.full(len(i), each.number), each.start[k, i]
            mail.append(columns)
            (i,) = self._between(each.there, until)
            gradients.append((each.there[i], i, np.full(len(i), each.number), each.began[i]))
        begin = self.n if self._since < 0 else 0
        came, there = (_joined(each, width) for each, width in ((mail, 5), (gradients, 4)))
        time = np.concatenate([came[0], there[0]])
        place = np.empty(len(time), dtype=np.int64)
        order = np.argsort(time)
        place[order] = begin + np.arange(len(time))
        if len(time) and ((np.diff(time[order]) == 0).any() or time[order[0]] <= 0):
            raise NoTimetable
        events = np.zeros(begin + len(time), dtype=EVENT)
        events["source"] = events["kind"] = events["version"] = events["start"] = events["end"] = -1
        fill(events, slice(begin), Started, time=0.0, agent=np.arange(begin))
        end, agent, source, version, start = came
        fill(
            events, place[: len(end)], MailReceived, time=end, agent=agent, source=source, kind=0,
            version=version, start=start, end=end,
        )  # fmt: skip
        end, agent, step, start = there
        done = {"time": end, "agent": agent, "step": step, "start": start, "end": end}
        fill(events, place[len(came[0]) :], GradientDone, **done)
        return events

    def _written(self, until: float) -> np.ndarray:
        rows = []
        for each in self._open:
            (i,) = self._between(each.done, until)
            rows.append((each.done[i], i, np.full(len(i), each.number + 1)))
        columns = _joined(rows, 3)
        return _table(WRITE, ("time", "agent", "step"), columns, np.argsort(columns[0], kind="stable"))

    def _left(self, until: float) -> np.ndarray:
        """Of what starts at one instant first that whose piece has come, then what waited for the link."""
        rows = []
        for each in self._open:
            k, i = self._between(each.start, until)
            waited = each.start[k, i] == np.where(k > 0, each.end[k - 1, i], each.free[i])
            rows.append((each.start[k, i], each.end[k, i], i, self._bytes[k, i], waited))
        columns = _joined(rows, 5)
        order, waited = np.argsort(columns[0]), columns[4]
        time = columns[0][order]
        (at,) = np.nonzero(time[1:] == time[:-1])  # two at most: no two events coincide
        at = at[waited[order[at]] > waited[order[at + 1]]]
        order[at], order[at + 1] = order[at + 1], order[at]
        return _table(TRANSMISSION, ("start", "end", "agent", "bytes"), columns[:4], order)


def _sums(values: Sequence[Parts]) -> Parts:
    """Of each piece c the values of agent c, c + 1, ..., added in this order."""
    return tuple([_sum(torch.stack(rows)) for rows in zip(*values, strict=True)])


def _sum(rows: Tensor) -> Tensor:
    """Of [n, P]: [P]. Pieces of one length lie side by side, the k-th terms of two neighbours a row and a
    piece apart: one view, or two where agent 0 follows agent n - 1.
    """
    n, length = rows.shape
    low, high = zip(*[Piece(n, c).range(length) for c in range(n)], strict=True)
    total = rows.new_empty(length)
    for first, end in ((0, length % n), (length % n, n)):
        wide = high[first] - low[first] if first < end else 0
        for k in range(n if wide else 0):
            turn = min(max(n - k, first), end)
            for a, b, ahead in ((first, turn, k), (turn, end, k - n)):
                if a < b:
                    at = (b - a, wide), (length + wide, 1), (a + ahead) * length + low[a]
                    terms, to = rows.as_strided(*at), total[low[a] : high[b - 1]].view(b - a, wide)
                    to.add_(terms) if k else to.copy_(terms)
    return total


def _joined(rows: Sequence[Sequence[np.ndarray]], width: int) -> list[np.ndarray]:
    return [np.concatenate([np.zeros(0), *[row[c] for row in rows]]) for c in range(width)]


def _table(
    dtype: np.dtype[Any], names: Sequence[str], columns: Sequence[np.ndarray], order: Ints
) -> np.ndarray:
    made = np.zeros(len(order), dtype)
    for name, values in zip(names, columns, strict=True):
        made[name] = values[order]
    return made
