"""What agents in a ring make, by their handlers: called at a gradient and at a mean, not at hops.

Gradients of many agents are evaluated in one call of the task.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from offbeat.core.agent import Compute
from offbeat.core.forms import Piece, zero
from offbeat.core.ring import Ring
from offbeat.core.vector import Parts, Scope, Vector
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.ring_trace import Writes
from offbeat.engines.sim.ahead.timetable import Bools, Floats
from offbeat.engines.sim.executors import stacked, widest
from offbeat.tasks.task import Task

MOST = 10_000  # gradients before an averaging


class HandledValues:
    """The values of a run. Raises NoTimetable for agents that do not always do the same.

    Args:
        joined: makes agent i, that has joined the run
    """

    def __init__(self, task: Task, n: int, joined: Callable[[int], Ring]) -> None:
        self.task, self._given, self._mean = task, dict[int, Vector](), Vector()
        self._summed, self._widest = -1, widest(task.initial(), n)  # the last averaging that is summed
        self.writes = _tried(joined(0))
        with Scope():
            self._agents = [joined(i) for i in range(n)]
            for i, agent in enumerate(self._agents):
                agent.average = partial(self._given.__setitem__, i)  # type: ignore[method-assign]
                agent.start()
        self._at = [_asked(agent) for agent in self._agents]

    def average(
        self, number: int, there: Bools, done: Bools, samples: Sequence[np.ndarray], times: Floats
    ) -> None:
        """Of this averaging: gradients of who is there, [h, n], on these minibatches, one after the other;
        means of who is done, [n]; when, [h + 1, n].
        """
        left = iter(samples)
        for p, mask in enumerate(there):
            who = np.flatnonzero(mask).tolist()
            for at in range(0, len(who), self._widest):
                some = who[at : at + self._widest]
                self._step(p, some, [*islice(left, len(some))], times[p].tolist())
        if done.any():
            self._averaged(number, np.flatnonzero(done).tolist(), times[-1].tolist())

    def _step(self, p: int, agents: Sequence[int], samples: Sequence[np.ndarray], now: list[float]) -> None:
        """The p-th gradient of these agents, and what they make of it."""
        made = self.task.gradients(agents, samples, stacked(self._at[i].parts for i in agents))
        last = p == self.writes.h - 1
        with Scope():
            for row, i in enumerate(agents):
                g = Vector(tuple([part[row] for part in made]))
                self._call(i, now[i], self._agents[i].take, g, self.writes.last or not last)
        for i in agents:
            if last:
                if i not in self._given or self._agents[i].effects:
                    raise NoTimetable
            else:
                self._at[i] = _asked(self._agents[i])
        if not last and self._given:
            raise NoTimetable

    def _averaged(self, number: int, agents: Sequence[int], now: list[float]) -> None:
        """The mean is with these agents."""
        if number > self._summed:
            self._mean = Vector(_sums([self._given[i].parts for i in range(len(self._agents))]))
            self._given.clear()
            self._summed = number
        with Scope():
            for i in agents:
                agent = self._agents[i]
                self._call(i, now[i], agent.averaged, self._mean / agent.n, True)
        for i in agents:
            self._at[i] = _asked(self._agents[i])

    def _call(self, i: int, now: float, handler: Callable[[Vector], None], v: Vector, wrote: bool) -> None:
        agent = self._agents[i]
        model, agent.now = agent.model, now
        handler(v)
        if (agent.model is not model) != wrote:
            raise NoTimetable

    def models(self) -> Parts:
        """The agents' models, [n, P]."""
        return stacked(agent.model.parts for agent in self._agents)


def _tried(agent: Ring) -> Writes:
    """How many gradients come before an averaging, and of which the model is another."""
    given = list[Vector]()
    agent.average = partial(given.append)  # type: ignore[method-assign]
    with Scope():
        agent.start()
    for h in range(1, MOST + 1):
        _asked(agent)
        model = agent.model
        with Scope():
            agent.take(zero(model))
        wrote = agent.model is not model
        if given:
            return Writes(h, wrote)
        if not wrote:
            break
    raise NoTimetable


def _asked(agent: Ring) -> Vector:
    """Where its next gradient is taken. Raises NoTimetable if it asks for something else."""
    effects = agent.drain()
    if [*map(type, effects)] != [Compute]:
        raise NoTimetable
    return effects[0].x  # type: ignore[union-attr]


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
