"""The clock of a simulation: a heap of events.

Events are ordered by (time, wave, priority, number). Within one instant come faults, deliveries, alarms,
then gradients, all that were scheduled before the instant began (wave 0); then, in the same order, what
those cause at the same instant (wave 1), and so on. So agents that work in lockstep read before any of
them is heard, and a message that takes no time arrives before the next gradient.
"""

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from offbeat.core.errors import ContractError

FAULT, DELIVERY, ALARM, GRADIENT = range(4)
"""Kinds of events, in the order in which they come at one instant. What an alarm or a gradient is scheduled
with begins with its agent and that agent's incarnation; a delivery with its sender's incarnation, and what is
delivered.
"""

WAVES = 1_000_000
"""So many events that cause one another at one instant are taken to have no end."""


class Heap:
    """What is scheduled, and the time."""

    def __init__(self) -> None:
        self.now, self._wave, self.number = 0.0, 0, 0
        self.events: list[tuple[float, int, int, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time: float, priority: int, call: Callable[..., None], *args: Any) -> None:
        """Schedule a call. Raises ContractError if the clock stands."""
        wave = self._wave + 1 if time <= self.now else 0
        if wave > WAVES:
            raise ContractError(
                f"a million events at time {self.now:g} have caused one another: the clock stands."
            )
        self.number += 1
        heappush(self.events, (time, wave, priority, self.number, call, args))

    def run(self, until: float) -> None:
        """Everything up to and including this time."""
        events = self.events
        while events and events[0][0] <= until:
            self.now, self._wave, _, _, call, args = heappop(events)
            call(*args)

    def standstill(self, incarnation: Sequence[int], waiting: int, stepped: bool) -> str | None:
        """From when on nothing happens any more; None if something is scheduled for an agent that lives.

        Args:
            incarnation: of every agent; negative of the dead
            waiting: versions of registers that nobody has read
            stepped: whether any agent ever made a step; where none died either, the algorithm's first
                handlers are to blame
        """
        for time, _, kind, _, _, args in self.events:
            if time == math.inf:
                continue
            if kind == FAULT or (
                args[0] == incarnation[args[1].sender]
                if kind == DELIVERY
                else args[1] == incarnation[args[0]]
            ):
                return None
        if max(incarnation) < 0:
            return "no agent is alive any more"
        blamed = "; none ever made a step: do start and on_gradient call self.compute(self.x)?"
        never = "" if stepped or any(k != 1 for k in incarnation) else blamed
        ended = f"no agent computes or will be woken from time {self.now:g} on"
        return f"{ended}; {waiting} messages are waiting{never}"
