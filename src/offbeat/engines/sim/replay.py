"""Replays a trace: fresh agents meet the same events in the same order, and must do the same.

Each agent's events are handed over in the order in which it met them, as soon as what they carry has been
produced: a register's version, a letter. What comes out is compared with what was recorded: which versions
entered every write.
"""

import copy
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch

from offbeat.core.agent import Accumulate, Agent, Effect, Message, Send
from offbeat.core.errors import ContractError, DataError
from offbeat.core.rules import Rule
from offbeat.core.vector import Parts, Scope, Stamp, Vector
from offbeat.engines.events import (
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
from offbeat.engines.handler_step import Actor, SkipNotFinite
from offbeat.engines.outbox import LateBound, Medium, vectors
from offbeat.engines.recorder import Recorder
from offbeat.engines.trace import Trace, in_order
from offbeat.world.topology import Topology

Gradient = Callable[[int, int, Vector], Vector]
"""(agent, how many gradients it had asked for before, model) -> the gradient."""

Key = tuple[int, str, int]
"""Source, message type, receiver."""

Box = tuple[int, int, int, int]
"""A mailbox, as in `offbeat.engines.live.node.transport`: sender, its incarnation, and of the receiver."""


@dataclass
class Replayed:
    """What the replay keeps of one agent."""

    actor: Actor
    alive: frozenset[int]
    asked: int = 0
    resumed: int = 0  # how often it went on from a checkpoint
    incarnation: int = 1
    known: dict[int, int] = field(default_factory=dict)  # the newest incarnations of others, if not 1
    alarms: list[tuple[float, int, str]] = field(default_factory=list)


class Replay:
    """Runs a trace again, the third `Engine` of handler steps.

    Attributes:
        new_agent, new_rule, rng: make one agent's algorithm, its local rule, and its random stream in one of
            its incarnations
        initial: the model that all start from
        gradient: evaluates gradients
        skips: whether updates that are not finite were skipped (see `handler_step.SkipNotFinite`)
    """

    blames: type[Exception] = ContractError

    def __init__(
        self, trace: Trace, topology: Topology, new_agent: Callable[[], Agent], new_rule: Callable[[], Rule],
        rng: Callable[[int, int], Random], initial: Parts, gradient: Gradient, skips: bool = False,
    ) -> None:  # fmt: skip
        self.trace, self.topology, self.initial = trace, topology, initial
        self.new_agent, self.new_rule, self.gradient = new_agent, new_rule, gradient
        self.rng, self.guard = rng, SkipNotFinite() if skips else None
        self.kinds = list(trace.kinds)
        self.recorder, self.scope = Recorder(topology.n), Scope()
        self.everybody = frozenset(range(topology.n))
        self.agents = [self._new(i) for i in range(topology.n)]
        self.published: dict[Key, dict[int, Message]] = defaultdict(dict)
        self.bound: dict[Key, LateBound] = defaultdict(LateBound)
        self.saved: dict[tuple[int, int], tuple[Any, ...]] = {}
        self.mail: dict[Box, deque[Message]] = defaultdict(deque)
        rows = [trace.writes[trace.writes["agent"] == i]["time"].tolist() for i in range(topology.n)]
        self.write_times: list[Iterator[float]] = [iter(times) for times in rows]
        self.donated: dict[Stamp, tuple[Vector, int] | None] = {
            Stamp(int(row["donor"]), int(row["version"])): None for row in rows_of(trace.events, Rejoined)
        }
        for i in range(topology.n):
            if Stamp(i, 0) in self.donated:
                self.donated[Stamp(i, 0)] = Vector(initial), 0

    def _new(self, i: int) -> Replayed:
        agent = self._agent(i, Vector(self.initial), self.everybody, 0)
        return Replayed(Actor(agent, self, self.recorder.event, self.guard), self.everybody)

    def _agent(self, i: int, x: Vector, alive: frozenset[int], asked: int) -> Agent:
        """Agent i, as it was after so many gradients that it had asked for in former incarnations."""
        agent = self.new_agent()
        with self.scope:
            agent.join(
                i, self.topology.n, x, self.topology.view(i, alive), self.new_rule(), self.rng(i, asked)
            )
        return agent

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
                    with self.scope:
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
            torch.stack(rows) for rows in zip(*(each.actor.model.parts for each in self.agents), strict=True)
        )

    # -- events ------------------------------------------------------------------------------------

    def _ready(self, event: Event) -> bool:
        i = event.agent
        if isinstance(event, MailReceived | RegisterRead | RegisterMoved):
            if self.agents[event.source].resumed < self.agents[i].resumed:
                return False  # what it did before is not for those that went on from a checkpoint
            if isinstance(event, MailReceived):
                return bool(self._box(event.source, i))
            return event.version in self.published[event.source, self.kinds[event.kind], i]
        return not isinstance(event, Rejoined) or self.donated[Stamp(event.donor, event.version)] is not None

    def _happens(self, event: Event) -> None:
        i = event.agent
        each, actor = self.agents[i], self.agents[i].actor
        match event:
            case Started():
                actor.handle(event)
            case Rejoined():
                self._rejoin(event)
                actor.handle(event)
            case ViewChanged(peer=peer, back=back):
                if back:
                    each.alive, each.known[peer] = each.alive | {peer}, event.incarnation
                else:
                    each.alive -= {peer}
                    self._unbind(lambda key: (key[0], key[2]) == (peer, i))  # nothing of a lost peer arrives
                actor.handle(event, self.topology.view(i, each.alive))
            case RegisterRead():
                actor.handle(event, event.source, self._bind(event))
            case MailReceived(source=source):
                actor.handle(event, source, self._box(source, i).popleft())
            case AlarmRang():
                due = min(each.alarms)
                each.alarms.remove(due)
                actor.handle(event, due[2])
            case Resumed(version=version):
                self._resume(i, version)
                actor.handle(event)
            case GradientDone():
                actor.handle(event, self._gradient(event))
            case _:
                self._note(event)

    def _note(self, event: Event) -> None:
        """An event that calls no handler."""
        each, actor = self.agents[event.agent], self.agents[event.agent].actor
        match event:
            case Crashed():
                each.alive = self.everybody
            case LossKnown(peer=peer):
                each.alive -= {peer}
            case PeerMet(peer=peer, incarnation=incarnation):  # which may have been dead before
                each.alive |= {peer}
                each.known[peer] = incarnation
            case RegisterMoved():
                self._bind(event)
            case Saved(version=version):
                state = actor.agent, actor.model, actor.steps, actor.at, each.asked, each.alarms
                self.saved[event.agent, version] = copy.deepcopy(state)
        self.recorder.event(event)

    def _gradient(self, event: GradientDone) -> Vector:
        i = event.agent
        actor = self.agents[i].actor
        if actor.at is None:
            raise DataError(
                f"At {event.time}, agent {i} got a gradient in the trace; in the replay it asked for none."
            )
        x, actor.at = actor.at, None
        g = self.gradient(i, self.agents[i].asked - 1, x)
        return g if self.guard is None else self.guard.gradient(g, actor.steps + 1)

    def _rejoin(self, event: Rejoined) -> None:
        """The agent begins a new incarnation with the donor's model and round."""
        i, given = event.agent, self.donated[Stamp(event.donor, event.version)]
        each, actor = self.agents[i], self.agents[i].actor
        assert given is not None
        x = Vector(given[0].parts, given[0].stamp)
        actor.agent, actor.model, actor.at = self._agent(i, x, each.alive, event.asked), x, None
        actor.agent.round = given[1]
        each.asked, each.incarnation, each.alarms = event.asked, event.incarnation, []

    def _resume(self, i: int, version: int) -> None:
        """Agent i is what it was when it was saved; nothing that it sent since then arrives."""
        if (i, version) not in self.saved:
            raise DataError(
                f"Agent {i} went on from its version {version}; the trace does not say when it was saved."
            )
        each, actor, rule = self.agents[i], self.agents[i].actor, self.agents[i].actor.agent.rule
        saved = copy.deepcopy(self.saved[i, version])
        actor.agent, actor.model, actor.steps, actor.at, each.asked, each.alarms = saved
        actor.agent.rule, actor.agent.view = rule, self.topology.view(i, self.everybody)
        each.resumed, each.alive = each.resumed + 1, self.everybody
        each.incarnation, each.known = 1, {}  # the launcher counts anew
        for box in [box for box in self.mail if box[0] == i]:
            self.mail[box].clear()
        for key in [key for key in self.published if key[0] == i]:
            self.published[key].clear()
        self._unbind(lambda key: key[2] == i)

    # -- what was sent -------------------------------------------------------------------------------

    def _bind(self, event: RegisterRead | RegisterMoved) -> Message:
        """The message of a register, moved on to this version; older ones are not read any more."""
        key = event.source, self.kinds[event.kind], event.agent
        versions = self.published[key]
        for old in [v for v in versions if v < event.version]:
            del versions[old]
        return self.bound[key].moved_on(versions[event.version])

    def _unbind(self, which: Callable[[Key], bool]) -> None:
        for key in [key for key in self.bound if which(key)]:
            del self.bound[key]

    def _box(self, source: int, i: int) -> deque[Message]:
        """Where agent i finds the mail of what it takes for the sender's present incarnation."""
        each = self.agents[i]
        return self.mail[source, each.known.get(source, 1), i, each.incarnation]

    # -- the handler step: `offbeat.engines.handler_step.Engine` ---------------------------------------------

    def settle(self, actor: Actor, effects: Sequence[Effect], wrote: bool) -> None:
        self.scope.settle()

    def wrote(self, actor: Actor, mixed: Sequence[Stamp]) -> None:
        i = actor.me
        self.recorder.write(next(self.write_times[i], actor.agent.now), i, actor.steps, mixed)
        if (this := Stamp(i, actor.version)) in self.donated:
            self.donated[this] = actor.model, actor.agent.round

    def recorded(self, actor: Actor, effects: Sequence[Effect], refused: bool) -> None:
        pass

    def compute(self, actor: Actor, x: Vector) -> None:
        self.agents[actor.me].asked += 1

    def alarm(self, actor: Actor, after: float, name: str) -> None:
        alarms = self.agents[actor.me].alarms
        alarms.append((actor.agent.now + after, len(alarms), name))

    def give(self, actor: Actor, medium: Medium, to: tuple[int, ...], message: Message) -> None:
        i, each = actor.me, self.agents[actor.me]
        if medium is Accumulate:
            raise DataError("A trace does not say what `accumulate` summed up, so it cannot be replayed.")
        for j in to:
            if medium is Send:
                self.mail[i, each.incarnation, j, each.known.get(j, 1)].append(message)
            else:
                stamps = (v.stamp for v in vectors(message).values() if v.stamp is not None)
                version = next((stamp.version for stamp in stamps), -1)
                self.published[i, type(message).__name__, j][version] = message
