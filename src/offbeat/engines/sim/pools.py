"""The values of a simulation that were recorded: rows of pools, and how records are made in them.

There is one pool for each part of a model. A row is used again as soon as nobody can take its value any more,
no later record and no vector.

Where the task has a compiled gradient, all is computed in the order of the records, so that a gradient is
still in the caches when it is mixed. Elsewhere gradients that do not depend on each other go together: those
of one *depth*, one more than the highest depth among those from which their models come.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from offbeat.core.system import kernel
from offbeat.core.system.kernel import Ints
from offbeat.core.vector import Parts
from offbeat.engines.sim.executors import widest
from offbeat.engines.sim.records import NOWHERE, Batch, Recorded, Records, places
from offbeat.tasks.task import Task

FORM, GRADIENT, APART = range(3)
NEVER = NOWHERE  # the last use of what lives on


class Pools:
    """The pools. compute: makes what is recorded and not made yet.

    Attributes:
        lengths: of a model; a value has a row if its lengths are this very tuple
        native: the compiled gradient, if there is one
    """

    def __init__(self, task: Task, compute: Callable[[], None]) -> None:
        self.task, self.compute, initial = task, compute, task.initial()
        self.lengths, self._dtypes = lengths_of(initial), [part.dtype for part in initial]
        native = getattr(task, "native", None)
        self.native: kernel.Gradient | None = None if native is None else native()
        self._on_cpu = all(part.device.type == "cpu" for part in initial)
        self._widest = widest(initial, task.agents)
        self._pools = tuple([part.new_empty((0, part.numel())) for part in initial])
        self._held: list[weakref.ref[Recorded] | None] = []  # of each row, the value that is there
        self._free: list[int] = []
        self._bytes: dict[tuple[int, ...], int] = {}

    def bytes_of(self, lengths: tuple[int, ...]) -> int:
        if lengths not in self._bytes:
            counts = zip(lengths, self._dtypes, strict=True)
            self._bytes[lengths] = sum([count * dtype.itemsize for count, dtype in counts])
        return self._bytes[lengths]

    def constant(self, parts: Parts) -> Recorded:
        """What stands for tensors: a row, if they are like a model."""
        box = Recorded(self, NOWHERE, lengths_of(parts), sum([part.nbytes for part in parts]))
        box.own = parts
        if box.lengths == self.lengths and [part.dtype for part in parts] == self._dtypes:
            if not self._free:
                self._grow(len(self._held))
            box.lengths, box.place = self.lengths, self._free.pop()
            self._held[box.place] = weakref.ref(box)
            for pool, part in zip(self._pools, parts, strict=True):
                pool[box.place] = part
        return box

    def copied(self, place: int) -> Parts:
        """The parts of a value in this row, which may be used again."""
        return tuple([pool[place].clone() for pool in self._pools])

    def gathered(self, rows: Ints) -> Parts:
        return tuple([pool.index_select(0, torch.from_numpy(rows).to(pool.device)) for pool in self._pools])

    def make(self, records: Records) -> None:
        """Make all these values."""
        r = Batch.of(records)
        order = np.arange(len(r.boxes)) if self.native is not None else r.by_depth()
        time = np.empty_like(order)  # when each is made
        time[order] = np.arange(len(order))
        row = self._rows(r, order, time)
        when, forms = self._laid(r, time, row)
        kind = np.full(len(row), FORM)
        kind[r.gradients], kind[[*r.apart]] = GRADIENT, APART
        kind = kind[order]
        if self.native is not None:
            kind[kind == GRADIENT] = FORM  # both go into one call
        bounds = [0, *(1 + np.flatnonzero(np.diff(kind))).tolist(), len(row)]
        for low, high in pairwise(bounds):
            if kind[low] == APART:
                for number in order[low:high].tolist():
                    self._make_apart(r, number, row)
            elif kind[low] == GRADIENT:
                self._make_gradients(r, order[low:high], row)
            else:
                at, end = np.searchsorted(when, [low, high]).tolist()
                self._make_forms(r, low, high, [each.part(at, end) for each in forms], when[at:end], row)
        for number, box in enumerate(r.boxes):
            if box is not None:
                box.place = NOWHERE if box.lengths is not self.lengths else int(row[number])
                if box.place != NOWHERE:
                    self._held[box.place] = records.made[number]

    def _rows(self, r: Batch, order: Ints, time: Ints) -> Ints:
        """Of each record the row of its value, -1 for none; rows are given back as the last use is over."""
        count, last = len(order), np.concatenate([time, np.full(len(self._held), -1)])
        apart = [(place, number) for number, (_, boxes, _) in r.apart.items() for place in places(boxes)]
        both = zip(r.taken, np.array(apart, dtype=np.int64).reshape(-1, 2).T, strict=True)
        place, taker = (np.append(of_most, of_apart) for of_most, of_apart in both)
        np.maximum.at(last, np.where(place < 0, ~place, place + count), time[taker])
        last[:count][r.kept] = NEVER
        gone = [held is not None and held() is None for held in self._held]
        last[count + np.flatnonzero(~np.array(gone, dtype=np.bool_))] = NEVER
        rowless = [number for number, (_, _, has_row) in r.apart.items() if not has_row]
        last[rowless] = NEVER
        ends = np.argsort(last, kind="stable")[: int((last < NEVER).sum())]
        return self._given_rows(order, ends.tolist(), last[ends].tolist(), {*rowless})

    def _given_rows(self, order: Ints, ends: list[int], last: list[int], rowless: set[int]) -> Ints:
        """`ends`: values by the time of their last use, which is `last`; rows as those after all records."""
        count, free, held, at_once = len(order), self._free, self._held, self._on_cpu
        row, steps = [-1] * count + [*range(len(held))], enumerate(order.tolist())
        last.append(NEVER)
        top, end = len(held), 0
        for at, number in [step for step in steps if step[1] not in rowless] if rowless else steps:
            while last[end] < (at if at_once else 0):  # these are used no more
                free.append(row[ends[end]])
                end += 1
            if free:
                row[number] = free.pop()
            else:
                row[number] = top
                top += 1
        free += [row[value] for value in ends[end:]]
        for value in ends:
            if value >= count:
                held[value - count] = None
        if top > len(held):
            self._grow(top)
        return np.array(row[:count])

    def _grow(self, rows: int) -> None:
        """Make room for so many rows, which are not free, and some more, which are."""
        before, most = len(self._held), rows + rows // 4 + 16
        pools = []
        for pool in self._pools:
            more = pool.new_empty((most, pool.shape[1]))
            more[:before] = pool
            pools.append(more)
        self._pools = tuple(pools)
        self._held += [None] * (most - before)
        self._free += range(most - 1, rows - 1, -1)

    def _laid(self, r: Batch, time: Ints, row: Ints) -> tuple[Ints, list[kernel.Forms]]:
        """When each form is made, and the forms over rows in that order, for each pool."""
        number, first, source, scale = r.forms, r.first, _rows_of(r.source, row), r.scale
        by = np.argsort(time[number], kind="stable")
        if self.native is None:
            count = np.diff(first)[by]
            at = np.repeat(first[:-1][by] - (np.cumsum(count) - count), count) + np.arange(len(source))
            first, source, scale = np.append(0, np.cumsum(count)), source[at], scale[at]
        forms = kernel.Forms(row[number[by]], first, source, scale)
        return time[number[by]], [self._ranged(r, forms, by, length) for length in self.lengths]

    def _ranged(self, r: Batch, forms: kernel.Forms, by: Ints, length: int) -> kernel.Forms:
        """The same, with the pieces that some of them are of."""
        if not r.pieces:
            return forms
        ends, different = np.tile([0, length], (len(by), 1)), {id(piece): piece for piece in r.pieces}
        place = {key: at for at, key in enumerate(different)}
        ranges = np.array([piece.range(length) for piece in different.values()])
        ends[r.cut] = ranges[[place[id(piece)] for piece in r.pieces]]
        low, high = np.ascontiguousarray(ends[by].T)
        return replace(forms, low=low, high=high)

    def _make_forms(
        self, r: Batch, low: int, high: int, forms: list[kernel.Forms], when: Ints, row: Ints
    ) -> None:
        """Forms that come one after another, and the compiled gradients between them."""
        a, b = np.searchsorted(r.gradients, [low, high]).tolist() if self.native is not None else (0, 0)
        if self.native is None or a == b:
            for pool, each in zip(self._pools, forms, strict=True):
                kernel.rows(pool, each)
            return
        numbers = r.gradients[a:b]
        before = np.searchsorted(when, numbers)  # how many forms
        chunks = np.flatnonzero(np.diff(before, prepend=-1))  # between these are some
        samples = np.concatenate(r.samples[a:b]).reshape(b - a, -1)  # (many times as fast as a stack)
        program = kernel.Program(
            _rows_of(r.models[a:b], row), np.ascontiguousarray(samples, np.int64),
            np.concatenate([[0], chunks, [b - a]]), np.concatenate([[0], before[chunks], [len(when)]]),
            row[numbers], forms[0], apart=True,
        )  # fmt: skip
        kernel.steps(self.native, self._pools[0], program)

    def _make_gradients(self, r: Batch, numbers: Ints, row: Ints) -> None:
        """With torch, as many in one call as go together."""
        which = np.searchsorted(r.gradients, numbers)
        for at in range(0, len(which), self._widest):
            asked = which[at : at + self._widest]
            models = self.gathered(_rows_of(r.models[asked], row))
            agents, samples = ([of[k] for k in asked.tolist()] for of in (r.agents, r.samples))
            made = self.task.gradients(agents, samples, models)
            to = torch.from_numpy(row[numbers[at : at + self._widest]])
            for pool, part in zip(self._pools, made, strict=True):
                pool.index_copy_(0, to.to(pool.device), part)

    def _make_apart(self, r: Batch, number: int, row: Ints) -> None:
        function, boxes, has_row = r.apart[number]
        box, made = r.boxes[number], function(*[self._parts(each, row) for each in boxes])
        if has_row:
            for pool, part in zip(self._pools, made, strict=True):
                pool[int(row[number])] = part
        elif box is not None:
            box.own = tuple([part.clone() if part._is_view() else part for part in made])

    def _parts(self, box: Recorded, row: Ints) -> Parts:
        """The parts of a value that there is, as they lie in the pools."""
        if box.own is not None:
            return box.own
        if box.whole is not None:
            return box.piece(self._parts(box.whole, row))
        at = box.place if box.place >= 0 else int(row[~box.place])
        return tuple([pool[at] for pool in self._pools])


def _rows_of(places: Ints, row: Ints) -> Ints:
    """The rows of values, some of which are those of records."""
    found, recorded = places.copy(), places < 0
    found[recorded] = row[~places[recorded]]
    return found


def lengths_of(parts: Parts) -> tuple[int, ...]:
    return tuple([part.numel() for part in parts])
