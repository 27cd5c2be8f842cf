"""Dependency levels: the arithmetic of runs whose timetable is known, in calls as wide as they can be.

The level of a write is one more than the highest level among those whose values it takes. All writes of a
level can be made at once: their gradients in one call of the task, their forms in one call of `kernel.rows`.
Values (`tape`) lie in one pool, a row each; nothing is copied for a message, and a row is used again once the
last write that takes its value is made, the last one given back first: it is still in the caches. Writes are
taken in windows of time, so the pool has room for what lives and one window. The timetable of a long run
comes in segments; rows that the next one takes stay where they are.

Several runs, of other seeds or learning rates, are made side by side: a disjoint union, whose levels are
wider. What a run computes does not depend on what lies beside it: rows of a call do not depend on each other.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from offbeat.core.system import kernel
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.scheduled import Samples, ScheduledRun
from offbeat.engines.sim.ahead.tape import CARRIED, THE_GRADIENT, Side, Templates, lay
from offbeat.engines.sim.ahead.timetable import Ints, begin_of, ranges
from offbeat.engines.sim.executors import widest
from offbeat.tasks.task import Task

WINDOW = 384, 2048
"""Writes that are levelled at a time, and rows of the pool for them: one an agent, but within these."""

NARROW = 16
"""Compiled gradients in a chunk: they are to stay in the caches until they are mixed."""


class Levels:
    """Runs side by side, all of the same task but for its minibatches, from the same initial model."""

    def __init__(self, runs: Sequence[ScheduledRun], task: Task, initial: Parts) -> None:
        self.task, self.runs = task, runs
        for number, each in enumerate(runs):
            each.levels, each.number = self, number
        (start,) = initial
        native = getattr(task, "native", None)
        self._native: kernel.Gradient | None = None if native is None else native()
        self._agents = begin_of(np.array([each.table.n for each in runs]))
        self._widest = NARROW if self._native is not None else widest(initial, int(self._agents[-1]))
        self._samples = Samples([draw for each in runs for draw in each.draws])
        # rows: what all start from, zero, then those of gradients, then those of values
        self.pool = torch.stack((start, torch.zeros_like(start)))
        # rows of what is named by -1, -2, ...
        self._asked = np.concatenate([np.arange(CARRIED), *[each.schedule.players.initial for each in runs]])
        self._kept = [np.zeros(1, dtype=np.int64) for _ in runs]
        self._take()

    def _take(self) -> None:
        """Lay the runs' timetables side by side."""
        players = [each.schedule.players for each in self.runs]
        many = begin_of(np.array([len(each.templates) for each in players])).tolist()
        templates = Templates(
            [template for each in players for template in each.templates],
            [fields for each in players for fields in each.fields],
        )
        sides = [
            Side(*each) for each in zip([run.table for run in self.runs], many, self._kept, strict=False)
        ]
        self._tape = lay(sides, templates)
        self.time = self._tape.time
        self._samples.follow(self._tape.agent)
        self._prepare_pool()
        self._done = 0

    def _prepare_pool(self) -> None:
        """Find out how long each value lives, and make room for those that live at a time."""
        tape, total, values = self._tape, len(self.time), int(self._tape.begin[-1])
        rows, place = np.unique(self._asked, return_inverse=True)
        self._carried = values + place  # values of before come behind these
        self._gradient = values + len(rows)  # the gradient of whatever write it is comes behind these
        self._slot = np.concatenate([np.zeros(values, dtype=np.int64), rows, [0]])
        self._source = tape.source = self._numbered(tape.source)
        self._before, self._model = self._numbered(tape.before), self._numbered(tape.model)
        lengths, owner = np.diff(tape.first), np.repeat(np.arange(total), np.diff(tape.begin))
        self._owner = np.concatenate([owner, np.full(len(rows) + 1, -1)])  # the write of each value
        self._there = lengths > 0
        writer = np.repeat(owner, lengths)
        last = np.concatenate([owner + 1, np.zeros(len(rows) + 1, dtype=np.int64)])
        np.maximum.at(last, self._source, writer)
        np.maximum.at(last, self._before, np.arange(total))
        last[self._numbered(tape.after)] = total  # for the next segment, and for whoever looks at the end
        mortal = np.concatenate([self._there, rows > 1, [False]])
        self._ends = np.flatnonzero(mortal)[np.argsort(last[mortal], kind="stable")]
        self._last = last[self._ends]
        there, deaths = int((rows > 1).sum()), np.bincount(self._last, minlength=total + 1)[:total]
        born = np.cumsum(np.bincount(owner[self._there], minlength=total))
        alive = there + int((born - np.cumsum(deaths)).max(initial=0))
        self._window_size = min(max(int(self._agents[-1]), WINDOW[0]), WINDOW[1], max(total, 1))
        new = np.append(0, born)
        widest = int((new[self._window_size :] - new[: -self._window_size]).max(initial=0))
        self._newest = self._numbered(tape.start)
        self.rows = max(2 + self._widest + alive + widest, len(self.pool))
        if self.rows > len(self.pool):  # what there is stays where it is
            if self.runs[0].more:  # the next segment may need more; what is not touched takes no memory
                self.rows += self.rows // 8
            pool = _empty(self.rows, self.pool)
            pool[: len(self.pool)] = self.pool
            self.pool = pool
        taken = np.zeros(self.rows, dtype=np.bool_)
        taken[: 2 + self._widest] = taken[rows] = True
        free, given_back = np.flatnonzero(~taken)[::-1], np.zeros(there, dtype=np.int64)
        self._left, self._freed, self._free = len(free), 0, np.concatenate([free, given_back])
        self._used = np.zeros_like(self._slot)
        self._scratch = np.arange(2, 2 + self._widest)

    def _numbered(self, values: Ints) -> Ints:
        """Values by their place in `_slot`."""
        numbers, before, gradient = values.copy(), values < 0, values == THE_GRADIENT
        before &= ~gradient
        numbers[before] = self._carried[-1 - values[before]]
        numbers[gradient] = self._gradient
        return numbers

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
        """Go into the next segment: of the pool's rows keep those of what it may take."""
        rows = self._slot[self._numbered(self._tape.after)]
        self._asked = np.concatenate([np.arange(CARRIED), rows])
        self._kept = [begin_of(each.table.kept[1]) for each in self.runs]
        for name in ("time", "_tape", "_source", "_owner", "_there", "_slot", "_used", "_ends", "_last"):
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
        tape = self._tape
        level = self._levels(low, high)
        order = low + np.argsort(level, kind="stable")
        bounds = np.flatnonzero(np.diff(level[order - low])) + 1
        ends = pairwise([0, *bounds.tolist(), high - low])
        chunks = np.array([*(at for a, b in ends for at in range(a, b, self._widest)), high - low])
        within = np.arange(high - low) - np.repeat(chunks[:-1], np.diff(chunks))
        write, values = ranges(tape.begin[order], tape.begin[order + 1])
        write, values = write[self._there[values]], values[self._there[values]]
        made = begin_of(np.bincount(write, minlength=high - low))[chunks]
        which, at = ranges(tape.first[values], tape.first[values + 1])
        source, models = self._source[at], self._before[order]
        self._newest[tape.agent[low:high]] = self._model[low:high]
        ended = self._ends[self._freed : int(np.searchsorted(self._last, high - 1, side="right"))]
        chunk = np.repeat(np.arange(len(chunks) - 1), np.diff(chunks))
        used = self._used  # of what ends, the last chunk that takes it
        used[ended] = 0
        used[values] = chunk[write]
        used[source] = chunk[write[which]]  # of several the last one stays
        used[models] = np.maximum(used[models], chunk)
        used[self._newest] = len(chunks)  # somebody may look at it
        self._give_rows(values, made.tolist(), ended[np.argsort(used[ended], kind="stable")])
        slots = np.where(source == self._gradient, 2 + within[write[which]], self._slot[source])
        first = begin_of(tape.first[values + 1] - tape.first[values])
        forms = kernel.Forms(self._slot[values], first, slots, tape.scale[at])
        if tape.cut is not None:
            forms, made = self._by_pieces(forms, tape.cut[at], made)
        work = kernel.Program(self._slot[models], self._samples[order], chunks, made, self._scratch, forms)
        self._execute(work, tape.name[order])
        self._freed, self._done = self._freed + len(ended), high

    def _by_pieces(self, forms: kernel.Forms, cut: Ints, made: Ints) -> tuple[kernel.Forms, Ints]:
        """The same, where terms are of these pieces: a form for each; and where those of chunks begin."""
        whole = self.pool.shape[1]
        ends = np.array([*[piece.range(whole) for piece in self._tape.pieces], (0, whole)])[cut]
        new = np.append(True, np.diff(cut) != 0)[: len(cut)]
        new[forms.first[:-1]] = True
        begin = np.flatnonzero(new)
        out = np.repeat(forms.out, np.diff(forms.first))[begin]
        low, high = np.ascontiguousarray(ends[begin].T)
        first = np.append(begin, len(cut))
        made = np.searchsorted(begin, forms.first[made])
        return kernel.Forms(out, first, forms.slots, forms.coefficients, low, high), made

    def _give_rows(self, values: Ints, made: list[int], ended: Ints) -> None:
        """Rows for values, chunk after chunk; those of what ends are there for the chunks after its last."""
        over = np.searchsorted(self._used[ended], np.arange(1, len(made))).tolist()
        over[-1:] = [len(ended)]
        free, slot, left, low = self._free, self._slot, self._left, 0
        for (a, b), high in zip(pairwise(made), over, strict=True):
            left -= b - a
            slot[values[a:b]] = free[left : left + b - a]
            if high > low:
                free[left : left + high - low] = slot[ended[low:high]]
                left, low = left + high - low, high
        self._left = left

    def _execute(self, work: kernel.Program, agents: Ints) -> None:
        """Chunk after chunk, in the order of levels, the gradients of these agents and then the forms."""
        if self._native is not None and kernel.steps(self._native, self.pool, work):
            return
        made = pairwise(work.made.tolist())
        for (a, b), (low, high) in zip(pairwise(work.bounds.tolist()), made, strict=True):
            models = self.pool.index_select(0, torch.from_numpy(work.models[a:b]).to(self.pool.device))
            (g,) = self.task.gradients(agents[a:b].tolist(), [*work.index[a:b]], (models,))
            self.pool[2 : 2 + b - a] = g
            kernel.rows(self.pool, work.forms.part(low, high))

    def _levels(self, low: int, high: int) -> Ints:
        """The level of every write in [low, high), of what is made before that 0: [high - low]."""
        tape = self._tape
        values = tape.begin[low : high + 1]
        terms = tape.first[values]
        source = self._source[terms[0] : terms[-1]]
        takes = (self._owner[source] - low).tolist()
        ends, level, at = (terms[1:] - terms[0]).tolist(), [0] * (high - low), 0
        for write, (before, end) in enumerate(
            zip((self._owner[self._before[low:high]] - low).tolist(), ends, strict=True)
        ):
            highest = 0 if before < 0 else level[before] + 1
            for source_ in takes[at:end]:
                if source_ >= 0 and source_ != write and level[source_] >= highest:
                    highest = level[source_] + 1
            level[write], at = highest, end
        return np.array(level, dtype=np.int64)


def _empty(rows: int, like: Tensor) -> Tensor:
    if like.device.type != "cpu":
        return torch.empty((rows, like.shape[1]), dtype=like.dtype, device=like.device)
    # numpy asks the system for huge pages, and the first touch of a page is what costs.
    return torch.from_numpy(np.empty((rows, like.shape[1]), dtype=like.numpy().dtype))
