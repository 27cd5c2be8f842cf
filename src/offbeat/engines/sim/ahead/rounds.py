"""Rounds with a barrier among neighbours, without a heap: their times, their values, and what is recorded."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from offbeat.core.agent import View
from offbeat.core.rounds import Rounds
from offbeat.core.rules import Rule
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream
from offbeat.core.vector import Parts, Vector
from offbeat.engines.events import MIXED, WRITE
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.recorded import Recorded, bandwidth
from offbeat.engines.sim.ahead.rhythm import seen
from offbeat.engines.sim.ahead.round_reading import RoundForms, read_rounds
from offbeat.engines.sim.ahead.round_times import Letters, Played, RoundTimes, events, left
from offbeat.engines.sim.ahead.round_values import RoundValues
from offbeat.engines.sim.ahead.timetable import Ints, begin_of, ranges, table
from offbeat.engines.trace import Trace, TraceSummary
from offbeat.tasks.task import Task
from offbeat.world.topology import Topology
from offbeat.world.world import World

PIECE = 1 << 18
"""So many updates are settled before they are recorded and made, if nobody wants to see them before."""


class RoundRun:
    """A run of agents in rounds, as an engine. Raises NoTimetable for others."""

    def __init__(
        self,
        new_agent: Callable[[], Rounds],
        new_rule: Callable[[], Rule],
        topology: Topology,
        task: Task,
        world: World,
        keep_trace: bool,
    ) -> None:
        n, seed, views, initial = topology.n, world.seed, topology.views(), task.initial()
        speed = bandwidth(world, n)
        for i, view in enumerate(views):
            agent = new_agent()
            agent.join(i, n, Vector(initial), view, new_rule(), python_stream(seed, Purpose.ALGORITHM, i))
            agent.check()
        read, given, inputs = _read(new_agent, new_rule, views)
        self._begin = begin_of(np.array([len(each) for each in inputs]))
        self._heard = np.array([j for each in inputs for j, _ in sorted(each)])
        model = sum([part.nbytes for part in initial])
        self._bytes, self.n, self.now = len(read[0].letter) * model, n, 0.0
        self._values = RoundValues(task, read, inputs)
        self._letters = Letters.of(given, world.sending == "unicast")
        streams = (Purpose.COMPUTE, world.compute_delay), (Purpose.COMMUNICATION, world.communication_delay)
        drawn = [[BufferedStream(of(i).draw, seed, purpose, i) for i in range(n)] for purpose, of in streams]
        begins, _, fresh = read[0].sends
        self._times = RoundTimes(self._letters, begins, fresh, (self._bytes, model), speed, *drawn)
        self._samples = [BufferedStream(partial(task.draw, i), seed, Purpose.DATA, i) for i in range(n)]
        self._read, self._open = read, list[Played]()  # rounds that are not recorded to their end
        self._steps = np.zeros(n, dtype=np.int64)
        self._sent = np.zeros(len(self._letters.sender), dtype=np.int64)
        self._since, self._recorded = -1.0, Recorded(n, keep_trace)

    def start(self) -> None:
        """The agents have started."""

    def run(self, until: float) -> None:
        """All up to that time, in pieces. Raises NoTimetable where it cannot be told what comes first."""
        times, most = self._times, max(2, PIECE // self.n)
        while (times.began <= until).any():
            self._open.append(times.next())
            settled = float(np.nextafter(times.began.min(), 0.0))
            if len(self._open) % most == 0 and self.now < settled < until:
                self._advance(settled)
        self._advance(until)

    def _advance(self, until: float) -> None:
        self._record(until)
        for each in self._open:
            late = (each.done > self.now) & (each.done <= until)
            early = late if self._values.at_end else (each.there > self.now) & (each.there <= until)
            if early.any() or late.any():
                samples = [self._samples[i]() for i in np.flatnonzero(early).tolist()]
                self._values.round(each.number, early, late, samples)
        self._open = [each for each in self._open if each.done.max() > until or each.end.max() > until]
        self._values.forget(min([each.number for each in self._open], default=self._times.number))
        self.now = until

    # -- as an engine ------------------------------------------------------------------------------

    @property
    def living(self) -> range:
        """All agents: none crashes."""
        return range(self.n)

    def everybody(self) -> Parts:
        """The agents' models, [n, P]."""
        return self._values.models(self._steps.tolist())

    stacked = everybody

    def stalled(self) -> None:
        """Never: every round is followed by another."""

    @property
    def steps(self) -> Ints:
        """How many gradients each agent has applied."""
        return self._steps

    def counts(self) -> tuple[int, int, int]:
        return int(self._steps.sum()), int(self._sent.sum()), int(self._sent.sum()) * self._bytes

    def carried(self, sent: np.ndarray) -> dict[tuple[int, int], int]:
        """Bytes by link: sender, receiver; `sent` is not needed here."""
        letters = self._letters
        ends = zip(letters.sender[letters.what].tolist(), letters.receiver.tolist(), strict=True)
        count = self._sent[letters.what] * self._bytes
        return {link: size for link, size in zip(ends, count.tolist(), strict=True) if size}

    def traced(self) -> Trace | TraceSummary:
        return self._recorded.traced()

    def _record(self, until: float) -> None:
        """What happens since the last time and up to this one."""
        told = events(self._letters, self._open, self._since, until)
        sent, what = left(self._letters, self._open, self._bytes, self._since, until)
        self._sent += np.bincount(what, minlength=len(self._sent))
        kinds = (type(self._read[0].message).__name__,) * bool(self._sent.any())
        writes, mixed = self._written(until)
        self._recorded.add(Trace(self.n, kinds, told, writes, mixed, sent))
        self._steps += np.bincount(writes["agent"], minlength=self.n)
        self._recorded.forget(np.maximum(self._steps - 1, 0))  # a neighbour is a round behind at most
        self._since = until

    def _written(self, until: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The models that are written, and which versions of whom are mixed in each."""
        rows, ranks = [table(WRITE, time=np.zeros(0))], [np.zeros(0, dtype=np.int64)]
        for at, each in enumerate(self._open):
            (i,) = np.nonzero((each.done > self._since) & (each.done <= until))
            rows.append(table(WRITE, time=each.done[i], agent=i, step=np.full(len(i), each.number + 1)))
            following = self._open[at + 1].rank if at + 1 < len(self._open) else self._times.rank
            ranks.append(following[i])
        writes = np.concatenate(rows)
        writes = writes[np.lexsort((np.concatenate(ranks), writes["time"]))]
        if not len(writes):
            return writes, np.zeros(0, dtype=MIXED)
        agent, number = writes["agent"], writes["step"] - 1 - self._open[0].number
        write, receipt = ranges(self._begin[agent], self._begin[agent + 1])
        source, shown = self._heard[receipt], np.stack([each.version for each in self._open])
        version, first = shown[number[write], source], int(self._steps.sum())
        return writes, table(MIXED, write=first + write, source=source, version=version)


def _read(
    new_agent: Callable[[], Rounds], new_rule: Callable[[], Rule], views: Sequence[View]
) -> tuple[list[RoundForms], list[list[tuple[int, ...]]], list[list[tuple[int, int]]]]:
    """What each agent makes, read once of those that are alike; who gets its letters; and whose letters it
    gets, in this order, and which of the sender's.
    """
    known, made = dict[Any, RoundForms](), list[RoundForms]()
    try:
        for i, view in enumerate(views):
            shape, _ = seen(i, view)
            if shape not in known:
                known[shape] = read_rounds(new_agent, new_rule, i, len(views), view)
            made.append(known[shape])
    except NotLinear:
        raise NoTimetable from None
    given = [
        [tuple([view.listeners[k] for k in to]) for to in each.to]
        for each, view in zip(made, views, strict=True)
    ]
    number = [{j: g for g, to in enumerate(each) for j in to} for each in given]
    inputs = [[(j, number[j][i]) for j in view.w if j != i] for i, view in enumerate(views)]
    all_mixed = all(
        len(form.mixed) == len(of) for each, of in zip(made, inputs, strict=True) for form in each.all
    )
    if len({each.sends for each in made}) > 1 or len(made[0].sends) > 3 or not all_mixed:
        raise NoTimetable
    return made, given, inputs
