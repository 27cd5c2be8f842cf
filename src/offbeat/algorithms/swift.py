"""Shared wait-free transmission. arXiv:2210.14026."""

from dataclasses import dataclass, field

from offbeat.core.forms import mix
from offbeat.core.newest import Newest
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Before:
    """The sender's model before the step that it is making."""

    x: Vector


@dataclass
class SWIFT(Newest):
    """Give away the model as it was before the step; mix what has been heard; wait for nobody.

        multicast x_i,   x_i <- w_ii x_i + sum_{j in N_i} w_ij x_ij - lr g_i(x_i)

    Paper -> code: x_ij, the newest model heard from j -> `heard[j]`; g_i is taken at x_i before it is mixed.

    Attributes:
        every: mix at each of so many gradients only, and step from the own model at the others; the model is
            given away at every gradient.

    Differs from the paper: the weights are those of the topology, where the paper chooses each client's row
    such that the matrices are doubly stochastic in expectation, given how often each client is active; a
    neighbour that has not been heard counts as the agent itself. The order (give away, mix, step) is that of
    its authors' program.
    """

    sends_models = (Before,)
    every: int = 1
    gradients: int = field(init=False, default=0)

    def on_gradient(self, g: Vector) -> None:
        """Give away, mix, step; then the next gradient at once."""
        self.gradients = (self.gradients + 1) % self.every
        self.publish(self.view.listeners, Before(self.x))
        mixes = self.gradients == 0
        self.x = (mix(self.view.w, self.heard, own=self.x) if mixes else self.x) - self.rule(g)
        self.compute(self.x)
