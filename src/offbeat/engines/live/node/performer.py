"""The live node's `Engine`: vectors are evaluated in shared memory, all is logged, and only then seen."""

import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappush

import torch

from offbeat.core.agent import Accumulate, Agent, Effect, Message, Publish
from offbeat.core.errors import ContractError
from offbeat.core.forms import pin
from offbeat.core.system import kernel
from offbeat.core.vector import Scope, Vector
from offbeat.engines.events import Event, RegisterMoved, SumAdded
from offbeat.engines.handler_step import Actor, Mixed
from offbeat.engines.live.node.guard import IGNORE, Guard
from offbeat.engines.live.node.log import Log
from offbeat.engines.live.node.transport import Bound, Reader, Transport
from offbeat.engines.live.shm.board import Row
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.live.shm.register import Register
from offbeat.engines.outbox import Compression, Medium, Outbox, Transmission, vectors


def digest(x: Vector) -> str:
    sha = hashlib.sha256()
    for part in x.parts:
        sha.update(part.contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """An agent's model, for whoever looks at it from outside: a returning neighbour, an evaluation."""

    x: Vector


@dataclass
class Clock:
    """The run's time in units of so many seconds; `zero`: when it began, in ns of the monotonic clock."""

    unit: float = 1.0
    zero: int = field(default_factory=time.monotonic_ns)

    def now(self) -> float:
        return (time.monotonic_ns() - self.zero) / 1e9 / self.unit


@dataclass(frozen=True)
class Placed:
    """A message that lies in the next slot of a register, and that others see once the slot is finished."""

    register: Register
    message: Message  # with the vectors in the slot
    given: tuple[Vector, ...]  # the vectors that the agent gave
    to: tuple[int, ...]  # nobody in particular if only the model is shown

    @staticmethod
    def of(register: Register, message: Message, to: tuple[int, ...]) -> "Placed":
        """Have the vectors of a message evaluated in the slot; what moves on with a register is copied."""
        given = vectors(message)
        placed = register.begin([pin(v) if v.late else v for v in given.values()])
        lying = replace(message, **dict(zip(given, placed, strict=True)))
        return Placed(register, lying, tuple(given.values()), to)

    def finish(self, tag: Tag) -> None:
        for v, given in zip(vectors(self.message).values(), self.given, strict=True):
            v.stamp = given.stamp
        self.register.finish(self.message, tag)


class Performer:
    """What is between an agent and the world.

    Attributes:
        transport: how to reach the others; None: there are none
        link: emulates the delays of a world; None: what is sent is visible at once
        alarms: (time, number, name), a heap
        outbox: without a link, what is given away leaves at once, compressed if it is to be
        backlog: receiver -> mail for which there is no room in its mailbox yet
    """

    idle = True  # what is placed and shown goes by every handler
    blames: type[Exception] = ContractError  # of others the traceback says enough; it may be the optimizer's

    def __init__(
        self,
        agent: Agent,
        transport: Transport | None,
        log: Log,
        clock: Clock,
        on_nan: str = IGNORE,
        compression: Compression | None = None,
    ) -> None:
        self.me, self.agent, self.transport, self.log, self.clock = agent.me, agent, transport, log, clock
        self.guard = Guard(agent.me, on_nan, None if transport is None else transport.row)
        self.actor = Actor(agent, self, log.rows.event, self.guard)
        self.scope = Scope(None if transport is None else kernel.linear)
        self.link = None if transport is None else transport.link
        self.outbox, self.backlog = Outbox(compression), dict[int, Outbox]()
        self.alarms: list[tuple[float, int, str]] = []
        self._placed: list[Placed] = []
        self._model_in: Register | None = None  # where others find the model
        if transport is not None:
            transport.on_moved = self._log_moved

    def handle(self, event: Event, *args: object) -> None:
        with self.scope:
            self.actor.handle(event, *args)

    def force(self) -> None:
        """Within a handler: evaluate all that it has built so far."""
        self.scope.force(self._torn)

    # -- the handler step: `offbeat.engines.handler_step.Engine` -----------------------------------

    def settle(self, actor: Actor, effects: Sequence[Effect], wrote: bool) -> None:
        self._placed = self._place(effects, wrote)
        self.scope.settle(self._torn)

    def record(self, actor: Actor, effects: Sequence[Effect], mixed: Mixed, refused: bool) -> None:
        if mixed is not None:
            self.log.rows.write(self.clock.now(), self.me, actor.steps, mixed)
            self.log.flush()
            if self.transport is not None:
                self.transport.row[Row.STEPS], self.transport.row[Row.WRITES] = actor.steps, actor.version
        if effects:
            self.log.flush()  # without effects, what nobody can see waits for what somebody will
        if not refused:
            self._show(self.agent.now)

    def compute(self, actor: Actor, x: Vector) -> None:
        pass  # whoever drives the agent looks at `actor.at`

    def alarm(self, actor: Actor, after: float, name: str) -> None:
        heappush(self.alarms, (self.clock.now() + after, len(self.alarms), name))

    def give(self, actor: Actor, medium: Medium, to: tuple[int, ...], message: Message) -> None:
        if self.transport is None or (medium is Publish and self._at_once(message)):
            return  # it has been placed
        receivers = tuple([(j, self.transport.alive.get(j, 0)) for j in to])
        item = Transmission(self.me, medium, to, message, receivers, membership=self.transport.membership)
        if medium is Accumulate:
            item.letter = actor.letter
        now = self.clock.now()
        with Scope():  # accumulated messages may be added up
            (self.outbox if self.link is None else self.link).put(item)
        while (leaves := self.outbox.take()) is not None:
            leaves.start = leaves.end = now
            self._log_sent(now, now, leaves.message, leaves.size)
            self._arrive(leaves, leaves.to)
        self.advance(now)

    def _at_once(self, message: Message) -> bool:
        """Whether a published message is evaluated where others read it: nothing delays or compresses it."""
        compression = self.outbox.compression
        return self.link is None and not (compression and compression.rounds(Publish, message))

    def _place(self, effects: Sequence[Effect], wrote: bool) -> list[Placed]:
        """The registers to be written at once, the model's own among them where no other shows it."""
        if self.transport is None:
            return []
        at_once = [e for e in effects if isinstance(e, Publish) and e.to and self._at_once(e.message)]
        model = self.agent.model
        if wrote and not any(next(iter(vectors(e.message).values()), None) is model for e in at_once):
            at_once.append(Publish((), Snapshot(model)))
        placed = []
        for effect in at_once:
            register = self.transport.register(effect.message, effect.to)
            placed.append(Placed.of(register, effect.message, effect.to))
            if next(iter(placed[-1].given), None) is model:
                self._model_in = register
        return placed

    def _show(self, now: float) -> None:
        for placed in self._placed:
            assert self.transport is not None
            placed.finish(Tag(self.agent.round, self.transport.membership, now, now))
            if placed.register is self._model_in:
                self.transport.row[Row.MODEL] = self.transport.mine.index(placed.register) + 1
            if placed.to:
                size = sum(v.nbytes for v in placed.given)
                self._log_sent(now, now, placed.message, size)

    def _torn(self, used: Iterable[Vector]) -> list[Vector]:
        """Move vectors on whose version was overwritten while it was being mixed."""
        readers: dict[int, Reader] = {id(v.reader): v.reader for v in used if isinstance(v, Bound)}
        torn = [reader for reader in readers.values() if reader.torn()]
        for reader in torn:
            reader.move_on()
        return [v for reader in torn for v in reader.vectors]

    @property
    def due(self) -> float:
        """When there will be something to send or an alarm; infinity if never."""
        if any(box.queue for box in self.backlog.values()):
            return -math.inf
        sent = math.inf if self.link is None else self.link.due
        return min(sent, self.alarms[0][0] if self.alarms else math.inf)

    def advance(self, now: float) -> None:
        """Everything that can become visible by now does."""
        for item, to, ended in [] if self.link is None else self.link.advance(now):
            if ended:
                self._log_sent(item.start, item.end, item.message, item.size)
            self._arrive(item, to)
        for j, box in self.backlog.items():
            while box.queue and self._mail(box.queue[0], j):
                box.take()

    def _arrive(self, item: Transmission, to: Sequence[int]) -> None:
        if item.medium is Publish:
            assert self.transport is not None
            apart = self.link is not None and self.link.apart
            for receivers in [(j,) for j in to] if apart else [item.to]:  # each its own
                register = self.transport.register(item.message, receivers, item.packed)
                if item.packed:
                    register.write(item.message, self._tag(item), item.packed)
                    continue
                with Scope(self.scope.linear):
                    placed = Placed.of(register, item.message, receivers)
                placed.finish(self._tag(item))
            return
        for j, incarnation in item.receivers:
            if j in to:
                self._post(j, replace(item, to=(j,), receivers=((j, incarnation),)))

    def _post(self, to: int, item: Transmission) -> None:
        """Mail that has left, for one receiver. What is added to what waits for it is, behind a link, a sum
        of its own perhaps: where it begins is logged, since numbers added in another order are others.
        """
        box = self.backlog.setdefault(to, Outbox())
        older = box.waiting.get(item.place) if item.packed is None and self.link is not None else None
        if older is not None:
            kind = self.log.rows.kind(older.message)
            self.log.rows.event(SumAdded(self.clock.now(), self.me, to, kind, older.letter))
            self.log.flush()  # it may be read before this agent's next event
        with Scope():
            box.put(item)

    def _mail(self, item: Transmission, to: int) -> bool:
        """Put a letter into a mailbox; False if there is no room yet."""
        assert self.transport is not None
        if item.receivers != ((to, self.transport.alive.get(to, 0)),):
            return True  # it was for a former incarnation
        return self.transport.post(to, item.message, self._tag(item), item.packed)

    def _tag(self, item: Transmission) -> Tag:
        return Tag(self.agent.round, item.membership, item.start, item.end, item.letter)

    def _log_moved(self, reader: Reader) -> None:
        stamp, tag, kind = reader.vectors[0].stamp, reader.tag, self.log.rows.kind(reader.message)
        version = -1 if stamp is None else stamp.version
        moved = RegisterMoved(self.agent.now, self.me, reader.source, kind, version, tag.start, tag.end)
        self.log.rows.event(moved)

    def _log_sent(self, start: float, end: float, message: Message, size: int) -> None:
        self.log.rows.transmissions.append(start, end, self.me, self.log.rows.kind(message), size)
