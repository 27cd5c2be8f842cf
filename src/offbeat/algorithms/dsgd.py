"""Decentralized SGD with a barrier among neighbours. arXiv:1705.09056, a baseline of arXiv:2505.10322."""

from dataclasses import dataclass, field

from offbeat.core.agent import Agent, View
from offbeat.core.forms import mix
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Letter:
    """The sender's model of round k."""

    k: int
    x: Vector


@dataclass
class DSGD(Agent):
    """Every round, mix the neighbours' models *of that round*: a barrier is counting letters.

        x_i^{k+1} = sum_j w_ij x_j^k - lr g_i(x_i^k)

    Paper -> code: k -> `round`; x_j^k -> `letters[k][j]`. x_i^k is sent while its gradient is being computed,
    and a round takes as long as the slower of the two.

    Attributes:
        after: send x_i^k when its gradient is done, as a program does that computes and then communicates.

    Differs from the paper: crashes, which it leaves open. A peer that returned takes part from the first
    round of which its letter comes.
    """

    after: bool = False
    g: Vector | None = field(init=False, default=None)
    letters: dict[int, dict[int, Vector]] = field(init=False, default_factory=dict)
    since: dict[int, int] = field(init=False, default_factory=dict)

    def start(self) -> None:
        """Everybody takes part from round 0."""
        self.since = dict.fromkeys(self.view.w, 0)
        self.begin()

    def rejoin(self) -> None:
        """After a crash: whoever sends a letter takes part from that letter's round."""
        self.since = {self.me: self.round}
        self.begin()

    def begin(self) -> None:
        """A round: the gradient at x_i^k, and the letter beside it or after it."""
        self.compute(self.x)
        if not self.after:
            self.post()

    def post(self) -> None:
        """Send x_i^k to everybody who mixes it; to myself it takes no time."""
        self.letters.setdefault(self.round, {})[self.me] = self.x
        self.send(self.view.listeners, Letter(self.round, self.x))

    def on_gradient(self, g: Vector) -> None:
        """The gradient at x_i^k is there."""
        self.g = g
        if self.after:
            self.post()
        self.finish()

    def on_message(self, src: int, message: Letter) -> None:
        """A letter; a neighbour may be a round ahead."""
        if message.k >= self.round:
            self.letters.setdefault(message.k, {})[src] = message.x
        self.since.setdefault(src, message.k)
        self.finish()

    def on_view(self, view: View) -> None:
        """Wait no longer for who was lost, and tell who returned where we are."""
        back = tuple(j for j in view.listeners if j not in self.view.listeners)
        self.view = view
        self.since = {j: k for j, k in self.since.items() if j in view.w}
        self.letters = {k: {j: x for j, x in xs.items() if j in view.w} for k, xs in self.letters.items()}
        if back and self.me in self.letters.get(self.round, {}):
            self.send(back, Letter(self.round, self.x))
        self.finish()

    def finish(self) -> None:
        """The barrier: all letters of this round and the gradient."""
        heard = self.letters.get(self.round, {})
        awaited = [j for j in self.view.w if self.round >= self.since.get(j, self.round + 1)]
        if self.g is None or any(j not in heard for j in awaited):
            return
        self.x = mix(self.view.w, heard, own=self.x) - self.rule(self.g)
        self.letters.pop(self.round)
        self.g, self.round = None, self.round + 1
        self.begin()
