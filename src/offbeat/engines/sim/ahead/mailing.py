"""Agents that mail one another, or read each other's registers, without handlers: which of all events comes
when is found out as in the simulator, from numbers alone (`loop`); what an agent makes at each is known, or
found out (`discovered`); the arithmetic comes after.
"""

import math
from collections.abc import Callable

import numpy as np

from offbeat.core.agent import Agent
from offbeat.core.rules import Rule, Scheduled
from offbeat.core.server import Served
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Parts, Vector
from offbeat.engines.events import Started
from offbeat.engines.recorder import Recorder
from offbeat.engines.sim.ahead.discovered import Discovered
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.loop import Loop
from offbeat.engines.sim.ahead.mail_values import MailValues
from offbeat.engines.sim.ahead.post import Post
from offbeat.engines.trace import Trace, TraceSummary
from offbeat.tasks.task import Task
from offbeat.world.topology import Topology
from offbeat.world.world import World

PIECE = 1 << 17  # so many values are noted before they are made


class MailRun:
    """A run of such agents, as an engine. Raises NoTimetable for others."""

    def __init__(
        self,
        new_agent: Callable[[], Agent],
        new_rule: Callable[[], Rule],
        topology: Topology,
        task: Task,
        world: World,
        keep_trace: bool,
    ) -> None:
        if isinstance(new_rule(), Scheduled):  # it counts its steps: each is another state
            raise NoTimetable
        n, seed, initial = topology.n, world.seed, task.initial()
        agents = [new_agent() for _ in range(n)]
        for i, (agent, view) in enumerate(zip(agents, topology.views(), strict=True)):
            rng = python_stream(seed, Purpose.ALGORITHM, i)
            agent.join(i, n, Vector(initial), view, new_rule(), rng)
            agent.check()
        called = [i for i, agent in enumerate(agents) if _varied(agent)]
        self.n, self.discovered = n, Discovered(new_agent, new_rule, agents, called)
        self._values = MailValues(task, n, seed, self.discovered.done)
        post = Post(world, self.discovered.around, sum([part.nbytes for part in initial]))
        self.loop = self.discovered.loop = Loop(self.discovered, post)
        self._recorder = Recorder(n, keep_trace)

    # -- as an engine ------------------------------------------------------------------------------

    def start(self) -> None:
        """Every agent begins."""
        for i in range(self.n):
            self._recorder.event(Started(0.0, i))
        self.loop.start(self.discovered.starts)

    def run(self, until: float) -> None:
        """All up to that time. Raises NoTimetable where it does not pay, or nothing happens any more."""
        done = False
        while not done:
            done = self.loop.run(until, self.loop.many + PIECE)
            self._make()
        if self.loop.coming == math.inf:
            raise NoTimetable

    def _make(self) -> None:
        """All values so far, and what of the trace is new."""
        theirs = [value for agent in self.discovered.agents.values() for value in agent.values()]
        held = np.append(self.loop.held(), [value.number for value in theirs]).astype(np.int64)
        numbers, many = self._values.make(self.loop.noted(), held)
        self.loop.renumbered(numbers, many)
        for value, number in zip(theirs, numbers[len(numbers) - len(theirs) :].tolist(), strict=True):
            value.number = number
        rows, written, kinds = self.loop.rows()
        for kind in kinds:
            self._recorder.kinds.setdefault(self.discovered.kinds[kind].__name__, len(self._recorder.kinds))
        self._recorder.add(rows, written)

    @property
    def living(self) -> range:
        """All agents: none crashes."""
        return range(self.n)

    @property
    def steps(self) -> list[int]:
        """Of each agent."""
        return self.loop.steps

    def everybody(self) -> Parts:
        """The agents' models, [n, P]."""
        return self._values.rows(self.loop.models())

    stacked = everybody

    def stalled(self) -> None:
        """Never, or there would have been no timetable."""

    def counts(self) -> tuple[int, int, int]:
        return self.loop.counts()

    def carried(self, sent: np.ndarray) -> dict[tuple[int, int], int]:
        """Bytes by link: sender, receiver; `sent` is not needed here."""
        around = self.discovered.around
        links = [
            (i, j, size)
            for i in range(self.n)
            for j, size in zip(around[i], self.loop.carried(i), strict=True)
        ]
        return {(i, j): size for i, j, size in links if size}

    def traced(self) -> Trace | TraceSummary:
        return self._recorder.traced()


def _varied(agent: Agent) -> bool:
    """Whether what an agent does hardly ever repeats itself."""
    return isinstance(agent, Served) and agent.keeps_gradients and agent.me == agent.view.server
