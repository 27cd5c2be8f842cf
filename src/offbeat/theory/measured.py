"""What agents keep and send, counted on short simulated runs: table 2 of arXiv:2505.10322, measured.

**Kept**: the vectors that an agent holds while one of its handlers is called, each in a place of its own and
in units of a model. Held are, before and after it: what its fields refer to, through lists, dicts and
messages; the vector at which its gradient is being taken; the gradient itself, before `on_gradient`; mail,
before it is read; and after the handler what it gives away, an answer in the place of the mail. Several names
of one vector count once, and so does what lies in the memory of another one (the pieces of a cut gradient); a
vector that came out of a register is one, however often it moves on. What is new after the handler takes the
place of what had its name before, if that is held no more: x <- x - u is made in place. Else it has its own
place: a change d that is sent beside x, say. The answer is the largest of any handler of any agent.

Not held are temporary terms of one sum, what links and queues hold, the local rule's state, and scalars. All
agents are equally fast here: where they are not, who counts rounds keeps early mail of the next one, too.

**Sent**: bytes of the trace's transmissions, in which a multicast is one, and of all links, between two
instants, over the updates made between them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from offbeat.algorithms import Algorithm
from offbeat.core.agent import Agent, Alarm, Compute, Effect, Message, Publish
from offbeat.core.rules import SGD
from offbeat.core.vector import Vector
from offbeat.engines.handler_step import Actor, Mixed
from offbeat.engines.outbox import Transmission, vectors
from offbeat.engines.sim.executors import Executor
from offbeat.engines.sim.simulator import Simulator
from offbeat.tasks.quadratic import Quadratic
from offbeat.world.delays import Delay
from offbeat.world.topology import Topology
from offbeat.world.world import World

QUICK = Delay("constant", mean=0.001)
LOCKSTEP = World(compute=Delay("constant"), communication=QUICK)
UNEVEN = World(communication=QUICK)
"""Links are so fast that everything is sent; agents that differ do not ask each other at the same instant."""

WARM, END = 3.5, 13.5
"""From when to when is counted: by then everybody has been heard."""

NOT_HELD = {"rule", "rng", "view", "effects"}
Names = dict[tuple[object, ...], Vector]


@dataclass(frozen=True)
class Counted:
    """Vectors kept; models sent an update, a multicast counted once; and over all links together."""

    keeps: float
    sent: float
    carried: float


def counted(spec: Algorithm, topology: Topology) -> Counted:
    """Of this algorithm on this graph. Raises SettingError for a graph that it does not take."""
    spec.check(topology)
    sim = _started(spec, topology, LOCKSTEP)
    sim.run(WARM)
    sim.most = 0.0
    sim.run(END)
    equal = spec.gradients > 1  # between the two instants there is one whole period, then
    return Counted(sim.most, *_sent(_started(spec, topology, LOCKSTEP if equal else UNEVEN)))


def _started(spec: Algorithm, topology: Topology, world: World) -> "Watched":
    n = topology.n
    task = Quadratic(np.random.default_rng(0).normal(size=(n, 4 * n)), np.ones(n))
    lr = 0.01
    sim = Watched(spec.new, lambda: SGD(lr), topology, task, world, Remembering(task))
    sim.start()
    return sim


def _sent(sim: "Watched") -> tuple[float, float]:
    """By the transmissions that start between two instants, and by all links."""
    amounts = []
    for time in (WARM, END):
        sim.run(time)
        sent = int(sim.recorder.trace().transmissions["bytes"].sum())
        amounts.append((sum(sim.steps), sent, sum(sim.links.carried.values())))
    steps, *made = (after - before for before, after in zip(*amounts, strict=True))
    sent, carried = (each / (steps * sim.links.model_bytes) for each in made)
    return sent, carried


class Remembering(Executor):
    """Knows the gradient that the next handler gets."""

    last: Vector | None = None

    def resolve(self, agent: int) -> Vector:
        self.last = super().resolve(agent)
        return self.last


class Watched(Simulator):
    """Counts what agents hold, handler by handler. most: of any agent so far."""

    executor: Remembering
    idle = True
    most = 0.0
    mail: Message | None = None

    def _deliver(self, i: int, item: Transmission, message: Message) -> None:
        self.mail = None if item.medium is Publish else message
        super()._deliver(i, item, message)
        self.mail = None

    def record(self, actor: Actor, effects: Sequence[Effect], mixed: Mixed, refused: bool) -> None:
        super().record(actor, effects, mixed, refused)
        held = self.__dict__.setdefault("_held", {})
        before: Names = held.get(actor.me, {})
        start, gradient = dict(before), self.executor.last
        if gradient is not None:
            self.executor.last, start[("gradient",)] = None, gradient
        mail = [] if self.mail is None else [*vectors(self.mail).values()]
        start |= {("in transit", "mail", place): v for place, v in enumerate(mail)}
        kept = holding(actor.agent)
        if (at := next((e.x for e in effects if isinstance(e, Compute)), None)) is not None:
            kept[("at",)] = at
        elif gradient is None and ("at",) in before:
            kept[("at",)] = before[("at",)]
        held[actor.me] = kept
        after = kept | given(effects, "away" if self.mail is None else "mail")
        self.most = max(self.most, places(start, after) / self.links.model_bytes)


def holding(agent: Agent) -> Names:
    """The vectors that an agent's fields refer to, by name."""
    return {path: v for name, value in vars(agent).items() if name not in NOT_HELD
            for path, v in _inside((name,), value)}  # fmt: skip


def given(effects: Sequence[Effect], name: str) -> Names:
    """The vectors that are given away, under this name and a number."""
    messages = [e.message for e in effects if not isinstance(e, Compute | Alarm)]
    found = [v for message in messages for v in vectors(message).values()]
    return {("in transit", name, place): v for place, v in enumerate({id(v): v for v in found}.values())}


def _inside(path: tuple[object, ...], value: Any) -> Iterator[tuple[tuple[object, ...], Vector]]:
    if isinstance(value, Vector):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _inside((*path, key), each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _inside((*path, each.name), getattr(value, each.name, None))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, each in enumerate(value):
            yield from _inside((*path, place), each)


def places(start: Names, end: Names) -> int:
    """The bytes of the places that these vectors need, of before and after a handler; see the head."""
    known: list[tuple[int, int]] = []
    total = sum(_new(v, known) for v in sorted(start.values(), key=lambda v: -v.nbytes))
    still, old = {id(v) for v in end.values()}, {id(v) for v in start.values()}
    fresh = {id(v): v for v in end.values() if id(v) not in old}
    free = {name: v for name, v in start.items() if id(v) not in still}
    for v in fresh.values():
        size = _new(v, known)
        names = [name for name, each in end.items() if each is v and name in free]
        former = next((free[name] for name in names if free[name].nbytes >= size), None)
        if former is None:
            total += size
        else:
            free = {name: each for name, each in free.items() if each is not former}
    return total


def _new(v: Vector, known: list[tuple[int, int]]) -> int:
    """The bytes of what does not lie in known memory; from then on it does."""
    size = 0
    for part in v.parts:
        begin, end = part.data_ptr(), part.data_ptr() + part.nbytes
        if not any(low <= begin and end <= high for low, high in known):
            known.append((begin, end))
            size += part.nbytes
    return size
