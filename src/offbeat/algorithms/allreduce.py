"""Parallel SGD: everybody averages everybody's gradient by ring all-reduce, in every step."""

from dataclasses import dataclass

from offbeat.core.ring import Ring
from offbeat.core.vector import Vector


@dataclass
class AllReduceSGD(Ring):
    """One common model, stepped along the mean of all agents' gradients.

        x <- x - lr (1/n) sum_i g_i(x)

    The mean is that of `core.ring`: each gradient is cut into n pieces, which travel around the ring
    0, 1, ..., n-1, whatever the topology is, in n - 1 hops to be summed and in n - 1 more as sums.

    There is no barrier, neither between hops nor between steps: a piece is sent on as soon as it has come and
    the own gradient is done, and who has all sums steps and computes at once, while others still wait for
    theirs. When an agent is lost the ring stands still, and cannot be joined again half-way.

    Attributes:
        local_steps: with more than one it is local SGD (arXiv:1805.09767): so many steps of one's own, then
            the mean of all models, x <- (1/n) sum_i x_i, in place of that of all gradients.

    Paper -> code: x -> `x`, lr -> `rule`; the ring and its hops: `core.ring`.

    Differs from the papers, arXiv:1710.06952 and arXiv:2505.10322, which compare with it: the hops are the
    textbook's, and that nobody waits between them, or between steps, is ours.
    """

    one_model = True
    local_steps: int = 1

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
