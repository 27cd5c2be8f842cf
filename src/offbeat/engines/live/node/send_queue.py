"""What one agent has to send, and when it becomes visible.

Without a world, everything is visible at once, and what does not fit into a mailbox waits here. With one, an
agent has a single server as in the simulator (`offbeat.world`): a transmission takes the drawn time, and what
it carries becomes visible when that has passed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from offbeat.core.agent import Message, Publish
from offbeat.core.system.streams import BufferedStream, Purpose, stream, uniform
from offbeat.core.vector import Scope
from offbeat.engines.outbox import Outbox, Transmission, vectors
from offbeat.world.world import World


@dataclass
class Link:
    """The emulated server of one agent: one transmission at a time, of the drawn length."""

    world: World
    me: int
    model_bytes: int
    incarnation: int = 1
    outbox: Outbox = field(default_factory=Outbox)
    current: Transmission | None = None

    def __post_init__(self) -> None:
        world, life = self.world, self.incarnation - 1
        times = stream(world.seed, Purpose.COMMUNICATION, self.me, life)
        losses = stream(world.seed, Purpose.LOSS, self.me, life)
        self.send_time = BufferedStream(partial(world.communication_delay(self.me).draw, times))
        self.lost = BufferedStream(partial(uniform, losses))

    def advance(self, now: float) -> list[tuple[Transmission, list[int]]]:
        """What has arrived by now, and at whom; whatever waits next is on its way then."""
        arrived: list[tuple[Transmission, list[int]]] = []
        while True:
            if self.current is None and (item := self.outbox.take()) is not None:
                size = sum(v.nbytes for v in vectors(item.message).values())
                item.start = now
                item.end = now + (self.send_time() * size / self.model_bytes if size else 0.0)
                self.current = item
            if self.current is None or self.current.end > now:
                return arrived
            item, self.current = self.current, None
            loss = self.world.loss if item.medium is Publish else 0.0
            arrived.append((item, [j for j in item.to if not (loss and self.lost() < loss)]))


@dataclass
class SendQueue:
    """What an agent sends."""

    mail: Callable[[Transmission, int], bool]  # into a receiver's mailbox; False if there is no room yet
    register: Callable[[Transmission, list[int]], None]  # makes a version visible to these receivers
    sent: Callable[[float, float, Message], None]  # notes a transmission's start and end
    link: Link | None = None
    backlog: dict[int, Outbox] = field(default_factory=dict)  # receiver -> what there was no room for

    def give(self, item: Transmission, now: float) -> None:
        if self.link is not None:
            with Scope():  # accumulated messages may be added up
                self.link.outbox.put(item)
        else:
            item.start = item.end = now
            self._arrive(item, [*item.to])
        self.advance(now)

    def advance(self, now: float) -> None:
        for item, to in [] if self.link is None else self.link.advance(now):
            self._arrive(item, to)
        for j, box in self.backlog.items():
            while box.queue and self.mail(box.queue[0], j):
                box.take()

    def forget(self, agent: int) -> None:
        self.backlog.pop(agent, None)

    @property
    def due(self) -> float:
        """When there will be something to do; infinity if never."""
        if any(box.queue for box in self.backlog.values()):
            return -math.inf
        return math.inf if self.link is None or self.link.current is None else self.link.current.end

    def _arrive(self, item: Transmission, to: list[int]) -> None:
        self.sent(item.start, item.end, item.message)
        if item.medium is Publish:
            self.register(item, to)
            return
        for j, incarnation in zip(item.to, item.incarnations, strict=True):
            if j in to:
                with Scope():
                    mine = replace(item, to=(j,), incarnations=(incarnation,))
                    self.backlog.setdefault(j, Outbox()).put(mine)
