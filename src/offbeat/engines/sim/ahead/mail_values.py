"""The values that agents who mail one another make: step by step in a pool, a row for each that is needed."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from offbeat.core.system import kernel
from offbeat.core.system.streams import BufferedStream, Purpose
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.compiled import INT, library
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.machine import NOTHING, Done
from offbeat.engines.sim.ahead.timetable import Floats, Ints, begin_of, ranges
from offbeat.tasks.task import Task

INITIAL, NONE = range(2)  # values: what all start from, and zero


class Made:
    """All that handlers make, as arrays: of each where its forms begin, how many vectors there were before
    and how many coefficients vary; of each form where its terms begin; of each term which vector, by number,
    and with what, or with which of these coefficients.
    """

    def __init__(self, done: Sequence[Done]) -> None:
        forms = [form for each in done for form in each.forms]
        self.forms = begin_of(np.array([len(each.forms) for each in done], dtype=np.int64))
        self.known = np.array([each.known for each in done], dtype=np.int64)
        self.terms = begin_of(np.array([len(form) for form in forms], dtype=np.int64))
        self.place = np.array([k for form in forms for k, _, _ in form], dtype=np.int64)
        self.scale = np.array([c for form in forms for _, c, _ in form], dtype=np.float64)
        self.varies = np.array([c for form in forms for _, _, c in form], dtype=np.int64)
        most = [max([c for form in each.forms for _, _, c in form], default=NOTHING) for each in done]
        self.numbers = np.array(most, dtype=np.int64) + 1


@dataclass(frozen=True)
class Noted:
    """What is to be made: so many values, with those that there are. Of each step what makes it, its first
    value and, step after step, the values and the coefficients that it knows; of each gradient which value it
    is, where it is taken, before which step, and whose it is.
    """

    many: int
    steps: Ints
    first: Ints
    known: Ints
    taken: Ints
    asked: Ints
    at: Ints
    agent: Ints
    coefficients: Floats


class MailValues:
    """Makes them. Raises NoTimetable where gradients are not compiled.

    Args:
        done: what handlers make, as far as it is known; there will be more
    """

    def __init__(self, task: Task, n: int, seed: int, done: Sequence[Done]) -> None:
        native: kernel.Gradient | None = getattr(task, "native", lambda: None)()
        if native is None:
            raise NoTimetable
        self._native = native
        (start,) = task.initial()
        self._pool = torch.stack((start, torch.zeros_like(start)))
        self._samples = [BufferedStream(partial(task.draw, i), seed, Purpose.DATA, i) for i in range(n)]
        self._done, self._made = done, Made(())
        self._row, self._free, self._rows = np.arange(2), np.empty(0, dtype=np.int64), 2

    # -- what is made ------------------------------------------------------------------------------

    def rows(self, values: Sequence[int]) -> Parts:
        """These values, [m, P]."""
        return (self._pool.index_select(0, torch.from_numpy(self._row[values])),)

    def make(self, noted: Noted, held: Ints) -> tuple[Ints, int]:
        """Of the values only those that are held are there afterwards: their new numbers, and how many."""
        if len(self._made.known) < len(self._done):
            self._made = Made(self._done)
        steps, first, at, taken, asked = noted.steps, noted.first, noted.at, noted.taken, noted.asked
        made, total = self._made, len(steps)
        step, form = ranges(made.forms[steps], made.forms[steps + 1])
        value = first[step] + form - made.forms[steps[step]]
        which, term = ranges(made.terms[form], made.terms[form + 1])
        source = self._sources(noted, step[which], made.place[term])
        scale = self._scales(noted, step[which], term)
        last = np.zeros(noted.many, dtype=np.int64)  # the step after which a value is not needed
        np.maximum.at(last, source, step[which])
        np.maximum.at(last, value, step)
        np.maximum.at(last, asked, at)
        np.maximum.at(last, taken, at)
        kept = np.unique(np.append(held, (INITIAL, NONE)))
        last[kept] = total + 1
        row = self._give_rows(np.concatenate([taken, value]), np.concatenate([at, step]), last, total)
        begin = begin_of(np.diff(made.forms)[steps])
        forms = kernel.Forms(row[value], begin_of(np.diff(made.terms)[form]), row[source], scale)
        index = [self._samples[i]() for i in noted.agent.tolist()]
        m = len(taken)
        program = kernel.Program(
            row[asked], np.ascontiguousarray(np.stack(index), np.int64) if m else np.zeros((0, 1), np.int64),
            np.append(0, np.arange(m + 1)), np.concatenate([[0], begin[at], [len(value)]]), row[taken], forms,
            apart=True,
        )  # fmt: skip
        if (m or len(value)) and not kernel.steps(self._native, self._pool, program):
            raise NoTimetable
        self._row = row[kept]
        return np.searchsorted(kept, held), len(kept)

    def _sources(self, noted: Noted, step: Ints, place: Ints) -> Ints:
        """Of terms of these steps, the values: known before, made in the step, or zero."""
        known, first = self._made.known[noted.steps], noted.first
        begin, before = begin_of(known)[:-1], (place >= 0) & (place < known[step])
        source = first[step] + place - known[step]
        source[before] = noted.known[begin[step[before]] + place[before]]
        source[place == NOTHING] = NONE
        return source

    def _scales(self, noted: Noted, step: Ints, term: Ints) -> Floats:
        """Of terms of these steps, with what: always the same, or what was noted."""
        scale, which = self._made.scale[term], self._made.varies[term]
        varies = which != NOTHING
        begin = begin_of(self._made.numbers[noted.steps])[step[varies]]
        scale[varies] = noted.coefficients[begin + which[varies]]
        return scale

    def _give_rows(self, values: Ints, born: Ints, last: Ints, total: int) -> Ints:
        """A row for each value: those of what is not needed any more are given to others."""
        row = np.zeros(len(last), dtype=np.int64)
        row[: len(self._row)] = self._row
        order, over = np.argsort(born, kind="stable"), np.argsort(last, kind="stable")
        steps = np.arange(total + 1)
        births, deaths = (np.searchsorted(at, steps, side="right") for at in (born[order], last[over]))
        free, many = np.concatenate([self._free, np.empty(len(last), dtype=np.int64)]), INT(len(self._free))
        arrays = births, values[order], deaths, over, row, free
        born_at, new, died_at, old, rows, unused = (each.ctypes.data for each in arrays)
        self._rows = library().mail_rows(
            born_at, new, died_at, old, total + 1, rows, unused, ctypes.addressof(many), self._rows
        )
        self._free = free[: many.value].copy()
        if self._rows > len(self._pool):
            pool = self._pool.new_empty((self._rows + self._rows // 8, self._pool.shape[1]))
            pool[: len(self._pool)] = self._pool
            self._pool = pool
        return row
