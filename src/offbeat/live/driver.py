"""Drives one agent of a live run: calls its handlers, performs their effects, and logs what happened.

The agent has one owner at a time. The training thread takes the lock for a gradient, and keeps it until the agent asks
for the next one: an algorithm that waits does so there, and answers its mail meanwhile. At any other time (while the
gradient is computed, during evaluation, after the loop) a second thread answers mail, rings alarms and notices who
comes and goes. No handler ever touches the parameters of a model: the training thread writes them, within its step.
"""

from __future__ import annotations

import hashlib
import json
import math
import select
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from threading import RLock, Thread
from typing import Any

import torch

from offbeat.agent import Accumulate, Agent, Alarm, Compute, Effect, Message, Publish, Send, View
from offbeat.errors import ContractError
from offbeat.live.board import Order, Row, State
from offbeat.live.checkpoint import agent_state, restore_agent
from offbeat.live.fabric import Bound, Fabric, Reader
from offbeat.live.log import Log, Logged
from offbeat.live.post import Link, Post
from offbeat.live.register import Register
from offbeat.live.wire import Tag
from offbeat.outbox import Medium, Transmission, vectors
from offbeat.topology import Topology
from offbeat.trace import EVENT_CODE, write_atomically
from offbeat.vector import Stamp, Vector, force, pin, settle

LONGEST = 0.05
"""Seconds: nobody sleeps longer while something waits to be sent."""


class Stopped(Exception):
    """The run has been asked to stop."""


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


