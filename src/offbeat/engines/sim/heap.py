"""The clock of a simulation: a heap of events.

Events are ordered by (time, wave, priority, number). Within one instant come faults, deliveries, alarms, then
gradients, all that were scheduled before it began (wave 0); then, in the same order, what those cause at the
same instant (wave 1), and so on. So agents that work in lockstep read before any of them is heard, and a
message that takes no time arrives before the next gradient.
"""

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from offbeat.core.errors import ContractError
from offbeat.engines.outbox import Receivers

FAULT, DELIVERY, ALARM, GRADIENT = range(4)
"""Kinds of events, in the order in which they come at one instant."""

WAVES = 1_000_000
"""So many events that cause one another at one instant are taken to have no end."""


class Heap:
    """What is scheduled, and the time. What one incarnation of an agent has scheduled does not happen in the
    next, faults apart.

    Attributes:
        void: numbers of events of which whoever scheduled them knows that they will do nothing
    """

    def __init__(self, agents: int) -> None:
        self.now, self._wave, self.number = 0.0, 0, 0
        self.void: set[int] = set()
        self.incarnation = [1] * agents  # how often each has begun; of the dead the negative number
        self._receivers: dict[tuple[int, ...], Receivers] = {}
        self.events: list[tuple[float, int, int, int, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time: float, priority: int, call: Callable[..., None], *args: Any) -> None:
        """Schedule call(*args), the first of which is the agent. Raises ContractError if the clock stands."""
        wave = self._wave + 1 if time <= self.now else 0
        if wave > WAVES:
            raise ContractError(
                f"a million events at time {self.now:g} have caused one another: the clock stands."
            )
        self.number += 1
        heappush(self.events, (time, wave, priority, self.number, self.incarnation[args[0]], call, args))

    def receivers(self, to: tuple[int, ...]) -> Receivers:
        """Their present incarnations."""
        if (found := self._receivers.get(to)) is None:
            found = self._receivers[to] = tuple([(j, self.incarnation[j]) for j in to])
        return found

    def ends(self, agent: int) -> None:
        """The agent's incarnation."""
        self.incarnation[agent] = -abs(self.incarnation[agent])
        self._receivers.clear()

    def begins(self, agent: int) -> None:
        """The agent's next incarnation."""
        self.incarnation[agent] = 1 - self.incarnation[agent]
        self._receivers.clear()

    def run(self, until: float) -> None:
        """Everything up to and including this time."""
        events, incarnation = self.events, self.incarnation
        while events and events[0][0] <= until:
            self.now, self._wave, priority, _, begun, call, args = heappop(events)
            if begun == incarnation[args[0]] or priority == FAULT:
                call(*args)

    def standstill(self, waiting: int, stepped: bool) -> str | None:
        """From when on nothing happens any more; None if something is scheduled for an agent that lives.

        So many versions of registers are `waiting` to be read. Where nobody stepped, or died, the algorithm's
        first handlers are to blame.
        """
        for time, _, priority, number, begun, _, args in self.events:
            real = number not in self.void and time < math.inf
            if real and (begun == self.incarnation[args[0]] or priority == FAULT):
                return None
        if max(self.incarnation) < 0:
            return "no agent is alive any more"
        blamed = "; none ever made a step: do start and on_gradient call self.compute(self.x)?"
        never = "" if stepped or any(k != 1 for k in self.incarnation) else blamed
        ended = f"no agent computes or will be woken from time {self.now:g} on"
        return f"{ended}; {waiting} messages are waiting{never}"
