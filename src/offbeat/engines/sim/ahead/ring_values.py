"""What agents in a ring make, averaging by averaging in rows of a pool, each in one compiled call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from offbeat.core.forms import pieces
from offbeat.core.system import kernel
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.ring_reading import TOTAL, Form, RingForms
from offbeat.engines.sim.ahead.timetable import Bools, Floats, Ints, begin_of

NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Chunks:
    """Of a program: gradients, each with the same number of forms after it; or forms alone.

    Attributes:
        asked, made: the rows where gradients are taken, and where they go
    """

    forms: kernel.Forms
    asked: Ints
    made: Ints

    @property
    def counts(self) -> tuple[Ints, Ints]:
        """Of each chunk how many gradients are in it, and how many forms."""
        m, forms = len(self.asked), len(self.forms.out)
        return (
            (np.ones(m, np.int64), np.full(m, forms // m))
            if m
            else (np.zeros(1, np.int64), np.full(1, forms))
        )


class RowValues:
    """The values of a run of n agents whose gradients are compiled."""

    def __init__(self, initial: Parts, native: kernel.Gradient, n: int, read: RingForms) -> None:
        (start,) = initial
        self.n, self.writes, self._native, self._read = n, read.writes, native, read
        self._pool = start.new_zeros((n * read.rows + 4, start.numel()))
        self._pool[n * read.rows] = start
        self._models = self._rows(np.arange(n), [read.begin.model])  # the row of each
        self._laid, self._summed = dict[int | None, kernel.Program](), -1  # the last averaging that is summed
        kernel.rows(self._pool, self._made(read.begin.forms, np.arange(n)))

    # -- rows --------------------------------------------------------------------------------------

    def _rows(self, who: Ints, rows: Sequence[int]) -> Ints:
        """Where these lie, agent after agent."""
        at, many = np.array(rows, dtype=np.int64), self._read.rows
        return np.where(at >= 0, who[:, None] * many + at, self.n * many - 1 - at).ravel()

    def _made(self, forms: Sequence[Form], who: Ints) -> kernel.Forms:
        """What these agents make, agent after agent."""
        terms, m = [term for _, each in forms for term in each], len(forms) * len(who)
        return kernel.Forms(
            self._rows(who, [row for row, _ in forms]),
            begin_of(np.tile(np.array([len(each) for _, each in forms], dtype=np.int64), len(who))),
            self._rows(who, [row for row, _ in terms]),
            np.tile(np.array([c for _, c in terms], dtype=np.float64), len(who)),
            np.zeros(m, dtype=np.int64), np.full(m, self._pool.shape[1]),
        )  # fmt: skip

    def _sum(self, given: int) -> kernel.Forms:
        """Of each piece c those of agent c, c + 1, ..., added in this order."""
        n = self.n
        agents = np.arange(n)
        turn = (agents[:, None] + agents).ravel() % n
        ends = [piece.range(self._pool.shape[1]) for piece in pieces(n)]
        low, high = np.ascontiguousarray(np.array(ends, dtype=np.int64).T)
        return kernel.Forms(
            self._rows(agents, [TOTAL]), np.arange(n + 1) * n, self._rows(agents, [given])[turn],
            np.ones(n * n), low, high,
        )  # fmt: skip

    def _program(self, k: int, there: Bools, done: Bools, summing: bool) -> kernel.Program:
        """From phase k on: the gradients of who is there, the sum, the means of who is done."""
        read = self._read
        *gradients, mean = [read.all[read.at(k + p)] for p in range(len(there) + 1)]
        parts = [
            Chunks(self._made(each.forms, who), self._rows(who, [each.asked]), self._rows(who, [each.made]))
            for each, who in zip(gradients, map(np.flatnonzero, there), strict=True)
            if len(who)
        ]
        if summing:
            parts.append(Chunks(self._sum(gradients[-1].given), NONE, NONE))
        parts.append(Chunks(self._made(mean.forms, np.flatnonzero(done)), NONE, NONE))
        return _joined(parts)

    # -- values ------------------------------------------------------------------------------------

    def average(
        self, number: int, there: Bools, done: Bools, samples: Sequence[np.ndarray], times: Floats
    ) -> None:
        """Of this averaging: gradients of who is there, [h, n], on these minibatches, one after the other;
        means of who is done, [n]. When, [h + 1, n], does not matter to them.
        """
        k, summing = number * len(times), number > self._summed and bool(done.any())
        at = self._read.at(k) if summing and there.all() and done.all() else None
        program = self._laid.get(at) or self._program(k, there, done, summing)
        if at is not None:
            self._laid[at] = program
        index = np.ascontiguousarray(np.stack(samples), np.int64) if samples else program.index
        if not kernel.steps(self._native, self._pool, replace(program, index=index)):
            raise NoTimetable
        self._summed += summing
        for p, mask in enumerate((*there, done)):
            if len(who := np.flatnonzero(mask)):
                self._models[who] = self._rows(who, [self._read.all[self._read.at(k + p)].model])

    def models(self) -> Parts:
        """The agents' models, [n, P]."""
        return (self._pool.index_select(0, torch.from_numpy(self._models)),)


def _joined(parts: Sequence[Chunks]) -> kernel.Program:
    """One part after the other, without minibatches."""

    def column(of: Callable[[Chunks], Any]) -> Any:
        return np.concatenate([of(part) for part in parts])

    forms = kernel.Forms(
        column(lambda part: part.forms.out), begin_of(column(lambda part: np.diff(part.forms.first))),
        column(lambda part: part.forms.slots), column(lambda part: part.forms.coefficients),
        column(lambda part: part.forms.low), column(lambda part: part.forms.high),
    )  # fmt: skip
    bounds, made = map(begin_of, map(np.concatenate, zip(*[part.counts for part in parts], strict=True)))
    asked, to = column(lambda part: part.asked), column(lambda part: part.made)
    return kernel.Program(asked, np.zeros((0, 1), np.int64), bounds, made, to, forms, apart=True)
