"""Asynchronous SGD that ignores gradients which are too old. arXiv:2501.16168, without calculation stops."""

from dataclasses import dataclass

from offbeat.core.server import Served
from offbeat.core.vector import Vector


@dataclass
class Ringmaster(Served):
    """As apsgd, but a gradient that is R steps late or later is ignored.

        x^{k+1} = x^k - lr g_i(x^{k - delta}) if delta < R, else x^k stays;   agent i goes on from the newest

    Paper -> code: k -> the server's `round`; k - delta -> `k` of the gradient, the agent's `at`; R -> `r`.

    Attributes:
        r: from which delay on, in steps of the server, a gradient is ignored; r = 1 takes none but those at
            the present model. How large it is best is a matter of noise and precision; our default is 16.

    Differs from the paper, as far as we know it: its agents have data of one distribution, ours a shard each.
    Their mail takes time. Ours: the server is an agent with a shard, too. A gradient that was ignored counts
    as an update in tables and traces, since its agent takes the newest model for it.
    """

    knows_delay = True
    r: int = 16

    def serve(self, j: int, k: int, g: Vector) -> None:
        """A step, unless it is too late for it."""
        if self.round - k < self.r:
            self.step(g, self.round - k)
        self.answer(j)
