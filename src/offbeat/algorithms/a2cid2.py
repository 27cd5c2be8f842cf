"""Asynchronous pairwise averaging with a continuous momentum. arXiv:2306.08289."""

import math
from dataclasses import dataclass, field

from offbeat.algorithms.adpsgd import ADPSGD
from offbeat.core.agent import View
from offbeat.core.errors import SettingError
from offbeat.core.forms import opened, weighted
from offbeat.core.vector import Vector


@dataclass
class A2CiD2(ADPSGD):
    """Two models that flow into each other; averaging moves the second one further than the first.

        between events:  dx_i = eta (xt_i - x_i) dt,   dxt_i = eta (x_i - xt_i) dt
        averaging:       x_i <- x_i - m / 2,   xt_i <- xt_i - alpha m,   m = x_i - x_j
        gradient:        x_i <- x_i - lr g_i,  xt_i <- xt_i - lr g_i

    Paper -> code: x~ -> `tilde`; alpha~ -> `alpha`; chi_1, chi_2 -> `View.chi`. The flow is integrated
    exactly. Time is counted in gradient times: a running mean of this agent's own.

    Attributes:
        eta: how fast the two flow into each other; if it is not said, 1 / (2 sqrt(chi_1 chi_2))
        alpha: how far an averaging moves the second; if it is not said, sqrt(chi_1 / chi_2) / 2

    Differs from the paper: who averages with whom, and when, is as in `adpsgd`, with its displacements in
    place of a lock, so that the sum of x + xt is kept exactly; the paper's pairs are drawn by Poisson
    processes, and its authors' program has a process that pairs who is free. Ours: chi is that of one
    question a gradient to a random neighbour, and of the whole graph, also when agents are lost; nothing
    flows before the first gradient has shown how long one takes, or while there is nobody to average with.
    """

    eta: float = -1.0
    alpha: float = -1.0
    tilde: Vector = field(init=False, repr=False)
    since: float = field(init=False, default=0.0)
    begun: float = field(init=False, default=0.0)
    unit: float = field(init=False, default=0.0)

    def check(self) -> None:
        """A graph whose chi is not known needs both numbers."""
        super().check()
        if self.view.chi is None and min(self.eta, self.alpha) < 0:
            raise SettingError(
                "a2cid2 takes eta and alpha from the spectrum of the graph, which is not computed for more "
                "than 100 agents; expected both numbers, as in 'a2cid2:eta=0.1+alpha=1'."
            )

    def rates(self, view: View) -> tuple[float, float]:
        """eta and alpha, as they were given or as they follow from the graph."""
        one, two = view.chi or (1.0, 1.0)
        eta = self.eta if self.eta >= 0 else 1 / (2 * math.sqrt(one * two))
        return eta, self.alpha if self.alpha >= 0 else math.sqrt(one / two) / 2

    def start(self) -> None:
        """Both models are one."""
        self.tilde, self.since = self.x, self.now
        super().start()

    def begin(self) -> None:
        """A gradient, whose time is taken."""
        self.begun = self.now
        super().begin()

    def on_gradient(self, g: Vector) -> None:
        """The unit of time is the mean of this gradient's time and of the unit before."""
        took = self.now - self.begun
        self.unit = (self.unit + took) / 2 if self.unit else took
        super().on_gradient(g)

    def flow(self) -> None:
        """The flow since the last event: the exponential of a 2 x 2 matrix."""
        eta, _ = self.rates(self.view)
        if self.view.peers and eta and self.unit and self.now > self.since:
            c = (1 - math.e ** (-2 * eta * (self.now - self.since) / self.unit)) / 2
            x, tilde = self.x, self.tilde
            self.x = opened(weighted((1 - c, x), (c, tilde)))
            self.tilde = weighted((1 - c, tilde), (c, x))
        self.since = self.now

    def move(self, d: Vector) -> None:
        """An averaging: d is what the first moves by."""
        super().move(d)
        self.tilde = self.tilde + 2 * self.rates(self.view)[1] * d

    def step(self, g: Vector) -> None:
        """A gradient's displacement, for both."""
        self.flow()
        u = self.rule(g)
        self.x, self.tilde = self.x - u, self.tilde - u
