"""A network that all transmissions share: flows that go at the same time, at max-min fair rates.

Every receiver of something has a flow of its own, of the length d s as drawn; while a sender has flows, what
it gives next waits until all of them have ended. Rates are found anew whenever a flow begins or ends or an
agent's speed changes, once for all that happens in a wave of events (see `heap`).
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from offbeat.engines.outbox import Transmission
from offbeat.engines.sim.heap import DELIVERY, FAULT, Heap
from offbeat.world.changes import factor_at
from offbeat.world.delays import Delay
from offbeat.world.sending import Sender
from offbeat.world.world import World


def max_min(flows: Sequence[Sequence[Hashable]], capacity: Mapping[Hashable, float]) -> list[float]:
    """The max-min fair rates of flows, each of which uses some resources: the only rates that keep to every
    capacity, and of which none can be raised without lowering one that is not larger.

    Water filling: all rates rise together. Where a resource is full, its flows keep their rate, and the
    others go on: the next to fill is the one of the smallest (capacity - rates that are kept) / (flows that
    still rise), the first named of several. O(F log F) for F flows. Source: Bertsekas and Gallager, Data
    Networks, 1992, section 6.5.2.
    """
    uses: dict[Hashable, list[int]] = {}
    for k, resources in enumerate(flows):
        for resource in resources:
            uses.setdefault(resource, []).append(k)
    names = [*uses]
    number = {name: at for at, name in enumerate(names)}
    left, rising = [capacity[name] for name in names], [len(uses[name]) for name in names]
    fills = [(left[at] / rising[at], at) for at in range(len(names))]
    heapify(fills)
    rates, level = [-1.0] * len(flows), 0.0
    while fills:
        fill, at = heappop(fills)
        if not rising[at] or fill != left[at] / rising[at]:
            continue  # some of its flows are kept by another, and it fills later
        level = max(level, fill)
        for k in uses[names[at]]:
            if rates[k] < 0:
                rates[k] = level
                for other in map(number.__getitem__, flows[k]):
                    left[other] -= level
                    rising[other] -= 1
                    if rising[other] and other != at:
                        heappush(fills, (left[other] / rising[other], other))
    return rates


@dataclass(eq=False, slots=True)
class Flow:
    """What is on its way to one receiver: `left` of it was at `since`; at its rate it ends at `end`."""

    item: Transmission
    size: int
    receiver: int
    incarnation: int
    left: float
    since: float
    rate: float = 0.0
    end: float = math.inf


Ended = Callable[[Transmission, int, int, int, bool], None]
"""(item, size, receiver, its incarnation, whether it was the last flow of the item)"""


@dataclass
class FairNetwork:
    """The flows of all agents, in the order in which they began. A slow agent has less capacity."""

    world: World
    heap: Heap
    senders: Sequence[Sender]
    ended: Ended
    flows: list[Flow] = field(default_factory=list)
    _next: tuple[float, int] = (math.inf, -1)  # the event that is scheduled: when, and of which sender
    _number: int = -1  # of this event; any other is void
    _renewing: bool = False

    def delay(self, agent: int) -> Delay:
        """How long its flows are, a whole model each; its slowness is no part of them."""
        return self.world.own_communication.get(agent, self.world.communication)

    def begin(self, item: Transmission, size: int, lengths: Sequence[float]) -> None:
        """A flow to each receiver of these lengths."""
        for (j, incarnation), length in zip(item.receivers, lengths, strict=True):
            self.flows.append(Flow(item, size, j, incarnation, length, self.heap.now))
        self._renew_soon()

    def drop(self, sender: int) -> None:
        """This agent's flows end at once, and nothing arrives."""
        self.flows = [flow for flow in self.flows if flow.item.sender != sender]
        self._renew_soon()

    def _renew_soon(self) -> None:
        if not self._renewing:
            self._renewing = True
            self.heap.at(self.heap.now, FAULT, self._renew, 0)

    def _renew(self, _: int) -> None:
        """Find the rates; schedule what comes next, the end of a flow or a change of somebody's speed."""
        self._renewing, now = False, self.heap.now
        for flow, rate in zip(self.flows, self._rates(), strict=True):
            if rate != flow.rate:
                flow.left = max(0.0, flow.left - flow.rate * (now - flow.since))
                flow.since, flow.rate, flow.end = now, rate, now + flow.left / rate
        first = min(self.flows, key=lambda flow: flow.end, default=None)
        coming = (math.inf, -1) if first is None else (min(first.end, self._change()), first.item.sender)
        if coming != self._next:
            self.heap.void.add(self._number)
            self._next, self._number = coming, -1
            if first is not None:
                self._number = self.heap.number + 1
                self.heap.at(coming[0], DELIVERY, self._happens, coming[1], self._number)

    def _rates(self) -> list[float]:
        now, capacity, uses = self.heap.now, dict[Hashable, float](), list[tuple[Hashable, ...]]()
        for k, flow in enumerate(self.flows):
            i, j = flow.item.sender, flow.receiver
            speed = 1.0 / self._slowness(i, now)
            link = ("link", k)
            capacity |= {("out", i): speed, ("in", j): 1.0, link: self.senders[i].bandwidth(i, j) * speed}
            uses.append((("out", i), ("in", j), link))
        return max_min(uses, capacity)

    def _slowness(self, i: int, now: float) -> float:
        slow = self.world.slow_communication.get(i, 1.0)
        return slow * factor_at(now, self.senders[i].slowdowns)

    def _change(self) -> float:
        """When the speed of somebody who sends changes next."""
        slowdowns = [s for i in {flow.item.sender for flow in self.flows} for s in self.senders[i].slowdowns]
        times = [time for s in slowdowns for time in (s.at, s.until) if time is not None]
        return min((time for time in times if time > self.heap.now), default=math.inf)

    def _happens(self, _: int, number: int) -> None:
        if number != self._number:
            self.heap.void.discard(number)
            return
        now, self._next, self._number = self.heap.now, (math.inf, -1), -1
        done = [flow for flow in self.flows if flow.end <= now]
        self.flows = [flow for flow in self.flows if flow.end > now]
        self._renew_soon()
        for flow in done:
            alone = all(other.item is not flow.item for other in self.flows)
            last = alone and flow is [each for each in done if each.item is flow.item][-1]
            self.ended(flow.item, flow.size, flow.receiver, flow.incarnation, last)
