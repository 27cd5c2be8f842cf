"""Replays a trace: fresh agents meet the same events in the same order, and must do the same.

Each agent's events are handed over in the order in which it met them, as soon as what they carry has been
produced: a register's version, a letter. What comes out is compared with what was recorded: which versions
entered every write.
"""

import copy
import math
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from random import Random
from typing import Any

from offbeat.core.agent import Accumulate, Agent, Effect, Message, Publish, View
from offbeat.core.codecs import Codec
from offbeat.core.errors import ContractError, DataError
from offbeat.core.rules import Rule
from offbeat.core.vector import Parts, Scope, Vector
from offbeat.engines import events
from offbeat.engines.handler_step import Actor, Engine, Mixed, SkipNotFinite
from offbeat.engines.outbox import Compression, LateBound, Medium, added, version_of
from offbeat.engines.recorder import Recorder
from offbeat.engines.sim.executors import stacked
from offbeat.engines.sim.letters import Letter, sums_end, total
from offbeat.engines.trace import Trace, in_order
from offbeat.world.topology import Topology

Gradient = Callable[[int, int, Vector], Vector]
"""(agent, how many gradients it had asked for before, model) -> the gradient."""


MailOf = tuple[int, int, int]  # incarnation, receiver, incarnation of the receiver


@dataclass(frozen=True)
class Graphs:
    """The graph of a stage of the run, until a time: at first, and of so many agents, as more join."""

    first: Topology
    grown: Callable[[int], Topology]
    until: float = math.inf

    def of(self, n: int) -> Topology:
        return self.first if n == self.first.n else self.grown(n)


@dataclass
class Replayed:
    """What the replay keeps of one agent."""

    actor: Actor
    stage: int
    n: int  # how many agents it knows of
    alive: frozenset[int]
    asked: int = 0
    resumed: int = 0  # how often it went on from a checkpoint
    incarnation: int = 1
    begun: int = 0  # how often it has begun anew
    known: dict[int, int] = field(default_factory=dict)  # the newest incarnations of others, if not 1
    alarms: list[tuple[float, int, str]] = field(default_factory=list)  # time, number, name: a heap
    mail: dict[MailOf, deque[Letter]] = field(default_factory=lambda: defaultdict(deque))
    kept: dict[tuple[MailOf, str], tuple[int, Message]] = field(default_factory=dict)
    """By message type, where messages are compressed: what has not arrived, up to which number."""
    published: dict[tuple[str, int], dict[int, Message]] = field(default_factory=lambda: defaultdict(dict))
    """What it put into registers, by message type and receiver: version -> message."""
    bound: dict[tuple[int, str], LateBound] = field(default_factory=lambda: defaultdict(LateBound))
    """What it holds of others' registers, by source and message type."""
    saved: dict[int, tuple[Any, ...]] = field(default_factory=dict)  # with each version
    saved_on: dict[int, tuple[int, int]] = field(default_factory=dict)  # in which stage, of how many agents
    ends: dict[int, int] = field(default_factory=dict)  # source -> up to which number its next letter goes


