"""Decentralized SGD with quasi-global momentum. arXiv:2102.04761."""

from dataclasses import dataclass, field

from offbeat.core.forms import mix
from offbeat.core.rounds import Rounds
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Pushed:
    """The sender's model of round k after its step with momentum, before it was mixed."""

    k: int
    v: Vector


@dataclass
class QGDSGDm(Rounds):
    """Momentum from how far the model went, mixing included: that is nearer to all agents' way than its own.

        v_i = x_i - (lr g_i(x_i) + beta m_i),   x_i^+ = sum_j w_ij v_j
        m_i <- beta m_i + (1 - beta) (x_i - x_i^+)

    Paper -> code: v_j of round k -> `letters[k][j]`; its momentum, times lr -> `m`.

    Attributes:
        beta: the momentum, and how slowly it forgets.

    Differs from the paper: m is a displacement, lr times the paper's, which is the same while lr is; its two
    factors, of the momentum and of its memory, are one number, as public implementations have it; the form of
    Nesterov is left out. W may change from round to round. Ours: whoever returns has no momentum.
    """

    changing_graph = True
    sends_models = (Pushed,)
    beta: float = 0.9
    m: Vector | None = field(init=False, default=None)

    def adapt(self, g: Vector) -> None:
        """Step with the momentum there is, and give that away."""
        u = self.rule(g) if self.m is None else self.rule(g) + self.beta * self.m
        self.post(Pushed(self.round, self.x - u))

    def combine(self, heard: dict[int, Pushed]) -> None:
        """Mix, and remember how far that went."""
        v = {j: letter.v for j, letter in heard.items()}
        before, self.x = self.x, mix(self.here.w, v, own=v[self.me])
        went = (1.0 - self.beta) * (before - self.x)
        self.m = went if self.m is None else self.beta * self.m + went
