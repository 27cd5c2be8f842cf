"""Calls an agent's handlers, evaluates what they kept, logs what they did, and performs their effects."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from heapq import heappush

import torch

from offbeat.core import promises
from offbeat.core.agent import Accumulate, Agent, Alarm, Compute, Effect, Message, Publish, Send
from offbeat.core.errors import ContractError
from offbeat.core.vector import Stamp, Vector, force, pin, settle
from offbeat.engines.events import HANDLERS, Event, RegisterMoved, Rejoined, ViewChanged
from offbeat.engines.live.node.fabric import Bound, Fabric, Reader
from offbeat.engines.live.node.guard import Guard
from offbeat.engines.live.node.log import Log
from offbeat.engines.live.node.post import Link, Post
from offbeat.engines.live.shm.board import Row
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.wire import Tag
from offbeat.engines.outbox import Medium, Transmission, vectors


def digest(x: Vector) -> str:
    """SHA-256 of a vector's bytes."""
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
        """The time since the run began."""
        return (time.monotonic_ns() - self.zero) / 1e9 / self.unit


class Performer:
    """What is between an agent and the world: its handlers are called, and their effects performed, here
    alone.

    Attributes:
        model, version, steps: the agent's newest model, how often it was written, how many gradients were
            applied
        at: where the next gradient is to be taken; None: the agent has not asked for one
        alarms: (time, number, name), a heap
    """

    def __init__(
        self, agent: Agent, fabric: Fabric | None, log: Log, clock: Clock, link: Link | None = None,
        guard: Guard | None = None,
    ) -> None:  # fmt: skip
        self.agent, self.fabric, self.log, self.clock = agent, fabric, log, clock
        self.me, self.neighbours = agent.me, agent.view.peers
        self.guard = Guard(self.me) if guard is None else guard
        self.post = Post(self._mail, self._register, link)
        self.model, self.version, self.steps = agent.x, 0, 0
        self.at: Vector | None = None
        self.alarms: list[tuple[float, int, str]] = []
        self._own: Register | None = None

    def force(self) -> None:
        """Within a handler: evaluate all that it has built so far."""
        force(self._torn)

    def handle(self, event: Event, *args: object) -> None:
        """Call a handler; evaluate what it kept; log what it did; then let others see it."""
        agent, now, handler = self.agent, event.time, HANDLERS[type(event)]
        agent.now = now
        try:
            promises.returned_nothing(getattr(agent, handler)(*args))
            if isinstance(event, ViewChanged):
                promises.check_view(agent, args[0])
            effects, model = agent.drain(), promises.checked_model(agent.model)
            self._check(effects)
        except ContractError as error:  # of others the traceback says enough; it may be the optimizer's
            promises.raise_blamed(error, agent, handler, now)
            raise
        wrote = model is not self.model
        mixed = (
            [v for v in (model, *model.sources()) if v.stamp is not None and v.stamp.agent != self.me]
            if wrote
            else []
        )
        if wrote:
            self.version += 1
            self.steps += not isinstance(event, Rejoined) and any(
                type(effect) is Compute for effect in effects
            )
        placed = []
        if wrote or effects:
            placed = [(self._place(effect), effect) for effect in self._published(effects, model, wrote)]
            self._own_stamps(model if wrote else None, effects)
        settle(self._torn)
        if wrote and self.guard.keeps(model, self.model, self.steps):
            placed, effects = [], [effect for effect in effects if type(effect) is not Publish]
        self.log.rows.event(event)
        if wrote:
            self._log_write(model, mixed)
        if wrote or effects:  # what nobody can see may wait for what somebody will
            self.log.flush()
        for (register, message), effect in placed:
            self._visible(register, message, effect, now)
        for asked in effects:
            self._perform(asked)

    def _check(self, effects: list[Effect]) -> None:
        """Raise ContractError if the agent asks for what it has promised not to."""
        if sum(type(effect) is Compute for effect in effects) + (self.at is not None) > 1:
            raise ContractError("it asked for a second gradient while one was outstanding (promise c).")
        for effect in effects:
            match effect:
                case Compute():
                    promises.checked_compute(effect)
                case Send() | Publish() | Accumulate():
                    promises.check_sent(self.agent, effect, self.neighbours)
                    promises.check_numbers(effect.message)
                case Alarm():
                    pass
                case _:
                    raise ContractError(f"it asked for {effect!r}, which is no effect of the contract.")

    def _published(self, effects: list[Effect], model: Vector, wrote: bool) -> list[Publish]:
        """The registers that are to be written at once, the model's own among them where nobody else shows
        it.
        """
        if self.fabric is None:
            return []
        at_once: list[Publish] = [
            e for e in effects if isinstance(e, Publish) and e.to and self.post.link is None
        ]
        if wrote and not any(next(iter(vectors(e.message).values()), None) is model for e in at_once):
            at_once.append(Publish((), Snapshot(model)))
        return at_once

    def _place(self, effect: Publish) -> tuple[Register, Message]:
        """Have a message's vectors evaluated in the next slot of its register."""
        assert self.fabric is not None
        inside = {name: self._fixed(v) for name, v in vectors(effect.message).items()}
        register = self.fabric.register(replace(effect.message, **inside), effect.to)
        placed = register.begin(list(inside.values()))
        for v, p in zip(inside.values(), placed, strict=True):
            p.stamp = v.stamp
        if next(iter(inside.values()), None) is self.agent.model:
            self._own = register
        return register, replace(effect.message, **dict(zip(inside, placed, strict=True)))

    def _visible(self, register: Register, message: Message, effect: Publish, now: float) -> None:
        assert self.fabric is not None
        register.finish(message, Tag(self.agent.round, self.fabric.membership, now, now))
        if register is self._own:
            self.fabric.row[Row.MODEL] = self.fabric.mine.index(register) + 1
        if effect.to:
            self._log_sent(now, now, message)

    def _own_stamps(self, written: Vector | None, effects: list[Effect]) -> None:
        """What is given away or written without a stamp is of this version of mine."""
        given = [
            v
            for e in effects
            if isinstance(e, Send | Publish | Accumulate)
            for v in vectors(e.message).values()
        ]
        given += [e.x for e in effects if type(e) is Compute]
        for v in [*([] if written is None else [written]), *given]:
            if v.stamp is None and not v.late:
                v.stamp = Stamp(self.me, self.version)

    def _fixed(self, v: Vector) -> Vector:
        """A vector that is given away: not one that moves on with a register."""
        if v.late:
            return Vector(v.parts, v.stamp)
        if v.stamp is None:
            v.stamp = Stamp(self.me, self.version)
        return v

    def _log_write(self, model: Vector, mixed: list[Vector]) -> None:
        now = self.clock.now()
        self.model = model
        self.log.rows.write(now, self.me, self.steps, sorted({v.stamp for v in mixed if v.stamp is not None}))
        if self.fabric is not None:
            self.fabric.row[Row.STEPS], self.fabric.row[Row.WRITES] = self.steps, self.version

    def _torn(self, used: Iterable[Vector]) -> list[Vector]:
        """Move vectors on whose version was overwritten while it was being mixed."""
        readers: dict[int, Reader] = {id(v.reader): v.reader for v in used if isinstance(v, Bound)}
        moved: list[Vector] = []
        for reader in readers.values():
            if reader.torn():
                reader.bind()
                stamp = reader.vectors[0].stamp
                version = -1 if stamp is None else stamp.version
                kind, tag = self.log.rows.kind(reader.message), reader.tag
                moving = RegisterMoved(
                    self.agent.now, self.me, reader.source, kind, version, tag.start, tag.end
                )
                self.log.rows.event(moving)
                moved += reader.vectors
        return moved

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Compute(x):
                self.at = self._fixed(x)
            case Send(to, message):
                self._give(Medium.MAIL, to, message)
            case Publish(to, message):
                if self.post.link is not None:
                    self._give(Medium.REGISTER, to, message)
            case Accumulate(to, message):
                self._give(Medium.ACCUMULATOR, to, message)
            case Alarm(after, name):
                heappush(self.alarms, (self.clock.now() + after, len(self.alarms), name))

    # -- sending -----------------------------------------------------------------------------------

    def _give(self, medium: Medium, to: tuple[int, ...], message: Message) -> None:
        if not to or self.fabric is None:
            return
        inside = {name: self._fixed(v) for name, v in vectors(message).items()}
        incarnations = tuple(self.fabric.alive.get(j, 0) for j in to)
        item = Transmission(
            self.me,
            medium,
            to,
            replace(message, **inside),
            incarnations=incarnations,
            membership=self.fabric.membership,
        )
        self.post.give(item, self.clock.now())
        for sent in self.post.started:
            self._log_sent(sent.start, sent.end, sent.message)
        self.post.started.clear()

    def _mail(self, item: Transmission, to: int) -> bool:
        assert self.fabric is not None
        if (to, self.fabric.alive.get(to, 0)) not in zip(item.to, item.incarnations, strict=True):
            return True  # it was for a former incarnation
        return self.fabric.post(
            to, item.message, Tag(self.agent.round, item.membership, item.start, item.end)
        )

    def _register(self, item: Transmission, to: list[int]) -> None:
        """A transmission of a register has arrived: write it. Where losses are drawn, every receiver has its
        own.
        """
        assert self.fabric is not None
        lossy = self.post.link is not None and self.post.link.world.loss > 0
        for receivers in [(j,) for j in to] if lossy else [item.to]:
            register = self.fabric.register(item.message, receivers)
            inside = vectors(item.message)
            placed = register.begin([pin(v) for v in inside.values()])
            for v, p in zip(inside.values(), placed, strict=True):
                p.stamp = v.stamp
            settle()
            message = replace(item.message, **dict(zip(inside, placed, strict=True)))
            register.finish(message, Tag(self.agent.round, item.membership, item.start, item.end))

    def _log_sent(self, start: float, end: float, message: Message) -> None:
        size = sum(v.nbytes for v in vectors(message).values())
        self.log.rows.sent(start, end, self.me, self.log.rows.kind(message), size)
