"""What the writes of a segment make, value by value: the forms of each, with the values that enter them.

A step makes the cells of its agent's template, one form each: a value of the run. A cell of one term with the
coefficient 1 makes nothing, it is another name; and a form that only begins the next one is that one's
beginning. Several runs lie side by side as a disjoint union.

Values of the segment before, which it carried over, are negative numbers: what all start from, zero, then
run by run every agent's vectors, and what else may still be mixed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from offbeat.core.forms import Piece
from offbeat.engines.sim.ahead.placeholders import HEARD, MADE, STATE, ZERO, Share
from offbeat.engines.sim.ahead.states import ASKED, MODEL, Template
from offbeat.engines.sim.ahead.timetable import Floats, Ints, Timetable, begin_of, ranges

THE_GRADIENT = -(1 << 62)  # as a value: the gradient of the write itself
CARRIED = 2  # so many are there before those of the runs:
INITIAL, NONE = -1, -2


class Templates:
    """The templates of all agents of runs side by side, as arrays.

    Attributes:
        cells: where a template's cells begin, among all; terms: where a cell's terms begin
        what, which, scale: of the terms
        cut, pieces: of which of these pieces of a model each term is, -1: of all of it; None: all are
        shared, factors: whether a term's coefficient is the learning rate's share, times these in turn
        outs: where its vectors begin; out: of each of them its cell
    """

    def __init__(self, templates: Sequence[Template], fields: Sequence[Sequence[tuple[int, int]]]) -> None:
        """Of each template `fields` says, for what may be heard, its input, and which vector of that."""
        self.cells = begin_of(np.array([len(each.cells) for each in templates], dtype=np.int64))
        flat = [terms for each in templates for terms in each.cells]
        self.terms = begin_of(np.array([len(terms) for terms in flat], dtype=np.int64))
        columns = [*zip(*(term for terms in flat for term in terms), strict=True)] or [(), (), ()]
        self.what, self.which = np.array(columns[0], dtype=np.int8), np.array(columns[1], dtype=np.int32)
        shares = [c.factors if isinstance(c, Share) else None for c in columns[2]]
        self.shared = np.array([each is not None for each in shares], dtype=np.bool_)
        self.scale = np.array([1.0 if isinstance(c, Share) else c for c in columns[2]], dtype=np.float64)
        longest = max([len(each) for each in shares if each], default=0)
        self.factors = [
            np.array([each[k] if each and k < len(each) else 1.0 for each in shares]) for k in range(longest)
        ]
        self.cut, self.pieces = self._cut(templates)
        owner = np.repeat(np.arange(len(templates)), np.diff(self.terms[self.cells]))
        heard = np.flatnonzero(self.what == HEARD)
        pairs = [fields[t][k] for t, k in zip(owner[heard].tolist(), self.which[heard].tolist(), strict=True)]
        self.field = np.zeros_like(self.which)
        self.which[heard], self.field[heard] = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
        self.outs = begin_of(np.array([len(each.outs) for each in templates], dtype=np.int64))
        self.out = np.array([cell for each in templates for cell in each.outs], dtype=np.int64)

    def _cut(self, templates: Sequence[Template]) -> tuple[Ints | None, tuple[Piece, ...]]:
        cuts = [
            (cell + at, cut)
            for each, cell in zip(templates, self.cells.tolist(), strict=False)
            for at, cut in each.cuts.items()
        ]
        if not cuts:
            return None, ()
        number = {piece: k for k, piece in enumerate(dict.fromkeys(p for _, cut in cuts for p in cut))}
        found = np.full(self.terms[-1], -1)
        for cell, cut in cuts:
            found[self.terms[cell] : self.terms[cell + 1]] = [number[piece] for piece in cut]
        return found, (*number,)


@dataclass(eq=False)
class Tape:
    """The writes of a segment of runs side by side, by time, and what each makes.

    Attributes:
        time, agent, name: of each write; agents are counted through all runs, names within each
        begin: where the values of each write begin
        first, source, scale: where the terms of each value begin, the values that enter, and with what; a
            value that has no terms is another name or there is none
        cut, pieces: as `Templates` has them; consecutive terms of one piece of a value make that
        before, model: of each write the value at which its gradient is taken, and the new model
        start: the model of each agent before the segment
        after: the values that the next segment may ask for, as it numbers them from CARRIED on
    """

    time: Floats
    agent: Ints
    name: Ints
    begin: Ints
    first: Ints
    source: Ints
    scale: Floats
    cut: Ints | None
    pieces: tuple[Piece, ...]
    before: Ints
    model: Ints
    start: Ints
    after: Ints


@dataclass(frozen=True, eq=False)
class Side:
    """A run of several: its timetable; the number of the first of its templates; and, of the vectors that
    were carried over to it beside its agents' own, where those of each content begin.
    """

    table: Timetable
    templates: int
    kept: Ints


class Laid:
    """The steps of runs side by side, in the order of time: of each where its values begin, its agent's step
    before, and where its inputs begin. What was carried over takes the place of a step as minus the number
    of the first of its vectors, less one.
    """

    def __init__(self, sides: Sequence[Side], templates: Templates) -> None:
        self.templates, tables = templates, [side.table for side in sides]
        played = [table.played for table in tables]
        self.order = np.argsort(np.concatenate([table.time for table in tables]), kind="stable")
        place = np.empty_like(self.order)
        place[self.order] = np.arange(len(place))
        writes = _begins(len(table.time) for table in tables)
        write = place[np.concatenate([p.write + at for p, at in zip(played, writes, strict=True)])]
        order = np.argsort(write, kind="stable")
        self._place = np.empty_like(order)
        self._place[order] = np.arange(len(order))
        self.write = write[order]
        self.template = np.concatenate([s.table.played.template + s.templates for s in sides])[order]
        self.begin = begin_of(np.diff(templates.cells)[self.template])
        steps, self.contents = _begins(len(p.write) for p in played), _begins(len(t.name) for t in tables)
        inputs, at, self.agents = _begins(len(p.terms) for p in played), CARRIED, list[Ints]()
        before, names, ends = list[Ints](), list[Ints](), list[Ints]()
        for side, p, step in zip(sides, played, steps, strict=True):
            own = at + begin_of(p.many[0])
            codes = -1 - np.concatenate([own[:-1], own[-1] + side.kept])
            at = int(own[-1] + side.kept[-1])
            self.agents.append(own)
            before.append(self._here(p.before, codes, step))
            ends.append(self._here(p.ends, codes, step))
            name = side.table.name
            content = np.where(name >= 0, np.append(p.last, -1)[np.maximum(name, -1)], name)
            names.append(self._here(content, codes, step))
        self.before = np.concatenate(before)[order]
        self.first = np.concatenate(
            [p.first[: len(p.write)] + k for p, k in zip(played, inputs, strict=True)]
        )[order]
        self.terms = np.concatenate([p.terms + k for p, k in zip(played, self.contents, strict=True)])
        self.content = np.concatenate(names), np.concatenate([_place(t) for t in tables])
        self.ends = ends
        last = np.concatenate([p.last + k for p, k in zip(played, steps, strict=True)])
        self.last = self._place[last][self.order]

    def _here(self, steps: Ints, codes: Ints, at: int) -> Ints:
        """A run's steps as those here; -2, -3, ... as `codes` has it."""
        found = codes[np.clip(-2 - steps, 0, len(codes) - 1)]
        here = steps >= 0
        found[here] = self._place[steps[here] + at]
        return found

    def out(self, step: Ints, k: Ints | int) -> Ints:
        """The k-th vector after a step, as a value."""
        t, values = self.templates, np.asarray(step - k)
        here = step >= 0
        made = self.template[step[here]]
        values[here] = self.begin[step[here]] + t.out[t.outs[made] + (k if isinstance(k, int) else k[here])]
        return values

    def given(self, transmission: Ints, k: Ints) -> Ints:
        """The k-th vector that a transmission carries."""
        step, place = self.content
        return self.out(step[transmission], place[transmission] + k)


