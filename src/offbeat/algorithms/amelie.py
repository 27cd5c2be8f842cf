"""Amelie SGD: as large minibatches as agents are fast, summed up a spanning tree. arXiv:2405.16218."""

from dataclasses import dataclass, field

from offbeat.core.tree import Tree
from offbeat.core.vector import Vector


@dataclass
class Amelie(Tree):
    """All take gradients at one model, as many as they can, until there are enough of all; then a step.

        g_i <- g_i + g_i(x^k),   s_i <- s_i + 1,   again and again
        as soon as n / sum_i (1 / s_i) >= S / n:   x^{k+1} = x^k - lr (1/n) sum_i g_i / s_i

    Paper -> code: k -> `round`; x^k -> `point`; g_i^k, s_i^k -> `g`, `s`; b_p -> `counts[p]`; b_i -> `Count`;
    S / n -> `batch`; x^k goes down the tree as `Model`, sum_j g_j / s_j of an agent and all below it up, as
    `Gradient`; the pivot j* -> the root of the tree, `view.server`; next_{st,j*}(i) -> `view.parent`;
    both trees are the same, that of the fewest hops.

    Attributes:
        batch: how large the harmonic mean of the agents' gradients has to be for a step; 1 asks for one of
            everybody at least. Theory has max(sigma^2 / eps, n) / n, for an error eps

    There is one model, whose steps are the same whatever delays are, as large minibatches as they ask for.

    Differs from the paper: a gradient cannot be stopped: one that is under way when a new point comes is
    ignored when it is done, and the point becomes the model then. A count is sent whenever it has changed,
    where the paper sends the newest one again and again; the step is the local rule at the pivot. Any pivot
    and any trees will do there; the best ones have the least delays, which nobody knows here.
    """

    batch: float = 1.0
    at: int = field(init=False, default=0)
    g: Vector | None = field(init=False, default=None)
    s: int = field(init=False, default=0)

    def start(self) -> None:
        """All have x^0."""
        self.point = self.x
        self.compute(self.x)

    def resume(self) -> None:
        """Everybody begins again to count at the newest point, which goes down the tree once more."""
        self.move(self.round, self.point)

    def on_gradient(self, g: Vector) -> None:
        """Count it, if no newer point has come; the next one is taken at the newest."""
        if self.at == self.round:
            self.g, self.s = g if self.g is None else self.g + g, self.s + 1
            self.count(1 / self.s)
        if self.at < self.round:
            self.x, self.at = self.point, self.round
        self.compute(self.x)

    def counted(self, b: float) -> None:
        """At the pivot: the harmonic mean of all s_i is n / b; is that enough?"""
        if self.n / b >= self.batch:
            self.collect()

    def share(self) -> Vector:
        """g_i / s_i."""
        assert self.g is not None
        return self.g / self.s

    def collected(self, sum_: Vector) -> None:
        """At the pivot: x^{k+1}, which goes down the tree."""
        self.move(self.round + 1, self.point - self.rule(sum_ / self.n))

    def move(self, k: int, x: Vector) -> None:
        """At a new point no gradient has been taken yet."""
        self.g, self.s = None, 0
        super().move(k, x)
