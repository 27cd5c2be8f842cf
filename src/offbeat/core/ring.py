"""Ring all-reduce: the mean of what everybody has one of."""

from collections import deque
from dataclasses import dataclass, field

from offbeat.core.agent import Agent
from offbeat.core.errors import ContractError
from offbeat.core.forms import concat, split
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Part:
    """Piece c of a vector, summed over the agents that it has passed."""

    c: int
    v: Vector


@dataclass
class Ring(Agent):
    """Everybody gives a vector to `average`, and gets the mean of all as `averaged`.

    The vector is cut into n pieces. In n - 1 hops each piece travels around the ring and is summed, in n - 1
    more the sums travel around; every hop moves 1/n of a model to the agent on the right.

    There is no barrier between hops: a piece is sent on as soon as it has come and the own vector is there.
    So a slow hop holds up what comes after it on the ring, and not the whole ring at once.

    The ring is 0, 1, ..., n-1 whatever the topology is: all-reduce does not know neighbours. It needs
    everybody: when an agent is lost the ring stands still, and cannot be joined again half-way.

    Attributes:
        pieces: of the own vector, those that have come added; none between two averagings
        mail: what has come and waits for the own vector
        hop: how many pieces were taken in, of 2 (n - 1)
    """

    beyond_graph = changing_graph = True
    pieces: list[Vector] = field(init=False, default_factory=list)
    mail: deque[Part] = field(init=False, default_factory=deque)
    hop: int = field(init=False, default=0)

    def averaged(self, mean: Vector) -> None:
        """The mean over all agents is here."""
        raise ContractError(f"{type(self).__name__} averages: override averaged.")

    @property
    def right(self) -> int:
        """The next agent on the ring."""
        return (self.me + 1) % self.n

    def average(self, v: Vector) -> None:
        """Cut what everybody has one of, and send the first piece on its way."""
        self.pieces, self.hop = split(v, self.n), 0
        if self.n > 1:
            self.send(self.right, Part(self.me, self.pieces[self.me]))
        self.advance()

    def on_message(self, src: int, message: Part) -> None:
        """A piece from the left; it may come before what it is added to."""
        self.mail.append(message)
        self.advance()

    def resume(self) -> None:
        """Everybody goes on from the same step, and sends its pieces again."""
        self.mail.clear()

    def advance(self) -> None:
        """Take in the pieces that have come; the last of 2 (n - 1) hops ends it."""
        while self.pieces and self.mail and self.hop < 2 * (self.n - 1):
            part, self.hop = self.mail.popleft(), self.hop + 1
            summing = self.hop < self.n
            self.pieces[part.c] = self.pieces[part.c] + part.v if summing else part.v
            if self.hop < 2 * (self.n - 1):
                self.send(self.right, Part(part.c, self.pieces[part.c]))
        if self.pieces and self.hop == 2 * (self.n - 1):
            pieces, self.pieces = self.pieces, []
            self.averaged(concat(pieces) / self.n)
