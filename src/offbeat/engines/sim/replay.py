"""Replays a trace: fresh agents meet the same events in the same order, and must do the same.

Each agent's events are handed over in the order in which it met them, as soon as what they carry has been
produced: a register's version, a letter. What comes out is compared with what was recorded: which versions
entered every write.
"""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch

from offbeat.core.agent import Accumulate, Agent, Alarm, Compute, Message, Publish, Send
from offbeat.core.errors import ContractError, DataError
from offbeat.core.rules import Rule
from offbeat.core.vector import Parts, Stamp, Vector, finite, settle, zero
from offbeat.engines.events import (
    HANDLERS,
    AlarmRang,
    Crashed,
    Event,
    GradientDone,
    LossKnown,
    MailReceived,
    PeerMet,
    RegisterMoved,
    RegisterRead,
    Rejoined,
    Resumed,
    Saved,
    Started,
    ViewChanged,
    records,
    rows_of,
)  # fmt: skip
from offbeat.engines.outbox import vectors
from offbeat.engines.recorder import Recorder
from offbeat.engines.trace import Trace, in_order
from offbeat.world.topology import Topology

Gradient = Callable[[int, int, Vector], Vector]
"""(agent, how many gradients it had asked for before, model) -> the gradient."""

Key = tuple[int, str, int]
"""Source, message type, receiver."""

Box = tuple[int, int, int, int]
"""A mailbox, as in `offbeat.engines.live.node.fabric`: sender, its incarnation, receiver, its incarnation."""


@dataclass
class Life:
    """What the replay keeps of one agent."""

    agent: Agent
    alive: frozenset[int]
    model: Vector
    version: int = 0
    steps: int = 0
    asked: int = 0
    at: Vector | None = None
    resumed: int = 0  # how often it went on from a checkpoint
    incarnation: int = 1
    known: dict[int, int] = field(
        default_factory=dict
    )  # the newest incarnation of others that it knows of, if not 1
    alarms: list[tuple[float, int, str]] = field(default_factory=list)


