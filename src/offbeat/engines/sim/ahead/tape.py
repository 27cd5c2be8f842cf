"""What the writes of a segment make, value by value: the forms of each, with the values that enter them.

A write makes the values of its agent's `UpdateForm`, one form each. Where mail comes, it makes first the
running sum with what has come, and last what it gives: its difference, added to what still waits to leave; an
agent's first one also counted from the initial model on. A form of one term with the coefficient 1 makes
nothing, it is another name. Several runs lie side by side as a disjoint union.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offbeat.engines.sim.ahead.timetable import Bools, Floats, Ints, Timetable, begin_of, ranges
from offbeat.engines.sim.ahead.update_form import HEARD, INITIAL, MADE, OWN, SUM, UpdateForm

MODEL, RUNNING, GIVEN, FIRST = range(4)
"""What others ask for of a write: the model, the running sum, what was given away last, that counted from the
initial model on."""
Codes = np.ndarray[Any, np.dtype[np.signedinteger[Any]]]
THE_GRADIENT = -(1 << 62)  # as a value: the gradient of the write itself


def carried(write: int | Ints, role: int) -> Ints:
    """A value of a segment before: writes there are named by -1, which is the start, -2, ..."""
    return np.asarray(-1 - 4 * (-1 - np.asarray(write)) - role)


START, ZERO = int(carried(-1, MODEL)), int(carried(-1, RUNNING))


class Templates:
    """The forms of all agents of runs side by side, as arrays.

    Attributes:
        form: number of the form, for each of those that were given
        values: where a form's values begin, among all; terms: where a value's terms begin
        what, which, scale: of the terms
        model, given: of each form, its value that is that; unheard: what stands in for the unheard
    """

    def __init__(self, forms: Sequence[UpdateForm], mail: bool) -> None:
        numbers = {id(form): 0 for form in forms}
        numbers = {key: number for number, key in enumerate(numbers)}
        self.form, self.mail = np.array([numbers[id(form)] for form in forms]), mail
        distinct = [*{id(form): form for form in forms}.values()]
        values = [[(), *form.forms, (), ()] if mail else form.forms for form in distinct]
        flat = [terms for each in values for terms in each]
        self.values = begin_of(np.array([len(each) for each in values]))
        self.terms = begin_of(np.array([len(terms) for terms in flat]))
        columns = [*zip(*(term for terms in flat for term in terms), strict=True)]
        self.what, self.which = np.array(columns[0], dtype=np.int8), np.array(columns[1], dtype=np.int32)
        self.scale = np.array(columns[2], dtype=np.float64)
        self.model = mail + np.array([form.model for form in distinct])
        self.given = np.array([mail + form.given if form.given >= 0 else -1 for form in distinct])
        self.unheard = np.array([form.unheard for form in distinct])


@dataclass(eq=False)
class Tape:
    """The writes of a segment of runs side by side, by time, and what each makes.

    Attributes:
        time, agent, name: of each write; agents are counted through all runs, names within each
        begin: where the values of each write begin
        first, source, scale: where the terms of each value begin, the values that enter, and with what; a
            value that has no terms is another name or there is none
        before, model: of each write the model at which its gradient is taken, and the new one
        after: values that a later segment may ask for, by write and role: [., 4]; THE_GRADIENT: not this one
    """

    time: Floats
    agent: Ints
    name: Ints
    begin: Ints
    first: Ints
    source: Ints
    scale: Floats
    before: Ints
    model: Ints
    after: Ints


@dataclass(frozen=True, eq=False)
class Side:
    """A run of several: its timetable; the place of each agent's forms, and of its weights, among all."""

    table: Timetable
    forms: Ints
    many: Ints  # how many each agent has
    weights: Ints