class Driver:
    """One agent of a live run.

    agent:    joined, with its model, view, rule and random stream
    topology: of the whole run
    fabric:   how to reach the others; None: there are none
    log:      where the trace goes
    unit:     seconds in a unit of the agent's time
    link:     emulates the delays of a world; None: as fast as the machine is
    lifeline: a file that can be read when the launcher is gone
    """

    def __init__(
        self, agent: Agent, topology: Topology, fabric: Fabric | None, log: Log, unit: float = 1.0,
        link: Link | None = None, lifeline: int | None = None,
    ) -> None:  # fmt: skip
        self.agent, self.topology, self.fabric, self.log, self.unit = agent, topology, fabric, log, unit
        self.lifeline = [] if lifeline is None else [lifeline]
        self.lock = RLock()
        self.me = agent.me
        self.post = Post(self._mail, self._register, link)
        self.alive = frozenset([self.me]) if fabric is not None else frozenset(range(topology.n))
        self.model, self.version, self.steps = agent.x, 0, 0
        self.at: Vector | None = None  # where the next gradient is to be taken
        self.snapshot: Vector | None = None  # where the last one was
        self.alarms: list[tuple[float, int, str]] = []
        self.deadline = math.inf
        """When the run ends, in units."""
        self.zero = time.monotonic_ns()
        self._own: Register | None = None
        self._closed = False
        self._thread: Thread | None = None

    # -- time --------------------------------------------------------------------------------------

    def now(self) -> float:
        """The time since the run began, in units."""
        return (time.monotonic_ns() - self.zero) / 1e9 / self.unit

    # -- what the training thread calls ------------------------------------------------------------

    def join(self) -> None:
        """Say that the agent is ready, and wait until it belongs to the run. Raises Stopped if the run ends first."""
        if self.fabric is None:
            return
        fabric, board = self.fabric, self.fabric.board
        fabric.row[Row.STATE] = State.JOINED
        fabric.tell_launcher()
        mine = (self.me, fabric.incarnation)
        while board.order is Order.WAIT or mine not in board.since(0):
            self._check_order()
            fabric.bell.wait(LONGEST, self.lifeline)
            fabric.bell.quiet()
        self.zero = board.zero
        before = board.since(0)
        fabric.epoch = max(before.index(mine) + 1, board.n)  # the first n let everybody in
        for agent, incarnation in before[: fabric.epoch]:
            self._member(agent, incarnation)
        fabric.floor = fabric.epoch if fabric.incarnation > 1 else 0
        self.agent.view = self.topology.view(self.me, self.alive)
        fabric.row[Row.STATE] = State.RUNNING

    def start(self) -> Vector:
        """The first event; returns where the first gradient is to be taken."""
        with self.lock:
            self._handle("start", "start")
            return self._next()

    def rejoin(self, x: Vector, round_: int, donor: int, position: int) -> Vector:
        """The first event of an agent that has come back, with a neighbour's model and round."""
        with self.lock:
            for j in range(self.topology.n):
                if j not in self.alive:
                    self.log.events.append((self.now(), self.me, EVENT_CODE["crash"], j, -1, -1, -1.0, -1.0))
            self.agent.x = self.model = x
            self.agent.round = round_
            version = x.stamp.version if x.stamp is not None else 0
            self._handle("rejoin", "rejoin", source=donor, version=version, start=float(position))
            return self._next()

    def step(self, g: Vector) -> Vector:
        """The gradient that was asked for: returns where the next one is to be taken. Raises Stopped."""
        with self.lock:
            began = time.monotonic_ns()
            self._serve()
            self._check_order()
            start, self.snapshot, self.at = self._started, self.at, None
            self._read_registers()
            self._handle("on_gradient", "gradient", g, version=self.steps, start=start, end=self.now())
            x = self._next()
            if self.fabric is not None:
                row, ended = self.fabric.row, time.monotonic_ns()
                row[Row.MIXED] += ended - began
                row[Row.LAST] = ended
                if not row[Row.FIRST]:
                    row[Row.FIRST] = ended
            return x

    def resume(self, state: Mapping[str, Any]) -> Vector:
        """The first event of an agent that goes on from a checkpoint: what `state` gave."""
        with self.lock:
            restore_agent(self.agent, state["agent"])
            self.model, self.at = self.agent.model, state["at"]
            self.steps = state["steps"]
            self._handle("resume", "resume", version=state["version"])
            return self._next()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs of the agent. Call it with the lock, between steps."""
        self.log.events.append((self.now(), self.me, EVENT_CODE["saved"], -1, -1, self.version, -1.0, -1.0))
        self.log.flush()
        return {"agent": agent_state(self.agent), "at": self.at, "version": self.version, "steps": self.steps}

    def force(self) -> None:
        """Within a handler: evaluate all that it has built so far."""
        force(self._torn)

    def restore_counts(self, before: Logged) -> None:
        """Go on counting versions and steps where this agent's earlier lives ended."""
        writes = before.tables[1]
        self.version = len(writes)
        self.steps = int(writes["step"].max(initial=0))

    def _next(self) -> Vector:
        """Wait for the agent to ask for a gradient, handling whatever comes."""
        began = 0
        while self.at is None:
            began = began or time.monotonic_ns()
            self._check_order()
            if self.fabric is None:
                self._idle()
            else:
                self.fabric.bell.wait(self._sleep(), self.lifeline)
            self._serve()
        if began and self.fabric is not None:
            self.fabric.row[Row.WAITED] += time.monotonic_ns() - began
        self._started = self.now()
        return self.at

    def _idle(self) -> None:
        if not self.alarms:
            raise ContractError(f"{type(self.agent).__name__} waits, alone, and nothing will come.")
        time.sleep(max(0.0, self.alarms[0][0] - self.now()) * self.unit)

    def _check_order(self) -> None:
        if self.fabric is not None and self.fabric.board.order >= Order.STOP:
            raise Stopped
        if self.now() >= self.deadline or select.select(self.lifeline, [], [], 0)[0]:
            raise Stopped

    # -- the second thread -------------------------------------------------------------------------

    def attend(self) -> None:
        """Start the thread that answers while the training thread is elsewhere."""
        if self.fabric is not None:
            self._thread = Thread(target=self._attend, name="offbeat", daemon=True)
            self._thread.start()

    def _attend(self) -> None:
        assert self.fabric is not None
        while not self._closed:
            ready = self.fabric.bell.wait(self._sleep(), self.lifeline)
            if ready and ready != [self.fabric.bell.handle]:
                return  # the launcher is gone
            with self.lock:
                if not self._closed:
                    self._serve()

    def leave(self) -> None:
        """Done: say so, and answer mail until everybody is."""
        if self.fabric is None:
            return
        row, board = self.fabric.row, self.fabric.board
        row[Row.STATE] = State.LEFT
        self.fabric.tell_launcher()
        while board.order < Order.END and not select.select(self.lifeline, [], [], LONGEST)[0]:
            pass

    def close(self) -> None:
        """End the second thread, and the log."""
        self._closed = True
        if self._thread is not None and self.fabric is not None:
            self.fabric.bell.ring()
            self._thread.join()
        with self.lock:
            self.log.close()
            if self.log.path is not None:
                end = {"version": self.version, "steps": self.steps, "model": digest(self.model)}
                write_atomically(self.log.path.with_suffix(".json"), json.dumps(end).encode())

    def _sleep(self) -> float | None:
        """Seconds until something is due; None: as long as the bell does not ring."""
        due = min(self.post.due, self.alarms[0][0] if self.alarms else math.inf, self.deadline)
        if due == math.inf:
            return None
        return LONGEST if due == -math.inf else max(0.0, (due - self.now()) * self.unit)

    def _serve(self) -> None:
        """Handle all that has come: members, mail, alarms; and send what can be sent."""
        if self.fabric is None:
            self._ring_alarms()
            return
        self.fabric.bell.quiet()
        for agent, incarnation in self.fabric.board.since(self.fabric.epoch):
            self.fabric.epoch += 1
            if agent != self.me:
                self._changed(agent, incarnation)
        for source, message, tag in self.fabric.receive():
            self._deliver("mail", source, message, tag)
        self._ring_alarms()
        self.post.advance(self.now())

    def _ring_alarms(self) -> None:
        while self.alarms and self.alarms[0][0] <= self.now():
            _, _, name = heappop(self.alarms)
            self._handle("on_alarm", "alarm", name)

    def _member(self, agent: int, incarnation: int) -> None:
        assert self.fabric is not None
        if incarnation > 0:
            self.alive |= {agent}
            if agent != self.me:
                self.fabric.meet(agent, incarnation)
        else:
            self.alive -= {agent}
            self.fabric.forget(agent)
            self.post.forget(agent)

    def _changed(self, agent: int, incarnation: int) -> None:
        self._member(agent, incarnation)
        view: View = self.topology.view(self.me, self.alive)
        if view != self.agent.view:
            self._handle("on_view", "view", view, source=agent, version=int(incarnation > 0))

    def _read_registers(self) -> None:
        if self.fabric is not None:
            for reader in self.fabric.poll(self.agent.view.peers):
                self._deliver("register", reader.source, reader.message, reader.tag)

    def _deliver(self, label: str, source: int, message: Message, tag: Tag) -> None:
        stamps = [v.stamp for v in vectors(message).values() if v.stamp is not None]
        self._handle(
            "on_message", label, source, message, source=source, kind=self.log.kind(message),
            version=stamps[0].version if stamps else -1, start=tag.start, end=tag.end,
        )  # fmt: skip

    # -- handlers and their effects ----------------------------------------------------------------

    def _handle(
        self, event: str, label: str, *args: object, source: int = -1, kind: int = -1, version: int = -1,
        start: float = -1.0, end: float = -1.0,
    ) -> None:  # fmt: skip
        """Call a handler; evaluate what it kept; log what it did; then let others see it."""
        agent, now = self.agent, self.now()
        agent.now = now
        getattr(agent, event)(*args)
        effects, model = agent.drain(), agent.model
        wrote = model is not self.model
        mixed = [v for v in model.sources() if v.stamp is not None and v.stamp.agent != self.me] if wrote else []
        if wrote:
            self.version += 1
            self.steps += event != "rejoin" and any(type(effect) is Compute for effect in effects)
        placed = [(self._place(effect), effect) for effect in self._published(effects, model, wrote)]
        self._own_stamps(model if wrote else None, effects)
        settle(self._torn)
        self.log.events.append((now, self.me, EVENT_CODE[label], source, kind, version, start, end))
        if wrote:
            self._log_write(model, mixed)
        self.log.flush()
        for (register, message), effect in placed:
            self._visible(register, message, effect, now)
        for asked in effects:
            self._perform(asked)

    def _published(self, effects: list[Effect], model: Vector, wrote: bool) -> list[Publish]:
        """The registers that are to be written at once, the model's own among them where nobody else shows it."""
        if self.fabric is None:
            return []
        at_once: list[Publish] = [e for e in effects if isinstance(e, Publish) and e.to and self.post.link is None]
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
        register.finish(message, Tag(self.agent.round, self.fabric.epoch, now, now))
        if register is self._own:
            self.fabric.row[Row.MODEL] = self.fabric.mine.index(register) + 1
        if effect.to:
            self._log_sent(now, now, message)

    def _own_stamps(self, written: Vector | None, effects: list[Effect]) -> None:
        """What is given away or written without a stamp is of this version of mine."""
        given = [v for e in effects if isinstance(e, Send | Publish | Accumulate) for v in vectors(e.message).values()]
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
        now = self.now()
        self.model = model
        stamps = sorted({v.stamp for v in mixed if v.stamp is not None})
        self.log.mixed.extend((self.log.written, *stamp) for stamp in stamps)
        self.log.writes.append((now, self.me, self.steps))
        self.log.written += 1
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
                kind = self.log.kind(reader.message)
                self.log.events.append(
                    (self.agent.now, self.me, EVENT_CODE["moved"], reader.source, kind, version, *reader.tag[2:])
                )
                moved += reader.vectors
        return moved

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Compute(x):
                if self.at is not None:
                    raise ContractError(f"Agent {self.me} asked for a second gradient (promise c).")
                self.at = self._fixed(x)
            case Send(to, message):
                self._give(Medium.MAIL, to, message)
            case Publish(to, message):
                if self.post.link is not None:
                    self._give(Medium.REGISTER, to, message)
            case Accumulate(to, message):
                self._give(Medium.ACCUMULATOR, to, message)
            case Alarm(after, name):
                heappush(self.alarms, (self.now() + after, len(self.alarms), name))

    # -- sending -----------------------------------------------------------------------------------

    def _give(self, medium: Medium, to: tuple[int, ...], message: Message) -> None:
        if not to or self.fabric is None:
            return
        inside = {name: self._fixed(v) for name, v in vectors(message).items()}
        self.post.give(Transmission(self.me, medium, to, replace(message, **inside)), self.now())
        for item in self.post.started:
            self._log_sent(item.start, item.end, item.message)
        self.post.started.clear()

    def _mail(self, item: Transmission, to: int) -> bool:
        assert self.fabric is not None
        return self.fabric.post(to, item.message, Tag(self.agent.round, self.fabric.epoch, item.start, item.end))

    def _register(self, item: Transmission, to: list[int]) -> None:
        """A transmission of a register has arrived: write it. Where losses are drawn, every receiver has its own."""
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
            register.finish(message, Tag(self.agent.round, self.fabric.epoch, item.start, item.end))

    def _log_sent(self, start: float, end: float, message: Message) -> None:
        size = sum(v.nbytes for v in vectors(message).values())
        self.log.transmissions.append((start, end, self.me, self.log.kind(message), size))
