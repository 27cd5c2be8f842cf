"""Asynchronous decentralized SGD with four models, however many neighbours. arXiv:2505.10322, Algorithm 3."""

from dataclasses import dataclass, field

from offbeat.core.summed import Summed, Whole
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Change:
    """By how much the sender's model has changed since the last one."""

    d: Vector


@dataclass
class MemoryEfficientADSGD(Summed):
    """Keep the weighted sum of the neighbours' models in place of the models; send differences.

        d_i <- w_ii x_i + y_i - lr g_i(x_i) - x_i,   x_i <- x_i + d_i,   then multicast d_i
        when d_j arrives:  y_i <- y_i + w_ij d_j

    Paper -> code: y_i = sum_j w_ij x_ij -> `y`; delta_i -> `d`; w_ii -> `weight`. The models are those of
    `adsgd` up to rounding if every link delivers in order.

    Attributes:
        theta: as in `adsgd`, for two step sizes.
        local_steps: as in `adsgd`; what they add is `kept` back, and goes with the next difference. Ours.

    A lost difference would stay in y_i for ever, so differences are mail, which is never lost; those that
    wait to be sent are summed. y_i cannot tell what a neighbour has put into it: when one is lost, or a
    weight changes as the graph grows, y_i begins anew, from whole models, which the others are asked for;
    who returns asks too. Until its whole model comes, a neighbour counts as the agent itself.

    Differs from the paper, which leaves losses, crashes and returns open: as just said (`core.summed`). Until
    a neighbour is heard for the first time it counts as the agent itself, as in `adsgd`; the model from which
    all begin is kept until then.
    """

    sends_changes = (Change,)
    theta: float = 1.0
    local_steps: int = 1
    kept: Vector | None = field(init=False, default=None)

    @property
    def given(self) -> Vector:
        """The model that neighbours know once all has come: without the local steps since."""
        return self.x if self.kept is None else self.x - self.kept

    def on_local_gradient(self, g: Vector) -> None:
        """A step on its own, which the neighbours do not know yet."""
        u = -self.theta * self.rule(g)
        self.x, self.kept = self.x + u, u if self.kept is None else self.kept + u
        self.compute(self.x)

    def on_gradient(self, g: Vector) -> None:
        """Equation (5) by differences, then the next gradient at once."""
        d = self.theta * ((self.weight - 1.0) * self.x + self.y - self.rule(g))
        self.x = self.x + d
        self.accumulate(self.view.listeners, Change(d if self.kept is None else self.kept + d))
        self.kept = None
        self.compute(self.x)

    def on_message(self, src: int, message: Change | Whole) -> None:
        """A difference of who counts, or the first of a neighbour; or a whole model."""
        match message:
            case Change(d) if src in self.counted:
                self.y = self.y + self.view.w[src] * d
            case Change(d) if src in self.unheard:
                self.count(src, self.unheard[src] + d)
            case Whole():
                super().on_message(src, message)
