"""What agents in rounds make, computed round by round in rows of a pool, the same in every other round.

Agent i has rows of its own, in two halves: what it keeps when a round begins lies in that round's half, and
so does what it makes in the round, but for what it keeps for the next. A neighbour is a round ahead at most,
so that what it sent is still there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from offbeat.core.system import kernel
from offbeat.core.vector import Parts
from offbeat.engines.sim.ahead.placeholders import GRADIENT, HEARD, MADE, STATE, ZERO, Source
from offbeat.engines.sim.ahead.round_numbers import Counted, RoundNumbers, Varying, numbers_of
from offbeat.engines.sim.ahead.round_reading import Form, RoundForms
from offbeat.engines.sim.ahead.timetable import Bools, Floats, Ints, begin_of
from offbeat.engines.sim.executors import widest
from offbeat.tasks.task import Task

Made = tuple[Ints, list[tuple[Ints, float, Ints]]]
"""Of agents that are alike: the row of each, and the rows that it is a sum of, with their coefficients; or
with which of those of the round, else -1.
"""


@dataclass(frozen=True, eq=False)
class Pass:
    """Forms over rows, agent by agent: how many there are of each agent; of each the row and its terms; of
    terms with which coefficient, or, where that varies, with which of those of the round, else -1.
    """

    many: Ints
    out: Ints
    terms: Ints
    slots: Ints
    coefficients: Floats
    varying: Ints

    @staticmethod
    def of(groups: Sequence[tuple[Ints, Sequence[Made]]]) -> "Pass":
        """What agents make: those that are alike, with all that they do."""
        out, terms, slots, coefficients, varying = ([np.zeros(0, dtype=np.int64)] for _ in range(5))
        whose, of = ([np.zeros(0, dtype=np.int64)] for _ in range(2))  # of forms, and of terms
        for who, made in groups:
            sums = [term for _, each in made for term in each]
            whose.append(np.repeat(who, len(made)))
            of.append(np.repeat(who, len(sums)))
            out.append(np.array([rows for rows, _ in made], dtype=np.int64).T.ravel())
            terms.append(np.tile([len(each) for _, each in made], len(who)))
            slots.append(np.array([rows for rows, _, _ in sums], dtype=np.int64).T.ravel())
            coefficients.append(np.tile([c for _, c, _ in sums], len(who)))
            varying.append(np.array([which for _, _, which in sums], dtype=np.int64).T.ravel())
        agent, order = np.concatenate(whose), np.argsort(np.concatenate(of), kind="stable")
        by = np.argsort(agent, kind="stable")
        many = np.bincount(agent, minlength=sum([len(who) for who, _ in groups]))
        return Pass(
            many, np.concatenate(out)[by], np.concatenate(terms)[by].astype(np.int64),
            np.concatenate(slots)[order], np.concatenate(coefficients)[order].astype(np.float64),
            np.concatenate(varying)[order],
        )  # fmt: skip

    def among(self, active: Bools) -> "Pass":
        """Those of some agents."""
        forms = np.repeat(active, self.many)
        terms = np.repeat(forms, self.terms)
        of_terms = self.slots[terms], self.coefficients[terms], self.varying[terms]
        return Pass(self.many[active], self.out[forms], self.terms[forms], *of_terms)

    def then(self, other: "Pass") -> tuple[kernel.Forms, Ints]:
        """All of these, then all of those; with which of the coefficients of the round their terms are."""
        terms = np.concatenate([self.terms, other.terms])
        slots = np.concatenate([self.slots, other.slots])
        coefficients = np.concatenate([self.coefficients, other.coefficients])
        forms = kernel.Forms(np.concatenate([self.out, other.out]), begin_of(terms), slots, coefficients)
        return forms, np.concatenate([self.varying, other.varying])


@dataclass(frozen=True, eq=False)
class Laid:
    """A round in rows: where gradients are taken, and where they go, [n]; what is made as soon as the own
    gradient is there, and what when all letters are; all forms, and which of their terms, [k], have which
    of the coefficients of the round; what each agent does with numbers, empty if none has any.
    """

    models: Ints
    gradients: Ints
    early: Pass
    late: Pass
    forms: kernel.Forms
    terms: Ints
    which: Ints
    counted: Sequence[Counted | None]

    @staticmethod
    def of(
        models: Ints, gradients: Ints, early: Pass, late: Pass, counted: Sequence[Counted | None]
    ) -> "Laid":
        forms, varying = early.then(late)
        (terms,) = np.nonzero(varying >= 0)
        return Laid(models, gradients, early, late, forms, terms, varying[terms], counted)

    def among(self, early: Bools, late: Bools) -> "Laid":
        """What some agents make of it."""
        if early.all() and late.all():
            return self
        parts = self.early.among(early), self.late.among(late)
        return Laid.of(self.models[early], self.gradients[early], *parts, self.counted)

    def with_numbers(self, numbers: RoundNumbers, k: int) -> kernel.Forms:
        """The forms, if it is the k-th."""
        if not self.counted:
            return self.forms
        made, coefficients = self.forms.coefficients.copy(), numbers.of(k, self.counted)
        made[self.terms] = coefficients[self.which]
        return replace(self.forms, coefficients=made)


class RoundValues:
    """The values of a run.

    Args:
        read: of each agent, what it makes
        senders: of each from whom its letters are, in the order of its inputs, and which of the sender's

    Attributes:
        at_end: whether letters are sent as rounds begin, so that all can be made as they end
    """

    def __init__(
        self, task: Task, read: Sequence[RoundForms], senders: Sequence[Sequence[tuple[int, int]]]
    ) -> None:
        self.task, self._read, initial = task, read, task.initial()
        native = getattr(task, "native", None)
        self._native: kernel.Gradient | None = None if native is None else native()
        self._widest = widest(initial, task.agents)
        self._different = [*{id(each): each for each in read}.values()]
        groups = [[i for i, each in enumerate(read) if each is one] for one in self._different]
        self._groups = [np.array(who) for who in groups]
        self._inputs = [np.array([senders[i] for i in who]) for who in groups]  # [agents, letters, 2]
        begun, wide = [each.initial.counted for each in read], len(numbers_of(read[0].message))
        self._numbers = RoundNumbers(begun, senders, wide)
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
        self._make(self._lay(-1).forms)

    def forget(self, k: int) -> None:
        """Rounds before the k-th are over."""
        self._numbers.forget(k)

    # -- rows --------------------------------------------------------------------------------------

    def _place(self, who: Ints, k: int, place: int) -> Ints:
        """In round k's half of these agents' rows, in which what they keep comes first."""
        return (2 * who + k % 2) * self._half + place

    def _row(self, who: Ints, k: int, form: Form, source: Source) -> Ints:
        """Of what enters round k, which is this form, or is made in it; round -1 is before the first."""
        what, which = source
        if what == ZERO:
            return np.full_like(who, self._zero)
        if what == STATE:
            return np.full_like(who, self._model) if k < 0 else self._place(who, k, which)
        if source in form.kept:
            return self._place(who, k + 1, form.kept.index(source))
        if what == MADE:
            return self._place(who, k, self._kept + form.loose.index(which))
        if self._alone(form):
            return np.full_like(who, self._scratch)
        return self._place(who, k, self._kept + self._made)

    def _alone(self, form: Form) -> bool:
        """Whether a gradient is not needed when the next is made, but for what is kept of it."""
        late = [what for terms in form.forms[form.early :] for what, _, _ in terms]
        return self._native is not None and (self.at_end or GRADIENT not in late)

    def _letters(self, k: int) -> Ints:
        """The rows of the vectors of everybody's letters of round k: [n, vectors of all of them]."""
        most = max(len(each.to) for each in self._different)
        rows = np.zeros((len(self._read), most * len(self._read[0].letter)), dtype=np.int64)
        for read, who in zip(self._different, self._groups, strict=True):
            form = read.form(k)
            for f, of in enumerate(read.form(k - 1).letter if read.begins else form.letter):
                rows[who, f] = self._place(who, k, of) if read.begins else self._row(who, k, form, of)
        return rows

    def _lay(self, k: int) -> Laid:
        """Round k of everybody; -1: what is there when the first begins."""
        letters = self._letters(k) if k >= 0 else np.zeros((0, 1), dtype=np.int64)
        early, late = list[tuple[Ints, list[Made]]](), list[tuple[Ints, list[Made]]]()
        models, gradients = (np.zeros(len(self._read), dtype=np.int64) for _ in range(2))
        wide, counted = len(self._read[0].letter), [read.form(k).counted for read in self._read]
        begin = begin_of(np.array([0 if each is None else each.varying for each in counted]))
        for read, who, inputs in zip(self._different, self._groups, self._inputs, strict=True):
            form = read.form(k)

            def row(source: Source, form: Form = form, who: Ints = who, inputs: Ints = inputs) -> Ints:
                what, which = source
                if what == HEARD:
                    sender, number = inputs[:, which // wide].T
                    found: Ints = letters[sender, number * wide + which % wide]
                    return found
                return self._row(who, k, form, source)

            def term(what: int, which: int, c: Any, who: Ints = who) -> tuple[Ints, float, Ints]:
                if isinstance(c, Varying):
                    return row((what, which)), 0.0, begin[who] + c.which
                return row((what, which)), c, np.full_like(who, -1)

            made = [(row((MADE, c)), [term(*each) for each in terms]) for c, terms in enumerate(form.forms)]
            copied = [
                (self._place(who, k + 1, place), [term(*source, 1.0)])
                for place, source in enumerate(form.kept) if source[0] in (STATE, HEARD, ZERO)
            ]  # fmt: skip
            first = len(made) if self.at_end else form.early  # letters that are there before any gradient
            early.append((who, made[:first] + copied * self.at_end))
            late.append((who, made[first:] + copied * (not self.at_end)))
            gradients[who] = row((GRADIENT, 0))
            models[who] = self._place(who, k, read.form(k - 1).asked if k >= 0 else 0)
        passes = Pass.of(early), Pass.of(late)
        return Laid.of(models, gradients, *passes, counted if any(counted) else ())

    # -- values ------------------------------------------------------------------------------------

    def round(self, k: int, early: Bools, late: Bools, samples: Sequence[np.ndarray]) -> None:
        """Of round k what these agents make at their gradients, whose minibatches these are, and what those
        make at its end.
        """
        key = k % 2, k == 0, *[(each.at(k), each.at(max(0, k - 1))) for each in self._different]
        if key not in self._laid:
            self._laid[key] = self._lay(k)
        laid = self._laid[key].among(early, late)
        forms = laid.with_numbers(self._numbers, k)
        if self._native is None or not len(samples):
            self._gradients(laid, np.flatnonzero(early).tolist(), samples)
            self._make(forms)
            return
        m, ends = len(laid.models), begin_of(laid.early.many)
        program = kernel.Program(
            laid.models, np.ascontiguousarray(np.stack(samples), np.int64), np.append(np.arange(m + 1), m),
            np.append(ends, len(forms.out)), laid.gradients, forms, apart=True,
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
        places = [read.form(k - 1).model for read, k in zip(self._read, rounds, strict=True)]
        half = 2 * np.arange(len(self._read)) + np.asarray(rounds) % 2
        return self._gathered(half * self._half + np.array(places))
