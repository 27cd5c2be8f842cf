"""Amelie SGD: as large minibatches as agents are fast, summed up a spanning tree. arXiv:2405.16218."""

from dataclasses import dataclass, field

from offbeat.algorithms.server import Gradient, Model
from offbeat.core.agent import Agent
from offbeat.core.forms import pin, total
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Count:
    """Up the tree: sum_j 1 / s_j of the sender and of all below it."""

    k: int
    b: float


@dataclass(frozen=True)
class Collect:
    """Down the tree: there are enough gradients at the model of step k."""

    k: int


@dataclass
class Amelie(Agent):
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
    point: Vector = field(init=False, repr=False)
    g: Vector | None = field(init=False, default=None)
    s: int = field(init=False, default=0)
    collecting: bool = field(init=False, default=False)
    counts: dict[int, float] = field(init=False, default_factory=dict)
    sums: dict[int, Vector] = field(init=False, default_factory=dict)

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
            self.report()
        if self.at < self.round:
            self.x, self.at = self.point, self.round
        self.compute(self.x)

    def on_message(self, src: int, message: Model | Count | Collect | Gradient) -> None:
        """A new point from above, or what there is below; of a point that is over, nothing counts."""
        match message:
            case Model(k, x):
                self.move(k, pin(x))
            case Count(k, b) if k == self.round:
                self.counts[src] = b
                self.report()
            case Collect(k) if k == self.round:
                self.collect()
            case Gradient(k, g) if k == self.round:
                self.sums[src] = g
                self.gather()

    def report(self) -> None:
        """b_i, to whoever is above; the pivot sees whether that is enough."""
        if self.s and len(self.counts) == len(self.view.children):
            b = 1 / self.s + sum(self.counts[p] for p in self.view.children)
            if self.view.parent is not None:
                self.send(self.view.parent, Count(self.round, b))
            elif not self.collecting and self.n / b >= self.batch:
                self.collect()

    def collect(self) -> None:
        """Ask all below for their sums."""
        self.collecting = True
        self.send(self.view.children, Collect(self.round))
        self.gather()

    def gather(self) -> None:
        """The sum of all below and of the own mean: up the tree, or at the pivot a step."""
        if self.g is not None and len(self.sums) == len(self.view.children):
            mean = total([self.sums[p] for p in self.view.children], start=self.g / self.s)
            if self.view.parent is not None:
                self.send(self.view.parent, Gradient(self.round, mean))
            else:
                self.move(self.round + 1, self.point - self.rule(mean / self.n))

    def move(self, k: int, x: Vector) -> None:
        """The point of step k, for everybody below too."""
        self.round, self.point, self.collecting = k, x, False
        self.g, self.s, self.counts, self.sums = None, 0, {}, {}
        self.send(self.view.children, Model(k, x))
