"""Rounds with a barrier among neighbours: what synchronous algorithms share."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from offbeat.core.agent import Agent, Message, View
from offbeat.core.errors import ContractError
from offbeat.core.vector import Vector


@dataclass
class Rounds(Agent):
    """In every round one letter to all who listen; a round ends when the letters of all neighbours are here.

    A barrier is counting letters: their messages have a field `k`, the round. A neighbour may be ahead, by a
    round on an undirected graph that stands still; its letters wait for theirs. Nobody waits for who was
    lost, and who returns takes part from the first round of which its letter comes. On a graph that changes,
    `here` says who hears whom in this round, and with which weights; who listens in it gets the letter. Who
    returns there and the others wait for each other as soon as they have heard each other once.

    Attributes:
        letters: round -> sender -> letter, the agent's own included, as it was given to `post`
        later: of neighbours that have returned, or were there when the agent did: from which round on their
            letters are waited for; None: no letter has come yet
        done: whether the gradients of this round are
    """

    letters: dict[int, dict[int, Any]] = field(init=False, default_factory=dict)
    later: dict[int, int | None] = field(init=False, default_factory=dict)
    done: bool = field(init=False, default=False)

    # -- what an algorithm says ------------------------------------------------------------------------

    def begin(self) -> None:
        """A round begins. Default: the gradient at x_i."""
        self.compute(self.x)

    def adapt(self, g: Vector) -> None:
        """The gradient is there; whoever has not posted its letter yet does so."""
        raise ContractError(f"{type(self).__name__} has rounds: override adapt, and post a letter in each.")

    def combine(self, heard: dict[int, Any]) -> None:
        """The round ends with these letters: `heard` has, by agent, its own and those that have come."""
        raise ContractError(f"{type(self).__name__} has rounds: override combine.")

    def give(self, to: Iterable[int], letter: Message) -> None:
        """How a letter is sent."""
        self.send(to, letter)

    def late(self, message: Message) -> None:
        """A letter of a round that is over here, from who returned or to it. Default: forget it."""

    @property
    def here(self) -> View:
        """The graph in this round, as the agent sees it."""
        return self.view.at(self.round)

    # -- the barrier -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Everybody takes part from now on."""
        self.begin()

    def rejoin(self) -> None:
        """After a crash: whoever sends a letter takes part from that letter's round."""
        self.later = dict.fromkeys(self.view.peers)
        self.begin()

    def post(self, letter: Message | None) -> None:
        """Send this round's letter to everybody who mixes it; to myself it takes no time."""
        self.letters.setdefault(self.round, {})[self.me] = letter
        self.give(self.here.listeners, letter)

    def on_gradient(self, g: Vector) -> None:
        """The gradient of this round is there."""
        self.done = True
        self.adapt(g)
        self.finish()

    def on_message(self, src: int, message: Message) -> None:
        """A letter; a neighbour may be a round ahead."""
        if message.k >= self.round:
            self.letters.setdefault(message.k, {})[src] = message
        else:
            self.late(message)
        if src in self.later and self.later[src] is None:
            self.later[src] = message.k
        self.finish()

    def on_view(self, view: View) -> None:
        """Wait no longer for who was lost, and tell who returned where we are."""
        before, known, living = self.here.listeners, self.view.peers, {self.me, *view.peers}
        self.view = view
        back = tuple(j for j in self.here.listeners if j not in before)
        new = dict.fromkeys(j for j in view.peers if j not in known)
        self.later = {j: k for j, k in self.later.items() if j in living} | new
        self.letters = {k: {j: x for j, x in xs.items() if j in living} for k, xs in self.letters.items()}
        mine = self.letters.get(self.round, {})
        if back and self.me in mine:
            self.give(back, mine[self.me])
        self.finish()

    def waits(self, j: int) -> bool:
        """Whether a letter of this neighbour is waited for in this round."""
        if j not in self.later:
            return True
        since = self.later[j]
        return since is not None and self.round >= since

    def finish(self) -> None:
        """The barrier: all letters of this round and the gradient."""
        if not self.done:
            return
        k = self.round
        heard = self.letters.get(k, {})
        if any(j not in heard and self.waits(j) for j in self.here.w):
            return
        self.letters.pop(k)
        self.combine({j: heard[j] for j in sorted(heard)})
        self.done, self.round = False, self.round + 1
        self.begin()
