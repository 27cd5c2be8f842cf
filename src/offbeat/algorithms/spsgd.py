"""Synchronous SGD at a parameter server."""

from dataclasses import dataclass, field

from offbeat.core.forms import total
from offbeat.core.server import Served
from offbeat.core.vector import Vector


@dataclass
class SPSGD(Served):
    """The server waits for the gradients of all, steps along their mean, and gives the new model to all.

        x <- x - lr (1/n) sum_i g_i(x)

    There is one model; the sum is taken in the order of the agents.

    Paper -> code: x -> `x`, lr -> `rule`, the step -> `round`.

    Differs from the textbook: a gradient at a model of another step, which an agent may send that was down
    meanwhile, is answered by the present model, and does not count.
    """

    keeps_gradients = True
    gradients: dict[int, Vector] = field(init=False, default_factory=dict)

    def serve(self, j: int, k: int, g: Vector) -> None:
        """The barrier: the gradients of all at the present model."""
        if k != self.round:
            self.answer(j)
            return
        self.gradients[j] = g
        if len(self.gradients) == self.n:
            first, *others = (self.gradients[i] for i in range(self.n))
            self.step(total(others, start=first) / self.n)
            self.gradients = {}
            self.answer(*range(self.n))

    def resume(self) -> None:
        """Everybody's gradient is outstanding, and comes again."""
        self.gradients = {}