def _begins(counts: Iterable[int]) -> list[int]:
    begin: list[int] = begin_of(np.array([*counts], dtype=np.int64))[:-1].tolist()
    return begin


def _place(table: Timetable) -> Ints:
    """Of each transmission the place of its content's first vector; what is kept is there alone."""
    return np.where(table.name < -1 - table.n, 0, table.content)


def lay(sides: Sequence[Side], templates: Templates) -> Tape:
    """The tape of runs side by side."""
    laid, t, tables = Laid(sides, templates), templates, [side.table for side in sides]
    step, cell = ranges(t.cells[laid.template], t.cells[laid.template + 1])
    first = begin_of(t.terms[cell + 1] - t.terms[cell])
    value, term = ranges(t.terms[cell], t.terms[cell + 1])
    owner, what, which = step[value], t.what[term], t.which[term]
    source = np.full(len(term), THE_GRADIENT)
    source[what == ZERO] = NONE
    made, state, heard = (np.flatnonzero(what == code) for code in (MADE, STATE, HEARD))
    source[made] = laid.begin[owner[made]] + which[made]
    source[state] = laid.out(laid.before[owner[state]], which[state].astype(np.int64))
    taken = laid.terms[laid.first[owner[heard]] + which[heard]]
    source[heard] = laid.given(taken, t.field[term[heard]].astype(np.int64))
    scale, cut = t.scale[term], None if t.cut is None else t.cut[term]
    if t.shared.any():
        share = np.concatenate([table.share for table in tables])[laid.order]
        now = t.shared[term]
        scale[now] = share[laid.write[owner[now]]]
        for each in t.factors:
            scale[now] *= each[term[now]]
    del what, which, owner, value, term  # there are millions
    begin = laid.begin[np.searchsorted(laid.write, np.arange(len(laid.order) + 1))]
    agents = _begins(table.n for table in tables)
    asked, model = laid.out(laid.before[laid.last], ASKED), laid.out(laid.last, MODEL)
    after = [_after(laid, k, table) for k, table in enumerate(tables)]
    tape = Tape(
        np.concatenate([table.time for table in tables])[laid.order],
        np.concatenate([table.agent + a for table, a in zip(tables, agents, strict=True)])[laid.order],
        np.concatenate([table.agent for table in tables])[laid.order],
        begin, first, source, scale, cut, t.pieces, asked, model,
        np.concatenate([-1 - own[:-1] - MODEL for own in laid.agents]), np.concatenate(after),
    )  # fmt: skip
    _name_anew(tape)
    return tape


