"""The emulated links from one agent: what it sends is there when it would be in the simulator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from offbeat.core.agent import Publish
from offbeat.core.system.streams import BufferedStream, Purpose, uniform
from offbeat.engines.outbox import Outbox, Transmission
from offbeat.world.sending import senders
from offbeat.world.world import World

Arrival = tuple[float, int, Transmission, tuple[int, ...], bool]
"""When, a number, what, with whom, and whether the server is free then."""


@dataclass
class Link:
    """One agent's emulated server: one transmission at a time, of the drawn length, or of one for each link.

    A fair network is not emulated, and nobody lies.
    """

    world: World
    me: int
    model_bytes: int
    incarnation: int = 1
    outbox: Outbox = field(default_factory=Outbox)
    coming: list[Arrival] = field(default_factory=list)  # a heap
    number: int = 0

    def __post_init__(self) -> None:
        seed, me, life = self.world.seed, self.me, self.incarnation - 1
        delay = self.world.communication_delay(me)
        (self.sender,) = senders(self.world, [me])
        self.send_time = BufferedStream(delay.draw, seed, Purpose.COMMUNICATION, me, life)
        self.lost = BufferedStream(uniform, seed, Purpose.LOSS, me, life)

    @property
    def apart(self) -> bool:
        """Whether one receiver may get a version of a register that another does not, or gets later."""
        return self.world.lossy or not self.sender.uniform

    @property
    def due(self) -> float:
        """When something is there, or the server free; infinity if never."""
        return self.coming[0][0] if self.coming else math.inf

    def put(self, item: Transmission) -> None:
        """Have it wait for the server: as one, or for each receiver by itself."""
        if self.world.sending != "unicast":
            self.outbox.put(item)
            return
        for j, incarnation in item.receivers:
            self.outbox.put(replace(item, to=(j,), receivers=((j, incarnation),), given_to=item.to))

    def advance(self, now: float) -> list[tuple[Transmission, list[int], bool]]:
        """What has arrived by now, at whom, and whether its transmission has ended with that; whatever waits
        next is on its way then.
        """
        arrived: list[tuple[Transmission, list[int], bool]] = []
        while True:
            if not any(free for *_, free in self.coming) and (item := self.outbox.take()) is not None:
                self._start(item, now)
            if self.due > now:
                return arrived
            instant, _, item, to, free = heappop(self.coming)
            arrived.append((replace(item, end=instant), self._reached(item, to, instant), free))

    def _start(self, item: Transmission, now: float) -> None:
        size, waits = item.size, item.medium is not Publish
        work = self.send_time() * size / self.model_bytes if size else 0.0
        item.start = now
        item.end, instants = self.sender.instants(now, work, item.to, waits=waits)
        for instant, there in instants:
            self.number += 1
            heappush(self.coming, (instant, self.number, item, tuple(there), instant == item.end))

    def _reached(self, item: Transmission, to: Sequence[int], instant: float) -> list[int]:
        """Those of the receivers that do not lose it."""
        if item.medium is not Publish:
            return [*to]
        if self.world.lossy and item.missed is None:
            item.missed = self.sender.missing(item.to, self.lost)
        return [j for j in to if j not in (item.missed or ()) and not self.sender.parted(j, instant)]
