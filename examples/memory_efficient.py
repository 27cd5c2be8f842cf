"""Your own algorithm: Algorithm 3 of arXiv:2505.10322, compared with the others.

    python examples/memory_efficient.py

It keeps one vector y in place of a model per neighbour, and multicasts differences. They must arrive exactly
once, which is what `accumulate` promises: differences that have not left yet are summed.
"""

from dataclasses import dataclass, field

import offbeat
from offbeat import Agent, Vector, View


@dataclass(frozen=True)
class Difference:
    """By how much the sender's model has changed."""

    delta: Vector


@dataclass
class MemoryEfficientADSGD(Agent):
    """arXiv:2505.10322, Algorithm 3: x <- w_ii x + y - lr g, with y = sum_j w_ij x_j kept by y <- y + w_ij
    delta_j.
    """

    y: Vector = field(init=False, repr=False)

    def start(self) -> None:
        """All models are equal at first."""
        self.y = (1 - self.view.w[self.me]) * self.x
        self.compute(self.x)

    def on_message(self, src: int, message: Difference) -> None:
        """A neighbour has moved."""
        self.y = self.y + self.view.w[src] * message.delta

    def on_gradient(self, g: Vector) -> None:
        """One step; tell by how much."""
        delta = self.view.w[self.me] * self.x - self.x + self.y - self.rule(g)
        self.x = self.x + delta
        self.accumulate(self.view.listeners, Difference(delta))
        self.compute(self.x)

    def on_view(self, view: View) -> None:
        """It has no memory of single neighbours, so it cannot forget one."""
        raise offbeat.OffbeatError("Algorithm 3 does not survive a crash: use Algorithm 2, adsgd.")


if __name__ == "__main__":
    print(
        offbeat.compare(
            ["adsgd", MemoryEfficientADSGD], task="digits", case="combined", until=2000, check=True
        )
    )
