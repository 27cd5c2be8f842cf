"""Local rules: from a gradient to what is subtracted from the model.

Agents never write `lr * g`, they write `self.rule(g)`; so an algorithm is stated once for plain SGD, momentum
and adaptive steps. A rule belongs to one agent and keeps that agent's state.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from offbeat.core.vector import Parts, Vector, opaque

Rule = Callable[[Vector], Vector]  # g -> u, the displacement in x <- x - u


@dataclass
class SGD:
    """u = lr g."""

    lr: float

    def __call__(self, g: Vector) -> Vector:
        return self.lr * g


@dataclass
class Momentum:
    """m <- beta m + g, u = lr m: the heavy ball, as `torch.optim.SGD(momentum=beta)` computes it."""

    lr: float
    beta: float = 0.9
    m: Vector | None = field(init=False, default=None)

    def __call__(self, g: Vector) -> Vector:
        self.m = g if self.m is None else self.beta * self.m + g
        return self.lr * self.m


@dataclass
class Adam:
    """u = lr m_hat / (sqrt(v_hat) + eps), with bias-corrected moments m and v (arXiv:1412.6980).

    The state is updated when the displacement is evaluated, which happens once.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    t: int = field(init=False, default=0)
    moments: tuple[tuple[Tensor, Tensor], ...] = field(init=False, default=())

    def __call__(self, g: Vector) -> Vector:
        return opaque(lambda: self._displacement(g.parts), of=(g,))

    def _displacement(self, g: Parts) -> Parts:
        b1, b2 = self.betas
        self.t += 1
        old = self.moments or tuple((part * 0, part * 0) for part in g)
        self.moments = tuple(
            (b1 * m + (1 - b1) * part, b2 * v + (1 - b2) * part.square())
            for (m, v), part in zip(old, g, strict=True)
        )
        return tuple(
            self.lr * (m / (1 - b1**self.t)) / ((v / (1 - b2**self.t)).sqrt() + self.eps)
            for m, v in self.moments
        )
