"""The simulator: agents in a world, on a heap of events, with links between them; some crash and return."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from offbeat.core.agent import Accumulate, Agent, Effect, Message, Publish
from offbeat.core.codecs import Codec
from offbeat.core.forms import pin
from offbeat.core.rules import Rule
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream
from offbeat.core.vector import Parts, Vector
from offbeat.engines import events
from offbeat.engines.handler_step import Actor, Engine, Mixed
from offbeat.engines.outbox import Compression, Medium, Transmission
from offbeat.engines.recorder import Recorder
from offbeat.engines.sim.checks import Checker
from offbeat.engines.sim.executors import Executor
from offbeat.engines.sim.heap import ALARM, FAULT, GRADIENT, Heap
from offbeat.engines.sim.links import Links
from offbeat.engines.trace import Trace, TraceSummary
from offbeat.tasks.task import Task
from offbeat.world.changes import finish
from offbeat.world.sending import slowdowns
from offbeat.world.topology import Topology
from offbeat.world.world import World


class Simulator(Engine):
    """Runs one algorithm on one task in one world. `returns`: whether it takes crashed agents back;
    `keep_trace`: whether to hold the trace; without, only what is reported of it is found; `codec`: what
    compresses messages.
    """

    blames = Exception
    idle = False

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
        keep_trace: bool = True,
        codec: Codec | None = None,
    ) -> None:
        n, seed = topology.n, world.seed
        world.check(n)
        self.topology, self.task, self.world, self.executor = topology, task, world, executor
        self.new_agent, self.new_rule, self.returns, self.checker = new_agent, new_rule, returns, checker
        self.idle = self.idle or checker is not None
        self.recorder = Recorder(n, keep_trace, type(new_agent()).blocks)
        self.heap, self.scope, self.alive = Heap(n), executor.scope, frozenset(range(n))
        initial = task.initial()
        size = sum(part.nbytes for part in initial)
        compression = Compression.of(codec, new_agent())
        self.links = Links(world, size, self.heap, self.recorder, self.scope, self._deliver, compression)
        self._rng = [python_stream(seed, Purpose.ALGORITHM, i) for i in range(n)]
        delays = [world.compute_delay(i) for i in range(n)]
        self._compute_time = [BufferedStream(delays[i].draw, seed, Purpose.COMPUTE, i) for i in range(n)]
        self._slowdowns = [slowdowns(world, i, sends=False) for i in range(n)]
        self._minibatch = [BufferedStream(partial(task.draw, i), seed, Purpose.DATA, i) for i in range(n)]
        with self.scope:
            agents = [self._joined(i, Vector(initial)) for i in range(n)]
        self.actors = [Actor(agent, self, self.recorder.event, None) for agent in agents]
        for agent in agents:
            agent.check()

    def _joined(self, i: int, x: Vector) -> Agent:
        agent = self.new_agent()
        view = self.topology.view(i, self.alive)
        agent.join(i, self.topology.n, x, view, self.new_rule(), self._rng[i])
        return agent

    # -- running -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Schedule the faults and start every agent."""
        for crash in self.world.crashes:
            self.heap.at(crash.at, FAULT, self._crash, crash.agent, crash.until)
        with self.scope:
            for actor in self.actors:
                actor.handle(events.Started(self.heap.now, actor.me))

    def run(self, until: float) -> None:
        """Process every event up to and including that time. Raises ContractError for a broken promise."""
        with self.scope:
            self.heap.run(until)

    def stalled(self) -> str | None:
        return self.heap.standstill(sum(map(len, self.links.arrived)), any(self.steps))

    @property
    def agents(self) -> list[Agent]:
        return [actor.agent for actor in self.actors]

    @property
    def steps(self) -> list[int]:
        """How many gradients each agent has applied."""
        return [actor.steps for actor in self.actors]

    def counts(self) -> tuple[int, int, int]:
        return sum(self.steps), self.links.messages, self.links.bytes_sent

    def carried(self, sent: np.ndarray) -> dict[tuple[int, int], int]:
        """Bytes by link: sender, receiver; `sent` is not needed here."""
        return self.links.carried

    def traced(self) -> Trace | TraceSummary:
        return self.recorder.traced()

    @property
    def living(self) -> list[int]:
        """The agents that are up; all, if none is."""
        return sorted(self.alive) or [*range(self.topology.n)]

    def stacked(self) -> Parts:
        """The models of those, [m, P]."""
        return self.executor.stacked(self.actors[i].model for i in self.living)

    def everybody(self) -> Parts:
        """All agents' models, [n, P]; of one that is down its last."""
        return self.executor.stacked(actor.model for actor in self.actors)

    # -- the handler step --------------------------------------------------------------------------

    def record(self, actor: Actor, effects: Sequence[Effect], mixed: Mixed, refused: bool) -> None:
        if mixed is not None:
            self.recorder.write(self.heap.now, actor.me, actor.steps, mixed)
        if self.checker is not None:
            self.checker.handled(actor.agent, effects)

    def compute(self, actor: Actor, x: Vector) -> None:
        i, now = actor.me, self.heap.now
        self.executor.request(i, x, next(self._minibatch[i]))
        end = finish(now, next(self._compute_time[i]), self._slowdowns[i])
        self.heap.at(end, GRADIENT, self._gradient, i, now)

    def give(self, actor: Actor, medium: Medium, to: tuple[int, ...], message: Message) -> None:
        self.links.give(actor.me, medium, to, message, actor.letter if medium is Accumulate else -1)

    def alarm(self, actor: Actor, after: float, name: str) -> None:
        self.heap.at(self.heap.now + after, ALARM, self._ring, actor.me, name)

    # -- events ------------------------------------------------------------------------------------

    def _gradient(self, i: int, start: float) -> None:
        if self.links.arrived[i]:
            for item, message in self.links.read(i):
                self._deliver(i, item, message)
        actor, now, g = self.actors[i], self.heap.now, self.executor.resolve(i)
        actor.at = None
        actor.handle(tuple.__new__(events.GradientDone, (now, i, actor.steps, start, now)), g)

    def _deliver(self, i: int, item: Transmission, message: Message) -> None:
        now, source = self.heap.now, item.sender
        kind = events.RegisterRead if item.medium is Publish else events.MailReceived
        fields = now, i, source, item.kind, item.version, item.start, item.end
        event = tuple.__new__(kind, fields)  # kind(*fields) takes twice as long
        if item.letter >= 0 and item.letter != item.version:
            self.recorder.event(events.SumEnds(now, i, source, item.letter))
        self.actors[i].handle(event, source, message)

    def _ring(self, i: int, name: str) -> None:
        self.actors[i].handle(events.AlarmRang(self.heap.now, i), name)

    def _crash(self, i: int, until: float | None) -> None:
        self.recorder.event(events.Crashed(self.heap.now, i))
        self.heap.ends(i)
        self.alive -= {i}
        self.actors[i].at = None
        self.executor.cancel(i)
        self.links.forget(i)
        if until is not None and self.returns:
            self.heap.at(until, FAULT, self._return, i)
        self._tell_neighbours(i)

    def _return(self, i: int) -> None:
        """The agent is back, with the newest model and round of a living agent, a neighbour if possible."""
        living = [j for j in self.topology.peers(i) if j in self.alive]
        actor, donor = self.actors[i], self.actors[[*living, *sorted(self.alive), i][0]]
        round_, x, version = donor.agent.round, donor.model, donor.version
        self.heap.begins(i)
        self.alive |= {i}
        agent = actor.agent = self._joined(i, x)
        agent.round = round_
        self._tell_neighbours(i)
        agent.x = pin(x)  # what was mixed is read off the form, which lasts for one handler
        actor.handle(events.Rejoined(self.heap.now, i, donor.me, version))

    def _tell_neighbours(self, i: int) -> None:
        """Agent i is gone, or there again: the living whose views that changes get the new ones."""
        for j in self.topology.peers(i):
            view = self.topology.view(j, self.alive)
            if j in self.alive and view != self.actors[j].agent.view:
                self.actors[j].handle(events.ViewChanged(self.heap.now, j, i, i in self.alive), view)
