"""Two agents that meet: random pairs that all draw alike, and displacements in place of a lock."""

from dataclasses import dataclass
from random import Random

from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Ask:
    """Let us be drawn together: this is my model."""

    x: Vector


@dataclass(frozen=True)
class Moved:
    """I moved by d towards you: move by -d."""

    d: Vector


def partner(k: int, me: int, n: int) -> int | None:
    """Who is paired with agent `me` in round k: all n are shuffled, and 0 goes with 1, 2 with 3, ...

    None for the one who is left over if n is odd. The shuffle depends on k and n alone, on no seed: so all
    agree without a word.
    """
    order = list(range(n))
    Random(k).shuffle(order)
    place = order.index(me) ^ 1
    return order[place] if place < n else None