def lay(sides: Sequence[Side], after: Sequence[int], templates: Templates, weights: Floats) -> Tape:
    """The tape of runs side by side. after: how many writes each has carried over from the segment before."""
    tables = [side.table for side in sides]
    begin = begin_of(np.array([len(table.time) for table in tables]))
    by = [*zip(begin.tolist(), begin_of(np.array(after)).tolist(), strict=False)]
    time = np.concatenate([table.time for table in tables])
    order, many = np.argsort(time, kind="stable"), 1 + sum(after)
    place = np.empty(len(time) + many, dtype=np.int64)
    place[order], place[len(time) :] = np.arange(len(time)), np.arange(-many, 0)

    def writes(columns: Sequence[Ints]) -> Ints:
        """The same writes among those of all runs."""
        moved = [_shifted(c, w, a) for c, (w, a) in zip(columns, by, strict=False)]
        found: Ints = place[np.concatenate(moved)]
        return found

    def column(columns: Sequence[np.ndarray]) -> np.ndarray:
        made: np.ndarray = np.concatenate(columns)[order]
        return made

    agents = begin_of(np.array([table.n for table in tables])).tolist()
    step = [
        (t.version - 1) % side.many[t.agent] if t.mail is None else t.mail.counted for t, side in _both(sides)
    ]
    form = column([side.forms[t.agent] + k for (t, side), k in zip(_both(sides), step, strict=True)])
    counts = np.concatenate([np.diff(t.first) for t in tables])
    first = begin_of(counts)
    _, at = ranges(first[order], first[order] + counts[order])
    made = _Made(
        templates.form[form], templates, writes([t.own for t in tables])[order],
        (begin_of(counts[order]), writes([t.terms for t in tables])[at]),
    )  # fmt: skip
    if templates.mail:
        mails = [t.mail for t in tables if t.mail is not None]
        senders = [t.agent[np.repeat(np.arange(len(t.time)), np.diff(t.first))] for t in tables]
        scale = [side.weights[i] + m.place for side, i, m in zip(sides, senders, mails, strict=True)]
        made.take_in(weights[np.concatenate(scale)[at]], np.concatenate([m.first for m in mails])[at])
        made.give(column([m.alone for m in mails]), column([t.version for t in tables]) == 1)
    made.resolve()
    kept = writes([table.after[1:] for table in tables])
    newest = np.concatenate([np.arange(len(t.after) - 1) < t.n for t in tables])
    asked = np.stack([made.role(kept, role) for role in range(4)], axis=1)
    asked[~newest, :GIVEN] = THE_GRADIENT
    if not templates.mail:
        asked[:, [RUNNING, FIRST]] = THE_GRADIENT
    return Tape(
        time[order], column([t.agent + a for t, a in zip(tables, agents, strict=False)]),
        column([t.agent for t in tables]), made.begin, made.first, made.source, made.scale,
        made.role(made.own, MODEL), made.roles[:, MODEL], asked,
    )  # fmt: skip


def _both(sides: Sequence[Side]) -> list[tuple[Timetable, Side]]:
    return [(side.table, side) for side in sides]


