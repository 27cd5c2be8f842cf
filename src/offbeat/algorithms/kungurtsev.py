"""Asynchronous stochastic gradient tracking on directed graphs, with one running sum. arXiv:2110.10406."""

from dataclasses import dataclass, field

from offbeat.algorithms.rfast import RFAST
from offbeat.core.agent import View
from offbeat.core.forms import pin, zero
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Both:
    """The sender's model after its local step, and all mass that it ever gave to each of its receivers."""

    v: Vector
    rho: Vector


@dataclass
class Kungurtsev(RFAST):
    """The recursion of `rfast`, with equal shares: so there is one running sum, and it goes to all at once.

        zhalf <- z_i + sum_j (rho_j - used_ij) + g_i(x_i) - g_i^old
        z_i   <- zhalf / (d_i + 1),   rho_i <- rho_i + zhalf / (d_i + 1),   used_ij <- rho_j
        v_i   <- x_i - lr z_i,   then multicast (v_i, rho_i)
        x_i   <- w_ii v_i + sum_j w_ij v_j

    Paper -> code, by its authors' program: Z -> `z`; rho -> `rho`; rrho -> `got`; rho_buff -> `used`; V of
    others -> `heard`; d_i, the out-degree -> the listeners.

    Conserved: sum_i z_i + sum over links (rho_i - used_ji) = sum_i g_i, at every instant.

    Differs from `rfast`: just this. A_ji is 1 / (d_i + 1) for all j, so what an agent sends are two models in
    one transmission, and not one and another for each neighbour.

    Differs from the paper, of which we had the authors' program, not the formulas: there rho is the sum of
    zhalf, and the receiver takes its share of it; ours holds, too, when d_i changes. W is that of the
    topology; the step is the local rule, there diminishing; the loop is cut as in `rfast`. Ours: when j is
    lost, i takes back what it gave, and returns what it used.
    """

    sends_models = ()  # its model and its mass are in one message
    rho: Vector = field(init=False, repr=False)

    def start(self) -> None:
        """Nothing is tracked yet."""
        self.rho = zero(self.x)
        super().start()

    def resume(self) -> None:
        """Books are closed with everybody, so the sum begins anew."""
        super().resume()
        self.rho = zero(self.x)

    def on_message(self, src: int, message: Both) -> None:  # type: ignore[override]
        """Newest wins."""
        self.heard[src], self.got[src] = message.v, message.rho

    def give(self, half: Vector) -> None:
        """An equal share for everybody and for the agent itself."""
        self.z = half / (len(self.view.listeners) + 1)
        self.rho = self.rho + self.z

    def offer(self, v: Vector) -> None:
        """Both at once."""
        self.publish(self.view.listeners, Both(v, pin(self.rho)))

    def on_view(self, view: View) -> None:
        """Close the books with who was lost."""
        lost = [j for j in self.view.listeners if j not in view.listeners]
        super().on_view(view)
        for _ in lost:
            self.z = self.z + self.rho
