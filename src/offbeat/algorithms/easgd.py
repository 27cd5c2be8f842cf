"""Elastic averaging SGD, asynchronous, with a centre at a server. arXiv:1412.6651."""

from dataclasses import dataclass, field

from offbeat.core.forms import zero
from offbeat.core.pairs import Ask, Meeting, Moved
from offbeat.core.vector import Vector


@dataclass
class EASGD(Meeting):
    """Step alone, and be drawn to a centre as much as the centre is drawn to you.

        x_i <- x_i - alpha (x_i - c) - lr g_i(x_i),   c <- c + alpha (x_i - c),   alpha = beta / n

    with momentum delta (EAMSGD), v_i of its own for every agent:

        v_i <- delta v_i + lr g_i(x_i - delta v_i),   x_i <- x_i - alpha (x_i - c) - v_i

    Paper -> code: c, there x with a tilde -> `centre`, which the server has beside its own model; v_i with
    the other sign -> `v`; tau, the communication period -> `every`; delta -> `momentum`. A worker asks when
    its gradient starts, so that exchange and gradient are at one x_i, and steps when both are done.

    Attributes:
        beta: n times alpha, by how much the two move towards each other
        every: exchange with the centre at each of so many gradients
        momentum: of Nesterov's kind; one more vector

    Differs from the paper, as far as we know it: alpha (x_i - c) is worked out at the server, when x_i
    arrives, and both move by that same vector, so that c + sum_i x_i moves by gradients alone, up to what is
    under way. Ours: the server is an agent with a shard, too, whose exchanges take no time. A server that
    returns after a crash takes the model that it was given for the centre.
    """

    beyond_graph = changing_graph = True
    sends_models = (Ask,)
    beta: float = 0.9
    every: int = 1
    momentum: float = 0.0
    centre: Vector = field(init=False, repr=False)
    v: Vector | None = field(init=False, default=None)
    gradients: int = field(init=False, default=0)

    def start(self) -> None:
        """The centre begins where everybody does."""
        if self.me == self.view.server:
            self.centre = self.x
        self.begin()

    def rejoin(self) -> None:
        """Whoever waits for an answer that was lost with the server has waited enough."""
        self.start()
        if self.me == self.view.server:
            self.send([j for j in range(self.n) if j != self.me], Moved(zero(self.x)))

    def resume(self) -> None:
        """A question that was under way, or its answer, is gone: ask again."""
        if self.asked is not None:
            self.ask(self.asked)

    def begin(self) -> None:
        """The next gradient, and the exchange beside it."""
        self.compute(self.x if self.v is None else self.x - self.momentum * self.v)
        if self.gradients == 0:
            if self.me == self.view.server:
                self.x = self.x - self.drawn(self.x)
            else:
                self.ask(self.view.server)
        self.gradients = (self.gradients + 1) % self.every

    def drawn(self, x: Vector) -> Vector:
        """At the server: the centre moves towards x, by what is returned."""
        d = (self.beta / self.n) * (x - self.centre)
        self.centre = self.centre + d
        return d

    def on_message(self, src: int, message: Ask | Moved) -> None:
        """A question for the server, or its answer."""
        match message:
            case Ask(x):
                self.send(src, Moved(self.drawn(x)))
            case Moved(d):
                self.x, self.asked = self.x - d, None
                self.finish()

    def step(self, g: Vector) -> None:
        """Along the gradient, or along v_i."""
        u = self.rule(g)
        if self.momentum:
            u = self.v = u if self.v is None else self.momentum * self.v + u
        self.x = self.x - u