class _Made:
    """The values of all writes as they are put together. form: of each write, its number."""

    def __init__(self, form: Ints, templates: Templates, own: Ints, takes: tuple[Ints, Ints]) -> None:
        t, self.own, self._takes = templates, own, takes
        self.begin = begin_of(t.values[form + 1] - t.values[form])
        begin, end = self.begin[:-1], self.begin[1:]
        last = (end - 2, end - 1) if t.mail else (begin + t.given[form], begin)
        self.roles = np.stack([begin + t.model[form], begin, *last], axis=1)
        self._difference = begin + t.given[form]
        self._give_again(t.given[form] < 0)
        write, value = ranges(t.values[form], t.values[form + 1])
        self.first = begin_of(t.terms[value + 1] - t.terms[value])
        values, term = ranges(t.terms[value], t.terms[value + 1])
        write, what, which, self.scale = write[values], t.what[term], t.which[term], t.scale[term]
        del values, value, term  # there are millions
        self.source = self._sources(write, form, t, what, which)

    @property
    def _value(self) -> Ints:
        """Of each term its value."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    def _give_again(self, silent: Bools) -> None:
        """Who gives nothing away has given what the write before has."""
        giver = np.where(silent, self.own, np.arange(len(silent)))
        again = np.flatnonzero(silent)
        while len(again := again[giver[again] >= 0]) and len(again := again[silent[giver[again]]]):
            giver[again] = giver[giver[again]]
        self.roles[silent, GIVEN] = self.role(giver[silent], GIVEN)

    def role(self, writes: Ints, role: int) -> Ints:
        """That value of these writes, here or of a segment before."""
        values, here = carried(writes, role), writes >= 0
        values[here] = self.roles[writes[here], role]
        return values

    def _sources(self, write: Ints, form: Ints, t: Templates, what: Codes, which: Codes) -> Ints:
        """What the terms of the forms are of."""
        source = np.full(len(what), THE_GRADIENT)
        heard = np.flatnonzero(what == HEARD)
        if len(heard):
            first, terms = self._takes
            giver = terms[first[write[heard]] + which[heard]]
            source[heard] = self.role(giver, GIVEN)
            lone = heard[giver == write[heard]]
            what[lone], which[lone] = t.unheard[form[write[lone]]].T
        own, made, sums = (np.flatnonzero(what == code) for code in (OWN, MADE, SUM))
        source[own] = self.role(self.own[write[own]], MODEL)
        source[made] = self.begin[write[made]] + t.mail + which[made]
        source[sums] = self.begin[write[sums]] if t.mail else ZERO
        source[what == INITIAL] = START
        return source

    def take_in(self, weights: Floats, early: Bools) -> None:
        """The running sums: that of the write before, and what has come, from left to right."""
        first, terms = self._takes
        everybody, (write, _) = np.arange(len(self.own)), ranges(first[:-1], first[1:])
        what = np.where(early, self.role(terms, FIRST), self.role(terms, GIVEN))
        value = self.begin[np.concatenate([everybody, write])]
        source = np.concatenate([self.role(self.own, RUNNING), what])
        self._insert(value, source, np.concatenate([np.ones(len(everybody)), weights]))

    def give(self, alone: Bools, early: Bools) -> None:
        """What is given away: the difference, added to what still waits; at first, to the first model too."""
        given, first = self.roles[:, GIVEN], self.roles[early, FIRST]
        value = np.concatenate([given[~alone], given, first, first])
        source = [self.role(self.own[~alone], GIVEN), self._difference]
        source += [np.full(len(first), START), self._difference[early]]
        self._insert(value, np.concatenate(source), np.ones(len(value)))

    def _insert(self, value: Ints, source: Ints, scale: Floats) -> None:
        """Terms of values that had none."""
        value = np.concatenate([self._value, value])
        order = np.argsort(value, kind="stable")
        self.source = np.concatenate([self.source, source])[order]
        self.scale = np.concatenate([self.scale, scale])[order]
        self.first = begin_of(np.bincount(value, minlength=int(self.begin[-1])))

    def resolve(self) -> None:
        """Replace what is only another name; it has no terms any more."""
        single = np.flatnonzero(np.diff(self.first) == 1)
        at = self.first[single]
        names = (self.scale[at] == 1.0) & (self.source[at] != THE_GRADIENT)
        single, at = single[names], at[names]
        if not len(single):
            return
        same = np.arange(int(self.begin[-1]))
        same[single] = self.source[at]
        while len(through := np.flatnonzero((same >= 0) & (same != np.arange(len(same))))):
            further = same[same[through]]
            if (further == same[through]).all():
                break
            same[through] = further
        stay = np.ones(len(self.source), dtype=np.bool_)
        stay[at] = False
        self.first = begin_of(np.bincount(self._value[stay], minlength=len(same)))
        self.scale, self.source = self.scale[stay], self.source[stay]
        here = self.source >= 0
        self.source[here] = same[self.source[here]]
        here = self.roles >= 0
        self.roles[here] = same[self.roles[here]]


def _shifted(writes: Ints, by: int, carried_: int) -> Ints:
    """The same writes where others come before them, and others are carried over before them; -1 stays."""
    return np.where(writes >= 0, writes + by, np.where(writes == -1, -1, writes - carried_))
