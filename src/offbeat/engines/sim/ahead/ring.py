"""Rings of sums without a heap (`offbeat.core.ring`): their times, what agents make, and what is recorded."""

from collections.abc import Callable
from functools import partial

import numpy as np

from offbeat.core.ring import Part, Ring
from offbeat.core.rules import Rule
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream
from offbeat.core.vector import Parts, Vector
from offbeat.engines.events import MIXED
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.recorded import Recorded
from offbeat.engines.sim.ahead.ring_handlers import HandledValues
from offbeat.engines.sim.ahead.ring_reading import read_ring
from offbeat.engines.sim.ahead.ring_times import Averaging, RingTimes
from offbeat.engines.sim.ahead.ring_trace import Window
from offbeat.engines.sim.ahead.ring_values import RowValues
from offbeat.engines.sim.ahead.timetable import Bools, Floats, Ints
from offbeat.engines.trace import Trace, TraceSummary
from offbeat.tasks.task import Task
from offbeat.world.topology import Topology
from offbeat.world.world import World

PIECE, AT_ONCE = 1 << 18, 1 << 14
"""So many hops and gradients are timed before they are recorded, if nobody wants to see them before; and so
many gradients are made in one call, before an averaging.
"""

OF_RINGS = "average", "advance", "on_message"
"""Whoever has these of its own averages otherwise."""


class RingRun:
    """A run of agents that average what they have, as an engine. Raises NoTimetable for others."""

    def __init__(
        self,
        new_agent: Callable[[], Ring],
        new_rule: Callable[[], Rule],
        topology: Topology,
        task: Task,
        world: World,
        keep_trace: bool,
    ) -> None:
        n, seed, initial, kind = topology.n, world.seed, task.initial(), type(new_agent())
        if n == 1 or any(getattr(kind, each) is not getattr(Ring, each) for each in OF_RINGS):
            raise NoTimetable
        views = topology.views()

        def joined(i: int) -> Ring:
            agent, view = new_agent(), views[i]
            agent.join(i, n, Vector(initial), view, new_rule(), python_stream(seed, Purpose.ALGORITHM, i))
            agent.check()
            return agent

        self.n, self.now, self._values = n, 0.0, _values(new_agent, new_rule, joined, task, n)
        self._times = RingTimes(world, n, self._values.writes.h, initial)
        self._samples = [BufferedStream(partial(task.draw, i), seed, Purpose.DATA, i) for i in range(n)]
        self._open = list[Averaging]()  # not recorded to their end
        self._steps, self._sent = (np.zeros(n, dtype=np.int64) for _ in range(2))
        self._versions, self._messages = np.zeros(n, dtype=np.int64), 0
        self._since, self._recorded = -1.0, Recorded(n, keep_trace)

    def start(self) -> None:
        """The agents have started."""

    def run(self, until: float) -> None:
        """All up to that time, in pieces. Raises NoTimetable where two events coincide."""
        times = self._times
        most = PIECE // (times.bytes.size + times.there.size)
        while (times.there[0] <= until).any():
            self._open.append(times.next())
            settled = float(np.nextafter(times.there[0].min(), 0.0))
            if len(self._open) > most and self.now < settled < until:
                self._advance(settled)
        self._advance(until)

    def _advance(self, until: float) -> None:
        self._record(until)
        for each in self._open:
            times = np.concatenate([each.there, each.done[None]])
            now = (times > self.now) & (times <= until)
            wide = max(1, AT_ONCE // self.n)
            for low in range(0, len(now), wide):
                some = np.zeros_like(now)
                some[low : low + wide] = now[low : low + wide]
                if some.any():
                    self._make(each.number, some, times)
        self._open = [each for each in self._open if each.done.max() > until]
        self.now = until

    def _make(self, number: int, some: Bools, times: Floats) -> None:
        """Of this averaging some gradients and means, [h + 1, n]."""
        samples = [self._samples[i]() for i in np.nonzero(some[:-1])[1].tolist()]
        self._values.average(number, some[:-1], some[-1], samples, times)

    # -- as an engine ------------------------------------------------------------------------------

    @property
    def living(self) -> range:
        """All agents: none crashes."""
        return range(self.n)

    def everybody(self) -> Parts:
        """The agents' models, [n, P]."""
        return self._values.models()

    stacked = everybody

    def stalled(self) -> None:
        """Never: every gradient is followed by another."""

    @property
    def steps(self) -> Ints:
        """How many gradients each agent has applied."""
        return self._steps

    def counts(self) -> tuple[int, int, int]:
        return int(self._steps.sum()), self._messages, int(self._sent.sum())

    def carried(self, sent: np.ndarray) -> dict[tuple[int, int], int]:
        """Bytes by link: all that an agent has `sent` went to the right."""
        return {(i, (i + 1) % self.n): size for i, size in enumerate(sent.tolist()) if size}

    def traced(self) -> Trace | TraceSummary:
        return self._recorded.traced()

    def _record(self, until: float) -> None:
        """What happens since the last time and up to this one."""
        window = Window(self.n, self._values.writes, self._open, self._since, until)
        sent, writes = window.left(self._times.bytes), window.written()
        self._messages += len(sent)
        self._sent += np.bincount(sent["agent"], sent["bytes"], self.n).astype(np.int64)
        kinds = (Part.__name__,) * (self._messages > 0)
        self._recorded.add(Trace(self.n, kinds, window.events(), writes, np.empty(0, MIXED), sent))
        np.maximum.at(self._steps, writes["agent"], writes["step"])
        self._versions += np.bincount(writes["agent"], minlength=self.n)
        self._recorded.forget(self._versions)  # no model of another is mixed
        self._since = until


def _values(
    new_agent: Callable[[], Ring],
    new_rule: Callable[[], Rule],
    joined: Callable[[int], Ring],
    task: Task,
    n: int,
) -> RowValues | HandledValues:
    """What makes the values: in rows, where gradients are compiled and all else is linear; else handlers."""
    native = getattr(task, "native", lambda: None)()
    if native is not None:
        for i in range(n):
            joined(i)
        try:
            return RowValues(task.initial(), native, n, read_ring(new_agent, new_rule, n))
        except NotLinear:
            pass
    return HandledValues(task, n, joined)
