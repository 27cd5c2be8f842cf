"""A star around a server that all gradients go to: what the algorithms with a server share."""

from dataclasses import dataclass, field
from typing import ClassVar

from offbeat.core.agent import Agent
from offbeat.core.forms import pin
from offbeat.core.vector import Vector


@dataclass(frozen=True)
class Gradient:
    """A worker's gradient, at the server's model of step k."""

    k: int
    g: Vector


@dataclass(frozen=True)
class Model:
    """The server's model of step k."""

    k: int
    x: Vector


@dataclass
class Served(Agent):
    """Workers send gradients to the agent `view.server`, and wait; it decides what they are good for.

    A subclass says in `serve` what the server does with a gradient, and whom it answers. The server has a
    shard, too; its own gradients are there at once. The step is the server's, and so is the rule's state.

    A gradient that was sent to a server that crashed is lost with it. When it returns, it goes on from
    another agent's model, and gives that to everybody: who waits begins anew.

    Attributes:
        keeps_gradients: of the class: whether its server keeps gradients for later. What it does at an event
            hardly ever repeats itself, then
        round: how many steps the server has made; of a worker: by the model that it has
        at: of which of them the model is at which the gradient is taken
        waiting: for the server's answer
    """

    beyond_graph = changing_graph = True
    sends_models = (Model,)
    keeps_gradients: ClassVar[bool] = False
    at: int = field(init=False, default=0)
    waiting: bool = field(init=False, default=False)

    def serve(self, j: int, k: int, g: Vector) -> None:
        """At the server: the gradient of agent j, at the model of step k."""
        raise NotImplementedError

    def begin(self) -> None:
        """A gradient at the model that is here."""
        self.at, self.waiting = self.round, False
        self.compute(self.x)

    def answer(self, *agents: int) -> None:
        """At the server: they go on, from its model."""
        if self.me in agents:
            self.begin()
        if others := tuple([j for j in agents if j != self.me]):
            self.send(others, Model(self.round, self.x))

    def step(self, g: Vector, late: int = 0) -> None:
        """At the server: its model moves, along a gradient that is so many steps late."""
        self.delay = late
        self.x, self.round = self.x - self.rule(g), self.round + 1

    def start(self) -> None:
        """Everybody has the first model."""
        self.begin()

    def rejoin(self) -> None:
        """A worker goes on by itself; the server has everybody go on from the model that it was given."""
        if self.me == self.view.server:
            self.answer(*range(self.n))
        else:
            self.begin()

    def on_gradient(self, g: Vector) -> None:
        """To the server, and wait."""
        self.waiting = True
        if self.me == self.view.server:
            self.serve(self.me, self.at, g)
        else:
            self.send(self.view.server, Gradient(self.at, g))

    def on_message(self, src: int, message: Gradient | Model) -> None:
        """A gradient for the server, or its model."""
        if isinstance(message, Gradient):
            self.serve(src, message.k, message.g)
        else:
            self.round, self.x = message.k, pin(message.x)
            if self.waiting:
                self.begin()
