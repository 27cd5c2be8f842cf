"""Decentralized stochastic gradient tracking, in rounds. arXiv:1805.11454."""

from dataclasses import dataclass, field

from offbeat.core.forms import mix, zero
from offbeat.core.rounds import Rounds
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Tracked:
    """The sender's stepped model of round k, and its tracker."""

    k: int
    v: Vector
    y: Vector


@dataclass
class DSGT(Rounds):
    """Step along a tracker of the mean gradient; mix the stepped models, and the trackers.

        y_i^k = sum_j w_ij y_j^{k-1} + g_i(x_i^k) - g_i(x_i^{k-1})
        x_i^{k+1} = sum_j w_ij (x_j^k - lr y_j^k)

    Conserved: in every round, sum_i y_i^k = sum_i g_i(x_i^k). So all agents end at the minimiser of the sum.

    Paper -> code: k -> `round`; y_i -> `y`; x_j^k - lr y_j^k and y_j^k -> `letters[k][j]`; the last gradient
    -> `g`.

    Differs from the paper: y starts at 0 and the first gradient enters through the general formula, which
    gives the same; the step is the local rule applied to y; W may change from round to round, as it does in
    DIGing (arXiv:1607.03218). When an agent is lost, the sum of the trackers
    keeps what its gradient was, as if that stood still; who returned would be counted beside it.
    """

    changing_graph = True

    y: Vector = field(init=False, repr=False)
    g: Vector = field(init=False, repr=False)

    def start(self) -> None:
        """Nothing is tracked yet."""
        self.y = self.g = zero(self.x)
        super().start()

    def adapt(self, g: Vector) -> None:
        """Track the change of the gradient, and step along the tracker."""
        self.y, self.g = self.y - self.g + g, g
        self.post(Tracked(self.round, self.x - self.rule(self.y), self.y))

    def combine(self, heard: dict[int, Tracked]) -> None:
        """Mix both."""
        mine = heard[self.me]
        self.x = mix(self.here.w, {j: letter.v for j, letter in heard.items()}, own=mine.v)
        self.y = mix(self.here.w, {j: letter.y for j, letter in heard.items()}, own=mine.y)
