"""Agents whose handlers are called, as what they do hardly ever repeats itself: on vectors of which is known
which value each is, and nothing else.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from offbeat.core.agent import Agent, Compute, Effect, Send
from offbeat.core.vector import Later, Parts, Scope, Stamp, Vector
from offbeat.engines.sim.ahead.letters import contents
from offbeat.engines.sim.ahead.mail_values import INITIAL, NONE
from offbeat.engines.sim.ahead.placeholders import UNKNOWN, NotLinear


class Value(Later):
    """In place of numbers that nobody knows yet: those of the value of this number."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number

    def read(self) -> Parts:
        parts: Parts = UNKNOWN
        return parts


@dataclass(frozen=True, eq=False)
class Happened:
    """What a handler has made. Vectors have numbers: those that were known from 0 on, those that were made
    from -1 down.

    Attributes:
        known: the values of those that were known
        forms: of each that was made the vectors that it is of; coefficients: with which ones, form after form
        model, asked: which vectors the model is, and where the gradient is taken, from now on
        wrote, computes: whether the model is another; whether it asks for a gradient
        mixed: which versions of others entered what was written
        mail: in their order: None for a gradient; receivers, type, vectors and numbers
    """

    known: list[int]
    forms: list[tuple[int, ...]]
    coefficients: list[float]
    model: int
    asked: int
    wrote: bool
    computes: bool
    mixed: list[Stamp]
    mail: "list[Mail | None]"


Mail = tuple[tuple[int, ...], type, list[int], list[float]]


class Called:
    """One such agent. Raises NotLinear where the numbers of vectors are needed, or what is not mail."""

    def __init__(self, agent: Agent) -> None:
        self._agent, self._scope, self._version = agent, Scope(), 0
        self._values = list[weakref.ref[Value]]()
        agent.x = self._vector(INITIAL)
        self._model = self._asked = agent.model

    def _vector(self, number: int, stamp: Stamp | None = None) -> Vector:
        return Vector(self._value(number), stamp)

    def _value(self, number: int) -> Value:
        value = Value(number)
        self._values.append(weakref.ref(value))
        return value

    def values(self) -> list[Value]:
        """Those that the agent still has."""
        there = [value for ref in self._values if (value := ref()) is not None]
        self._values = [weakref.ref(value) for value in there]
        return there

    def begins(self, now: float, next_value: int) -> Happened:
        """The first event. What is made will have the next numbers of values, from that one on."""
        return self._happens(now, next_value, self._agent.start)

    def computed(self, now: float, next_value: int, gradient: int) -> Happened:
        """The gradient is there that was asked for."""
        return self._happens(now, next_value, self._agent.take, self._vector(gradient))

    def hears(
        self, now: float, next_value: int, source: Stamp, kind: type, values: Sequence[int],
        numbers: Sequence[float],
    ) -> Happened:  # fmt: skip
        """A letter: of that version of the sender's, of these values and numbers."""
        vectors, others, types = _fields(kind)
        fields: dict[str, Any] = {
            name: self._vector(v, source) for name, v in zip(vectors, values, strict=True)
        }
        fields |= {name: of(x) for name, of, x in zip(others, types, numbers, strict=True)}
        return self._happens(now, next_value, self._agent.on_message, source.agent, kind(**fields))

    def _happens(self, now: float, next_value: int, handler: Any, *args: Any) -> Happened:
        agent, scope = self._agent, self._scope
        agent.now = now
        with scope:
            try:
                handler(*args)
                return self._happened(agent, scope, next_value)
            finally:
                scope.born.clear()  # nothing is evaluated

    def _happened(self, agent: Agent, scope: Scope, next_value: int) -> Happened:
        model, effects, mixed = agent.model, agent.drain(), list[Stamp]()
        if wrote := model is not self._model:
            self._version += 1
            entered = model.sources()
            if model.stamp is None:
                model.stamp = Stamp(agent.me, self._version)
            elif model.stamp.agent != agent.me:
                entered.append(model)
            mixed = [v.stamp for v in entered if v.stamp is not None and v.stamp.agent != agent.me]
            self._model = model
        asked = [each.x for each in effects if isinstance(each, Compute)]
        self._asked = asked[-1] if asked else self._asked
        made = _Made(next_value)
        for ref in scope.born:
            v = ref()
            if v is not None and v._parts is None:
                v._parts = self._form(v, made)
                v._terms, v._open = (), False
        mail = [self._mail(each, made) for each in effects if not isinstance(each, Send) or each.to]
        return Happened(
            made.known, made.forms, made.coefficients, made.of(model), made.of(self._asked), wrote,
            bool(asked), mixed, mail,
        )  # fmt: skip

    def _form(self, v: Vector, made: "_Made") -> Value:
        """The value that a vector is: another's, or a new one."""
        terms = v._terms
        if not terms:
            raise NotLinear("what it makes is not a linear form of what it has and hears")
        if len(terms) == 1 and terms[0][0] == 1.0 and isinstance(terms[0][1]._parts, Value):
            return terms[0][1]._parts
        made.coefficients += [c for c, _ in terms]
        made.forms.append(tuple([made.of(u) for _, u in terms]))
        return self._value(made.next_value + len(made.forms) - 1)

    def _mail(self, effect: Effect, made: "_Made") -> Mail | None:
        """What is given away; None for a gradient."""
        if isinstance(effect, Compute):
            return None
        if not isinstance(effect, Send):
            raise NotLinear("it asks for something else than gradients and mail")
        kind: type = type(effect.message)
        vectors, others, _ = _fields(kind)
        now = Stamp(self._agent.me, self._version)
        given = [getattr(effect.message, name) for name in vectors]
        for v in given:
            v.stamp = v.stamp or now
        if given and given[0].stamp != now:
            raise NotLinear("it sends a vector that is older than its model")
        numbers = [float(getattr(effect.message, name)) for name in others]
        return effect.to, kind, [made.of(v) for v in given], numbers


class _Made:
    """What is noted of one handler's vectors: see `Happened`; those that are made have negative numbers."""

    def __init__(self, next_value: int) -> None:
        self.next_value, self.known = next_value, list[int]()
        self.forms, self.coefficients = list[tuple[int, ...]](), list[float]()

    def of(self, v: Vector) -> int:
        """The number of a vector."""
        value = v._parts
        if not isinstance(value, Value):
            if not (isinstance(value, tuple) and getattr(value[0], "zero", False)):
                raise NotLinear("it has a vector that is no form of others")
            number = NONE
        elif (number := value.number) >= self.next_value:
            return self.next_value - number - 1
        self.known.append(number)
        return len(self.known) - 1


@cache
def _fields(kind: type) -> tuple[tuple[str, ...], tuple[str, ...], list[Any]]:
    """The fields of a type of message that are vectors, those that are numbers, and of which type these."""
    vectors, numbers = contents(kind)
    hints = get_type_hints(kind)
    return vectors, numbers, [hints[name] for name in numbers]
