"""Robust asynchronous stochastic gradient-push. arXiv:1811.03982."""

from dataclasses import dataclass, field

from offbeat.core.agent import Agent, View
from offbeat.core.forms import larger, opened, pin, zero
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Opened:
    """What of the sender's running sums does not count for this receiver: it was pushed before they met."""

    x: Vector
    y: float


@dataclass(frozen=True)
class Pushed(Opened):
    """All mass that the sender ever pushed to each of its out-neighbours, and its slot."""

    slot: int


@dataclass
class RASGP(Agent):
    """Push shares of (x, y) as running sums, and step as far as the slots that went by since the last step.

        x_i <- x_i - lr (k - k_i) g_i(z_i),   k_i <- k,   (x_i, y_i) <- (x_i, y_i) / (d_i + 1)
        phi_i <- phi_i + (x_i, y_i),   then multicast phi_i
        (x_i, y_i) <- (x_i, y_i) + sum_j (phi_j - rho_ij),   rho_ij <- phi_j,   z_i <- x_i / y_i

    Paper -> code: x -> `x`; y -> `y`; z, the model -> `z`; phi^x, phi^y -> `phi`, `phi_y`; d_i, the
    out-degree -> the listeners; rho^x_ij, rho^y_ij -> `used[j]`; the slot k -> `round`; k_i -> `stepped`.

    Conserved by communication: sum_i (x_i, y_i) + sum over links (phi_i - rho_ji), at every instant, whatever
    is lost or late; only gradients change the first of the two.

    Differs from the paper, whose slots are those of a clock that all share. Ours are counted: one more than
    the last, or that of whoever is further ahead among those heard; so all make up for the slots of the
    fastest, and the step sizes of all have one sum, up to what is under way. The paper's steps diminish; ours
    are the local rule's, and with a constant lr the limit is the minimiser up to O(lr). Ours: who has got no
    mass since it last pushed pushes none, as y_i would run out where messages are many slots late; what a
    lost agent holds, and what is on its way to and from it, is lost, x and y alike, which moves no ratio; who
    returns begins with y = 1 and the others' slot, and is told what of the running sums is not for it.
    """

    y: float = field(init=False, default=1.0)
    z: Vector = field(init=False, repr=False)
    phi: Vector = field(init=False, repr=False)
    phi_y: float = field(init=False, default=0.0)
    owing: bool = field(init=False, default=True)
    stepped: int = field(init=False, default=0)
    got: dict[int, Pushed] = field(init=False, default_factory=dict)
    used: dict[int, Opened] = field(init=False, default_factory=dict)

    @property
    def model(self) -> Vector:
        return self.z

    def start(self) -> None:
        """Nothing has been pushed; the first gradient is at the model that is given."""
        self.z, self.phi, self.stepped = self.x, zero(self.x), self.round
        self.used = {j: Opened(zero(self.x), 0.0) for j in self.view.w if j != self.me}
        self.compute(self.z)

    def rejoin(self) -> None:
        """After a crash: nothing counts before it is said from where on."""
        self.start()
        self.used = {}
        self.send(self.view.listeners, Opened(self.phi, self.phi_y))

    def on_message(self, src: int, message: Pushed | Opened) -> None:
        """The newest sums, and how far their sender is; or from where on they count."""
        if isinstance(message, Pushed):
            self.got = dict(sorted((self.got | {src: message}).items()))
            self.round = larger(self.round, message.slot - 1)
        else:
            self.used[src] = message

    def on_gradient(self, g: Vector) -> None:
        """Step, push, take in what has come; the next gradient is taken at the new ratio."""
        self.round += 1
        self.x, self.stepped = opened(self.x - (self.round - self.stepped) * self.rule(g)), self.round
        fresh = {j: (m, self.used[j]) for j, m in self.got.items() if j in self.used}
        if self.owing or sum([m.y - before.y for m, before in fresh.values()]) > 0.0:
            self.owing, share = False, 1.0 / (len(self.view.listeners) + 1)
            self.x, self.y = share * self.x, share * self.y
            self.phi, self.phi_y = self.phi + self.x, self.phi_y + self.y
        self.publish(self.view.listeners, Pushed(pin(self.phi), self.phi_y, self.round))  # a version each
        for j, (m, before) in fresh.items():
            self.x, self.y = self.x + m.x - before.x, self.y + m.y - before.y
            self.used[j] = Opened(pin(m.x), self.got.pop(j).y)
        self.z = (1.0 / self.y) * self.x
        self.compute(self.z)

    def on_view(self, view: View) -> None:
        """Close the books with who was lost, and tell who returned where its own begin."""
        back = [j for j in view.listeners if j not in self.view.listeners]
        self.view = view
        self.got = {j: m for j, m in self.got.items() if j in view.w}
        self.used = {j: m for j, m in self.used.items() if j in view.w}
        if back:
            self.owing = True
            self.send(back, Opened(self.phi, self.phi_y))
