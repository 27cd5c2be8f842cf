"""Asynchronous decentralized SGD with four models, however many neighbours. arXiv:2505.10322, Algorithm 3."""

from dataclasses import dataclass, field

from offbeat.core.agent import Agent, View
from offbeat.core.forms import zero
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Change:
    """By how much the sender's model has changed since the last one."""

    d: Vector


@dataclass(frozen=True)
class Whole:
    """The sender's whole model; `ask` is 1 if the receiver is to answer with its own."""

    x: Vector
    ask: int


@dataclass
class MemoryEfficientADSGD(Agent):
    """Keep the weighted sum of the neighbours' models in place of the models; send differences.

        d_i <- w_ii x_i + y_i - lr g_i(x_i) - x_i,   x_i <- x_i + d_i,   then multicast d_i
        when d_j arrives:  y_i <- y_i + w_ij d_j

    Paper -> code: y_i = sum_j w_ij x_ij -> `y`; delta_i -> `d`. The models are those of `adsgd` up to
    rounding if every link delivers in order.

    Attributes:
        theta: as in `adsgd`, for two step sizes.
        local_steps: as in `adsgd`; what they add waits in `own`, and goes with the next difference. Ours.

    A lost difference would stay in y_i for ever, so differences are mail, which is never lost; those that
    wait to be sent are summed. y_i cannot tell what a neighbour has put into it: when one is lost, y_i begins
    anew, from whole models, which the others are asked for; who returns asks too. Until its whole model
    comes, a neighbour counts as the agent itself.

    Differs from the paper, which leaves losses, crashes and returns open: as just said. Until a neighbour is
    heard for the first time it counts as the agent itself, as in `adsgd`; the model from which all begin is
    kept until then.
    """

    sends_changes = (Change,)
    theta: float = 1.0
    local_steps: int = 1
    own: Vector | None = field(init=False, default=None)
    y: Vector = field(init=False, repr=False)
    counted: list[int] = field(init=False, default_factory=list)
    first: Vector | None = field(init=False, default=None)
    unheard: list[int] = field(init=False, default_factory=list)

    def start(self) -> None:
        """Nobody has been heard; all have the model that this agent begins with."""
        self.y, self.counted = zero(self.x), []
        self.unheard = [j for j in self.view.w if j != self.me]
        self.first = self.x if self.unheard else None
        self.compute(self.x)

    def rejoin(self) -> None:
        """After a crash: nobody counts but who answers."""
        self.anew()
        self.compute(self.x)

    def resume(self) -> None:
        """What was on its way is gone, so everybody asks everybody."""
        self.anew()

    def anew(self) -> None:
        """Make y_i from whole models, which the neighbours are asked for."""
        self.y, self.counted, self.unheard, self.first = zero(self.x), [], [], None
        self.send(self.view.listeners, Whole(self.given, ask=1))

    @property
    def given(self) -> Vector:
        """The model that neighbours know once all has come: without the local steps since."""
        return self.x if self.own is None else self.x - self.own

    def on_local_gradient(self, g: Vector) -> None:
        """A step on its own, which the neighbours do not know yet."""
        u = -self.theta * self.rule(g)
        self.x, self.own = self.x + u, u if self.own is None else self.own + u
        self.compute(self.x)

    def on_gradient(self, g: Vector) -> None:
        """Equation (5) by differences, then the next gradient at once."""
        own = 1.0 - sum(self.view.w[j] for j in self.counted)
        d = self.theta * ((own - 1.0) * self.x + self.y - self.rule(g))
        self.x = self.x + d
        self.accumulate(self.view.listeners, Change(d if self.own is None else self.own + d))
        self.own = None
        self.compute(self.x)

    def on_message(self, src: int, message: Change | Whole) -> None:
        """A difference of who counts, or the first of a neighbour; or a whole model of who does not count."""
        match message:
            case Change(d) if src in self.counted:
                self.y = self.y + self.view.w[src] * d
            case Change(d) if src in self.unheard and self.first is not None:
                self.count(src, self.first + d)
            case Whole(x, ask):
                if src not in self.counted:
                    self.count(src, x)
                if ask:
                    self.send(src, Whole(self.given, ask=0))

    def count(self, j: int, x: Vector) -> None:
        """From now on y_i has j's model, this one."""
        self.y, self.counted = self.y + self.view.w[j] * x, [*self.counted, j]
        self.forget(j)

    def forget(self, j: int) -> None:
        """j's first difference is awaited no longer."""
        self.unheard = [each for each in self.unheard if each != j]
        self.first = self.first if self.unheard else None

    def on_view(self, view: View) -> None:
        """Without who was lost y_i begins anew; who returned asks."""
        lost = [j for j in self.view.w if j not in view.w]
        self.view = view
        if any(j in self.counted for j in lost):
            self.anew()
        for j in lost:
            self.forget(j)
