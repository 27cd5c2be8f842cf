"""Push-sum in rounds: models whose sum is kept, on directed graphs too."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from offbeat.core.agent import Message, View
from offbeat.core.forms import total
from offbeat.core.rounds import Rounds
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Push:
    """A share of what the sender held in round k: of its sum x, and of its weight w."""

    k: int
    x: Vector
    w: float


@dataclass
class PushSum(Rounds):
    """An agent holds a sum x_i and a weight w_i, and gives shares a_ji of both away; z_i = x_i / w_i.

    Conserved by mixing: the sums of x_i and of w_i, with what is under way, at every instant. Those to whom
    an agent gives equal shares get them in one transmission.

    When a neighbour is lost, what it was given in this round is taken back, if nothing that it gave in this
    round has been added; so with symmetric weights every w_i is 1 again at the end of the round. What the
    lost held goes with it, x and w alike, so z stays a weighted mean of models. Who returns begins with a
    neighbour's z and weight 1; with the sums of before, it and the others are as many.

    Attributes:
        z: the model, at which gradients are taken, and which is evaluated
        w: the weight; x is the sum
        given: neighbour -> what it was given in this round
    """

    w: float = field(init=False, default=1.0)
    z: Vector = field(init=False, repr=False)
    given: dict[int, Push] = field(init=False, default_factory=dict)

    @property
    def model(self) -> Vector:
        """z_i."""
        return self.z

    def start(self) -> None:
        """All weights are 1."""
        self.z = self.x
        super().start()

    def rejoin(self) -> None:
        """After a crash, likewise."""
        self.z = self.x
        super().rejoin()

    def begin(self) -> None:
        """A round begins with the gradient at z_i."""
        self.compute(self.z)

    def give(self, to: Iterable[int], letter: Message) -> None:
        """Give shares of what is held now, whatever the letter, and keep the rest."""
        shares: dict[float, list[int]] = {}
        for j in to:
            shares.setdefault(self.here.a[j], []).append(j)
        x, w = self.x, self.w
        for a, group in shares.items():
            push = Push(self.round, a * x, a * w)
            self.send(group, push)
            self.given |= dict.fromkeys(group, push)
        kept = 1.0 - sum(a * len(group) for a, group in shares.items())
        self.x, self.w = kept * x, kept * w

    def hold(self, pushes: list[Push]) -> None:
        """Add what was given to this agent, or is taken back, to what it holds."""
        self.x = total([push.x for push in pushes], start=self.x)
        self.w = self.w + sum(push.w for push in pushes)

    def late(self, message: Push) -> None:
        """It is mass nevertheless."""
        self.hold([message])

    def add(self, heard: dict[int, Push | None]) -> None:
        """Add what has come of a round; it stays there as None, and is not added twice."""
        self.hold([push for push in heard.values() if push is not None])
        heard |= dict.fromkeys(heard)
        self.z = (1.0 / self.w) * self.x

    def combine(self, heard: dict[int, Push | None]) -> None:
        """The round ends: all is added."""
        self.add(heard)
        self.given = {}

    def on_view(self, view: View) -> None:
        """Take back what was given in this round to who was lost, unless that has given too."""
        added = [j for j, push in self.letters.get(self.round, {}).items() if push is None]
        there = view.at(self.round).a
        self.hold([push for j, push in self.given.items() if j not in there and j not in added])
        self.given = {j: push for j, push in self.given.items() if j in there}
        super().on_view(view)
