"""Distributed low-communication training: local steps, and an all-reduced outer step. arXiv:2311.08105."""

from dataclasses import dataclass, field

from offbeat.core.forms import zero
from offbeat.core.ring import Ring
from offbeat.core.vector import Vector


@dataclass
class DiLoCo(Ring):
    """H steps on one's own, then one common step along the mean of what they changed.

        x_i <- x_i - lr g_i(x_i),   H times from x_i = phi
        D = (1/n) sum_i (phi - x_i),   m <- beta m + D,   phi <- phi - outer_lr (D + beta m)

    Paper -> code: theta^(t), the common model -> `phi`; theta_i -> `x`; Delta, the outer gradient -> `mean`;
    H -> `h`; the mean is that of `allreduce`.

    Attributes:
        h: steps of its own between two averagings
        outer_lr, outer_momentum: of the outer Nesterov step, whose form is that of `torch.optim.SGD`
        made: steps since the last averaging

    Differs from the paper: its inner steps are AdamW's, here the local rule's; h is 10 by default, ours,
    where the paper takes hundreds; what is evaluated is x_i, so between two averagings the mean of all x_i.
    """

    h: int = 10
    outer_lr: float = 0.7
    outer_momentum: float = 0.9
    phi: Vector = field(init=False, repr=False)
    m: Vector = field(init=False, repr=False)
    made: int = field(init=False, default=0)

    def start(self) -> None:
        """Everybody begins at phi."""
        self.phi, self.m = self.x, zero(self.x)
        self.compute(self.x)

    def on_gradient(self, g: Vector) -> None:
        """A local step; after the last of h, the average of all changes."""
        self.x = self.x - self.rule(g)
        self.made = (self.made + 1) % self.h
        if self.made:
            self.compute(self.x)
        else:
            self.average(self.phi - self.x)

    def averaged(self, mean: Vector) -> None:
        """The outer step, then local ones from there."""
        self.m = self.outer_momentum * self.m + mean
        self.phi = self.phi - self.outer_lr * (mean + self.outer_momentum * self.m)
        self.x = self.phi
        self.compute(self.x)
