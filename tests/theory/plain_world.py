"""The simulated world once more, written from docs/world.md alone: numpy, a heap, nothing of the engine.

Read it beside that page's section *Exactly*; the headings here are its headings. Of offbeat it takes the
values of a world (`offbeat.World` and what it holds) and nothing that computes. The page
has crashes and Byzantine agents for ADSGD and DSGD alike. Left out is what these two never ask for:
accumulators, alarms, and measured delays from files.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from offbeat import Delay, World
from offbeat.world.changes import Cut, Slowdown
from offbeat.world.per_link import PerLink

Array = np.ndarray[Any, np.dtype[np.float64]]
Message = tuple[Any, ...]  # its fields: numbers, and vectors
Effects = list[tuple[Any, ...]]  # ("compute", x), ("send", receivers, message), ("publish", ...)
Register = tuple[int, tuple[int, ...], tuple[int, ...]]  # sender, receivers of the effect, of the item
Action = Callable[[], None]

DATA, COMPUTE, COMMUNICATION, LOSS, BYZANTINE = 0, 2, 3, 4, 12
FAULT, DELIVERY, GRADIENT = 0, 1, 3

# -- Streams ----------------------------------------------------------------------------------------------


def stream(seed: int, i: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(i, purpose))))


def one_by_one(rng: np.random.Generator, draw: Callable[[np.random.Generator], Any]) -> Iterator[Any]:
    while True:
        yield from draw(rng)


def delays(rng: np.random.Generator, delay: Delay, factor: float) -> Iterator[float]:
    m, c = delay.mean * factor, delay.cv or {"gamma": 0.25, "lognormal": 1.0}.get(delay.family, 0.0)
    s = math.log1p(c**2)
    draws: dict[str, Callable[[np.random.Generator], Any]] = {
        "gamma": lambda rng: rng.gamma(c**-2, c**2, 64) * m,
        "lognormal": lambda rng: rng.lognormal(-s / 2, math.sqrt(s), 64) * m,
        "exponential": lambda rng: rng.exponential(1.0, 64) * m,
        "constant": lambda rng: [m],
    }
    return one_by_one(rng, lambda rng: map(float, draws[delay.family](rng)))


# -- Slowdowns, cuts, links -------------------------------------------------------------------------------


def factor(slowdowns: Sequence[Slowdown], u: float) -> float:
    return math.prod(s.factor for s in slowdowns if s.at <= u < (math.inf if s.until is None else s.until))


def turns(slowdowns: Sequence[Slowdown], t: float) -> list[float]:
    """Every `at` and `until` after t, rising."""
    return sorted({u for s in slowdowns for u in (s.at, s.until) if u is not None and u > t})


def finish(slowdowns: Sequence[Slowdown], t: float, w: float) -> float:
    """F(t, w)."""
    now, left = t, w
    for u in turns(slowdowns, t):
        if now + left * factor(slowdowns, now) <= u:
            return now + left * factor(slowdowns, now)
        left, now = max(0.0, left - (u - now) / factor(slowdowns, now)), u
    return now + left * factor(slowdowns, now)


def on_link(value: float | PerLink, i: int, j: int) -> float:
    return value.own.get((i, j), value.usual) if isinstance(value, PerLink) else value


# -- Algorithms -------------------------------------------------------------------------------------------


def mixed(w: dict[int, float], v: dict[int, Array], x: Array) -> Array:
    terms = [w[j] * v.get(j, x) for j in w]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@dataclass
class Plain:
    """An agent: `w` is its row of W, itself included, by rising index."""

    me: int
    x: Array
    w: dict[int, float]
    lr: float
    round: int = 0

    @property
    def neighbours(self) -> tuple[int, ...]:
        return tuple(j for j in self.w if j != self.me)


@dataclass
class ADSGD(Plain):
    heard: dict[int, Array] = field(default_factory=dict)

    def start(self) -> Effects:
        return [("compute", self.x)]

    rejoin = start

    def message(self, j: int, message: Message) -> Effects:
        self.heard[j] = message[0]
        return []

    def gradient(self, g: Array) -> Effects:
        self.x = mixed(self.w, {**self.heard, self.me: self.x}, self.x) + (-self.lr) * g
        return [("publish", self.neighbours, (self.x,)), ("compute", self.x)]

    def view(self, w: dict[int, float]) -> Effects:
        self.w, self.heard = w, {j: x for j, x in self.heard.items() if j in w}
        return []


@dataclass
class DSGD(Plain):
    g: Array | None = None
    letters: dict[int, dict[int, Array]] = field(default_factory=dict)  # round -> whose -> model
    since: dict[int, int] = field(default_factory=dict)  # from which round on a letter is awaited

    def start(self) -> Effects:
        self.since = dict.fromkeys(self.w, 0)
        return self.begin()

    def rejoin(self) -> Effects:
        self.since = {self.me: self.round}
        return self.begin()

    def begin(self) -> Effects:
        self.letters.setdefault(self.round, {})[self.me] = self.x
        return [("compute", self.x), ("send", self.neighbours, (self.round, self.x))]

    def message(self, j: int, message: Message) -> Effects:
        k, x = message
        if k >= self.round:
            self.letters.setdefault(k, {})[j] = x
        self.since.setdefault(j, k)
        return self.end()

    def gradient(self, g: Array) -> Effects:
        self.g = g
        return self.end()

    def view(self, w: dict[int, float]) -> Effects:
        back = tuple(j for j in w if j not in self.w)
        self.w, self.since = w, {j: k for j, k in self.since.items() if j in w}
        self.letters = {k: {j: x for j, x in of.items() if j in w} for k, of in self.letters.items()}
        return [("send", back, (self.round, self.x)), *self.end()]

    def end(self) -> Effects:
        v = self.letters[self.round]
        awaited = [j for j in self.w if j in self.since and self.since[j] <= self.round]
        if self.g is None or any(j not in v for j in awaited):
            return []
        self.x, self.g = mixed(self.w, v, self.x) + (-self.lr) * self.g, None
        del self.letters[self.round]
        self.round += 1
        return self.begin()


# -- What is sent -----------------------------------------------------------------------------------------


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


@dataclass(eq=False)
class Flow:
    sender: int
    receiver: int
    item: Item
    left: float
    since: float
    rate: float = 0.0
    end: float = math.inf


class Simulation:
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
        n, seed = len(neighbours), world.seed
        self.world, self.neighbours, self.x0, self.lr = world, [sorted(of) for of in neighbours], x0, lr
        self.algorithm, self.gradient_of, self.fair = algorithm, gradient, world.network == "fair"
        slow, speed = world.slow_compute, {} if self.fair else world.slow_communication

        def streamed(purpose: int, draws: Callable[[int, np.random.Generator], Iterator[Any]]) -> list[Any]:
            return [draws(i, stream(seed, i, purpose)) for i in range(n)]

        self.data = streamed(DATA, lambda i, rng: one_by_one(rng, lambda rng: draw(i, rng, 64)))
        self.compute_delay = streamed(
            COMPUTE, lambda i, rng: delays(rng, world.own_compute.get(i, world.compute), slow.get(i, 1.0))
        )
        self.send_delay = streamed(
            COMMUNICATION,
            lambda i, rng: delays(
                rng, world.own_communication.get(i, world.communication), speed.get(i, 1.0)
            ),
        )
        self.loss = streamed(LOSS, lambda i, rng: one_by_one(rng, lambda rng: rng.random(64)))
        self.lies = {lie.agent: (lie, stream(seed, lie.agent, BYZANTINE)) for lie in world.byzantine}
        slowdowns = [change for change in world.changes if isinstance(change, Slowdown)]
        self.computing = [[s for s in slowdowns if s.agent == i and s.computes] for i in range(n)]
        self.sending = [[s for s in slowdowns if s.agent == i and s.sends] for i in range(n)]
        self.cuts = [change for change in world.changes if isinstance(change, Cut)]

        self.heap: list[tuple[float, int, int, int, int | None, int, Action]] = []
        self.now, self.wave, self.number = 0.0, 0, 0
        self.life, self.alive = [0] * n, [True] * n
        self.queue: list[list[Item]] = [[] for _ in range(n)]
        self.busy = [False] * n
        self.unread: list[dict[Register, Message]] = [{} for _ in range(n)]  # in the order of arrival
        self.flows: list[Flow] = []  # in the order in which they began
        self.next_flow_event: tuple[float, int] | None = None
        self.rates_due = False
        self.updates: list[tuple[float, int]] = []
        self.messages = 0

        for crash in world.crashes:
            self.schedule(crash.at, FAULT, partial(self.crash, crash.agent, crash.until))
        self.agents = [algorithm(i, x0, self.row(i), lr) for i in range(n)]
        for i, agent in enumerate(self.agents):
            self.perform(i, agent.start())

    # -- Events -------------------------------------------------------------------------------------------

    def schedule(self, time: float, priority: int, action: Action, of: int | None = None) -> None:
        """`of`: an agent without which it does not happen, if it crashes."""
        wave = self.wave + 1 if time <= self.now else 0
        life = 0 if of is None else self.life[of]
        heapq.heappush(self.heap, (time, wave, priority, self.number, of, life, action))
        self.number += 1

    def run(self, until: float) -> None:
        while self.heap and self.heap[0][0] <= until:
            self.now, self.wave, _, _, of, life, action = heapq.heappop(self.heap)
            if of is None or life == self.life[of]:
                action()

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
        if self.fair and item.bytes > 0:
            item.flows = len(item.receivers)
            self.messages += item.flows
            for j in item.receivers:
                length = next(self.send_delay[i]) * item.bytes / self.x0.nbytes
                self.flows.append(Flow(i, j, item, length, self.now))
            self.change_rates()
            return
        self.messages += 1
        work = next(self.send_delay[i]) * item.bytes / self.x0.nbytes if item.bytes > 0 else 0.0
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

    def deliver(self, i: int, j: int, item: Item) -> None:
        if not self.alive[j] or self.life[j] != item.lives[item.receivers.index(j)]:
            return
        if item.register is None:
            self.handle(j, self.agents[j].message, i, item.message)
        elif not item.lost.get(j) and not self.cuts_until(i, j, self.now):
            self.unread[j].pop(item.register, None)
            self.unread[j][item.register] = item.message

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

    # -- The fair network ---------------------------------------------------------------------------------

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
