"""The values of a simulation that were recorded: rows of pools, and how records are made in them.

There is one pool for each part of a model. A row is used again as soon as nobody can take its value any more,
no later record and no vector.

Where the task has a compiled gradient, all is computed in the order of the records, so that a gradient is
still in the caches when it is mixed. Elsewhere gradients that do not depend on each other go together: those
of one *depth*, one more than the highest depth among those from which their models come.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise

import numpy as np
import torch

from offbeat.core.forms import Piece
from offbeat.core.system import kernel
from offbeat.core.system.kernel import Ints
from offbeat.core.vector import Later, Parts
from offbeat.engines.sim.executors import widest
from offbeat.tasks.task import Task

FORM, GRADIENT, APART = range(3)
NOWHERE = NEVER = 1 << 62  # the place of what is in no row; the last use of what lives on
Function = Callable[..., Parts]


class Recorded(Later):
    """A value that is recorded, or was.

    Attributes:
        place: its row in the pools; until it is made -1 - its number among the records
        own: its parts, where it has no row, and once somebody has read them
        whole: what it is a piece of, the piece named `piece`; then it has no place of its own
    """

    __slots__ = ("__weakref__", "_pools", "own", "piece", "place", "whole")

    def __init__(self, pools: "Pools", place: int, lengths: tuple[int, ...], nbytes: int) -> None:
        self._pools, self.place, self.lengths, self.nbytes = pools, place, lengths, nbytes
        self.own: Parts | None = None
        self.whole: Recorded | None = None

    piece: Piece

    def read(self) -> Parts:
        if self.own is None and self.place < 0:
            self._pools.compute()
        if self.own is None:
            whole = self.whole
            self.own = self._pools.copied(self.place) if whole is None else self.piece(whole.read())
        return self.own


@dataclass(eq=False)
class Records:
    """What is to be made, by number; each record makes one value.

    Attributes:
        made: these values
        forms: numbers of those that are forms; `first`: where the terms of each begin, `source` and `scale`;
            `cut`: places among them of those that make a piece, `pieces`: several may make one record so
        gradients: numbers of those that are gradients; `asked`: place of the model, agent, minibatch of each
        apart: by number, what torch computes by itself: a function, the values that it takes, if it has a row
    """

    made: list["weakref.ref[Recorded]"] = field(default_factory=list)
    forms: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=lambda: [0])
    source: list[int] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    gradients: list[int] = field(default_factory=list)
    asked: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    apart: dict[int, tuple[Function, tuple[Recorded, ...], bool]] = field(default_factory=dict)

    def needed(self, alive: Sequence[Recorded | None]) -> "Records":
        """Without forms and gradients that nobody takes; of records without pieces."""
        forms, terms = np.array(self.forms, dtype=np.int64), np.diff(self.first)
        gradients = np.array(self.gradients, dtype=np.int64)
        place = np.array([*self.source, *[asked[0] for asked in self.asked]], dtype=np.int64)
        taker = np.concatenate([np.repeat(forms, terms), gradients])
        recorded, kept = place < 0, np.array([box is not None for box in alive])  # (what `apart` takes is)
        place, taker, before, needed = ~place[recorded], taker[recorded], np.zeros_like(kept), True | kept
        while (needed != before).any():  # at each turn without what only those take that the last left out
            before, needed = needed, kept.copy()
            needed[place[before[taker]]] = True
        of_forms, of_gradients = needed[forms], needed[gradients].tolist()
        if of_forms.all() and all(of_gradients):
            return self
        of_terms = np.repeat(of_forms, terms).tolist()
        return replace(
            self, forms=forms[of_forms].tolist(), first=[0, *np.cumsum(terms[of_forms]).tolist()],
            source=[*compress(self.source, of_terms)], scale=[*compress(self.scale, of_terms)],
            gradients=[*compress(self.gradients, of_gradients)], asked=[*compress(self.asked, of_gradients)],
        )  # fmt: skip

    def times(self, order: Ints) -> Ints:
        """When each is made."""
        time = np.empty(len(order), dtype=np.int64)
        time[order] = np.arange(len(order))
        return time

    def by_depth(self) -> Ints:
        """Their numbers by depth, of one depth the gradients first."""
        count = len(self.made)
        takes: list[list[int]] = [[]] * count
        for number, (low, high) in zip(self.forms, pairwise(self.first), strict=True):
            takes[number] = takes[number] + self.source[low:high]
        for number, (place, _, _) in zip(self.gradients, self.asked, strict=True):
            takes[number] = [place]
        for number, (_, boxes, _) in self.apart.items():
            takes[number] = _places(boxes)
        depth, later = [0] * count, [True] * count
        for number in self.gradients:
            later[number] = False
        for number, places in enumerate(takes):
            highest = max([depth[~place] for place in places if place < 0], default=0)
            depth[number] = highest if later[number] else highest + 1
        return np.array(sorted(range(count), key=lambda number: (depth[number], later[number])))


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
        alive = [ref() for ref in records.made]
        r = records if records.pieces else records.needed(alive)
        order = np.arange(len(r.made)) if self.native is not None else r.by_depth()
        row = self._rows(r, order, alive)
        when, forms = self._laid(r, order, row)
        kind = np.full(len(row), FORM)
        kind[r.gradients], kind[[*r.apart]] = GRADIENT, APART
        kind = kind[order]
        if self.native is not None:
            kind[kind == GRADIENT] = FORM  # both go into one call
        bounds = [0, *(1 + np.flatnonzero(np.diff(kind))).tolist(), len(row)]
        for low, high in pairwise(bounds):
            if kind[low] == APART:
                for number in order[low:high].tolist():
                    self._make_apart(r, number, row, alive[number])
            elif kind[low] == GRADIENT:
                self._make_gradients(r, order[low:high], row)
            else:
                at, end = np.searchsorted(when, [low, high]).tolist()
                self._make_forms(r, low, high, [each.part(at, end) for each in forms], when[at:end], row)
        for number, box in enumerate(alive):
            if box is not None:
                box.place = NOWHERE if box.lengths is not self.lengths else int(row[number])
                if box.place != NOWHERE:
                    self._held[box.place] = r.made[number]

    def _rows(self, r: Records, order: Ints, alive: Sequence[Recorded | None]) -> Ints:
        """Of each record the row of its value, -1 for none; rows are given back as the last use is over."""
        count, time = len(order), np.empty(len(order), dtype=np.int64)
        time[order] = np.arange(count)
        last = np.concatenate([time, np.full(len(self._held), -1)])
        apart = [(place, number) for number, (_, boxes, _) in r.apart.items() for place in _places(boxes)]
        place = np.array([*r.source, *[asked[0] for asked in r.asked], *[each[0] for each in apart]])
        taker = np.repeat(np.array(r.forms, dtype=np.int64), np.diff(r.first))
        taker = np.concatenate([taker, r.gradients, [each[1] for each in apart]]).astype(np.int64)
        if len(place):
            np.maximum.at(last, np.where(place < 0, ~place, place + count), time[taker])
        last[np.flatnonzero([box is not None for box in alive])] = NEVER
        gone = [held is not None and held() is None for held in self._held]
        last[count + np.flatnonzero(~np.array(gone, dtype=np.bool_))] = NEVER
        rowless = [number for number, (_, _, has_row) in r.apart.items() if not has_row]
        last[rowless] = NEVER
        ends = np.argsort(last, kind="stable")[: int((last < NEVER).sum())]
        return self._given_rows(order, ends.tolist(), last[ends].tolist(), {*rowless})

    def _given_rows(self, order: Ints, ends: list[int], last: list[int], rowless: set[int]) -> Ints:
        """`ends`: values by the time of their last use, which is `last`; rows as those after all records."""
        count, row, free, held, end = len(order), [-1] * len(order), self._free, self._held, 0
        ends.append(-1)
        last.append(NEVER)
        top = len(held)

        def give_back(until: int) -> None:
            nonlocal end
            while last[end] <= until:
                value = ends[end]
                end += 1
                if value >= count:
                    held[value - count] = None
                free.append(row[value] if value < count else value - count)

        give_back(-1)
        for at, number in enumerate(order.tolist()):
            if number not in rowless:
                if free:
                    row[number] = free.pop()
                else:
                    row[number] = top
                    top += 1
            if self._on_cpu and last[end] == at:
                give_back(at)
        give_back(NEVER - 1)
        if top > len(held):
            self._grow(top)
        return np.array(row)

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

    def _laid(self, r: Records, order: Ints, row: Ints) -> tuple[Ints, list[kernel.Forms]]:
        """When each form is made, and the forms over rows in that order, for each pool."""
        time = r.times(order)
        number, first = np.array(r.forms, dtype=np.int64), np.array(r.first)
        source, scale = _rows_of(np.array(r.source, dtype=np.int64), row), np.array(r.scale)
        by = np.argsort(time[number], kind="stable")
        if self.native is None:
            count = np.diff(first)[by]
            at = np.repeat(first[:-1][by] - (np.cumsum(count) - count), count) + np.arange(len(source))
            first, source, scale = np.append(0, np.cumsum(count)), source[at], scale[at]
        forms = kernel.Forms(row[number[by]], first, source, scale)
        return time[number[by]], [self._ranged(r, forms, by, length) for length in self.lengths]

    def _ranged(self, r: Records, forms: kernel.Forms, by: Ints, length: int) -> kernel.Forms:
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
        self, r: Records, low: int, high: int, forms: list[kernel.Forms], when: Ints, row: Ints
    ) -> None:
        """Forms that come one after another, and the compiled gradients between them."""
        a, b = np.searchsorted(r.gradients, [low, high]).tolist() if self.native is not None else (0, 0)
        if self.native is None or a == b:
            for pool, each in zip(self._pools, forms, strict=True):
                kernel.rows(pool, each)
            return
        place, _, samples = zip(*r.asked[a:b], strict=True)
        numbers, chunks = np.array(r.gradients[a:b]), np.arange(b - a + 1)
        program = kernel.Program(
            _rows_of(np.array(place), row), np.ascontiguousarray(np.stack(samples), np.int64),
            np.append(0, chunks), np.concatenate([[0], np.searchsorted(when, numbers), [len(when)]]),
            row[numbers], forms[0], apart=True,
        )  # fmt: skip
        kernel.steps(self.native, self._pools[0], program)

    def _make_gradients(self, r: Records, numbers: Ints, row: Ints) -> None:
        """With torch, as many in one call as go together."""
        which = np.searchsorted(r.gradients, numbers)
        for at in range(0, len(which), self._widest):
            asked = [r.asked[k] for k in which[at : at + self._widest].tolist()]
            place = np.array([each[0] for each in asked])
            models = self.gathered(_rows_of(place, row))
            made = self.task.gradients([each[1] for each in asked], [each[2] for each in asked], models)
            to = torch.from_numpy(row[numbers[at : at + self._widest]])
            for pool, part in zip(self._pools, made, strict=True):
                pool.index_copy_(0, to.to(pool.device), part)

    def _make_apart(self, r: Records, number: int, row: Ints, box: Recorded | None) -> None:
        function, boxes, has_row = r.apart[number]
        made = function(*[self._parts(each, row) for each in boxes])
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


def _places(boxes: Iterable[Recorded]) -> list[int]:
    """The places of values, and of what they are pieces of, without those that are in no row."""
    found = [box.place if box.whole is None else box.whole.place for box in boxes]
    return [place for place in found if place != NOWHERE]


def _rows_of(places: Ints, row: Ints) -> Ints:
    """The rows of values, some of which are those of records."""
    found, recorded = places.copy(), places < 0
    found[recorded] = row[~places[recorded]]
    return found


def lengths_of(parts: Parts) -> tuple[int, ...]:
    return tuple([part.numel() for part in parts])
