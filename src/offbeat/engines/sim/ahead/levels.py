"""Dependency levels: the arithmetic of runs whose timetable is known, in calls as wide as they can be.

The level of a write is one more than the highest level among the models that it mixes. All writes of a level
can be made at once: their gradients in one call of the task, their linear forms in one call of `kernel.rows`.
Versions of models lie in one pool, a row each; nothing is copied for a message, and a row is used again once
the last write that mixes it is made. Writes are taken in windows of time, so the pool holds what lives and
one window. The timetable of a long run comes in segments; rows that the next one mixes stay where they are.

Several runs, of other seeds or learning rates, are made side by side: a disjoint union, whose levels are
wider. What a run computes does not depend on what lies beside it: rows of a call do not depend on each other.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from offbeat.core.system import devices, kernel
from offbeat.core.system.streams import CHUNK
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.schedule import NoTimetable, Schedule
from offbeat.engines.sim.ahead.timetable import Ints, begin_of, ranges
from offbeat.engines.sim.ahead.update_form import GRADIENT, UpdateForm
from offbeat.engines.sim.executors import WIDEST
from offbeat.engines.trace import Trace, TraceSummary, joined
from offbeat.tasks.task import Task

Draws = Sequence[Callable[[int], np.ndarray]]

WINDOW = 384, 2048
"""Writes that are levelled at a time, and rows of the pool for them: one an agent, but within these."""

BLOCK = 16_384, 8
"""Writes for which minibatches are drawn at a time: at least so many, and so many for each agent."""
NARROW = 16
"""Compiled gradients in a chunk: they are to stay in the caches until they are mixed."""


class Levels:
    """Runs side by side, all of the same task but for its minibatches, from the same initial model."""

    def __init__(self, runs: "Sequence[ScheduledRun]", task: Task, initial: Parts) -> None:
        self.task, self.runs = task, runs
        for number, each in enumerate(runs):
            each.levels, each.number = self, number
        (start,) = initial
        native = getattr(task, "native", None)
        self._native: kernel.Gradient | None = None if native is None else native()
        self._agents = begin_of(np.array([each.table.n for each in runs]))
        self._widest = NARROW if self._native is not None else _widest(start, int(self._agents[-1]))
        self._samples = _Samples([draw for each in runs for draw in each.draws])
        forms = [form for each in runs for form in each.forms]
        self._form = begin_of(np.array([len(form.columns) for form in forms]))
        self._columns = np.array([column for form in forms for column in form.columns])
        self._coefficients = np.array([c for form in forms for c in form.coefficients])
        self.pool = start[None]  # row 0: what all start from; then those of gradients, then those of versions
        self._carried = np.zeros(1, dtype=np.int64)  # rows of what is named by -1, -2, ...
        self._many = [0] * len(runs)  # of these, but for the first, those of each run
        self._take()

    def _take(self) -> None:
        """Lay the runs' timetables side by side."""
        tables = [each.table for each in self.runs]
        writes = begin_of(np.array([len(table.time) for table in tables]))
        by = [*zip(tables, writes, begin_of(np.array(self._many)), strict=False)]
        time = np.concatenate([table.time for table in tables])
        order = np.argsort(time, kind="stable")
        place = np.empty(len(time) + len(self._carried), dtype=np.int64)
        place[order], place[len(time) :] = np.arange(len(time)), np.arange(-len(self._carried), 0)
        self.time = time[order]
        self._agent = np.concatenate([t.agent + a for t, a in zip(tables, self._agents, strict=False)])[order]
        self._name = np.concatenate([table.agent for table in tables])[order]  # among those of its run
        self._own = place[np.concatenate([_shifted(t.own, w, c) for t, w, c in by])][order]
        counts = np.concatenate([np.diff(t.first) for t in tables])
        first = begin_of(counts)
        _, at = ranges(first[order], first[order] + counts[order])
        self._terms = place[np.concatenate([_shifted(t.terms, w, c) for t, w, c in by])[at]]
        self._first = begin_of(counts[order])
        self._after = place[np.concatenate([_shifted(t.after[1:], w, c) for t, w, c in by])]
        own = np.concatenate([_shifted(-2 - np.arange(t.n), w, c) for t, w, c in by])
        self._newest = own if any(self._many) else np.full(len(own), -1)
        self._samples.follow(self._agent)
        self._prepare_pool()
        self._done = 0

    def _prepare_pool(self) -> None:
        """Find out how long each version lives, and make room for those that live at a time."""
        total, carried = len(self.time), len(self._carried)
        self._slot = np.concatenate([np.zeros(total, dtype=np.int64), self._carried[::-1]])
        last = np.concatenate([np.arange(1, total + 1), np.zeros(carried, dtype=np.int64)])
        write, _ = ranges(self._first[:-1], self._first[1:])
        np.maximum.at(last, self._terms, write)
        last[self._after] = total  # for the next segment, and for whoever looks at the end
        last[total:][self._slot[total:] == 0] = total
        self._ends = np.argsort(last, kind="stable")
        self._last = last[self._ends]
        there, deaths = int(np.count_nonzero(self._carried)), np.bincount(last, minlength=total + 1)[:total]
        alive = there + int((np.arange(1, total + 1) - np.cumsum(deaths)).max(initial=0))
        self._window_size = min(max(int(self._agents[-1]), WINDOW[0]), WINDOW[1], max(total, 1))
        self.rows = max(1 + self._widest + alive + self._window_size, len(self.pool))
        if self.rows > len(self.pool):  # what there is stays where it is
            if self.runs[0].more:  # the next segment may need more; what is not touched takes no memory
                self.rows += self.rows // 8
            pool = _empty(self.rows, self.pool)
            pool[: len(self.pool)] = self.pool
            self.pool = pool
        taken = np.zeros(self.rows, dtype=np.bool_)
        taken[: 1 + self._widest] = taken[self._carried] = True
        free, given_back = np.flatnonzero(~taken)[::-1], np.zeros(there, dtype=np.int64)
        self._left, self._freed, self._free = len(free), 0, np.concatenate([free, given_back])
        self._scratch = np.arange(1, 1 + self._widest)

    def run(self, until: float) -> None:
        """All writes up to that time. Raises NoTimetable where only the simulator can tell how it goes on."""
        while True:
            high = int(np.searchsorted(self.time, until, side="right"))
            while self._done < high:
                end = min(high, self._done + self._window_size, self._samples.reach(self._done))
                self._window(self._done, end)
            if until <= self.runs[0].table.high or not self.runs[0].more:
                return
            self._continue()

    def _continue(self) -> None:
        """Go into the next segment: of the pool's rows keep those of what it may mix."""
        self._carried = np.concatenate([[0], self._slot[self._after]])
        self._many = [len(each.table.after) - 1 for each in self.runs]
        for name in ("time", "_agent", "_name", "_own", "_terms", "_first", "_slot", "_ends", "_last"):
            delattr(self, name)  # before those of the next segment are there
        for each in self.runs:
            each.leave()
        for k, each in enumerate(self.runs):
            try:
                each.enter()
            except NoTimetable:
                raise NoTimetable(k) from None
        self._take()

    def stacked(self, run: int) -> Parts:
        """The models of one run's agents, [n, P]."""
        newest = self._newest[self._agents[run] : self._agents[run + 1]]
        return (self.pool.index_select(0, torch.from_numpy(self._slot[newest]).to(self.pool.device)),)

    def _window(self, low: int, high: int) -> None:
        level = _levels(self._terms, self._first, low, high)
        order = low + np.argsort(level, kind="stable")
        bounds = np.flatnonzero(np.diff(level[order - low])) + 1
        self._left -= high - low
        self._slot[order] = out = self._free[self._left : self._left + high - low].copy()
        rows, agents, samples = self._slot[self._own[order]], self._agent[order], self._samples[order]
        ends = pairwise([0, *bounds.tolist(), high - low])
        chunks = np.array([*(at for a, b in ends for at in range(a, b, self._widest)), high - low])
        within = np.arange(high - low) - np.repeat(chunks[:-1], np.diff(chunks))
        which, at = ranges(self._form[agents], self._form[agents + 1])
        columns = self._columns[at]
        source = self._first[order][which] + np.where(columns == GRADIENT, 0, columns)
        slots = np.where(columns == GRADIENT, 1 + within[which], self._slot[self._terms[source]])
        first, coefficients = begin_of((self._form[1:] - self._form[:-1])[agents]), self._coefficients[at]
        forms = kernel.Forms(out, first, slots, coefficients)
        self._execute(kernel.Program(rows, samples, chunks, self._scratch, forms), self._name[order])
        self._newest[self._agent[low:high]] = np.arange(low, high)
        ended = int(np.searchsorted(self._last, high - 1, side="right"))
        gone = self._slot[self._ends[self._freed : ended]]
        self._free[self._left : self._left + len(gone)] = gone
        self._left, self._freed, self._done = self._left + len(gone), ended, high

    def _execute(self, work: kernel.Program, agents: Ints) -> None:
        """Chunk after chunk, in the order of levels, the gradients of these agents and then the forms."""
        if self._native is not None and kernel.steps(self._native, self.pool, work):
            return
        for a, b in pairwise(work.bounds.tolist()):
            models = self.pool.index_select(0, torch.from_numpy(work.models[a:b]).to(self.pool.device))
            (g,) = self.task.gradients(agents[a:b].tolist(), [*work.index[a:b]], (models,))
            self.pool[1 : 1 + b - a] = g
            kernel.rows(self.pool, work.forms.part(a, b))


