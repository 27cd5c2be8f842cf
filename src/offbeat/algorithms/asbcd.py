"""Asynchronous stochastic block coordinate descent. arXiv:2505.10322, Algorithm 1."""

from dataclasses import dataclass, field

from offbeat.core.agent import Agent, View
from offbeat.core.forms import piece, replaced
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Block:
    """The sender's own block of the one model that all work on."""

    v: Vector


@dataclass
class ASBCD(Agent):
    """Everybody has the whole model and improves one block of it, at a gradient that may be of older blocks.

        x_i <- x_i - lr [g_i(xhat_i)]_i,   xhat_i = (newest x_1, ..., newest x_n) when the gradient began

    Paper -> code: block i of the model -> `piece(x, n, i)`, one of n pieces of almost one length; xhat_i ->
    `x`, put together from the own block and the newest of others when the gradient before it is done.

    Everybody hears everybody, whatever the graph is. The block of an agent that crashed stays as it was until
    it returns.

    Differs from the paper: an agent's gradient is that of its own shard. It is that of f, which the paper's
    agents all have, only if all shards are the same; else block i goes to where f_i is least.
    """

    beyond_graph = changing_graph = True
    sends_models = (Block,)
    blocks = True
    heard: dict[int, Vector] = field(init=False, default_factory=dict)

    def on_message(self, src: int, message: Block) -> None:
        """The newest block of `src`."""
        self.heard[src] = message.v

    def on_gradient(self, g: Vector) -> None:
        """Improve the own block, and read the others as they are now: xhat of the next gradient."""
        n, me = self.n, self.me
        mine = piece(self.x, n, me) - piece(self.rule(g), n, me)
        self.publish((*range(me), *range(me + 1, n)), Block(mine))
        self.x = replaced(self.x, n, {**self.heard, me: mine}, of=tuple(self.heard.values()))
        self.compute(self.x)

    def on_view(self, view: View) -> None:
        """Nobody's block is lost with it."""
        self.view = view
