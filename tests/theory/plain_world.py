"""The simulated world once more, written from docs/world.md alone: numpy, a heap, nothing of the engine.

Read it beside that page's section *Exactly*; the headings here, and in the files that this one is built on,
are its headings: `plain_times` (streams, slowdowns), `plain_agents` (ADSGD, DSGD), `plain_events`,
`plain_sending` (the serial server, loss, Byzantine agents), `plain_fair`. Of offbeat they take the values of
a world (`offbeat.World` and what it holds) and nothing that computes. Left out is what ADSGD and DSGD never
ask for: accumulators, alarms, and measured delays from files.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from plain_agents import ADSGD, DSGD, Array, Effects, Message
from plain_events import FAULT, GRADIENT
from plain_fair import Network
from plain_sending import Item, Register
from plain_times import COMPUTE, DATA, delays, finish, one_by_one, stream

from offbeat import World
from offbeat.world.changes import Slowdown


class Simulation(Network):
    """Agents of one algorithm in a world. `run(until)`; then `agents`, `updates` and `messages` are read.

    Args:
        draw: (rng, count) -> the next `count` minibatches
        gradient: (agent, minibatch, x) -> the gradient
    """

    def __init__(
        self,
        algorithm: type[ADSGD] | type[DSGD],
        neighbours: Sequence[Sequence[int]],
        world: World,
        x0: Array,
        draw: Callable[[int, np.random.Generator, int], Any],
        gradient: Callable[[int, Any, Array], Array],
        lr: float,
    ) -> None:
        def batches(i: int) -> Callable[[np.random.Generator], Any]:
            return lambda rng: draw(i, rng, 64)

        n, seed = len(neighbours), world.seed
        super().__init__(n, world, x0.nbytes)
        self.neighbours, self.lr = [sorted(of) for of in neighbours], lr
        self.algorithm, self.gradient_of = algorithm, gradient
        self.data = [one_by_one(stream(seed, i, DATA), batches(i)) for i in range(n)]
        self.compute_delay = [
            delays(
                stream(seed, i, COMPUTE),
                world.own_compute.get(i, world.compute),
                world.slow_compute.get(i, 1.0),
            )
            for i in range(n)
        ]
        slowdowns = [change for change in world.changes if isinstance(change, Slowdown)]
        self.computing = [[s for s in slowdowns if s.agent == i and s.computes] for i in range(n)]
        self.alive = [True] * n
        self.unread: list[dict[Register, Message]] = [{} for _ in range(n)]  # in the order of arrival
        self.updates: list[tuple[float, int]] = []
        for crash in world.crashes:
            self.schedule(crash.at, FAULT, partial(self.crash, crash.agent, crash.until))
        self.agents = [algorithm(i, x0, self.row(i), lr) for i in range(n)]
        for i, agent in enumerate(self.agents):
            self.perform(i, agent.start())

    # -- Handlers -----------------------------------------------------------------------------------------

    def perform(self, i: int, effects: Effects) -> None:
        """What a handler asked for."""
        for what, *rest in effects:
            if what == "compute":
                self.compute(i, *rest)
            elif rest[0]:
                self.post(i, what == "publish", *rest)

    def handle(self, i: int, handler: Callable[..., Effects], *args: Any) -> None:
        before = self.agents[i].x
        effects = handler(*args)
        if self.agents[i].x is not before:
            self.updates.append((self.now, i))
        self.perform(i, effects)

    def deliver(self, i: int, j: int, item: Item) -> None:
        if not self.alive[j] or self.life[j] != item.lives[item.receivers.index(j)]:
            return
        if item.register is None:
            self.handle(j, self.agents[j].message, i, item.message)
        elif not item.lost.get(j) and not self.cuts_until(i, j, self.now):
            self.unread[j].pop(item.register, None)
            self.unread[j][item.register] = item.message

    # -- Gradients ----------------------------------------------------------------------------------------

    def compute(self, i: int, x: Array) -> None:
        sample, delay = next(self.data[i]), next(self.compute_delay[i])
        end = finish(self.computing[i], self.now, delay)
        self.schedule(end, GRADIENT, lambda: self.computed(i, sample, x), of=i)

    def computed(self, i: int, sample: Any, x: Array) -> None:
        unread, self.unread[i] = self.unread[i], {}
        for register, message in unread.items():
            self.handle(i, self.agents[i].message, register[0], message)
        self.handle(i, self.agents[i].gradient, self.gradient_of(i, sample, x))

    # -- Crashes ------------------------------------------------------------------------------------------

    def row(self, i: int) -> dict[int, float]:
        """Row i of W; the weight of a neighbour that is down is on the diagonal."""
        degree = [len(of) for of in self.neighbours]
        w = {j: 1 / (1 + max(degree[i], degree[j])) for j in self.neighbours[i]}
        own = 1 - sum(w.values()) + sum(w[j] for j in w if not self.alive[j])
        return dict(sorted(({j: w[j] for j in w if self.alive[j]} | {i: own}).items()))

    def tell_neighbours(self, i: int) -> None:
        for j in self.neighbours[i]:
            if self.alive[j]:
                self.handle(j, self.agents[j].view, self.row(j))

    def crash(self, i: int, until: float | None) -> None:
        self.alive[i], self.busy[i], self.queue[i] = False, False, []
        self.life[i] += 1
        self.unread[i] = {}
        for j, unread in enumerate(self.unread):
            self.unread[j] = {register: v for register, v in unread.items() if register[0] != i}
        self.flows = [flow for flow in self.flows if flow.sender != i]
        if self.fair:
            self.change_rates()
        if until is not None:
            self.schedule(until, FAULT, lambda: self.come_back(i))
        self.tell_neighbours(i)

    def come_back(self, i: int) -> None:
        living = [j for j in range(len(self.agents)) if self.alive[j]]
        donor = self.agents[min([j for j in living if j in self.neighbours[i]] or living or [i])]
        self.alive[i] = True
        self.agents[i] = self.algorithm(i, donor.x, self.row(i), self.lr, donor.round)
        self.tell_neighbours(i)
        self.perform(i, self.agents[i].rejoin())
