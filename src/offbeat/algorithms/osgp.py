"""Overlap stochastic gradient push. arXiv:1811.10792."""

from dataclasses import dataclass, field

from offbeat.core.push_sum import PushSum
from offbeat.core.vector import Vector


@dataclass
class OSGP(PushSum):
    """Give shares, go on computing, and wait only for what has not come after tau gradients.

        every tau gradients:  give a_ji (x_i, w_i) to the neighbours,   (x_i, w_i) <- a_ii (x_i, w_i)
        at each gradient:     x_i <- x_i - lr g_i(z_i) + sum of the x that came,   w_i <- w_i + that of the w,
                              z_i = x_i / w_i

    With tau = 1 and symmetric weights w_i is 1 whenever it is mixed, and it is `dsgd`.

    Paper -> code: p_ji -> `here.a[j]`; its counter since the last exchange -> `count`; x, w, z.

    Attributes:
        tau: gradients between two exchanges; what was sent at one is waited for at the next.

    Conserved by mixing: sum_i x_i and sum_i w_i, with what is under way.

    Differs from the paper, as far as we know it: shares are given before a gradient and not after it, as the
    authors' code does; what belongs to an exchange that has not begun here waits for it.
    Crashes and returns, as `core.push_sum` has them.
    """

    changing_graph = True

    tau: int = 1
    count: int = field(init=False, default=0)

    def begin(self) -> None:
        """Give shares, and compute meanwhile."""
        self.count = 0
        self.post(None)
        self.compute(self.z)

    def on_gradient(self, g: Vector) -> None:
        """Step; add what has come; go on, or wait for the rest."""
        self.x, self.count = self.x - self.rule(g), self.count + 1
        if self.count == self.tau:
            super().on_gradient(g)
        else:
            self.add(self.letters[self.round])
            self.compute(self.z)

    def adapt(self, g: Vector) -> None:
        """The last gradient before an exchange; the shares for this one were given at its beginning."""
