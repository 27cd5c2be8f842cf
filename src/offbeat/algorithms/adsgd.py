"""Asynchronous decentralized SGD. arXiv:2505.10322, Algorithm 2."""

from dataclasses import dataclass

from offbeat.core.forms import damped, mix
from offbeat.core.newest import Newest
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Model:
    """An agent's whole model."""

    x: Vector


@dataclass
class ADSGD(Newest):
    """Mix whatever has been heard by the time the gradient is done; wait for nobody.

        x_i <- w_ii x_i + sum_{j in N_i} w_ij x_ij - lr g_i(x_i),   then multicast x_i

    Paper -> code: x_i -> `x`; x_ij, the newest model heard from j when the gradient completes -> `heard`.

    Attributes:
        theta: for two step sizes, equation (7): the same with the weights (1 - theta) I + theta W and the
            step theta lr, theta in (0, 1]. The limit depends on lr alone, so the step that is made can be as
            small as delays ask for.
        local_steps: gradients for each at which it mixes; before it, it steps from its own model. Ours.

    Differs from the paper: until a neighbour is heard for the first time, its weight is the agent's own (its
    present model stands in), as it is after a crash; the paper's buffers hold x_j^0 until then. All agents
    start from the same model, so the two differ only where an agent steps a second time before it has heard
    that neighbour.
    """

    sends_models = (Model,)
    theta: float = 1.0
    local_steps: int = 1

    def on_gradient(self, g: Vector) -> None:
        """Equation (5) of the paper, or (7) with theta below 1, then the next gradient at once."""
        w = damped(self.view.w, self.me, self.theta)
        self.x = mix(w, self.heard, own=self.x) - self.step(g)
        self.publish(self.view.listeners, Model(self.x))
        self.compute(self.x)

    def on_local_gradient(self, g: Vector) -> None:
        """A step of the same length on its own."""
        self.x = self.x - self.step(g)
        self.compute(self.x)

    def step(self, g: Vector) -> Vector:
        """theta times the local rule; for theta = 1 the rule itself, whose step is kept to the bit."""
        u = self.rule(g)
        return u if self.theta == 1.0 else self.theta * u
