"""What one agent has to send, and when it becomes visible.

Without a world, everything is visible at once, and what does not fit into a mailbox waits here. With one, an
agent has a single server as in the simulator (`offbeat.world`): a transmission takes the drawn time, and what
it carries becomes visible when that has passed.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from offbeat.core.agent import Message
from offbeat.core.system.streams import BufferedStream, Purpose, stream, uniform
from offbeat.core.vector import Scope
from offbeat.engines.outbox import Medium, Outbox, Transmission, added, vectors
from offbeat.world.world import World

Visible = Callable[[Transmission, int], bool]
"""Make a transmission visible to one receiver; False if there is no room yet."""


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
        seed = self.world.seed
        times, losses = (
            stream(seed, purpose, self.me, self.incarnation - 1)
            for purpose in (Purpose.COMMUNICATION, Purpose.LOSS)
        )
        self.send_time = BufferedStream(partial(self.world.communication_delay(self.me).draw, times))
        self.lost = BufferedStream(partial(uniform, losses))

    def advance(self, now: float) -> list[tuple[Transmission, list[int]]]:
        """What has arrived by now, and at whom; whatever waits next is on its way then."""
        arrived = []
        while self._begin(now) is not None and self.current is not None and self.current.end <= now:
            item, self.current = self.current, None
            loss = self.world.loss if item.medium is Medium.REGISTER else 0.0
            arrived.append((item, [j for j in item.to if not (loss and self.lost() < loss)]))
        return arrived

    def _begin(self, now: float) -> Transmission | None:
        if self.current is None and (item := self.outbox.take()) is not None:
            size = sum(v.nbytes for v in vectors(item.message).values())
            item.start = now
            item.end = now + (self.send_time() * size / self.model_bytes if size else 0.0)
            self.current = item
        return self.current


@dataclass
class SendQueue:
    """What an agent sends. `mail` puts a letter into a mailbox, `register` makes a version visible."""

    mail: Visible
    register: Callable[[Transmission, list[int]], None]
    link: Link | None = None
    backlog: dict[int, deque[Transmission]] = field(default_factory=dict)
    started: list[Transmission] = field(default_factory=list)
    """What has been sent since somebody last looked, for the trace."""

    def give(self, item: Transmission, now: float) -> None:
        """Something to send."""
        if self.link is not None:
            with Scope():  # accumulated messages may be added up
                self.link.outbox.put(item)
        else:
            item.start = item.end = now
            self._arrive(item, list(item.to))
        self.advance(now)

    def advance(self, now: float) -> None:
        """Everything that can become visible by now does."""
        if self.link is not None:
            for item, to in self.link.advance(now):
                self._arrive(item, to)
        for j in [j for j, waiting in self.backlog.items() if waiting]:
            waiting = self.backlog[j]
            while waiting and self.mail(waiting[0], j):
                waiting.popleft()

    def forget(self, agent: int) -> None:
        """Nothing waits for this agent any more."""
        self.backlog.pop(agent, None)

    @property
    def due(self) -> float:
        """When there will be something to do; infinity if never."""
        if any(self.backlog.values()):
            return -math.inf
        current = self.link.current if self.link is not None else None
        return math.inf if current is None else current.end

    def _arrive(self, item: Transmission, to: list[int]) -> None:
        self.started.append(item)
        if item.medium is Medium.REGISTER:
            self.register(item, to)
            return
        for j, incarnation in zip(item.to, item.incarnations, strict=True):
            if j not in to:
                continue
            waiting = self.backlog.setdefault(j, deque())
            last = waiting[-1] if waiting else None
            mine = replace(item, to=(j,), incarnations=(incarnation,))
            if last is not None and _one(last) == _one(mine) and item.medium is Medium.ACCUMULATOR:
                waiting[-1] = replace(mine, message=_sum(last.message, item.message))
            else:
                waiting.append(mine)


def _one(item: Transmission) -> tuple[object, ...]:
    """Accumulated messages that are the same in this are one: they are added up."""
    return item.medium, item.incarnations, type(item.message)


def _sum(older: Message, newer: Message) -> Message:
    with Scope():
        return added(older, newer)
