"""Asynchronous proximal decentralized gradient descent. arXiv:2312.06508."""

from dataclasses import dataclass

from offbeat.core.errors import SettingError
from offbeat.core.forms import mix
from offbeat.core.newest import Newest
from offbeat.core.vector import Vector, applied


@dataclass(frozen=True)
class Shrunk:
    """The sender's model."""

    x: Vector


@dataclass
class ProxDGD(Newest):
    """ADSGD's step, and then the proximal step of a term that has no gradient: here l1 ||x||_1.

        x_i <- prox_{lr r}(w_ii x_i + sum_{j in N_i} w_ij x_ij - lr g_i(x_i)),   then multicast x_i
        prox_{lr r}(v) = sign(v) max(|v| - lr l1, 0),   r(x) = l1 ||x||_1

    Paper -> code: x_ij, the newest model heard from j -> `heard[j]`; r_i, the same for all agents -> `l1`.

    Attributes:
        l1: how much every agent's objective has of sum |x|; without it the step is that of ADSGD.
        local_steps: gradients for each at which it mixes; before it, it steps from its own model. Ours.

    Differs from the paper: gradients are stochastic, where its are exact; r is the l1 norm, where it has any
    convex function with a proximal step; a neighbour that has not been heard counts as the agent itself.
    """

    sends_models = (Shrunk,)
    l1: float = 0.0
    local_steps: int = 1

    def check(self) -> None:
        """The proximal step is as long as the gradient's, so that is to be lr g and nothing else: with
        momentum the gradient would count more than once, and l1 for less than it says.
        """
        if self.l1 and not (getattr(self.rule, "plain", True) and hasattr(self.rule, "lr")):
            raise SettingError(
                f"prox-dgd:l1={self.l1:g} needs a local rule that steps by its learning rate `lr` times the "
                "gradient; the one that it got does not. Expected --optimizer sgd, or prox-dgd without l1."
            )

    def on_gradient(self, g: Vector) -> None:
        """Mix, step, shrink; then the next gradient at once."""
        self.x = self.step(mix(self.view.w, self.heard, own=self.x), g)
        self.publish(self.view.listeners, Shrunk(self.x))
        self.compute(self.x)

    def on_local_gradient(self, g: Vector) -> None:
        """The same step from its own model."""
        self.x = self.step(self.x, g)
        self.compute(self.x)

    def step(self, x: Vector, g: Vector) -> Vector:
        """prox_{lr r}(x - lr g)."""
        v = x - self.rule(g)
        return shrunk(v, self.l1 * getattr(self.rule, "lr", 0.0)) if self.l1 else v


def shrunk(v: Vector, by: float) -> Vector:
    """sign(v) max(|v| - by, 0), number by number."""
    return applied(lambda parts: tuple(part - part.clamp(-by, by) for part in parts), v, of=(v,))
