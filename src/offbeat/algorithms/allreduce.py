"""Parallel SGD: everybody averages everybody's gradient by ring all-reduce, in every step."""

from collections import deque
from dataclasses import dataclass, field

from offbeat.core.agent import Agent
from offbeat.core.forms import concat, split
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Part:
    """Piece c of a gradient, summed over the agents that it has passed."""

    c: int
    v: Vector


@dataclass
class AllReduceSGD(Agent):
    """One common model, stepped along the mean of all agents' gradients.

        x <- x - lr (1/n) sum_i g_i(x)

    The gradient is cut into n pieces. In n - 1 hops each piece travels around the ring and is summed,
    in n - 1 more the sums travel around; every hop moves 1/n of a model to the agent on the right.

    There is no barrier, neither between hops nor between steps: a piece is sent on as soon as it has come and
    the own gradient is done, and who has all sums steps and computes at once, while others still wait for
    theirs. So a slow hop holds up what comes after it on the ring, and not the whole ring at once.

    The ring is 0, 1, ..., n-1 whatever the topology is: all-reduce does not know neighbours. It needs
    everybody: when an agent is lost the ring stands still, and cannot be joined again half-way.

    Attributes:
        local_steps: with more than one it is local SGD (arXiv:1805.09767): so many steps of one's own, then
            the mean of all models, x <- (1/n) sum_i x_i, in place of that of all gradients.
    """

    beyond_graph = changing_graph = one_model = True
    local_steps: int = 1
    pieces: list[Vector] = field(init=False, default_factory=list)
    mail: deque[Part] = field(init=False, default_factory=deque)
    hop: int = field(init=False, default=0)

    @property
    def right(self) -> int:
        """The next agent on the ring."""
        return (self.me + 1) % self.n

    def on_gradient(self, g: Vector) -> None:
        """Have the gradients averaged, or the models, if steps are made in between."""
        if self.local_steps == 1:
            self.average(g)
        else:
            self.x = self.x - self.rule(g)
            self.average(self.x)

    def averaged(self, mean: Vector) -> None:
        """The mean over all agents is here: step, or go on from it."""
        self.x = self.x - self.rule(mean) if self.local_steps == 1 else mean
        self.compute(self.x)

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
