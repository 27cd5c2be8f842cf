"""What an agent's class does at an event, as a machine of states: for agents that mail one another.

Its handlers are run on vectors that stand for any, once for each state and what happens in it, and once for
each answer to what they ask: random numbers, and how numbers compare that follow from the time (`numbers`).
What a handler makes are linear forms of what the agent has, the gradient and what it hears; what it asks for
are gradients, mail and registers, to the same as any other time. Letters may have numbers beside vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from offbeat.core.agent import Agent, Compute, Effect, Publish, Send, View
from offbeat.core.rules import Rule
from offbeat.core.vector import Scope, Vector
from offbeat.engines.sim.ahead.fields import Restored, frozen
from offbeat.engines.sim.ahead.letters import LETTER, Seen, contents, loosened, value_of
from offbeat.engines.sim.ahead.numbers import Function, Number, Program, Question, Stream
from offbeat.engines.sim.ahead.placeholders import (
    GRADIENT,
    HEARD,
    MADE,
    STATE,
    UNKNOWN,
    UNSEEN,
    ZERO,
    Made,
    NotLinear,
    Source,
    Terms,
)

MODEL, ASKED = range(2)  # of a state's vectors: the model, and where its gradient is taken
NOTHING = -1  # the number of a vector that is zero
MOST = 500  # states of one machine: an agent that goes through more does not repeat itself
BEGIN, COMPUTED = "begin", "computed"  # what happens to an agent, beside letters

What = str | tuple[int, type, bool]
"""What happens; of a letter from whom, its type, whether it comes out of a register."""


@dataclass(frozen=True, eq=False)
class Mail:
    """What is sent, or published: to whom, and its vectors, in the order of its fields; which of the numbers
    that its handler gives away are in it.
    """

    to: tuple[int, ...]
    kind: type
    vectors: tuple[int, ...]
    numbers: slice
    published: bool


@dataclass(frozen=True, eq=False)
class Done:
    """What a handler makes. Vectors have numbers: those of the state before, then those of what was heard or
    the gradient, then what is made here; NOTHING: zero.

    Attributes:
        number: of all
        known: how many vectors there were before
        forms: one after the other, of vectors by their numbers, with what, and NOTHING: or, with which of the
            coefficients that are not always the same
        counts: the numbers of the state that follows, those coefficients, and what is given away; None: there
            are none of these
        kept: the vectors of the state that follows
        then: that state
        stamps: the versions of others that it has, each of a vector: which of those that the state before
            had and, last, the one that was heard
        wrote: whether the model is another; mixed: which of these versions entered it
        effects: in their order: mail, or None for a gradient
        idle: whether no vector is made or sent, and the state that follows has those of that before
        computes: whether it asks for a gradient
    """

    number: int
    known: int
    forms: tuple[tuple[tuple[int, float, int], ...], ...]
    counts: Function | None
    kept: tuple[int, ...]
    then: "State"
    stamps: tuple[int, ...]
    wrote: bool
    mixed: tuple[int, ...]
    effects: tuple[Mail | None, ...]

    idle: bool
    computes: bool


@dataclass(eq=False)
class State:
    """What an agent is between two handlers: its fields, pickled; of each of its vectors the mark, 0 where it
    is its own; how many numbers that are not known; what becomes of it.
    """

    fields: bytes
    marks: tuple[int, ...]
    numbers: int = 0
    after: "dict[What, Done | Question]" = field(default_factory=dict)

    @property
    def many(self) -> int:
        return len(self.marks)


class Machine:
    """That of one agent, and of all that see the same of the graph. Raises NotLinear for other classes.

    Args:
        done: where all is noted that is found out, of all machines of a run

    Attributes:
        start: the state before anything has happened, with one vector, that of all
    """

    def __init__(
        self, new_agent: Callable[[], Agent], new_rule: Callable[[], Rule], me: int, n: int, view: View,
        done: list[Done],
    ) -> None:  # fmt: skip
        self._new, self._rule, self._place, self._done = new_agent, new_rule, (me, n, view), done
        self.start, self._kind = State(b"", (0,)), type(new_agent())
        self._states, self._places = dict[bytes, State](), list[Vector]()
        self._registers, self._readers = list[tuple[int, type, str]](), dict[type, tuple[int, ...]]()
        floats = [each.name for each in fields(self._kind) if type(each.default) is float and not each.init]
        self._growing = {name: float for name in floats if name != "now"} | {"round": int}
        self._counted = set[str]()  # fields that are never the same number for long

    def look(self, state: State, what: What, answers: Sequence[Any], ask: Callable[[Question], Any]) -> Done:
        """What becomes of a state when that happens, if what its handler asks first is answered so.

        Args:
            ask: answers what it asks then
        """
        vectors, numbers = ((), ()) if isinstance(what, str) else contents(what[1])
        program = Program(state.numbers + len(numbers), answers, ask)
        agent = self._restored(state, program)
        heard = self._heard(state, what, vectors)
        seen = Seen(self._places[: state.many], state.marks, heard, what == COMPUTED)
        values: list[Any] = [*[v for v, _ in heard], *program.numbers[state.numbers :]]
        before = self._counts(agent)
        with Scope() as scope:
            try:
                if not isinstance(what, str):
                    agent.on_message(what[0], what[1](**dict(zip((*vectors, *numbers), values, strict=True))))
                elif what == BEGIN:
                    agent.start()
                else:
                    agent.take(*values)
                if what != BEGIN:
                    self._count(agent, before)
                return self._made(agent, state, program, seen)
            finally:
                for v in filter(None, [ref() for ref in scope.born]):
                    v._parts = UNKNOWN

    def _heard(self, state: State, what: What, names: Sequence[str]) -> list[tuple[Vector, int]]:
        """The vectors that come with it, and their marks. One that moves on with a register is the agent's
        own object, where it has kept that.
        """
        if isinstance(what, str):
            return [(Vector(UNKNOWN), 0)] * (what == COMPUTED)
        source, kind, register = what
        if not register:
            return [(Vector(UNKNOWN), LETTER) for _ in names]
        found = list[tuple[Vector, int]]()
        for name in names:
            key = source, kind, name
            if key not in self._registers:
                self._registers.append(key)
            mark = LETTER + 1 + self._registers.index(key)
            kept = mark in state.marks
            found.append((self._places[state.marks.index(mark)] if kept else Vector(UNKNOWN), mark))
        return found

    def _restored(self, state: State, program: Program) -> Agent:
        """An agent in that state; its vectors are the first of `_places`."""
        while len(self._places) < state.many:
            self._places.append(Vector(UNKNOWN))
        me, n, view = self._place
        if state is self.start:
            agent = self._new()
            agent.join(me, n, self._places[MODEL], view, self._rule(), UNSEEN)
        else:
            agent = object.__new__(self._kind)
            restored = Restored(state.fields, agent, view, self._places, numbers=program.numbers)
            agent.__dict__.update(restored.load())
        agent.now, agent.rng = program.now, Stream(program)  # type: ignore[assignment]
        return agent

    def _counts(self, agent: Agent) -> dict[str, float]:
        """Of its fields that are numbers those that may go on and on: its round, and floats."""
        values: list[Any] = [(name, vars(agent).get(name), kind) for name, kind in self._growing.items()]
        return {name: x for name, x, kind in values if type(x) is kind}

    def _count(self, agent: Agent, before: dict[str, float]) -> None:
        """What a handler has made another number than it was is taken for unknown from now on."""
        self._counted.update(
            name for name, x in self._counts(agent).items() if name in before and x != before[name]
        )

    def _made(self, agent: Agent, state: State, program: Program, seen: Seen) -> Done:
        """What the handler has just made."""
        model, effects = agent.model, agent.drain()
        mixed, made = seen.entered(model), Made(seen.names)
        was = made.source(model)
        if was[0] not in (MADE, STATE) or (was[0] == STATE and was[1] != MODEL):
            raise NotLinear("its model becomes a vector that it had, or has heard")
        asked = [made.source(each.x) for each in effects if isinstance(each, Compute)]
        kept = [was, *(asked or [(STATE, min(ASKED, state.many - 1))])]
        given = list[Any]()  # numbers
        mail = [self._mail(made, effect, model, seen, given) for effect in effects]
        places, marks, stamps = {id(model): MODEL}, [0] * len(kept), list[int]()
        agent.now = agent.rng = UNSEEN

        def name(v: Vector) -> tuple[str, int, int]:
            if id(v) not in places:
                places[id(v)] = len(kept)
                kept.append(value_of(made, v, seen))
                mark, stamp = seen.stamped.get(id(v), (0, NOTHING))
                marks.append(mark)
                stamps.extend([stamp] * (mark != 0))
            return "v", places[id(v)], marks[places[id(v)]]

        for each, x in vars(agent).items():
            if each in self._counted and type(x) in (int, float):
                setattr(agent, each, program.known(x))
            elif type(x) is dict:
                setattr(agent, each, {key: loosened(kept, program) for key, kept in x.items()})
        pickled, numbers = frozen(agent, name)
        if len(self._states) > MOST:
            raise NotLinear(f"what an agent does has not repeated itself after {MOST} states")
        then = self._states.setdefault(pickled, State(pickled, tuple(marks), len(numbers)))
        varies = {c.name: c for terms in made.forms for *_, c in terms if isinstance(c, Number)}
        groups = numbers, [*varies.values()], given
        counts = program.function(*groups) if any(groups) else None
        versions = tuple(stamps), tuple(sorted(mixed))
        return self._found(seen, made, [*varies], counts, then, was[0] == MADE, versions, kept, mail)

    def _mail(
        self, made: Made, effect: Effect, model: Vector, seen: Seen, given: list[Any]
    ) -> tuple[Send | Publish, list[Source], slice] | None:
        """What is given away: its vectors, and which of all numbers; None: it asks for a gradient."""
        if isinstance(effect, Compute):
            return None
        if not isinstance(effect, Send | Publish):
            raise NotLinear("it asks for something else than gradients, mail and registers")
        kind: type = type(effect.message)
        vectors, numbers = [[getattr(effect.message, name) for name in names] for names in contents(kind)]
        if not vectors or not all(isinstance(v, Vector) for v in vectors):
            raise NotLinear("it sends a letter without vectors")
        if any(seen.had(v) and v is not model for v in vectors):
            raise NotLinear("it sends a vector again that it has had before, other than its model")
        if isinstance(effect, Publish) and self._readers.setdefault(kind, effect.to) != effect.to:
            raise NotLinear("it has several registers of one type")
        given += numbers
        return (
            effect,
            [value_of(made, v, seen) for v in vectors],
            slice(len(given) - len(numbers), len(given)),
        )

    def _found(
        self, seen: Seen, made: Made, varies: Sequence[str], counts: Function | None, then: State,
        wrote: bool, versions: tuple[tuple[int, ...], tuple[int, ...]], kept: Sequence[Source],
        mail: Sequence[tuple[Send | Publish, list[Source], slice] | None],
    ) -> Done:  # fmt: skip
        """The same with numbers in place of sources."""

        def number(source: Source) -> int:
            what, which = source
            if what == ZERO:
                return NOTHING
            return which + (0 if what == STATE else seen.many if what in (GRADIENT, HEARD) else beyond)

        beyond, (stamps, mixed) = seen.many + seen.heard, versions
        forms = tuple([_numbered(terms, number, varies) for terms in made.forms])
        effects = [
            None if each is None
            else Mail(
                each[0].to, type(each[0].message), tuple(map(number, each[1])), each[2],
                isinstance(each[0], Publish),
            )
            for each in mail
        ]  # fmt: skip
        gives = tuple([each for each in effects if each is None or each.to])
        numbers = tuple(map(number, kept))
        idle = not forms and not any(gives) and numbers == tuple(range(seen.many))
        done = Done(
            len(self._done), beyond, forms, counts, numbers, then, stamps, wrote, mixed, gives, idle,
            None in gives,
        )  # fmt: skip
        self._done.append(done)
        return done


def _numbered(
    terms: Terms, number: Callable[[Source], int], varies: Sequence[str]
) -> tuple[tuple[int, float, int], ...]:
    """Terms, by the numbers of their vectors; of coefficients that vary which they are."""

    def scale(c: Any) -> tuple[float, int]:
        return (0.0, varies.index(c.name)) if isinstance(c, Number) else (float(c), NOTHING)

    return tuple([(number((what, which)), *scale(c)) for what, which, c in terms])
