"""The simulator: agents, a world, a heap of events.

Events are ordered by (time, wave, priority, number). Within one instant come faults, deliveries, alarms,
then gradients, all that were scheduled before the instant began (wave 0); then, in the same order, what
those cause at the same instant (wave 1), and so on. So agents that work in lockstep read before any of
them is heard, and a message that takes no time arrives before the next gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from heapq import heappop, heappush
from typing import Any

import numpy as np
import torch

from offbeat.core import promises
from offbeat.core.agent import Accumulate, Agent, Alarm, Compute, Message, Publish, Send
from offbeat.core.errors import ContractError
from offbeat.core.rules import Rule
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream, stream, uniform
from offbeat.core.vector import Parts, Stamp, Vector, forget, pin, settle
from offbeat.engines.events import (
    HANDLERS,
    AlarmRang,
    Crashed,
    Event,
    GradientDone,
    MailReceived,
    RegisterRead,
    Rejoined,
    Started,
    ViewChanged,
)  # fmt: skip
from offbeat.engines.outbox import Medium, Outbox, Register, Transmission, vectors
from offbeat.engines.recorder import Recorder
from offbeat.engines.sim.checks import Checker
from offbeat.engines.sim.executors import Executor
from offbeat.engines.sim.standstill import ALARM, DELIVERY, FAULT, GRADIENT, standstill
from offbeat.engines.summary import TraceSummary
from offbeat.engines.trace import Trace
from offbeat.tasks.task import Task
from offbeat.world.topology import Topology
from offbeat.world.world import Crash, World

MEDIUM = {Send: Medium.MAIL, Publish: Medium.REGISTER, Accumulate: Medium.ACCUMULATOR}
WAVES = 1_000_000
"""So many events that cause one another at one instant are taken to have no end."""

Observer = Callable[[float, int, Vector], None]
"""Called after every write of a model with (time, agent, model)."""


class Simulator:
    """Runs one algorithm on one task in one world.

    Attributes:
        new_agent, new_rule: make one agent's algorithm and its local rule
        returns: whether this algorithm takes crashed agents back
        checker: holds both sides to the contract (for tests)
        observers: are told of every write
        keep_trace: whether to hold the trace; without, only what is reported of it is found
    """

    def __init__(
        self,
        new_agent: Callable[[], Agent],
        new_rule: Callable[[], Rule],
        topology: Topology,
        task: Task,
        world: World,
        executor: Executor,
        returns: bool = True,
        checker: Checker | None = None,
        observers: Sequence[Observer] = (),
        keep_trace: bool = True,
    ) -> None:
        n = topology.n
        world.check(n)
        self.topology, self.task, self.world, self.executor = topology, task, world, executor
        self.new_agent, self.new_rule, self.returns = new_agent, new_rule, returns
        self.checker, self.observers = checker, observers
        self.recorder = Recorder(n, None if keep_trace else TraceSummary(n))
        self.now, self.wave, self.number = 0.0, 0, 0
        self.heap: list[tuple[float, int, int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.messages, self.bytes_sent = 0, 0
        self.alive = frozenset(range(n))
        self.incarnation, self.versions, self.steps = [0] * n, [0] * n, [0] * n
        self.alive_as = [0] * n  # as `incarnation`; -1 of the dead
        self.computing = [False] * n
        self.outbox = [Outbox() for _ in range(n)]
        self.arrived: list[dict[Register, Transmission]] = [{} for _ in range(n)]
        self.registers: list[dict[Register, tuple[Message, dict[str, Vector]]]] = [{} for _ in range(n)]
        self._perform: dict[type, Callable[[int, Any], None]] = {
            Compute: self._compute,
            Alarm: self._alarm,
            **dict.fromkeys(MEDIUM, self._give),
        }
        self._event: Event | None = None  # whose handler is being called, and why
        self._streams()
        initial = task.initial()
        self.model_bytes = sum(part.nbytes for part in initial)
        self.agents = [self._joined(i, Vector(initial)) for i in range(n)]
        self.models = [agent.x for agent in self.agents]
        self._neighbours = [agent.view.peers for agent in self.agents]
        self._known: list[set[tuple[type, tuple[int, ...]]]] = [set() for _ in range(n)]
        for agent in self.agents:
            agent.check()

    def _streams(self) -> None:
        seed, n, world, task = self.world.seed, self.topology.n, self.world, self.task

        def delays(purpose: Purpose, i: int) -> BufferedStream:
            delay = world.compute_delay(i) if purpose is Purpose.COMPUTE else world.communication_delay(i)
            return BufferedStream(partial(delay.draw, stream(seed, purpose, i)))

        self.compute_time = [delays(Purpose.COMPUTE, i) for i in range(n)]
        self.send_time = [delays(Purpose.COMMUNICATION, i) for i in range(n)]
        self.minibatch = [
            BufferedStream(partial(task.draw, i, stream(seed, Purpose.DATA, i))) for i in range(n)
        ]
        self.lost = [BufferedStream(partial(uniform, stream(seed, Purpose.LOSS, i))) for i in range(n)]
        self.rngs = [python_stream(seed, Purpose.ALGORITHM, i) for i in range(n)]

    def _joined(self, i: int, x: Vector) -> Agent:
        agent = self.new_agent()
        agent.join(i, self.topology.n, x, self.topology.view(i, self.alive), self.new_rule(), self.rngs[i])
        return agent

    # -- running -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Schedule the faults and start every agent."""
        for crash in self.world.crashes:
            self._at(crash.at, FAULT, Simulator._crash, crash)
        with self._blaming():
            for i in range(self.topology.n):
                agent = self._enter(Started(self.now, i))
                self._leave(i, agent, agent.start())

    def run(self, until: float) -> None:
        """Process every event up to and including the time `until`. Raises ContractError for a broken
        promise.
        """
        heap = self.heap
        with self._blaming():
            while heap and heap[0][0] <= until:
                self.now, self.wave, _, _, call, args = heappop(heap)
                call(self, *args)

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        """What a handler, or what it asked for, raises is an error of the algorithm's."""
        try:
            yield
        except Exception as error:
            forget()
            if (event := self._event) is not None:
                promises.raise_blamed(error, self.agents[event.agent], HANDLERS[type(event)], self.now)
            raise

    def stalled(self) -> str | None:
        """From when on nothing will ever happen again, if that is so."""
        return standstill(
            self.heap, self.incarnation, self.alive, sum(map(len, self.arrived)), any(self.steps), self.now
        )

    def counts(self) -> tuple[int, int, int]:
        """Gradients applied, transmissions and their bytes, so far."""
        return sum(self.steps), self.messages, self.bytes_sent

    def traced(self) -> Trace | TraceSummary:
        """What happened so far: the trace, or what is left of it."""
        return self.recorder.traced()

    def stacked(self) -> Parts:
        """The living agents' models, [m, P]; everybody's if nobody lives."""
        models = [self.models[i] for i in sorted(self.alive) or range(self.topology.n)]
        return tuple(torch.stack(rows) for rows in zip(*(x.parts for x in models), strict=True))

    def _at(self, time: float, priority: int, call: Callable[..., None], *args: Any) -> None:
        wave = self.wave + 1 if time <= self.now else 0
        if wave > WAVES:
            raise ContractError(
                f"a million events at time {self.now:g} have caused one another: the clock stands."
            )
        self.number += 1
        heappush(self.heap, (time, wave, priority, self.number, call, args))

    # -- handlers and their effects ----------------------------------------------------------------

    def _enter(self, event: Event) -> Any:
        """Record an event, and return the agent whose handler is to be called now. What that returns is
        looked at."""
        self.recorder.event(event)
        self._event = event
        agent = self.agents[event.agent]
        agent.now = self.now
        return agent

    def _leave(self, i: int, agent: Agent, returned: object, steps: bool = True) -> None:
        """After a handler: record what it wrote, evaluate what it kept, and perform its effects.

        Args:
            steps: whether to ask for a gradient ends a step
        """
        if returned is not None:
            promises.returned_nothing(returned)
        effects = agent.drain() if agent.effects else []
        model = agent.model
        if model is self.models[i]:
            settle()
        else:
            self._wrote(i, model, steps and Compute in map(type, effects))
        if self.checker is not None:
            self.checker.handled(agent, effects)
        for effect in effects:
            perform = self._perform.get(type(effect))
            if perform is None:
                raise ContractError(f"it asked for {effect!r}, which is no effect of the contract.")
            perform(i, effect)
        self._event = None

    def _wrote(self, i: int, model: Vector, stepped: bool) -> None:
        """An agent has written its model: count, record what was mixed, stamp."""
        promises.checked_model(model)
        stamps = {v.stamp for v in (model, *model.sources()) if v.stamp is not None}
        settle()
        self.versions[i] += 1
        self.steps[i] += stepped
        self.models[i] = model
        if model.stamp is None:
            model.stamp = Stamp(i, self.versions[i])
        self.recorder.write(
            self.now, i, self.steps[i], [stamp for stamp in sorted(stamps) if stamp.agent != i]
        )
        for observer in self.observers:
            observer(self.now, i, model)

    def _compute(self, i: int, effect: Compute) -> None:
        if self.computing[i]:
            raise ContractError("it asked for a second gradient while one was outstanding (promise c).")
        self.computing[i] = True
        self.executor.request(i, self._given(i, promises.checked_compute(effect)), self.minibatch[i]())
        self._at(
            self.now + self.compute_time[i](), GRADIENT, Simulator._gradient, i, self.incarnation[i], self.now
        )

    def _gradient(self, i: int, incarnation: int, start: float) -> None:
        if incarnation != self.incarnation[i]:
            return
        if self.arrived[i]:
            fresh = list(self.arrived[i].items())
            self.arrived[i].clear()
            for register, item in fresh:
                self._deliver(i, RegisterRead, item, self._bound(i, register, item))
        self.computing[i] = False
        g = self.executor.resolve(i)
        agent = self._enter(GradientDone(self.now, i, self.steps[i], start, self.now))
        self._leave(i, agent, agent.on_gradient(g))

    def _deliver(
        self, i: int, kind: type[MailReceived | RegisterRead], item: Transmission, message: Message
    ) -> None:
        agent = self._enter(kind(self.now, i, item.sender, item.kind, item.version, item.start, item.end))
        self._leave(i, agent, agent.on_message(item.sender, message))

    def _bound(self, i: int, register: Register, item: Transmission) -> Message:
        """The message with the register's late-bound vectors, moved on to this version."""
        inside = vectors(item.message)
        message, late = self.registers[i].get(register) or (None, {name: Vector() for name in inside})
        for name, v in inside.items():
            late[name].move(v)
            late[name].late = True
        if message is None or len(late) < len(
            message.__dataclass_fields__
        ):  # what is not late is of this version
            message = replace(item.message, **late)
            self.registers[i][register] = message, late
        return message

    def _alarm(self, i: int, effect: Alarm) -> None:
        self._at(self.now + effect.after, ALARM, Simulator._ring, i, self.incarnation[i], effect.name)

    def _ring(self, i: int, incarnation: int, name: str) -> None:
        if incarnation == self.incarnation[i]:
            agent = self._enter(AlarmRang(self.now, i))
            self._leave(i, agent, agent.on_alarm(name))

    # -- sending -----------------------------------------------------------------------------------

    def _given(self, i: int, x: Vector) -> Vector:
        """A vector that is given away: a fixed value, with its writer's stamp."""
        if x.late:
            x = Vector(x.parts, x.stamp)
        if x.stamp is None:
            x.stamp = Stamp(i, self.versions[i])
        return x

    def _give(self, i: int, effect: Send | Publish | Accumulate) -> None:
        to = effect.to
        if not to:
            return
        message, moved = effect.message, {}
        if (type(message), to) not in self._known[i]:
            promises.check_sent(self.agents[i], effect, self._neighbours[i])
            self._known[i].add((type(message), to))
        inside = vectors(message)
        if len(inside) < len(message.__dataclass_fields__):
            promises.check_numbers(message)
        for name, v in inside.items():
            fixed = self._given(i, v)
            if fixed is not v:
                moved[name] = fixed
        if moved:
            message = replace(message, **moved)
        alive_as = self.alive_as
        item = Transmission(
            i, MEDIUM[type(effect)], to, message, incarnations=tuple([alive_as[j] for j in to])
        )
        outbox = self.outbox[i]
        if outbox.busy:
            outbox.put(item)
            settle()  # accumulated messages may have been added up
        else:
            outbox.busy = True
            self._transmit(i, item)

    def _transmit(self, i: int, item: Transmission) -> None:
        """This transmission starts now."""
        inside = vectors(item.message)
        item.kind = self.recorder.kind(item.message)
        size = 0
        for v in inside.values():
            size += v.nbytes
            if item.version < 0 and v.stamp is not None:
                item.version = v.stamp.version
        delay = self.send_time[i]() * size / self.model_bytes if size else 0.0
        item.start, item.end = self.now, self.now + delay
        self.messages += 1
        self.bytes_sent += size
        self.recorder.sent(item.start, item.end, i, item.kind, size)
        self._at(item.end, DELIVERY, Simulator._arrive, self.incarnation[i], item)

    def _arrive(self, incarnation: int, item: Transmission) -> None:
        sender, loss = item.sender, self.world.loss
        if incarnation != self.incarnation[sender]:
            return
        register = item.register if item.medium is Medium.REGISTER else None
        for j, receiver in zip(item.to, item.incarnations, strict=True):
            if register is not None and loss and self.lost[sender]() < loss:
                continue
            if not 0 <= receiver == self.alive_as[j]:
                continue
            if register is None:
                self._deliver(j, MailReceived, item, item.message)
            else:
                arrived = self.arrived[j]
                arrived.pop(register, None)  # the newest is handed over last
                arrived[register] = item
        outbox = self.outbox[sender]
        following = outbox.take()
        if following is None:
            outbox.busy = False
        else:
            self._transmit(sender, following)

    # -- crashes -----------------------------------------------------------------------------------

    def _crash(self, crash: Crash) -> None:
        i = crash.agent
        self.recorder.event(Crashed(self.now, i))
        before = {j: self.topology.view(j, self.alive) for j in self._peers(i)}
        self.alive -= {i}
        self.incarnation[i] += 1
        self.alive_as[i] = -1
        self.computing[i] = False
        self.executor.cancel(i)
        self.outbox[i], self.arrived[i], self.registers[i] = Outbox(), {}, {}
        for j in self.alive:
            for box in (self.arrived[j], self.registers[j]):
                for key in [key for key in box if key[0] == i]:
                    del box[key]
        if crash.until is not None and self.returns:
            self._at(crash.until, FAULT, Simulator._return, i)
        self._tell(before, i)

    def _return(self, i: int) -> None:
        """The agent is back, with the newest model and the round of a living agent, a neighbour if there is
        one.
        """
        neighbours = self._peers(i)
        donor = next(iter([*neighbours, *sorted(self.alive)]), i)
        before = {j: self.topology.view(j, self.alive) for j in neighbours}
        self.alive |= {i}
        self.alive_as[i] = self.incarnation[i]
        counted, x, version = self.agents[donor].round, self.models[donor], self.versions[donor]
        agent = self.agents[i] = self._joined(i, x)
        agent.round = counted
        self._tell(before, i)
        agent.x = pin(x)  # what was mixed is read off the form, which lasts for one handler
        agent = self._enter(Rejoined(self.now, i, donor, version))
        self._leave(i, agent, agent.rejoin(), steps=False)

    def _peers(self, i: int) -> list[int]:
        """The living agents that share an edge with i, by rising index."""
        return [j for j in self.topology.peers(i) if j in self.alive and j != i]

    def _tell(self, before: Mapping[int, object], who: int) -> None:
        for j, old in before.items():
            view = self.topology.view(j, self.alive)
            if view != old:
                agent = self._enter(ViewChanged(self.now, j, who, who in self.alive))
                returned = agent.on_view(view)
                promises.check_view(agent, view)
                self._leave(j, agent, returned)


def final_bytes(models: Parts) -> bytes:
    """The models as bytes, for a digest."""
    return b"".join(np.ascontiguousarray(part.numpy()).tobytes() for part in models)
