"""Stochastic gradient push. arXiv:1811.10792."""

from dataclasses import dataclass

from offbeat.core.push_sum import PushSum
from offbeat.core.vector import Vector


@dataclass
class SGP(PushSum):
    """Step, give shares of the sum and of the weight to the neighbours, and add what they gave.

        x_i <- x_i - lr g_i(z_i),   x_i <- sum_j a_ij x_j,   w_i <- sum_j a_ij w_j,   z_i = x_i / w_i

    The columns of A sum to 1, its rows need not: it is for directed graphs. With symmetric weights w_i is 1,
    and it is `dpsgd`.

    Paper -> code: p_ji -> `here.a[j]`; what j gave in round k, (p_ij x_j, p_ij w_j) -> `letters[k][j]`.

    Attributes:
        local_steps: gradients for each exchange, all but the last followed by a step alone. Ours.

    Conserved by mixing: sum_i x_i and sum_i w_i, with what is under way.

    Differs from the paper: crashes and returns, as `core.push_sum` has them. Its graphs change from round to
    round, as `one-peer-exponential` does; here they may.
    """

    changing_graph = True
    local_steps: int = 1

    def on_local_gradient(self, g: Vector) -> None:
        """A step of the sum, and what that makes of the model."""
        self.x = self.x - self.rule(g)
        self.z = (1.0 / self.w) * self.x
        self.compute(self.z)

    def adapt(self, g: Vector) -> None:
        """Step, and give shares of that."""
        self.x = self.x - self.rule(g)
        self.post(None)
