"""Two agents that meet: random pairs, and displacements in place of a lock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from offbeat.core.agent import Agent
from offbeat.core.errors import ContractError
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Ask:
    """Let us be drawn together: this is my model."""

    x: Vector


@dataclass(frozen=True)
class Moved:
    """I moved by d towards you: move by -d."""

    d: Vector


@dataclass
class Meeting(Agent):
    """Beside a gradient an agent may ask one other; it steps once the gradient and the answer are here.

    Attributes:
        g: the gradient, from when it is there to the step
        asked: who was asked and has not answered yet
    """

    g: Vector | None = field(init=False, default=None)
    asked: int | None = field(init=False, default=None)

    def start(self) -> None:
        """The first gradient."""
        self.begin()

    def begin(self) -> None:
        """The next gradient, and a question beside it."""
        raise ContractError(f"{type(self).__name__} meets others: override begin.")

    def ask(self, j: int) -> None:
        """Let j and this agent be drawn together."""
        self.asked = j
        self.send(j, Ask(self.x))

    def on_gradient(self, g: Vector) -> None:
        """The gradient is there."""
        self.g = g
        self.finish()

    def finish(self) -> None:
        """Step, once the averaging is done and the gradient is there."""
        if self.g is not None and self.asked is None:
            g, self.g = self.g, None
            self.step(g)
            self.begin()

    def step(self, g: Vector) -> None:
        """The step along a gradient."""
        self.x = self.x - self.rule(g)


def paired(order: Sequence[int]) -> tuple[int, ...]:
    """Who is whose partner when 0, ..., n-1 stand in this order: the first two, the next two, and so on.

    By agent; whoever is left over, if n is odd, is its own.
    """
    partner = [*range(len(order))]
    for i, j in zip(order[::2], order[1::2], strict=False):
        partner[i], partner[j] = j, i
    return tuple(partner)


@lru_cache(maxsize=256)
def partners(k: int, n: int) -> tuple[int, ...]:
    """By agent, its partner in round k, drawn from k and n alone, no seed: so all agree without a word."""
    order = list(range(n))
    Random(k).shuffle(order)
    return paired(order)
