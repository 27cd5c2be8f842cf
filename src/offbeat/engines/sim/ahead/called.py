"""Agents whose handlers are called, as what they do hardly ever repeats itself: on vectors of which is known
which value each is, and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, Protocol, get_type_hints

from offbeat.core.agent import Agent, Compute, Message, Send
from offbeat.core.vector import Later, Parts, Scope, Stamp, Vector
from offbeat.engines.handler_step import stamped
from offbeat.engines.sim.ahead.compiled import COMPUTED, KINDS, LETTERS
from offbeat.engines.sim.ahead.fields import frozen
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.letters import contents
from offbeat.engines.sim.ahead.mail_values import INITIAL, NONE
from offbeat.engines.sim.ahead.placeholders import UNKNOWN, NotLinear


class Value(Later):
    """In place of numbers that nobody knows yet: those of the value of this number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def read(self) -> Parts:
        parts: Parts = UNKNOWN
        return parts


class Numbered(Protocol):
    """Who numbers what the events know by numbers; kinds: types of messages, in that order."""

    kinds: list[type]

    def step(self, lengths: tuple[int, ...]) -> int:
        """Of forms with so many terms, whatever they are of and their coefficients are."""

    def kind(self, kind: type) -> int:
        """Of a type of messages."""


class Called:
    """One such agent. Raises NotLinear where the numbers of vectors are needed, or what is not mail.

    Args:
        places: of agents, by which its letters know them
    """

    def __init__(self, agent: Agent, places: Mapping[int, int], numbered: Numbered) -> None:
        self._agent, self._places, self._numbered = agent, places, numbered
        self._scope, self._version = Scope(), 0
        agent.x = Vector(Value(INITIAL))
        self._model = self._asked = agent.model

    def values(self) -> list[Value]:
        """Those that the agent has."""
        there = dict[int, Value]()

        def name(v: Vector) -> tuple[str, int, int]:
            if isinstance(v._parts, Value):
                there[id(v._parts)] = v._parts
            return "v", 0, 0

        for v in (self._model, self._asked):
            name(v)
        try:
            frozen(self._agent, name)
        except NotLinear:
            raise NoTimetable from None
        return [*there.values()]

    def happens(
        self, now: float, number: int, what: int, source: Stamp, values: Sequence[int],
        numbers: Sequence[float],
    ) -> tuple[list[float], list[int]]:  # fmt: skip
        """What a handler makes: coefficients and numbers, and all else, as `compiled/` has it. Values that it
        makes have the next numbers, from this one on.

        Args:
            what: that the agent begins, that its gradient is there: of that value, or a letter: from that
                version of its sender's, of these values and numbers
        """
        agent, scope = self._agent, self._scope
        agent.now = now
        with scope:
            try:
                if what >= LETTERS:
                    agent.on_message(source.agent, self._letter(what, source, values, numbers))
                elif what == COMPUTED:
                    agent.take(Vector(Value(values[0])))
                else:
                    agent.start()
                return self._read(agent, agent.model, number)
            except Exception:  # the simulator says what is wrong, if anything is
                raise NoTimetable from None
            finally:
                scope.born.clear()  # nothing is evaluated

    def _letter(self, what: int, source: Stamp, values: Sequence[int], numbers: Sequence[float]) -> Message:
        kind = self._numbered.kinds[(what - LETTERS) // 2 % KINDS]
        vectors, others = iter(values), iter(numbers)
        return kind(
            *[
                Vector(Value(next(vectors)), source) if of is Vector else _exact(of, next(others))
                for _, of in _types(kind)
            ]
        )

    def _read(self, agent: Agent, model: Vector, number: int) -> tuple[list[float], list[int]]:
        """What the handler has just made; first whose versions are in its model, which its forms say."""
        wrote, mixed = model is not self._model, list[int]()
        if wrote:
            self._model, self._version = model, self._version + 1
            entered = stamped(model, Stamp(agent.me, self._version))
            mixed = [x for v in entered if v.stamp is not None and v.stamp.agent != agent.me for x in v.stamp]
        known, coefficients, step, forms = self._forms(number)
        given, words, effects, computes = len(coefficients), list[int](), 0, False
        for effect in agent.drain():
            if isinstance(effect, Compute):
                self._asked, computes = effect.x, True
                words.append(-1)
            elif not isinstance(effect, Send):
                raise NotLinear("it asks for something else than gradients and mail")
            elif not effect.to:
                continue
            else:
                words += self._mail(effect, coefficients, given)
            effects += 1
        kept = self._number(model), self._number(self._asked)
        versions = range(len(mixed) // 2)
        return coefficients, [
            len(known), *known, len(mixed), *mixed, step, forms, given, 0, 0, wrote, computes, False, effects,
            2, *kept, 0, len(versions), *versions, 0, *words,
        ]  # fmt: skip

    def _forms(self, number: int) -> tuple[list[int], list[float], int, int]:
        """Of the vectors that were made and are still referred to, which are values now: the values of all
        their terms, with which coefficients, the number of such forms, and how many there are.
        """
        known, coefficients, lengths = list[int](), list[float](), list[int]()
        for each in self._scope.born:
            v = each()
            if v is None or v._parts is not None:
                continue
            terms = v._terms
            if len(terms) == 1 and terms[0][0] == 1.0 and type(terms[0][1]._parts) is Value:
                v._parts = terms[0][1]._parts
            elif not terms:
                raise NotLinear("what it makes is not a linear form of what it has and hears")
            else:
                known += [self._number(u) for _, u in terms]
                coefficients += [c for c, _ in terms]
                v._parts = Value(number + len(lengths))
                lengths.append(len(terms))
            v._terms, v._open = (), False
        step = self._numbered.step(tuple(lengths)) if lengths else -1
        return known, coefficients, step, len(lengths)

    def _number(self, v: Vector) -> int:
        """That of the value that it is."""
        value = v._parts
        if type(value) is Value:
            return value.number
        if not (isinstance(value, tuple) and getattr(value[0], "zero", False)):
            raise NotLinear("it has a vector that is no form of others")
        return NONE

    def _mail(self, mail: Send, numbers: list[float], before: int) -> list[int]:
        """What is sent; its numbers come behind those that there are."""
        kind: type = type(mail.message)
        vectors, begin = list[int](), len(numbers) - before
        for name, of in _types(kind):
            x = getattr(mail.message, name)
            if of is not Vector:
                numbers.append(_exact(float, x))
                continue
            now = self._agent.me, self._version
            if x.stamp is None:
                x.stamp = Stamp(*now)
            if x.stamp != now:
                raise NotLinear("it sends a vector that is older than its model")
            vectors.append(self._number(x))
        to, ends = [self._places[j] for j in mail.to], (begin, len(numbers) - before)
        return [self._numbered.kind(kind), False, len(to), *to, len(vectors), *vectors, *ends]


def _exact(of: Any, x: float) -> Any:
    """A number as one of that sort, without loss: floats are what the events have."""
    made = of(x)
    if made != x and x == x:
        raise NotLinear(f"a letter has {x!r} in a field of type {of.__name__}")
    return made


@cache
def _types(kind: type) -> list[tuple[str, Any]]:
    """The fields of a type of message, in order; of each whether it is a Vector, or which sort of number."""
    contents(kind)  # or it has others
    hints = get_type_hints(kind)
    return [(each.name, hints[each.name]) for each in fields(kind)]