def _after(laid: Laid, run: int, table: Timetable) -> Ints:
    """What the next segment may ask for: all vectors of each agent, and what else it may mix."""
    agent, k = ranges(np.zeros(table.n, dtype=np.int64), table.played.many[1])
    which, place = ranges(np.zeros_like(table.kept[1]), table.kept[1])
    first = laid.contents[run]
    return np.concatenate(
        [laid.out(laid.ends[run][agent], k), laid.given(first + table.kept[0][which], place)]
    )


def _name_anew(tape: Tape) -> None:
    """Replace what is only another name; it has no terms any more."""
    single = np.flatnonzero(np.diff(tape.first) == 1)
    at = tape.first[single]
    names = (tape.scale[at] == 1.0) & (tape.source[at] != THE_GRADIENT)
    single, at = single[names], at[names]
    if not len(single):
        return
    same = np.arange(len(tape.first) - 1)
    same[single] = tape.source[at]
    while len(through := single[same[single] >= 0]):  # pointers are doubled until nothing moves
        further = same[same[through]]
        if (further == same[through]).all():
            break
        same[through] = further
    stay = np.ones(len(tape.source), dtype=np.bool_)
    stay[at] = False
    count = np.diff(tape.first)
    count[single] = 0
    tape.first, tape.scale, tape.source = begin_of(count), tape.scale[stay], tape.source[stay]
    if tape.cut is not None:
        tape.cut = tape.cut[stay]
    for values in (tape.source, tape.before, tape.model, tape.after):
        here = values >= 0
        values[here] = same[values[here]]
