"""The serial server, loss, Byzantine agents, as docs/world.md has them: part of `plain_world`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from plain_agents import Array, Message
from plain_events import DELIVERY, Events
from plain_times import BYZANTINE, COMMUNICATION, LOSS, delays, finish, on_link, one_by_one, stream

from offbeat import World
from offbeat.world.changes import Cut, Slowdown
from offbeat.world.per_link import PerLink

Register = tuple[int, tuple[int, ...], tuple[int, ...]]  # sender, receivers of the effect, of the item


@dataclass
class Item:
    """What one transmission carries. `lives`: which life of its receivers it is for."""

    register: Register | None  # None: mail
    receivers: tuple[int, ...]
    lives: tuple[int, ...]
    message: Message
    lost: dict[int, bool] = field(default_factory=dict)  # drawn at the first event
    flows: int = 0  # that have not ended

    @property
    def bytes(self) -> int:
        return sum(v.nbytes for v in self.message if isinstance(v, np.ndarray))


class Sending(Events):
    """What n agents send, of models of so many bytes."""

    def __init__(self, n: int, world: World, model_bytes: int) -> None:
        super().__init__(n)
        self.world, self.model_bytes, self.fair = world, model_bytes, world.network == "fair"
        self.send_delay = [self.delays_of(i) for i in range(n)]
        self.loss = [one_by_one(stream(world.seed, i, LOSS), lambda rng: rng.random(64)) for i in range(n)]
        self.lies = {lie.agent: (lie, stream(world.seed, lie.agent, BYZANTINE)) for lie in world.byzantine}
        slowdowns = [change for change in world.changes if isinstance(change, Slowdown)]
        self.sending = [[s for s in slowdowns if s.agent == i and s.sends] for i in range(n)]
        self.cuts = [change for change in world.changes if isinstance(change, Cut)]
        self.queue: list[list[Item]] = [[] for _ in range(n)]
        self.busy = [False] * n
        self.messages = 0

    def delays_of(self, i: int) -> Iterator[float]:
        slow = 1.0 if self.fair else self.world.slow_communication.get(i, 1.0)
        delay = self.world.own_communication.get(i, self.world.communication)
        return delays(stream(self.world.seed, i, COMMUNICATION), delay, slow)

    def deliver(self, i: int, j: int, item: Item) -> None:
        """What i sent is at j."""
        raise NotImplementedError

    # -- The serial server --------------------------------------------------------------------------------

    def post(self, i: int, register: bool, to: tuple[int, ...], message: Message) -> None:
        for receivers in [to] if self.world.sending == "multicast" else [(j,) for j in to]:
            name = (i, to, receivers) if register else None
            item = Item(name, receivers, tuple(self.life[j] for j in receivers), message)
            queue = self.queue[i]
            same = [k for k, w in enumerate(queue) if (w.register, w.lives) == (name, item.lives)]
            if not self.busy[i]:
                self.begin(i, item)
            elif register and same:
                queue[same[0]] = item
            else:
                queue.append(item)

    def begin(self, i: int, item: Item) -> None:
        self.busy[i] = True
        item.message = self.falsified(i, item.message)
        self.transmit(i, item)

    def transmit(self, i: int, item: Item) -> None:
        self.messages += 1
        work = next(self.send_delay[i]) * item.bytes / self.model_bytes if item.bytes > 0 else 0.0
        arrival, free = {}, self.now
        for j in item.receivers:
            sent = finish(self.sending[i], self.now, work / on_link(self.world.bandwidth, i, j))
            arrival[j], free = self.arrival(i, j, sent, item), max(free, sent)
        for instant in sorted({*arrival.values(), free}):
            self.schedule(instant, DELIVERY, partial(self.sent, i, item, arrival, free, instant), of=i)

    def arrival(self, i: int, j: int, sent: float, item: Item) -> float:
        time = sent + on_link(self.world.latency, i, j)
        while item.register is None and (ends := self.cuts_until(i, j, time)):
            time = max(ends)
        return time

    def cuts_until(self, i: int, j: int, t: float) -> list[float]:
        """The ends of the cuts that part i and j at t."""
        parting = [c for c in self.cuts if (i in c.group) != (j in c.group)]
        ends = [(c, math.inf if c.until is None else c.until) for c in parting]
        return [end for c, end in ends if c.at <= t < end]

    def sent(self, i: int, item: Item, arrival: dict[int, float], free: float, t: float) -> None:
        self.draw_loss(i, item)
        for j in item.receivers:
            if arrival[j] == t:
                self.deliver(i, j, item)
        if t == free:
            self.next_item(i)

    def next_item(self, i: int) -> None:
        self.busy[i] = False
        if self.queue[i]:
            self.begin(i, self.queue[i].pop(0))

    # -- Loss, Byzantine agents ---------------------------------------------------------------------------

    def draw_loss(self, i: int, item: Item) -> None:
        loss = self.world.loss
        lossy = max([loss.usual, *loss.own.values()]) > 0 if isinstance(loss, PerLink) else loss > 0
        if lossy and item.register is not None and not item.lost:
            item.lost = {j: next(self.loss[i]) < on_link(loss, i, j) for j in item.receivers}

    def falsified(self, i: int, message: Message) -> Message:
        if i not in self.lies:
            return message
        lie, rng = self.lies[i]

        def false(v: Array) -> Array:
            return -lie.scale * v if lie.scale else v + lie.noise * rng.standard_normal(len(v))

        return tuple(false(v) if isinstance(v, np.ndarray) else v for v in message)
