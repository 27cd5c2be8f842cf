"""The fair network, as docs/world.md has it: part of `plain_world`."""

import math
from dataclasses import dataclass
from functools import partial

from plain_events import DELIVERY, FAULT
from plain_sending import Item, Sending
from plain_times import factor, on_link, turns

from offbeat import World


@dataclass(eq=False)
class Flow:
    sender: int
    receiver: int
    item: Item
    left: float
    since: float
    rate: float = 0.0
    end: float = math.inf


class Network(Sending):
    """What agents send, by the serial server or as flows; the world says which."""

    def __init__(self, n: int, world: World, model_bytes: int) -> None:
        super().__init__(n, world, model_bytes)
        self.flows: list[Flow] = []  # in the order in which they began
        self.next_flow_event: tuple[float, int] | None = None
        self.rates_due = False

    def transmit(self, i: int, item: Item) -> None:
        if not self.fair or item.bytes == 0:
            super().transmit(i, item)
            return
        item.flows = len(item.receivers)
        self.messages += item.flows
        for j in item.receivers:
            length = next(self.send_delay[i]) * item.bytes / self.model_bytes
            self.flows.append(Flow(i, j, item, length, self.now))
        self.change_rates()

    def slowness(self, i: int) -> float:
        """f_i."""
        return self.world.slow_communication.get(i, 1.0) * factor(self.sending[i], self.now)

    def max_min_fair(self) -> dict[Flow, float]:
        f = {flow.sender: self.slowness(flow.sender) for flow in self.flows}
        full = [(on_link(self.world.bandwidth, w.sender, w.receiver) / f[w.sender], [w]) for w in self.flows]
        full += [(1 / f[i], [w for w in self.flows if w.sender == i]) for i in f]
        full += [(1.0, [w for w in self.flows if w.receiver == j]) for j in {w.receiver for w in self.flows}]
        rates: dict[Flow, float] = {}
        while len(rates) < len(self.flows):
            shares = []
            for capacity, flows in full:
                if without := [w for w in flows if w not in rates]:
                    given = sum(rates[w] for w in flows if w in rates)
                    shares.append(((capacity - given) / len(without), without))
            share, without = min(shares, key=lambda pair: pair[0])
            rates |= dict.fromkeys(without, share)
        return rates

    def change_rates(self) -> None:
        if not self.rates_due:
            self.rates_due = True
            self.schedule(self.now, FAULT, self.rates_found_anew)

    def rates_found_anew(self) -> None:
        self.rates_due = False
        for flow, rate in self.max_min_fair().items():
            if rate != flow.rate:
                flow.left = max(0.0, flow.left - flow.rate * (self.now - flow.since))
                flow.rate, flow.since = rate, self.now
                flow.end = self.now + flow.left / rate
        first = min(self.flows, key=lambda flow: flow.end, default=None)
        following = None
        if first is not None:
            changes = [u for flow in self.flows for u in turns(self.sending[flow.sender], self.now)]
            following = min([first.end, *changes]), first.sender
        if following is not None and following != self.next_flow_event:
            self.schedule(following[0], DELIVERY, lambda: self.flows_end(following), of=following[1])
        self.next_flow_event = following

    def flows_end(self, event: tuple[float, int]) -> None:
        if event != self.next_flow_event:
            return  # another was scheduled in its place
        self.next_flow_event = None
        ended = [flow for flow in self.flows if flow.end <= self.now]
        self.flows = [flow for flow in self.flows if flow.end > self.now]
        for flow in ended:
            i, j, item = flow.sender, flow.receiver, flow.item
            self.draw_loss(i, item)
            arrival = self.arrival(i, j, flow.end, item)
            if arrival <= self.now:
                self.deliver(i, j, item)
            else:
                self.schedule(arrival, DELIVERY, partial(self.deliver, i, j, item), of=i)
            item.flows -= 1
            if item.flows == 0:
                self.next_item(i)
        self.change_rates()
