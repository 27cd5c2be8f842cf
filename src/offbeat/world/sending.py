"""What a world does to what one agent sends, and when its gradients end; both engines go by it."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from offbeat.world.changes import Cut, Slowdown, finish
from offbeat.world.per_link import PerLink
from offbeat.world.world import World


def slowdowns(world: World, agent: int, *, sends: bool) -> tuple[Slowdown, ...]:
    """Those that change how fast an agent computes, or sends, in the order of the world's changes."""
    mine = [c for c in world.changes if isinstance(c, Slowdown) and c.agent == agent]
    return tuple([c for c in mine if (c.sends if sends else c.computes)])


@dataclass(frozen=True)
class Sender:
    """The links from agent `me` to others.

    Attributes:
        slowdowns: that make its transmissions take longer
        cuts: that part it from others
        uniform: whether a transmission is there, for all its receivers, as soon as the server is free
    """

    me: int
    slowdowns: tuple[Slowdown, ...]
    cuts: tuple[Cut, ...]
    uniform: bool
    latency: PerLink
    bandwidth: PerLink
    loss: PerLink

    def sent(self, start: float, work: float, receiver: int | None = None) -> float:
        """When something of length `work` has been transmitted to a receiver, to whomever if links are alike.

        Length is drawn delay times size in models; a link of bandwidth b takes work / b.
        """
        bandwidth = self.bandwidth.usual if receiver is None else self.bandwidth(self.me, receiver)
        return finish(start, work / bandwidth, self.slowdowns)

    def arrives(self, sent: float, receiver: int, *, waits: bool) -> float:
        """When what has been transmitted by `sent` is there. What waits comes through when no cut parts the
        two any more: infinity if never.
        """
        arrival = sent + self.latency(self.me, receiver)
        return self._together(arrival, receiver) if waits and self.cuts else arrival

    def instants(
        self, start: float, work: float, receivers: Iterable[int], *, waits: bool
    ) -> tuple[float, list[tuple[float, list[int]]]]:
        """When the server is free of a transmission; and each instant at which it is that, or at which the
        transmission is somewhere, with the receivers that have it then: the earliest first.
        """
        end, found = start, defaultdict[float, list[int]](list)
        for j in receivers:
            sent = self.sent(start, work, j)
            end = max(end, sent)
            found[self.arrives(sent, j, waits=waits)].append(j)
        found[end] += []
        return end, sorted(found.items())

    def missing(self, receivers: Iterable[int], draw: Callable[[], float]) -> frozenset[int]:
        """Who loses a version of a register: one number is drawn for each receiver, in their order."""
        return frozenset([j for j in receivers if draw() < self.loss(self.me, j)])

    def parted(self, receiver: int, now: float) -> bool:
        """Whether a cut parts it from the receiver now."""
        return any(_parts(cut, self.me, receiver, now) for cut in self.cuts)

    def _together(self, now: float, receiver: int) -> float:
        """The first time from now on at which no cut parts the two."""
        while now < math.inf:
            ends = [cut.until for cut in self.cuts if _parts(cut, self.me, receiver, now)]
            if not ends:
                break
            now = max(math.inf if end is None else end for end in ends)
        return now


def senders(world: World, agents: Iterable[int]) -> list[Sender]:
    """The links from each of these agents."""
    latency, bandwidth, loss = map(_by_link, (world.latency, world.bandwidth, world.loss))
    cuts = tuple([change for change in world.changes if isinstance(change, Cut)])
    alike = not cuts and not any(latency.values) and bandwidth.uniform
    links = cuts, alike, latency, bandwidth, loss
    return [Sender(i, slowdowns(world, i, sends=True), *links) for i in agents]


def _by_link(number: float | PerLink) -> PerLink:
    return number if isinstance(number, PerLink) else PerLink(float(number))


def _parts(cut: Cut, sender: int, receiver: int, now: float) -> bool:
    within = cut.at <= now and (cut.until is None or now < cut.until)
    return within and (sender in cut.group) != (receiver in cut.group)


def why_no_timetable(world: World) -> str:
    """Why nobody can tell beforehand what happens when in this world; empty if somebody may."""
    reasons = {
        "agents crash": world.crashes,
        "what is sent is changed": world.byzantine,
        "flows share the network": world.network != "serial",
    }
    return next((why for why, there in reasons.items() if there), "")