class ScheduledRun:
    """One of the runs side by side, as an engine: segment after segment (they end at `ends`) its timetable,
    and what is recorded. Whichever is asked first runs all. Raises NoTimetable where the first has none.
    """

    levels: Levels  # that make it
    number: int  # of the runs there

    def __init__(
        self, schedule: Schedule, ends: Sequence[float], forms: Sequence[UpdateForm], draws: Draws, keep: bool
    ) -> None:
        self.forms, self.draws, self._keep_trace = forms, draws, keep
        self._schedule, self._ends, self.now = schedule, [*ends], 0.0
        self._writes = self._messages = 0  # in the segments before
        self._recorded, self._parts, self._summary = -1.0, list[Trace](), TraceSummary(schedule.n)
        self.enter()

    @property
    def more(self) -> bool:
        return bool(self._ends)

    def enter(self) -> None:
        """Go into the next segment. Raises NoTimetable where only the simulator can tell how it goes on."""
        end = self._ends.pop(0)
        self.table = self._schedule.segment(end, self.more)

    def leave(self) -> None:
        """Record this segment to its end, and drop it."""
        table = self.table
        self._record(table.high)
        self._summary.forget(table.oldest)
        self._writes += table.writes(table.high)
        self._messages += table.messages(table.high)
        del self.table

    def start(self) -> None:
        """Nothing happens before the first write."""

    def run(self, until: float) -> None:
        self.levels.run(until)
        self.now = until

    @property
    def living(self) -> range:
        """All agents: none crashes."""
        return range(self._schedule.n)

    def stacked(self) -> Parts:
        return self.levels.stacked(self.number)

    everybody = stacked

    def stalled(self) -> None:
        """Never: its agents compute gradient after gradient."""

    def counts(self) -> tuple[int, int, int]:
        messages = self._messages + self.table.messages(self.now)
        return self._writes + self.table.writes(self.now), messages, messages * self._schedule.size

    def carried(self, sent: np.ndarray) -> dict[tuple[int, int], int]:
        """Bytes by link: all that an agent has `sent` went to all its listeners."""
        return self._schedule.carried(sent)

    def traced(self) -> Trace | TraceSummary:
        self._record(self.now)
        if not self._keep_trace:
            return self._summary
        self._parts = [joined(self._parts)]
        return self._parts[0]

    def _record(self, until: float) -> None:
        if until > self._recorded:
            part = self.table.trace(self._recorded, until, self.forms[0].kind, self._schedule.size)
            self._recorded = until
            if self._keep_trace:
                self._parts.append(part)
            else:
                self._summary.add(part)


