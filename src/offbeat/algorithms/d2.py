"""D2: decentralized training over decentralized data. arXiv:1803.07068."""

from dataclasses import dataclass, field

from offbeat.core.forms import damped, mix, zero
from offbeat.core.rounds import Rounds
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Corrected:
    """The sender's model of round k, stepped and corrected."""

    k: int
    v: Vector


@dataclass
class D2(Rounds):
    """Correct every step by what mixing did to the last one; the differences of the agents' data drop out.

        v_i^k = x_i^k - lr g_i(x_i^k) + c_i^k,   x_i^{k+1} = sum_j w_ij v_j^k
        c_i^{k+1} = x_i^{k+1} - (x_i^k - lr g_i(x_i^k)),   c_i^0 = 0

    Put together, x^{k+1} = W (2 x^k - x^{k-1} - lr g(x^k) + lr g(x^{k-1})). Conserved: in every round,
    sum_i c_i^k = 0. So all agents end at the minimiser of the sum, if no eigenvalue of W is below -1/3.

    Paper -> code: k -> `round`; v_j^k -> `letters[k][j]`; c_i -> `c`; x_i^k - lr g_i(x_i^k) -> `y`.

    Attributes:
        theta: mix with (1 - theta) I + theta W, theta in (0, 1]; with 0.5 it is exact diffusion, which any
            symmetric W is good for.

    Differs from the paper: the recursion is written with c, as public implementations of it have it; theta.
    When an agent is lost, the sum of the c_i keeps what its gradient was, as if that stood still; who
    returned would be counted beside it. W stands still, as in the paper: where pairs average that are drawn
    anew in every round, the corrections grow without end.
    """

    theta: float = 1.0
    c: Vector = field(init=False, repr=False)
    y: Vector | None = field(init=False, default=None)

    def start(self) -> None:
        """Nothing to correct yet."""
        self.c = zero(self.x)
        super().start()

    def adapt(self, g: Vector) -> None:
        """Step, correct, and give that away."""
        self.y = self.x - self.rule(g)
        self.post(Corrected(self.round, self.y + self.c))

    def combine(self, heard: dict[int, Corrected]) -> None:
        """Mix; what that did, the own step left out, is the next correction."""
        v = {j: letter.v for j, letter in heard.items()}
        self.x = mix(damped(self.view.w, self.me, self.theta), v, own=v[self.me])
        if self.y is not None:
            self.c, self.y = self.x - self.y, None
