"""What agents in rounds make, computed round by round in rows of a pool, the same in every other round.

Agent i has rows of its own, in two halves: what it keeps when a round begins lies in that round's half, and
so does what it makes in the round, but for what it keeps for the next. A neighbour is a round ahead at most,
so that what it sent is still there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from offbeat.core.system import kernel
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.placeholders import GRADIENT, HEARD, MADE, STATE, ZERO, Source
from offbeat.engines.sim.ahead.round_reading import Form, RoundForms
from offbeat.engines.sim.ahead.timetable import Bools, Floats, Ints, begin_of
from offbeat.engines.sim.executors import widest
from offbeat.tasks.task import Task

Made = tuple[int, list[tuple[int, float]]]  # a row, and the rows that it is a sum of, with coefficients


@dataclass(frozen=True, eq=False)
class Pass:
    """Forms over rows, agent by agent: how many there are of each agent; of each the row and its terms."""

    many: Ints
    out: Ints
    terms: Ints
    slots: Ints
    coefficients: Floats

    @staticmethod
    def of(made: Sequence[Sequence[Made]]) -> "Pass":
        """What each agent makes."""
        flat = [each for mine in made for each in mine]
        terms = [term for _, sums in flat for term in sums]
        return Pass(
            np.array([len(mine) for mine in made], dtype=np.int64),
            np.array([row for row, _ in flat], dtype=np.int64),
            np.array([len(sums) for _, sums in flat], dtype=np.int64),
            np.array([row for row, _ in terms], dtype=np.int64),
            np.array([c for _, c in terms], dtype=np.float64),
        )

    def among(self, active: Bools) -> "Pass":
        """Those of some agents."""
        forms = np.repeat(active, self.many)
        terms = np.repeat(forms, self.terms)
        slots, coefficients = self.slots[terms], self.coefficients[terms]
        return Pass(self.many[active], self.out[forms], self.terms[forms], slots, coefficients)

    def then(self, other: "Pass") -> kernel.Forms:
        """All of these, then all of those."""
        terms = np.concatenate([self.terms, other.terms])
        slots = np.concatenate([self.slots, other.slots])
        coefficients = np.concatenate([self.coefficients, other.coefficients])
        return kernel.Forms(np.concatenate([self.out, other.out]), begin_of(terms), slots, coefficients)


@dataclass(frozen=True, eq=False)
class Laid:
    """A round in rows: where gradients are taken, and where they go, [n]; what is made as soon as the own
    gradient is there, and what when all letters are; all forms.
    """

    models: Ints
    gradients: Ints
    early: Pass
    late: Pass
    forms: kernel.Forms

    @staticmethod
    def of(models: Ints, gradients: Ints, early: Pass, late: Pass) -> "Laid":
        return Laid(models, gradients, early, late, early.then(late))

    def among(self, early: Bools, late: Bools) -> "Laid":
        """What some agents make of it."""
        if early.all() and late.all():
            return self
        parts = self.early.among(early), self.late.among(late)
        return Laid.of(self.models[early], self.gradients[early], *parts)


class RoundValues:
    """The values of a run.

    Args:
        read: of each agent, what it makes
        senders: of each from whom its letters are, in the order of its inputs

    Attributes:
        at_end: whether letters are sent as rounds begin, so that all can be made as they end
    """

    def __init__(self, task: Task, read: Sequence[RoundForms], senders: Sequence[Sequence[int]]) -> None:
        self.task, self._read, self._senders, initial = task, read, senders, task.initial()
        native = getattr(task, "native", None)
        self._native: kernel.Gradient | None = None if native is None else native()
        self._widest = widest(initial, task.agents)
        self._different = [*{id(each): each for each in read}.values()]
        forms = [form for each in self._different for form in (each.initial, *each.all)]
        self.at_end = all(each.begins for each in read)
        self._kept = max(len(form.kept) for form in forms)
        self._made = max(len(form.loose) for form in forms)
        alone = all(self._alone(form) for form in forms)
        self._half = self._kept + self._made + (not alone)
        self._model, self._zero, self._scratch = (2 * len(read) * self._half + k for k in range(3))
        self._pools = tuple([part.new_zeros((self._scratch + 1, part.numel())) for part in initial])
        for pool, part in zip(self._pools, initial, strict=True):
            pool[self._model] = part
        self._laid = dict[Any, Laid]()
        begun = Pass.of([self._forms(i, -1)[1] for i in range(len(read))])
        self._make(begun.then(Pass.of([])))

    # -- rows --------------------------------------------------------------------------------------

    def _form(self, i: int, k: int) -> Form:
        """What agent i makes in round k; -1: before the first."""
        return self._read[i].initial if k < 0 else self._read[i].all[self._read[i].at(k)]

    def _place(self, i: int, k: int, place: int) -> int:
        """In round k's half of agent i's rows, in which what it keeps comes first."""
        return (2 * i + k % 2) * self._half + place

    def _row(self, i: int, k: int, source: Source) -> int:
        """Of what enters agent i's round k, or is made in it."""
        (what, which), form = source, self._form(i, k)
        if what == ZERO:
            return self._zero
        if what == STATE:
            return self._model if k < 0 else self._place(i, k, which)
        if what == HEARD:
            return self._heard(i, k, which)
        if source in form.kept:
            return self._place(i, k + 1, form.kept.index(source))
        if what == MADE:
            return self._place(i, k, self._kept + form.loose.index(which))
        return self._scratch if self._alone(form) else self._place(i, k, self._kept + self._made)

    def _alone(self, form: Form) -> bool:
        """Whether a gradient is not needed when the next is made, but for what is kept of it."""
        late = [what for terms in form.forms[form.early :] for what, _, _ in terms]
        return self._native is not None and (self.at_end or GRADIENT not in late)

    def _heard(self, i: int, k: int, which: int) -> int:
        """Of a letter that agent i gets in round k."""
        wide = len(self._read[i].letter)
        j, field = self._senders[i][which // wide], which % wide
        if self._read[j].begins:
            return self._place(j, k, self._form(j, k - 1).letter[field])
        return self._row(j, k, self._form(j, k).letter[field])

    def _forms(self, i: int, k: int) -> tuple[list[Made], list[Made]]:
        """What agent i makes in round k, at the gradient and at its end."""
        form, early, late = self._form(i, k), list[Made](), list[Made]()
        for c, terms in enumerate(form.forms):
            sums = [(self._row(i, k, (what, which)), x) for what, which, x in terms]
            (early if c < form.early else late).append((self._row(i, k, (MADE, c)), sums))
        for place, source in enumerate(form.kept):
            if source[0] in (STATE, HEARD, ZERO):
                late.append((self._place(i, k + 1, place), [(self._row(i, k, source), 1.0)]))
        return early, late

    def _lay(self, k: int) -> Laid:
        """Round k of everybody."""
        agents = range(len(self._read))
        made = [self._forms(i, k) for i in agents]
        if self.at_end:
            made = [([*early, *late], []) for early, late in made]
        models = np.array([self._place(i, k, self._form(i, k - 1).asked) for i in agents])
        gradients = np.array([self._row(i, k, (GRADIENT, 0)) for i in agents])
        return Laid.of(models, gradients, *[Pass.of(each) for each in zip(*made, strict=True)])

    # -- values ------------------------------------------------------------------------------------

    def round(self, k: int, early: Bools, late: Bools, samples: Sequence[np.ndarray]) -> None:
        """Of round k what these agents make at their gradients, whose minibatches these are, and what those
        make at its end.
        """
        key = k % 2, k == 0, *[(each.at(k), each.at(max(0, k - 1))) for each in self._different]
        if key not in self._laid:
            self._laid[key] = self._lay(k)
        laid = self._laid[key].among(early, late)
        if self._native is None or not len(samples):
            self._gradients(laid, np.flatnonzero(early).tolist(), samples)
            self._make(laid.forms)
            return
        m, ends = len(laid.models), begin_of(laid.early.many)
        program = kernel.Program(
            laid.models, np.ascontiguousarray(np.stack(samples), np.int64), np.append(np.arange(m + 1), m),
            np.append(ends, len(laid.forms.out)), laid.gradients, laid.forms, apart=True,
        )  # fmt: skip
        kernel.steps(self._native, self._pools[0], program)

    def _gradients(self, laid: Laid, agents: list[int], samples: Sequence[np.ndarray]) -> None:
        """With torch, as many in one call as go together."""
        for at in range(0, len(agents), self._widest):
            some = slice(at, at + self._widest)
            made = self.task.gradients(agents[some], [*samples[some]], self._gathered(laid.models[some]))
            to = torch.from_numpy(laid.gradients[some])
            for pool, part in zip(self._pools, made, strict=True):
                pool.index_copy_(0, to.to(pool.device), part)

    def _make(self, forms: kernel.Forms) -> None:
        for pool in self._pools:
            kernel.rows(pool, forms)

    def _gathered(self, rows: Ints) -> Parts:
        return tuple([pool.index_select(0, torch.from_numpy(rows).to(pool.device)) for pool in self._pools])

    def models(self, rounds: Sequence[int]) -> Parts:
        """The agents' models after so many rounds of each, [n, P]: the last that were made."""
        places = [self._place(i, k, self._form(i, k - 1).model) for i, k in enumerate(rounds)]
        return self._gathered(np.array(places))
