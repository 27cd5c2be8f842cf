"""Asynchronous SGD at a parameter server. arXiv:1506.08272, over a network."""

from dataclasses import dataclass

from offbeat.core.server import Served
from offbeat.core.vector import Vector


@dataclass
class APSGD(Served):
    """The server steps along whatever gradient comes, and gives the new model to whom it came from.

        x <- x - lr g_i(x^{k - tau})

    Paper -> code: x -> the server's `x`; x^{k - tau} -> the model of step `at`, at which the worker computes.

    Differs from the paper, as far as we know it: M, the number of gradients that one step sums, is 1. A
    worker is sent the model, and waits for it, where the paper's reads it from the server. Ours: the server
    is an agent with a shard, too; its own gradients are there at once.
    """

    knows_delay = True

    def serve(self, j: int, k: int, g: Vector) -> None:
        """A step, whatever its age."""
        self.step(g, self.round - k)
        self.answer(j)
