"""Asynchronous decentralized gradient descent, adapt then combine. arXiv:2312.06508."""

from dataclasses import dataclass

from offbeat.core.forms import mix
from offbeat.core.newest import Newest
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Adapted:
    """The sender's model after its local step, before it was mixed."""

    x: Vector


@dataclass
class DGDATC(Newest):
    """Step, give that away, and mix what others gave; a step size that no delay makes smaller.

        y_i <- x_i - lr g_i(x_i),   multicast y_i,   x_i <- w_ii y_i + sum_{j in N_i} w_ij y_ij

    Paper -> code: y_ij, the newest of j's that was heard -> `heard[j]`.

    Attributes:
        local_steps: steps of its own for each that it gives away.

    Differs from the paper: gradients are stochastic, where its are exact; an agent mixes once for each
    gradient, when that is done; a neighbour that has not been heard counts as the agent itself.
    """

    sends_models = (Adapted,)
    local_steps: int = 1

    def on_gradient(self, g: Vector) -> None:
        """Adapt, give away, combine; then the next gradient at once."""
        y = self.x - self.rule(g)
        self.publish(self.view.listeners, Adapted(y))
        self.x = mix(self.view.w, self.heard, own=y)
        self.compute(self.x)
