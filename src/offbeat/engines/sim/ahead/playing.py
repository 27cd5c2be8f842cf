"""The agents of a run as machines of states and templates (`reading`): which template each of their steps is.

A gradient is a step. So is what is heard, where that changes a vector; what only changes the agent's state,
as that a register has been heard, is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.reading import Reading
from offbeat.engines.sim.ahead.rhythm import Rhythm
from offbeat.engines.sim.ahead.states import Template
from offbeat.engines.sim.ahead.timetable import Bools, Floats, Ints, begin_of, ranges


@dataclass(frozen=True, eq=False)
class Taken:
    """What gradients take in.

    Attributes:
        first, terms: where the inputs of each begin, and of each input the newest transmission; -1: none yet
        heard: what is handed over, in that order: before which write, transmission, when, to whom
        told: of each gradient what the agent is told before it, in that order: write, input, transmission
        there: of what passed, whether it is there
        alone: of each gradient, whether what was given before it has left, and is not added to
    """

    first: Ints
    terms: Ints
    heard: tuple[Ints, Ints, Floats, Ints]
    told: tuple[Ints, Ints, Ints]
    there: Bools
    alone: Bools | None = None


@dataclass(frozen=True, eq=False)
class Played:
    """The steps of a segment, in the order of their writes; those of one write as they come.

    Attributes:
        template, write: of each step; a template by its number among those of all readings
        before: its agent's step before; -2 - i: that of the segment before
        first, terms: where the inputs of each begin, and these: transmissions
        last: of each write its last step, the gradient
        ends: of each agent its newest step
        many: of each agent how many vectors it has before the segment, and after it
        mixed: write, neighbour, version
    """

    template: Ints
    write: Ints
    before: Ints
    first: Ints
    terms: Ints
    last: Ints
    ends: Ints
    many: tuple[Ints, Ints]
    mixed: tuple[Ints, Ints, Ints]


class Players:
    """All agents, each in its state.

    Attributes:
        readings: of each agent
    """

    def __init__(self, readings: Sequence[Reading], rhythm: Rhythm) -> None:
        self.readings, self._rhythm = readings, rhythm
        self._different = [*{id(each): each for each in readings}.values()]
        number = {id(each): k for k, each in enumerate(self._different)}
        self._which = np.array([number[id(each)] for each in readings])
        self._states = [each.start for each in readings]
        self._several = bool(len(rhythm.receiver)) and bool(
            (np.diff(np.stack([rhythm.receiver, rhythm.sender]), axis=1) == 0).all(axis=0).any()
        )

    @property
    def templates(self) -> list[Template]:
        """All so far; the numbers are those that `play` gave."""
        return [template for each in self._different for template in each.templates]

    @property
    def fields(self) -> list[list[tuple[int, int]]]:
        """Of each template what may be heard: inputs, and which vector of each."""
        return [each.fields for each in self._different for _ in each.templates]

    @property
    def initial(self) -> Ints:
        """Of the vectors of all agents at the start: 0 for what all start from, 1 for zero."""
        return np.array([zero for each in self.readings for zero in each.initial], dtype=np.int64)

    def play(self, agent: Ints, version: Ints, own: Ints, taken: Taken, sender: Ints, shown: Ints) -> Played:
        """The next segment. sender, shown: of transmissions, whose, and of which version of its model."""
        writes, before = len(agent), np.array([state.many for state in self._states])
        rows = begin_of(np.bincount(taken.told[0], minlength=writes))
        order, begin = np.argsort(agent, kind="stable"), begin_of(np.bincount(agent, minlength=len(before)))
        made, told = np.zeros(writes, dtype=np.int64), list[tuple[int, int, int]]()
        heard, low = taken.told[1].tolist(), rows.tolist()
        for i, (a, b) in enumerate(zip(begin[:-1].tolist(), begin[1:].tolist(), strict=True)):
            mine = order[a:b]
            made[mine] = self._walked(i, mine, low, heard, told)
        offset = begin_of(np.array([len(each.templates) for each in self._different]))[self._which]
        template, templates = made + offset[agent], self.templates
        gives = np.array([each.gives for each in templates])[template]
        quiet = np.array([not slots for slots in self._rhythm.slots])[agent]
        if (gives != ((version % self._rhythm.every == 0) & ~quiet)).any():
            raise NotLinear("what it gives away depends on what it hears")
        if taken.alone is not None:
            template += np.array([each.adding is not None for each in templates])[template] & ~taken.alone
        mixed = self._mixed(template, templates, taken, sender, shown)
        many = before, np.array([state.many for state in self._states])
        steps = np.arange(writes)
        if not told:
            ends = np.where(
                np.diff(begin) > 0, np.append(order, -1)[begin[1:] - 1], -2 - np.arange(len(before))
            )
            return Played(template, steps, own, taken.first, taken.terms, steps, ends, many, mixed)
        return self._with_told(told, agent, template, taken, offset, many, mixed)

    def _walked(
        self, i: int, writes: Ints, low: list[int], heard: list[int], told: list[tuple[int, int, int]]
    ) -> Ints:
        """Agent i's templates at these writes. What it is told goes to `told`, if that makes a step."""
        reading, state, numbers = self.readings[i], self._states[i], list[int]()
        for w in writes.tolist():
            what = (*heard[low[w] : low[w + 1]],)
            for row, each in enumerate([what] if reading.together else [(k,) for k in what], low[w]):
                note = state.told.get(each) or reading.hear(state, each)
                if not note.idle:
                    told.append((w, row, note.number))
                state = note.then
            done = state.done or reading.gradient(state)
            numbers.append(done.number)
            if done.then is state and reading.steady(state):
                break
            state = done.then
        self._states[i] = state
        made = np.full(len(writes), numbers[-1] if numbers else 0)
        made[: len(numbers)] = numbers
        return made

    def _mixed(
        self, template: Ints, templates: Sequence[Template], taken: Taken, sender: Ints, shown: Ints
    ) -> tuple[Ints, Ints, Ints]:
        """Which versions of whom entered the models: write, neighbour, version."""
        begin = begin_of(np.array([len(each.mixed) for each in templates], dtype=np.int64))
        inputs = np.array([k for each in templates for k in each.mixed], dtype=np.int64)
        write, place = ranges(begin[template], begin[template + 1])
        what = taken.terms[taken.first[write] + inputs[place]]
        source, version = sender[what], shown[what]
        if self._several:  # two messages of one sender may be of one version, or one of an older one
            order = np.lexsort((version, source, write))
            write, source, version = write[order], source[order], version[order]
            rows = np.stack([write, source, version])
            new = np.append(np.ones(min(1, len(write)), dtype=np.bool_), np.diff(rows, axis=1).any(axis=0))
            write, source, version = write[new], source[new], version[new]
        return write, source, version

    def _with_told(
        self, told: list[tuple[int, int, int]], agent: Ints, template: Ints, taken: Taken, offset: Ints,
        many: tuple[Ints, Ints], mixed: tuple[Ints, Ints, Ints],
    ) -> Played:  # fmt: skip
        """The same with what was told as steps of their own."""
        write, row, number = np.array(told, dtype=np.int64).T
        everybody, rank = np.arange(len(agent)), np.full(len(agent), len(taken.told[0]))
        order = np.lexsort((np.concatenate([row, rank]), np.concatenate([write, everybody])))
        steps = np.concatenate([write, everybody])[order]
        if self._rhythm.mail:
            first, terms = np.concatenate([row, 0 * rank])[order], taken.told[2]
        else:
            first, terms = taken.first[steps], taken.terms
        whose, place = agent[steps], np.arange(len(steps))
        by_agent = np.argsort(whose, kind="stable")
        before, ends = np.empty_like(place), -2 - np.arange(len(offset))
        before[by_agent] = np.roll(by_agent, 1)
        begin = begin_of(np.bincount(whose, minlength=len(offset)))
        some = np.flatnonzero(np.diff(begin) > 0)
        before[by_agent[begin[some]]] = -2 - some
        ends[some] = by_agent[begin[some + 1] - 1]
        last = np.empty_like(everybody)
        last[steps] = place  # of several the last one stays
        made = np.concatenate([number + offset[agent[write]], template])[order]
        return Played(made, steps, before, first, terms, last, ends, many, mixed)
