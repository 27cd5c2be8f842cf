"""A spanning tree: numbers and vectors go up it as sums, a model goes down it."""

from dataclasses import dataclass, field

from offbeat.core.agent import Agent
from offbeat.core.errors import ContractError
from offbeat.core.forms import pin, total
from offbeat.core.server import Gradient, Model
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Count:
    """Up the tree: the sum of the numbers of the sender and of all below it."""

    k: int
    b: float


@dataclass(frozen=True)
class Collect:
    """Down the tree: now the vectors are summed that are of the model of step k."""

    k: int


@dataclass
class Tree(Agent):
    """The root has a model, `point`, and moves it by what all have of it: numbers first, and then vectors.

    In each step every agent counts, once or more; whenever the root knows the sum of all numbers, `counted`
    may `collect` the vectors; these are summed on their way up, and `collected` may `move` the point. Nothing
    counts of a point that is over. All sums need everybody.

    The tree has the fewest hops to its root, `view.server`: `view.parent` and `view.children`.

    Attributes:
        round: the step that the newest point is of
        point: the newest point that is known here
        b: the agent's own number; None before it has counted at this point
        counts, sums: child -> its number and its vector at this point, summed with all below it
        collecting: whether the vectors are asked for
    """

    point: Vector = field(init=False, repr=False)
    b: float | None = field(init=False, default=None)
    counts: dict[int, float] = field(init=False, default_factory=dict)
    sums: dict[int, Vector] = field(init=False, default_factory=dict)
    collecting: bool = field(init=False, default=False)

    # -- what an algorithm says ------------------------------------------------------------------------

    def counted(self, b: float) -> None:
        """At the root, until it collects: the sum of all numbers, whenever one has changed."""
        raise ContractError(f"{type(self).__name__} counts: override counted.")

    def share(self) -> Vector:
        """The agent's own vector."""
        raise ContractError(f"{type(self).__name__} collects: override share.")

    def collected(self, sum_: Vector) -> None:
        """At the root: the sum of all vectors."""
        raise ContractError(f"{type(self).__name__} collects: override collected.")

    # -- up and down -----------------------------------------------------------------------------------

    def on_message(self, src: int, message: Model | Count | Collect | Gradient) -> None:
        """A new point from above, or what there is below."""
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

    def count(self, b: float) -> None:
        """The agent's own number is this one now."""
        self.b = b
        self.report()

    def report(self) -> None:
        """The sum of all below and of the own number, to whoever is above."""
        if self.b is not None and len(self.counts) == len(self.view.children):
            b = self.b + sum(self.counts[p] for p in self.view.children)
            if self.view.parent is not None:
                self.send(self.view.parent, Count(self.round, b))
            elif not self.collecting:
                self.counted(b)

    def collect(self) -> None:
        """Ask all below for their vectors."""
        self.collecting = True
        self.send(self.view.children, Collect(self.round))
        self.gather()

    def gather(self) -> None:
        """The sum of all below and of the own vector, to whoever is above."""
        if self.b is not None and len(self.sums) == len(self.view.children):
            sum_ = total([self.sums[p] for p in self.view.children], start=self.share())
            if self.view.parent is not None:
                self.send(self.view.parent, Gradient(self.round, sum_))
            else:
                self.collected(sum_)

    def move(self, k: int, x: Vector) -> None:
        """The point of step k, for everybody below too; all begin again to count."""
        self.round, self.point, self.collecting = k, x, False
        self.b, self.counts, self.sums = None, {}, {}
        self.send(self.view.children, Model(k, x))
