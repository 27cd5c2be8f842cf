"""What an agent of `offbeat.core.ring` makes at a gradient and of a mean, read off its class, in rows.

Its handlers are run on vectors that stand for any (`machine`); what it averages is mail to it, and the sum of
all mail from it. What it keeps stays in its row; what it makes goes into the lowest row that it does not
need, so that after a few averagings the same rows come again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from offbeat.core.forms import pin
from offbeat.core.ring import Ring
from offbeat.core.rules import SGD, Momentum, Nesterov, Rule
from offbeat.core.vector import Vector
from offbeat.engines.sim.ahead.machine import (
    ASKED,
    BEGIN,
    COMPUTED,
    MODEL,
    NOTHING,
    Done,
    Machine,
    State,
    What,
)
from offbeat.engines.sim.ahead.numbers import Question
from offbeat.engines.sim.ahead.placeholders import UNSEEN, NotLinear
from offbeat.engines.sim.ahead.repeating import LONGEST, Repeating
from offbeat.engines.sim.ahead.ring_trace import Writes

RULES = SGD, Momentum, Nesterov  # linear, and the same at each step
INITIAL, ZERO, TOTAL, SCRATCH = -1, -2, -3, -4
"""Rows that all agents share: what all start from, zero, the sum of what is averaged, and what a gradient is
made in that is not kept. An agent's own are 0, 1, ...
"""

Form = tuple[int, tuple[tuple[int, float], ...]]  # the row, and the rows that it is a sum of, each with what


@dataclass(frozen=True)
class Given:
    """What is averaged."""

    v: Vector


@dataclass(frozen=True)
class Summed:
    """The sum of that of all."""

    v: Vector


@dataclass(frozen=True)
class Phase:
    """What is made at a gradient, or of a mean.

    Attributes:
        asked: the row where the gradient is taken; made: where it goes
        given: the row of what is averaged then, if something is
        forms: one after the other
        model: the agent's model afterwards
    """

    asked: int
    made: int
    given: int
    forms: tuple[Form, ...]
    model: int


@dataclass(frozen=True)
class RingForms(Repeating[Phase]):
    """Phase after phase: h gradients and a mean, and again.

    Attributes:
        begin: before the first
        rows: how many an agent has
    """

    writes: Writes
    begin: Phase
    once: tuple[Phase, ...]
    again: tuple[Phase, ...]
    rows: int


def read_ring(new_agent: Callable[[], Ring], new_rule: Callable[[], Rule], n: int) -> RingForms:
    """Those of every agent of n. Raises NotLinear, also for a local rule that may do anything."""
    if type(new_rule()) not in RULES:
        raise NotLinear("its local rule is none of those that are read")
    unseen: Any = UNSEEN
    read = _Reader(Machine(lambda: _mailing(new_agent()), new_rule, unseen, n, unseen, []))
    begin, phases, seen = read.phase(BEGIN), list[Phase](), dict[Any, int]()
    writes = set[Writes]()
    while read.position not in seen:
        if len(seen) == LONGEST or len(writes) > 1:
            raise NotLinear("what it does from averaging to averaging does not repeat itself")
        seen[read.position], h = len(phases), 1
        phases.append(read.phase(COMPUTED))
        while not read.averages:
            phases.append(read.phase(COMPUTED))
            h += 1
        writes.add(Writes(h, read.wrote))
        phases.append(read.phase((0, Summed, False)))
    once = seen[read.position]
    (pattern,) = writes
    return RingForms(pattern, begin, (*phases[:once],), (*phases[once:],), read.rows)


def _mailing(agent: Ring) -> Ring:
    """The same agent, but that it mails what it averages, and hears the sum."""

    def average(self: Ring, v: Vector) -> None:
        self.send(0, Given(pin(v)))

    def on_message(self: Ring, src: int, message: Summed) -> None:
        self.averaged(message.v / self.n)

    agent.__class__ = type("Mailing", (type(agent),), {"average": average, "on_message": on_message})
    return agent


class _Reader:
    """One agent, phase after phase.

    Attributes:
        averages, wrote: whether something is averaged after the last, and whether its model was another
        rows: how many rows there are
    """

    def __init__(self, machine: Machine) -> None:
        self._machine, self._state = machine, machine.start
        self._places: tuple[int, ...] = (INITIAL,)
        self.averages, self.wrote, self.rows = False, False, 0

    @property
    def position(self) -> tuple[State, tuple[int, ...]]:
        """The state, and the rows of its vectors."""
        return self._state, self._places

    def phase(self, what: What) -> Phase:
        """That happens. Raises NotLinear if something else follows than a gradient or an average."""
        done = self._machine.look(self._state, what, (), _refuse)
        given = [each.vectors[0] for each in done.effects if each is not None and each.kind is Given]
        self.averages, self.wrote = bool(given), done.wrote
        expected = done.computes != self.averages and (what == COMPUTED or not self.averages)
        if len(done.effects) != 1 or not expected or done.counts is not None:
            raise NotLinear("it asks for something else than a gradient or an average")
        if done.stamps:
            raise NotLinear("it keeps the sum that it hears")
        if done.wrote != (what != BEGIN) and not self.averages:
            raise NotLinear("it makes no step of a gradient or a mean, or one before")
        return self._laid(done, what, given)

    def _laid(self, done: Done, what: What, given: Sequence[int]) -> Phase:
        """In rows."""
        number = {done.known + k: form for k, form in enumerate(done.forms)}
        given = [_copied(number, each) for each in given]
        needed = {*done.kept, *given}
        for k in reversed(number):
            if k in needed:
                needed |= {of for of, *_ in number[k]}
        before, taken = self._places, {row for row in self._places if row >= 0}
        rows = {NOTHING: ZERO, **dict(enumerate(before))}

        def fresh(k: int) -> int:
            rows[k] = min({*range(len(taken) + 1)} - taken)
            taken.add(rows[k])
            return rows[k]

        for k in range(len(before), done.known):  # the gradient, or the sum
            kept = k in done.kept or k in given
            rows[k] = (fresh(k) if kept else SCRATCH) if what == COMPUTED else TOTAL
        forms = [
            (fresh(k), tuple([(rows[of], c) for of, c, _ in terms]))
            for k, terms in number.items() if k in needed
        ]  # fmt: skip
        self.rows = max([self.rows, *[row + 1 for row in taken]])
        self._state, self._places = done.then, tuple([rows[k] for k in done.kept])
        asked = before[min(ASKED, len(before) - 1)]
        at = [rows[k] for k in given] or [SCRATCH]
        return Phase(asked, rows.get(len(before), SCRATCH), at[0], (*forms,), self._places[MODEL])


def _copied(forms: dict[int, Any], number: int) -> int:
    """What that vector is a copy of, if it is one."""
    while number in forms and len(forms[number]) == 1 and forms[number][0][1] == 1.0:
        number = forms[number][0][0]
    return number


def _refuse(question: Question) -> Any:
    raise NotLinear("what it does depends on the time, or on random numbers")
