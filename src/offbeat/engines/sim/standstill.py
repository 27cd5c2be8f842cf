"""Whether anything will ever happen again in a simulation."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

FAULT, DELIVERY, ALARM, GRADIENT = range(4)
"""Kinds of events, in the order in which they come at one instant. What an alarm or a gradient is scheduled
with begins with its agent and that agent's incarnation; a delivery with its sender's incarnation, and what is
delivered.
"""


def standstill(
    heap: Sequence[tuple[Any, ...]], incarnation: Sequence[int], alive: Collection[int], waiting: int,
    stepped: bool, now: float,
) -> str | None:  # fmt: skip
    """From when on nothing happens any more; None if something is scheduled for an agent that has not died
    since.

    Args:
        waiting: versions of registers that nobody has read
        stepped: whether any agent ever made a step; where none died either, the algorithm's first handlers
            are to blame
    """
    for time, _, kind, _, _, args in heap:
        if time == math.inf:
            continue
        if kind == FAULT or (
            args[0] == incarnation[args[1].sender] if kind == DELIVERY else args[1] == incarnation[args[0]]
        ):
            return None
    if not alive:
        return "no agent is alive any more"
    never = (
        ""
        if stepped or any(incarnation)
        else "; none ever made a step: do start and on_gradient call self.compute(self.x)?"
    )
    return f"no agent computes or will be woken from time {now:g} on; {waiting} messages are waiting{never}"