class _Samples:
    """The minibatches of all writes, drawn for a block of them at a time, agent by agent."""

    def __init__(self, draws: Draws) -> None:
        self._draws, self._size = draws, max(BLOCK[0], BLOCK[1] * len(draws))
        self._left: list[list[np.ndarray]] = [[] for _ in draws]

    def follow(self, agent: Ints) -> None:
        """The next writes are those of these agents, numbered from 0."""
        self._agent, self._low, self._high = agent, 0, 0
        self._drawn = np.zeros(0)

    def reach(self, low: int) -> int:
        """Draw for the next block if need be. Up to which write there are minibatches."""
        if low == self._high:
            self._low, self._high = low, min(low + self._size, len(self._agent))
            agent = self._agent[self._low : self._high]
            counts = np.bincount(agent, minlength=len(self._draws))
            drawn = [self._next(i, count) for i, count in enumerate(counts.tolist()) if count]
            by_agent = np.concatenate(drawn)
            self._drawn = np.empty_like(by_agent)
            self._drawn[np.argsort(agent, kind="stable")] = by_agent
        return self._high

    def __getitem__(self, writes: Ints) -> np.ndarray:
        """Those of these writes, of the present block: [m, ...]."""
        chosen: np.ndarray = self._drawn[writes - self._low]
        return chosen

    def _next(self, i: int, count: int) -> np.ndarray:
        """Agent i's next ones, in portions of the size in which the simulator draws them."""
        portions = self._left[i]
        while sum(map(len, portions)) < count:
            portions.append(self._draws[i](CHUNK))
        drawn = portions[0] if len(portions) == 1 else np.concatenate(portions)
        self._left[i] = [drawn[count:]]
        return drawn[:count]


def _widest(model: Tensor, agents: int) -> int:
    """Gradients in one call of torch: a level has one write of an agent, and wide calls fill a GPU."""
    if model.device.type == "cpu":
        return WIDEST
    return max(1, min(agents, devices.CHUNK // max(1, model.nbytes)))


def _empty(rows: int, like: Tensor) -> Tensor:
    if like.device.type != "cpu":
        return torch.empty((rows, like.shape[1]), dtype=like.dtype, device=like.device)
    # numpy asks the system for huge pages, and the first touch of a page is what costs.
    return torch.from_numpy(np.empty((rows, like.shape[1]), dtype=like.numpy().dtype))


def _shifted(writes: Ints, by: np.int64, carried: np.int64) -> Ints:
    """The same writes where others come before them, and others are carried over before them; -1 stays."""
    return np.where(writes >= 0, writes + by, np.where(writes == -1, -1, writes - carried))


def _levels(terms: Ints, first: Ints, low: int, high: int) -> Ints:
    """The level of every write in [low, high), of what is made before that 0: [high - low]."""
    mixed = (terms[first[low] : first[high]] - low).tolist()
    ends = (first[low + 1 : high + 1] - first[low]).tolist()
    level, at = [0] * (high - low), 0
    for write, end in enumerate(ends):
        highest = 0
        for source in mixed[at:end]:
            if source >= 0 and level[source] >= highest:
                highest = level[source] + 1
        level[write], at = highest, end
    return np.array(level, dtype=np.int64)
