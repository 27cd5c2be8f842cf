"""Asynchronous decentralized parallel SGD. arXiv:1710.06952."""

from dataclasses import dataclass

from offbeat.core.agent import View
from offbeat.core.errors import SettingError
from offbeat.core.forms import difference
from offbeat.core.pairs import Ask, Meeting, Moved
from offbeat.core.vector import Vector


@dataclass
class ADPSGD(Meeting):
    """Average with one random neighbour, then step along a gradient taken before the averaging.

        x_i, x_j <- (x_i + x_j) / 2,   then   x_i <- x_i - lr g_i(xhat_i)

    Paper -> code: the active agent i sends `Ask(x_i)`; the passive one answers at once, also while it
    computes. xhat_i, the model that the gradient was started at, is what was given to `compute`. An agent
    asks when its gradient starts, so that averaging and computing go on together, and steps when both are
    done.

    Attributes:
        wait: ask when the gradient is done, and wait for the answer before the step and the next gradient.
        atomic: on a bipartite graph only the agents of one side ask and those of the other only answer, so
            that every averaging is atomic; this is how arXiv:1710.06952 excludes deadlock.
        local_steps: gradients for each averaging. Ours.

    Differs from the paper: the answer is the displacement d = (x_i - x_j)/2, so x_i + x_j is kept
    exactly even if x_i has moved in between (it was asked by a third agent meanwhile), and no lock is
    needed on any graph. When two agents ask each other at once, the one with the higher index
    withdraws its question and answers.
    """

    sends_models = (Ask,)
    wait: bool = False
    atomic: bool = False
    local_steps: int = 1

    def check(self) -> None:
        """`atomic` needs a two-coloured graph."""
        if self.atomic and self.n > 1 and self.view.side is None:
            raise SettingError(
                "adpsgd:atomic needs a bipartite graph, in which every edge joins an agent that asks to one "
                "that answers; this topology has an odd cycle. Use a grid, a chain, a star, a tree or a ring "
                "with an even number of agents, or plain adpsgd."
            )

    def begin(self) -> None:
        """The next gradient, and the question beside it."""
        self.compute(self.x)
        if not self.wait:
            self.ask_one()

    def ask_one(self) -> None:
        """Choose a neighbour at random and offer it my model."""
        if self.view.listeners and not (self.atomic and self.view.side == 1):
            self.ask(self.rng.choice(self.view.listeners))

    def on_gradient(self, g: Vector) -> None:
        """The gradient at xhat_i is there."""
        if self.wait:
            self.ask_one()
        super().on_gradient(g)

    def on_message(self, src: int, message: Ask | Moved) -> None:
        """A question is answered at once; an answer completes the averaging."""
        match message:
            case Ask(x):
                if src == self.asked:
                    if self.me < src:
                        return
                    self.asked = None
                self.flow()
                d = difference(x, self.x) / 2
                self.move(d)
                self.send(src, Moved(d))
            case Moved(d):
                self.flow()
                self.move(-d)
                if src == self.asked:
                    self.asked = None
        self.finish()

    def on_view(self, view: View) -> None:
        """Wait no longer for the answer of who was lost."""
        self.view = view
        if self.asked not in view.listeners:
            self.asked = None
        self.finish()

    def flow(self) -> None:
        """What goes on between events, up to now: nothing here, something in `a2cid2`."""

    def move(self, d: Vector) -> None:
        """Averaging moves the model by d; in `a2cid2` a second one too."""
        self.x = self.x + d