class Replay(Engine):
    """Runs a trace again. `rng` gives an agent's random stream in a life; `skips`: whether updates that are
    not finite were skipped (see `handler_step.SkipNotFinite`); `codec`: what compressed messages; `stages`:
    the graphs of a run that has grown, or that went on from its checkpoints, perhaps on another graph.
    """

    blames = ContractError
    idle = False

    def __init__(
        self,
        trace: Trace,
        topology: Topology,
        new_agent: Callable[[], Agent],
        new_rule: Callable[[], Rule],
        rng: Callable[[int, int], Random],
        initial: Parts,
        gradient: Gradient,
        skips: bool = False,
        codec: Codec | None = None,
        stages: Sequence[Graphs] = (),
    ) -> None:
        self.stages = stages or [Graphs(topology, lambda n: topology)]
        self.trace, self.rng, self.gradient = trace, rng, gradient
        self.new_agent, self.new_rule, self.guard = new_agent, new_rule, SkipNotFinite() if skips else None
        self.compression = Compression.of(codec, new_agent())
        self.recorder, self.scope = Recorder(trace.agents, blocks=trace.blocks), Scope()
        everyone, of, at = range(trace.agents), trace.events["agent"], trace.events["time"]
        known = [self._known(i, float(at[of == i].min(initial=math.inf))) for i in everyone]
        agents = [self._agent(i, *known[i], Vector(initial), 0) for i in everyone]
        actors = [Actor(agent, self, self.recorder.event, self.guard) for agent in agents]
        both = zip(actors, known, strict=True)
        self.agents = [Replayed(actor, *each, resumed=each[0]) for actor, each in both]
        writes = [trace.writes[trace.writes["agent"] == i] for i in everyone]
        self.write_times = [iter(rows["time"].tolist()) for rows in writes]
        returns = events.rows_of(trace.events, events.Rejoined)
        self.wanted = {*zip(returns["donor"].tolist(), returns["version"].tolist(), strict=True)}
        self.donated = {(i, 0): (Vector(initial), 0) for i in everyone}  # of these: model and round
        self.sums_end = sums_end(trace)

    def _known(self, i: int, time: float) -> tuple[int, int, frozenset[int]]:
        """Of an agent that begins then, or goes on: stage, how many it knows of, and who lives."""
        stage = sum(each.until < time for each in self.stages[:-1])
        n = self.stages[stage].first.n
        return stage, max(n, i + 1), frozenset(range(n)) | {i}

    def _agent(self, i: int, stage: int, n: int, alive: frozenset[int], x: Vector, asked: int) -> Agent:
        """Agent i of n, as it was after so many gradients that it had asked for in former incarnations."""
        agent, view = self.new_agent(), self.stages[stage].of(n).view(i, alive)
        with self.scope:
            agent.join(i, n, x, view, self.new_rule(), self.rng(i, asked))
        return agent

    def _view(self, i: int, each: Replayed, peer: int) -> View:
        """What agent i sees once it knows of this peer, which may be new; and of those before it."""
        each.n = each.actor.agent.n = max(each.n, peer + 1)
        return self.stages[each.stage].of(each.n).view(i, each.alive)

    def run(self, progress: Callable[[int], None] | None = None) -> Trace:
        """The trace of the replay. Raises DataError where the agents do something else than was recorded."""
        rows, everyone = self.trace.events, range(self.trace.agents)
        queues = [deque(events.records(rows[rows["agent"] == i])) for i in everyone]

        def due(i: int) -> float:
            return queues[i][0].time if queues[i] else math.inf

        done = 0
        while any(queues):
            before = done
            for i in sorted(everyone, key=due):
                limit = min((due(j) for j in everyone if j != i), default=math.inf)
                while queues[i] and (due(i) <= limit or done == before) and self._ready(queues[i][0]):
                    with self.scope:
                        self._happens(queues[i].popleft())
                    done += 1
            if done == before:
                stuck = queues[min(everyone, key=due)][0]
                raise DataError(f"The trace cannot be replayed: nothing produced what event {stuck} needs.")
            if progress is not None:
                progress(done)
        made = replace(self.recorder.trace(), kinds=self.trace.kinds, transmissions=self.trace.transmissions)
        return in_order(made)

    def stacked(self) -> Parts:
        """All agents' models, [n, P]."""
        return stacked(each.actor.model.parts for each in self.agents)

    # -- events ------------------------------------------------------------------------------------

    def _ready(self, event: events.Event) -> bool:
        if isinstance(event, events.Rejoined):
            return (event.donor, event.version) in self.donated
        if not isinstance(event, events.Heard):
            return True
        if self.agents[event.source].resumed < self.agents[event.agent].resumed:
            return False  # what it did before is not for those that went on from a checkpoint
        if isinstance(event, events.MailReceived):
            letters = self.agents[event.source].mail[self._mail_of(event)]
            if self._left_of(event) is not None:
                return True
            if not letters or not letters[0].summed:
                return bool(letters)
            number = self._number(event)
            return any(letter.summed and letter.number >= number for letter in letters)
        return event.version in self._versions(event)

    def _happens(self, event: events.Event) -> None:
        each = self.agents[event.agent]
        args = self._changes(event, each)
        if events.HANDLERS[type(event)]:
            each.actor.handle(event, *args)
        else:
            self.recorder.event(event)

    def _changes(self, event: events.Event, each: Replayed) -> tuple[Any, ...]:
        """What an event changes here before its handler is called, and the arguments of that."""
        known = self._known(event.agent, event.time)
        if known[0] != each.stage:
            each.stage, each.n, each.alive = known
            each.resumed, each.incarnation = each.stage, 1  # the launcher counts anew
            for kept in (each.known, each.mail, each.kept, each.published, each.bound):
                kept.clear()
        match event:
            case events.GradientDone():
                return (self._gradient(event, each),)
            case events.MailReceived():
                return event.source, self._letter(event)
            case events.Heard():  # a register
                versions = self._versions(event)
                for old in [*versions][: [*versions].index(event.version)]:
                    del versions[old]  # was given away before, and is not read any more
                held = each.bound[event.source, self.trace.kinds[event.kind]]
                return event.source, held.moved_on(versions[event.version])
            case events.SumEnds(source=source):
                each.ends[source] = event.number
            case events.AlarmRang():
                return (heappop(each.alarms)[2],)
            case events.ViewChanged(peer=peer, back=True):
                each.alive, each.known[peer] = each.alive | {peer}, event.incarnation
                return (self._view(event.agent, each, peer),)
            case events.ViewChanged(peer=peer):
                each.alive -= {peer}
                for key in [key for key in each.bound if key[0] == peer]:
                    del each.bound[key]  # nothing of a lost peer arrives
                return (self._view(event.agent, each, peer),)
            case events.Rejoined():
                self._rejoin(event, each)
            case events.Resumed():
                self._resume(event, each)
            case events.Regrouped():
                self._resume(event, each)
                view, actor = self._view(event.agent, each, event.agent), each.actor
                stage, n = each.saved_on[event.version]
                actor.agent.view = self.stages[stage].of(n).view(event.agent, range(n))
                return (view,)
            case events.Crashed():
                each.alive = frozenset(range(each.n))
            case events.LossKnown(peer=peer):
                each.alive, each.n = each.alive - {peer}, max(each.n, peer + 1)
            case events.PeerMet(peer=peer):  # which may have been dead before
                each.alive, each.known[peer] = each.alive | {peer}, event.incarnation
                each.n = max(each.n, peer + 1)
            case events.Saved():
                actor = each.actor
                state = actor.agent, actor.model, actor.steps, actor.at, each.asked, each.alarms
                each.saved[event.version] = copy.deepcopy(state)
                each.saved_on[event.version] = each.stage, each.n
        return ()

    def _gradient(self, event: events.GradientDone, each: Replayed) -> Vector:
        i, actor = event.agent, each.actor
        if actor.at is None:
            got = f"At {event.time}, agent {i} got a gradient in the trace"
            raise DataError(f"{got}; in the replay it asked for none.")
        x, actor.at = actor.at, None
        g = self.gradient(i, each.asked - 1, x)
        return g if self.guard is None else self.guard.gradient(g, actor.steps + 1)

    def _rejoin(self, event: events.Rejoined, each: Replayed) -> None:
        """The agent begins a new incarnation with the donor's model and round."""
        actor, (model, round_) = each.actor, self.donated[event.donor, event.version]
        x = Vector(model.parts, model.stamp)
        agent = self._agent(event.agent, each.stage, each.n, each.alive, x, event.asked)
        each.begun += 1
        each.ends.clear()
        actor.agent, actor.model, actor.at = agent, x, None
        actor.agent.round = round_
        each.asked, each.incarnation, each.alarms = event.asked, event.incarnation, []

    def _resume(self, event: events.Resumed | events.Regrouped, each: Replayed) -> None:
        """The agent is what it was when it was saved; nothing that it sent since then arrives."""
        i, actor = event.agent, each.actor
        if event.version not in each.saved:
            known = "the trace does not say when it was saved"
            raise DataError(f"Agent {i} went on from its version {event.version}; {known}.")
        saved = copy.deepcopy(each.saved[event.version])
        actor.agent, actor.model, actor.steps, actor.at, each.asked, each.alarms = saved
        each.resumed, each.alive = each.stage or each.resumed + 1, frozenset(range(each.n))
        actor.agent.view = self._view(i, each, i)
        each.incarnation, each.begun = 1, each.begun + 1  # the launcher counts anew
        for kept in (each.known, each.mail, each.kept, each.published, each.bound, each.ends):
            kept.clear()

    # -- what was sent -------------------------------------------------------------------------------

    def _letter(self, event: events.MailReceived) -> Message:
        """The next letter; what was summed until it left, as one, and compressed with what was kept."""
        source, mail = self.agents[event.source], self._mail_of(event)
        letters, kept = source.mail[mail], (mail, self.trace.kinds[event.kind])
        if (left := self._left_of(event)) is not None:
            del source.kept[kept]
            return left
        taken, number = [letters.popleft()], self._number(event)
        self.agents[event.agent].ends.pop(event.source, None)
        while taken[0].summed and letters and letters[0].summed and letters[0].number <= number:
            taken.append(letters.popleft())
        message = total(taken)
        if not taken[0].summed or self.compression is None:
            return message
        if kept in source.kept:
            message = added(source.kept.pop(kept)[1], message)
        message, _, left = self.compression.fixed(Accumulate, message)
        if left is not None:
            source.kept[kept] = number, left
        return message

    def _left_of(self, event: events.MailReceived) -> Message | None:
        """What was kept of summed letters, if that arrives: nothing newer has been added to it."""
        kept = self._mail_of(event), self.trace.kinds[event.kind]
        number, message = self.agents[event.source].kept.get(kept, (-1, None))
        return message if number >= self._number(event) else None

    def _number(self, event: events.MailReceived) -> int:
        """Up to which number this letter goes, if it was accumulated."""
        return self.agents[event.agent].ends.get(event.source, event.version)

    def _mail_of(self, event: events.Heard) -> MailOf:
        """Which mail of its source: that of what the agent takes for the source's present incarnation."""
        i, each = event.agent, self.agents[event.agent]
        return each.known.get(event.source, 1), i, each.incarnation

    def _versions(self, event: events.Heard) -> dict[int, Message]:
        return self.agents[event.source].published[self.trace.kinds[event.kind], event.agent]

    # -- the handler step ----------------------------------------------------------------------------

    def record(self, actor: Actor, effects: Sequence[Effect], mixed: Mixed, refused: bool) -> None:
        i = actor.me
        if mixed is None:
            return
        self.recorder.write(next(self.write_times[i], actor.agent.now), i, actor.steps, mixed)
        if (i, actor.version) in self.wanted:
            self.donated[i, actor.version] = actor.model, actor.agent.round

    def compute(self, actor: Actor, x: Vector) -> None:
        self.agents[actor.me].asked += 1

    def alarm(self, actor: Actor, after: float, name: str) -> None:
        alarms = self.agents[actor.me].alarms
        heappush(alarms, (actor.agent.now + after, len(alarms), name))

    def give(self, actor: Actor, medium: Medium, to: tuple[int, ...], message: Message) -> None:
        each, kind = self.agents[actor.me], type(message).__name__
        if medium is not Accumulate and self.compression is not None:
            message, _, _ = self.compression.fixed(medium, message)
        for j in to:
            if medium is Publish:
                each.published[kind, j].pop(version_of(message), None)  # a donor's model has its number
                each.published[kind, j][version_of(message)] = message
            else:
                letter = Letter(message)
                if medium is Accumulate:
                    ends = (actor.me, each.begun, j, kind, actor.letter) in self.sums_end
                    letter = Letter(message, actor.letter, ends)
                each.mail[each.incarnation, j, each.known.get(j, 1)].append(letter)
