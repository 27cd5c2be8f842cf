"""An algorithm that accumulates in every way that the contract allows: more than once in one handler, of two
kinds, for overlapping receivers, without a write, and vectors that are others'.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from offbeat import Agent, Vector


@dataclass(frozen=True)
class Added:
    d: Vector


@dataclass(frozen=True)
class Also(Added):
    """The same of another kind."""


@dataclass(frozen=True)
class Echo:
    """What came from its receiver."""

    d: Vector


@dataclass
class Accumulating(Agent):
    """x moves along -rule(g) and towards what the others did; all listeners get the move three times, one of
    them four times; what comes is sent back.

    Attributes:
        steps: after so many it stops
        moved: the sum of its moves
        heard, echoed: source -> the sum of what came: of its moves, and of this agent's own
    """

    sends_changes: ClassVar[tuple[type, ...]] = (Added, Also, Echo)
    steps: int = 1_000_000
    moved: Vector = field(init=False, repr=False)
    heard: dict[int, Vector] = field(init=False, default_factory=dict)
    echoed: dict[int, Vector] = field(init=False, default_factory=dict)

    def start(self) -> None:
        self.moved = 0.0 * self.x
        self.heard, self.echoed = (dict.fromkeys(self.view.peers, 0.0 * self.x) for _ in range(2))
        self.compute(self.x)

    def on_gradient(self, g: Vector) -> None:
        move, listeners = -self.rule(g), self.view.listeners
        for j in self.view.peers:
            move = move + 0.01 * self.heard[j]
        self.x, self.moved = self.x + move, self.moved + move
        self.accumulate(listeners, Added(move))
        self.accumulate(listeners, Added(move))
        self.accumulate(listeners[:1], Added(1.0 * move))
        self.accumulate(listeners, Also(move))
        self.steps -= 1
        if self.steps:
            self.compute(self.x)

    def on_message(self, src: int, message: Added | Echo) -> None:
        of = self.echoed if isinstance(message, Echo) else self.heard
        of[src] = of[src] + message.d
        if not isinstance(message, Echo):
            self.accumulate(src, Echo(message.d))


def all_arrived(agents: list[Any], tolerance: float) -> None:
    """Once nothing is on its way: everybody has all moves of the neighbours, and the echoes of its own."""
    for agent in agents:
        for j in agent.view.peers:
            other, times = agents[j], 4.0 if agent.me == agents[j].view.listeners[0] else 3.0
            for got, expected in ((agent.heard[j], other.moved), (other.echoed[agent.me], other.moved)):
                assert torch.allclose(got.parts[0], times * expected.parts[0], rtol=0.0, atol=tolerance)
