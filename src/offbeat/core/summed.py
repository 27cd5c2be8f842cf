"""The weighted sum of the neighbours' models in place of the models, by the differences that they send."""

from dataclasses import dataclass, field

from offbeat.core.agent import Agent, Message, View
from offbeat.core.forms import zero
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Whole:
    """The sender's whole model; `ask` is 1 if the receiver is to answer with its own."""

    x: Vector
    ask: int


@dataclass
class Summed(Agent):
    """y_i = sum_j w_ij x_ij over the neighbours j that count; each of the others counts as the agent itself.

    A sum cannot tell what a neighbour has put into it: when one is lost that counts, or its weight changes as
    the graph grows, the sum begins anew, from whole models, which the others are asked for; who returns asks
    too. Whoever answers counts, and so does, at the start, whoever's first difference comes: all begin with
    one model.

    A subclass sends differences as mail, and adds those of whoever counts.

    Attributes:
        y: the sum
        counted: who is in it
        unheard: neighbour whose first difference is still to come -> the model with which all began
    """

    y: Vector = field(init=False, repr=False)
    counted: list[int] = field(init=False, default_factory=list)
    unheard: dict[int, Vector] = field(init=False, default_factory=dict)

    @property
    def given(self) -> Vector:
        """The model that the neighbours know once all has come."""
        return self.x

    @property
    def weight(self) -> float:
        """Of this agent's own model: 1 - sum_j w_ij over those that count."""
        return 1.0 - sum(self.view.w[j] for j in self.counted)

    def start(self) -> None:
        """Nobody has been heard; all have the model that this agent begins with."""
        self.y, self.unheard = zero(self.x), {j: self.x for j in self.view.w if j != self.me}
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
        self.y, self.counted, self.unheard = zero(self.x), [], {}
        self.send(self.view.listeners, Whole(self.given, ask=1))

    def count(self, j: int, x: Vector) -> None:
        """From now on y_i has j's model, this one."""
        self.y, self.counted = self.y + self.view.w[j] * x, [*self.counted, j]
        self.unheard = {each: first for each, first in self.unheard.items() if each != j}

    def on_message(self, src: int, message: Message) -> None:
        """A whole model of who does not count; of who does it is known."""
        if src not in self.counted:
            self.count(src, message.x)
        if message.ask:
            self.send(src, Whole(self.given, ask=0))

    def on_view(self, view: View) -> None:
        """Without who was lost, and with other weights, y_i begins anew; who returned asks."""
        before, self.view = self.view.w, view
        self.unheard = {j: first for j, first in self.unheard.items() if j in view.w}
        if any(view.w.get(j) != before.get(j) for j in self.counted):
            self.anew()