class Replay:
    """Runs a trace again.

    Attributes:
        new_agent, new_rule, rng: make one agent's algorithm, its local rule, and its random stream in one of
            its lives
        initial: the model that all start from
        gradient: evaluates gradients
        skips: whether updates that are not finite were skipped (see `offbeat.engines.live.node.guard`)
    """

    def __init__(
        self, trace: Trace, topology: Topology, new_agent: Callable[[], Agent], new_rule: Callable[[], Rule],
        rng: Callable[[int, int], Random], initial: Parts, gradient: Gradient, skips: bool = False,
    ) -> None:  # fmt: skip
        self.trace, self.topology, self.initial = trace, topology, initial
        self.new_agent, self.new_rule, self.gradient = new_agent, new_rule, gradient
        self.rng, self.skips = rng, skips
        self.kinds = list(trace.kinds)
        self.recorder = Recorder(topology.n)
        self.lives = [self._new(i, Vector(initial), frozenset(range(topology.n))) for i in range(topology.n)]
        self.published: dict[Key, dict[int, Message]] = defaultdict(dict)
        self.bound: dict[Key, Message] = {}
        self.saved: dict[tuple[int, int], Life] = {}
        self.mail: dict[Box, deque[Message]] = defaultdict(deque)
        rows = [trace.writes[trace.writes["agent"] == i]["time"].tolist() for i in range(topology.n)]
        self.write_times: list[Iterator[float]] = [iter(times) for times in rows]
        self.donated: dict[Stamp, tuple[Vector, int] | None] = {
            Stamp(int(row["donor"]), int(row["version"])): None for row in rows_of(trace.events, Rejoined)
        }
        for i in range(topology.n):
            if Stamp(i, 0) in self.donated:
                self.donated[Stamp(i, 0)] = Vector(initial), 0

    def _new(self, i: int, x: Vector, alive: frozenset[int], life: int = 0) -> Life:
        agent = self.new_agent()
        agent.join(i, self.topology.n, x, self.topology.view(i, alive), self.new_rule(), self.rng(i, life))
        return Life(agent, alive, x)

    def run(self, progress: Callable[[int], None] | None = None) -> Trace:
        """The trace of the replay. Raises DataError where the agents do something else than was recorded."""
        events = self.trace.events
        queues = [deque(records(events[events["agent"] == i])) for i in range(self.topology.n)]
        waiting = sorted(range(len(queues)), key=lambda i: queues[i][0].time if queues[i] else 0.0)
        done = 0
        while any(queues):
            before = done
            for i in waiting:
                limit = min(
                    (queue[0].time for j, queue in enumerate(queues) if queue and j != i),
                    default=float("inf"),
                )
                while (
                    queues[i] and (queues[i][0].time <= limit or done == before) and self._ready(queues[i][0])
                ):
                    self._happens(queues[i].popleft())
                    done += 1
            if done == before:
                stuck = min((queue[0] for queue in queues if queue), key=lambda event: event.time)
                raise DataError(f"The trace cannot be replayed: nothing produced what event {stuck} needs.")
            if progress is not None:
                progress(done)
            waiting.sort(key=lambda i: queues[i][0].time if queues[i] else 0.0)
        return in_order(
            replace(self.recorder.trace(), kinds=self.trace.kinds, transmissions=self.trace.transmissions)
        )

    def stacked(self) -> Parts:
        """All agents' models, [n, P]."""
        return tuple(
            torch.stack(rows) for rows in zip(*(life.model.parts for life in self.lives), strict=True)
        )

    # -- events ------------------------------------------------------------------------------------

    def _ready(self, event: Event) -> bool:
        i = event.agent
        if isinstance(event, MailReceived | RegisterRead | RegisterMoved):
            if self.lives[event.source].resumed < self.lives[i].resumed:
                return False  # what it did before is not for those that went on from a checkpoint
            if isinstance(event, MailReceived):
                return bool(self._box(event.source, i))
            return event.version in self.published[event.source, self.kinds[event.kind], i]
        return not isinstance(event, Rejoined) or self.donated[Stamp(event.donor, event.version)] is not None

    def _happens(self, event: Event) -> None:
        i = event.agent
        life = self.lives[i]
        match event:
            case Started():
                self._handle(event)
            case Rejoined():
                self._rejoin(event)
                self._handle(event)
            case Crashed():
                life.alive = frozenset(range(self.topology.n))
                self.recorder.event(event)
            case LossKnown(peer=peer):
                life.alive -= {peer}
                self.recorder.event(event)
            case PeerMet(peer=peer, incarnation=incarnation):  # which may have been dead before
                life.alive |= {peer}
                life.known[peer] = incarnation
                self.recorder.event(event)
            case ViewChanged(peer=peer, back=back):
                life.alive = life.alive | {peer} if back else life.alive - {peer}
                if back:
                    life.known[peer] = event.incarnation
                for key in [key for key in self.bound if not back and key[0] == peer and key[2] == i]:
                    del self.bound[key]  # nothing of a lost peer arrives
                self._handle(event, self.topology.view(i, life.alive))
            case RegisterRead():
                self._handle(event, event.source, self._bind(event))
            case RegisterMoved():
                self._bind(event)
                self.recorder.event(event)
            case MailReceived(source=source):
                self._handle(event, source, self._box(source, i).popleft())
            case AlarmRang():
                due = min(life.alarms)
                life.alarms.remove(due)
                self._handle(event, due[2])
            case Saved(version=version):
                self.saved[i, version] = copy.deepcopy(life)
                self.recorder.event(event)
            case Resumed(version=version):
                self._resume(i, version)
                self._handle(event)
            case GradientDone():
                if life.at is None:
                    raise DataError(
                        f"At {event.time}, agent {i} got a gradient in the trace; in the replay it asked for none."
                    )
                x, life.at = life.at, None
                g = self.gradient(i, life.asked - 1, x)
                self._handle(event, zero(g) if self.skips and not finite(g.parts) else g)

    def _rejoin(self, event: Rejoined) -> None:
        """The agent begins a new life with the donor's model and round."""
        given, old = self.donated[Stamp(event.donor, event.version)], self.lives[event.agent]
        assert given is not None
        x = Vector(given[0].parts, given[0].stamp)
        life = self.lives[event.agent] = self._new(event.agent, x, old.alive, event.asked)
        life.version, life.steps, life.asked = old.version, old.steps, event.asked
        life.resumed, life.incarnation, life.known = old.resumed, event.incarnation, old.known
        life.agent.round = given[1]
        life.agent.view = self.topology.view(event.agent, life.alive)

    def _resume(self, i: int, version: int) -> None:
        """Agent i is what it was when it was saved; nothing that it sent since then arrives."""
        if (i, version) not in self.saved:
            raise DataError(
                f"Agent {i} went on from its version {version}; the trace does not say when it was saved."
            )
        before, life = self.lives[i], copy.deepcopy(self.saved[i, version])
        life.version, life.resumed, life.alive = (
            before.version,
            before.resumed + 1,
            frozenset(range(self.topology.n)),
        )
        life.agent.rule, life.agent.view = before.agent.rule, self.topology.view(i, life.alive)
        self.lives[i] = life
        life.incarnation, life.known = 1, {}  # the launcher counts anew
        for box in [box for box in self.mail if box[0] == i]:
            self.mail[box].clear()
        for key in [key for key in self.published if key[0] == i]:
            self.published[key].clear()
        for key in [key for key in self.bound if key[2] == i]:
            del self.bound[key]

    def _bind(self, event: RegisterRead | RegisterMoved) -> Message:
        key = (event.source, self.kinds[event.kind], event.agent)
        versions = self.published[key]
        newest = versions[event.version]
        for old in [v for v in versions if v < event.version]:
            del versions[old]
        if key not in self.bound:
            self.bound[key] = replace(
                newest, **{name: Vector(v.parts) for name, v in vectors(newest).items()}
            )
        late = vectors(self.bound[key])
        for name, v in vectors(newest).items():
            late[name].move(v)
            late[name].late = True
        self.bound[key] = replace(newest, **late)
        return self.bound[key]

    def _box(self, source: int, i: int) -> deque[Message]:
        """Where agent i finds the mail of what it takes for the sender's present life."""
        life = self.lives[i]
        return self.mail[source, life.known.get(source, 1), i, life.incarnation]

    # -- handlers and their effects ----------------------------------------------------------------

    def _handle(self, event: Event, *args: Any) -> None:
        i = event.agent
        life, agent = self.lives[i], self.lives[i].agent
        agent.now = event.time
        self.recorder.event(event)
        getattr(agent, HANDLERS[type(event)])(*args)
        effects, model = agent.drain(), agent.model
        if model is life.model:
            settle()
        else:
            mixed = sorted(
                {v.stamp for v in (model, *model.sources()) if v.stamp is not None and v.stamp.agent != i}
            )
            settle()
            if self.skips and not finite(model.parts):
                model.become(life.model)
            life.version += 1
            life.steps += not isinstance(event, Rejoined) and any(
                type(effect) is Compute for effect in effects
            )
            life.model = model
            model.stamp = model.stamp or Stamp(i, life.version)
            self.recorder.write(next(self.write_times[i], event.time), i, life.steps, mixed)
            if Stamp(i, life.version) in self.donated:
                self.donated[Stamp(i, life.version)] = model, agent.round
        for effect in effects:
            self._perform(i, effect)

    def _perform(self, i: int, effect: object) -> None:
        life = self.lives[i]
        match effect:
            case Compute(x):
                life.at = self._fixed(i, x)
                life.asked += 1
            case Send(to, message):
                for j in to:
                    self.mail[i, life.incarnation, j, life.known.get(j, 1)].append(self._given(i, message))
            case Accumulate():
                raise DataError("A trace does not say what `accumulate` summed up, so it cannot be replayed.")
            case Publish(to, message):
                given = self._given(i, message)
                for j in to:
                    self.published[i, type(message).__name__, j][self._version(given)] = given
            case Alarm(after, name):
                life.alarms.append((life.agent.now + after, len(life.alarms), name))
            case _:
                raise ContractError(f"Agent {i} asked for {effect!r}, which is no effect of the contract.")

    def _fixed(self, i: int, x: Vector) -> Vector:
        if x.late:
            return Vector(x.parts, x.stamp)
        x.stamp = x.stamp or Stamp(i, self.lives[i].version)
        return x

    def _given(self, i: int, message: Message) -> Message:
        return replace(message, **{name: self._fixed(i, v) for name, v in vectors(message).items()})

    @staticmethod
    def _version(message: Message) -> int:
        return next((v.stamp.version for v in vectors(message).values() if v.stamp is not None), -1)
