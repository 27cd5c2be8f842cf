"""Asynchronous SGD along a table with gradients of all, in rounds. arXiv:2509.22860."""

from dataclasses import dataclass, field

from offbeat.core.forms import weighted
from offbeat.core.server import Gradient, Model, Served
from offbeat.core.vector import Vector

Table = dict[int, tuple[Vector, int]]


@dataclass(frozen=True)
class Again:
    """Another gradient at the same model."""


AGAIN = Again()


@dataclass
class Ringleader(Served):
    """Every step is along the mean of all agents' gradients, and n steps make a round, one for each agent.

        x <- x - lr (1/n) sum_i G_i / b_i,   G_i the sum of the b_i gradients in the table that are agent i's

    Collecting: gradients go into the table until it has one of everybody. Stepping: the last of these makes a
    step, and so does, once it is in the table, the next gradient of every other agent; who made it gets the
    new model. What comes of an agent meanwhile that made its step already goes into the next round's table.

    Paper -> code: (G_i, b_i) -> `table[i]`; (G_i^+, b_i^+) -> `later[i]`; the agents that have no new model
    in this round yet -> `due`, empty while collecting. An agent that gets no new model goes on at that which
    it has, so that all its gradients in a table are at one model; it is told by a message without vectors.

    Differs from the paper, as far as we know it: mail takes time, and an agent waits for the server's word.
    Ours: the server is an agent with a shard, too, whose gradients are always at the newest model. One that
    returns after a crash, and the server then, goes on with what the tables have.
    """

    keeps_gradients = True
    table: Table = field(init=False, default_factory=dict)
    later: Table = field(init=False, default_factory=dict)
    due: list[int] = field(init=False, default_factory=list)

    def serve(self, j: int, k: int, g: Vector) -> None:
        """Into this table or the next; a step, once everybody is in it."""
        if self.due and j not in self.due:
            add(self.later, j, g)
            self.again(j)
            return
        add(self.table, j, g)
        if len(self.table) < self.n:
            self.again(j)
            return
        self.step(weighted(*[(1 / (self.n * b), sum_) for sum_, b in self.table.values()]))
        self.due = [i for i in self.due or range(self.n) if i != j]
        if not self.due:
            self.table, self.later = self.later, {}
        self.answer(j)

    def again(self, j: int) -> None:
        """At the server: agent j goes on at the model that it has."""
        if j == self.me:
            self.begin()
        else:
            self.send(j, AGAIN)

    def on_message(self, src: int, message: Gradient | Model | Again) -> None:
        """Besides a gradient or a model, the word to go on."""
        if not isinstance(message, Again):
            super().on_message(src, message)
        elif self.waiting:
            self.begin()


def add(table: Table, j: int, g: Vector) -> None:
    """Another gradient of agent j."""
    if j in table:
        before, b = table[j]
        table[j] = before + g, b + 1
    else:
        table[j] = g, 1
