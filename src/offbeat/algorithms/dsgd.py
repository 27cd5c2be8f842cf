"""Decentralized SGD with a barrier among neighbours. arXiv:1705.09056, a baseline of arXiv:2505.10322."""

from dataclasses import dataclass, field

from offbeat.core.forms import mix
from offbeat.core.rounds import Rounds
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Letter:
    """The sender's model of round k."""

    k: int
    x: Vector


@dataclass
class DSGD(Rounds):
    """Every round, mix the neighbours' models *of that round*: a barrier is counting letters.

        x_i^{k+1} = sum_j w_ij x_j^k - lr g_i(x_i^k)

    Combine, then adapt: what is mixed are models from before the step, so they can be under way while the
    gradient is computed. In the other order, adapt then combine, it is `dpsgd`.

    Paper -> code: k -> `round`; x_j^k -> `letters[k][j]`. x_i^k is sent while its gradient is being computed,
    and a round takes as long as the slower of the two.

    Attributes:
        after: send x_i^k when its gradient is done, as a program does that computes and then communicates.

        local_steps: gradients for each round, each at what the ones before it made of x_i^k; the sum of their
            steps is added to the mixed models. Ours.

    Differs from the paper: crashes, which it leaves open. A peer that returned takes part from the first
    round of which its letter comes. W may change from round to round, as in Nedic and Ozdaglar 2009.
    """

    changing_graph = True
    sends_models = (Letter,)
    after: bool = False
    local_steps: int = 1
    g: Vector | None = field(init=False, default=None)
    begun: Vector = field(init=False, repr=False)
    u: Vector | None = field(init=False, default=None)

    def begin(self) -> None:
        """A round: the gradient at x_i^k, and the letter beside it or after it."""
        self.begun, self.u = self.x, None
        self.compute(self.x)
        if not self.after:
            self.post(Letter(self.round, self.x))

    def on_local_gradient(self, g: Vector) -> None:
        """A step from the own model, beside which the letters of this round come."""
        u = self.rule(g)
        self.u = u if self.u is None else self.u + u
        self.x = self.x - u
        self.compute(self.x)

    def adapt(self, g: Vector) -> None:
        """The gradient at x_i^k is there."""
        self.g = g
        if self.after:
            self.post(Letter(self.round, self.begun))

    def combine(self, heard: dict[int, Letter]) -> None:
        """Mix the models of this round, and step."""
        if self.g is not None:
            x = {j: letter.x for j, letter in heard.items()}
            u = self.rule(self.g) if self.u is None else self.u + self.rule(self.g)
            self.x = mix(self.here.w, x, own=self.begun) - u
            self.g = None
