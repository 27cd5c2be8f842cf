"""What an agent's class does at an event, as a machine of states: for agents that mail one another.

Its handlers are run on vectors that stand for any, once for each state and what happens in it, and once for
each answer to what they ask: random numbers, and how numbers compare that follow from the time (`numbers`).
What a handler makes are linear forms of what the agent has, the gradient and what it hears; what it asks for
are gradients and mail, to the same as any other time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from offbeat.core.agent import Agent, Compute, Effect, Send, View
from offbeat.core.rules import Rule
from offbeat.core.vector import Scope, Vector
from offbeat.engines.outbox import vectors
from offbeat.engines.sim.ahead.fields import Restored, frozen
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
BEGIN, COMPUTED = "begin", "computed"  # what happens to an agent, beside mail: from whom, and its type

What = str | tuple[int, type]
"""What happens."""


@dataclass(frozen=True, eq=False)
class Mail:
    """What is sent: to whom, and its vectors, in the order of its fields."""

    to: tuple[int, ...]
    kind: type
    vectors: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Done:
    """What a handler makes. Vectors have numbers: those of the state before, then those of what was heard or
    the gradient, then what is made here; NOTHING: zero.

    Attributes:
        number: of all
        known: how many vectors there were before
        forms: one after the other, of vectors by their numbers, with what, and NOTHING: or, with which of the
            coefficients that are not always the same
        counts: the numbers of the state that follows, and those coefficients; None: there are neither
        kept: the vectors of the state that follows
        then: that state
        wrote: whether the model is another; mixed: whether what was heard entered it
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
    wrote: bool
    mixed: bool
    effects: tuple[Mail | None, ...]

    idle: bool
    computes: bool


@dataclass(eq=False)
class State:
    """What an agent is between two handlers: its fields, pickled; how many vectors, and numbers that are not
    known; what becomes of it.
    """

    fields: bytes
    many: int
    numbers: int = 0
    after: "dict[What, Done | Question]" = field(default_factory=dict)


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
        self.start, self._kind = State(b"", 1), type(new_agent())
        self._states, self._places = dict[bytes, State](), list[Vector]()

    def look(self, state: State, what: What, answers: Sequence[Any], ask: Callable[[Question], Any]) -> Done:
        """What becomes of a state when that happens, if what its handler asks first is answered so.

        Args:
            ask: answers what it asks then
        """
        program = Program(state.numbers, answers, ask)
        agent, heard = self._restored(state, program), self._heard(what)
        names = {id(self._places[k]): (STATE, k) for k in range(state.many)}
        names |= {id(v): (GRADIENT if what == COMPUTED else HEARD, f) for f, v in enumerate(heard)}
        with Scope() as scope:
            try:
                self._call(agent, what, heard)
                return self._made(agent, state, program, names)
            finally:
                for v in filter(None, [ref() for ref in scope.born]):
                    v._parts = UNKNOWN

    def _call(self, agent: Agent, what: What, heard: Sequence[Vector]) -> None:
        if not isinstance(what, str):
            source, kind = what
            agent.on_message(source, kind(*heard))
        elif what == BEGIN:
            agent.start()
        else:
            agent.take(*heard)

    def _heard(self, what: What) -> list[Vector]:
        """New vectors that come with it."""
        if isinstance(what, str):
            return [Vector(UNKNOWN)] * (what == COMPUTED)
        return [Vector(UNKNOWN) for _ in fields(what[1])]

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

    def _made(self, agent: Agent, state: State, program: Program, names: dict[int, Source]) -> Done:
        """What the handler has just made."""
        made, model, effects = Made(names), agent.model, agent.drain()
        mixed, was = bool(made.heard(model)), made.source(model)
        if was[0] not in (MADE, STATE) or (was[0] == STATE and was[1] != MODEL):
            raise NotLinear("its model becomes a vector that it had, or has heard")
        asked = [made.source(each.x) for each in effects if isinstance(each, Compute)]
        places, kept = dict[int, int](), [was, *(asked or [(STATE, min(ASKED, state.many - 1))])]
        mail = [self._mail(made, effect, was) for effect in effects]
        places[id(model)] = MODEL
        agent.now = agent.rng = UNSEEN

        def name(v: Vector) -> tuple[str, int, int]:
            if id(v) not in places:
                places[id(v)] = len(kept)
                kept.append(made.source(v))
                if kept[-1][0] == HEARD:
                    raise NotLinear("it keeps a letter, whose version would count as its own")
            return "v", places[id(v)], 0

        pickled, numbers = frozen(agent, name)
        if len(self._states) > MOST:
            raise NotLinear(f"what an agent does has not repeated itself after {MOST} states")
        then = self._states.setdefault(pickled, State(pickled, len(kept), len(numbers)))
        varies = {c.name: c for terms in made.forms for *_, c in terms if isinstance(c, Number)}
        counts = program.function(numbers, [*varies.values()]) if numbers or varies else None
        heard, wrote = len(names) - state.many, was[0] == MADE
        return self._found(state, heard, made, [*varies], counts, then, wrote, mixed, kept, mail)

    def _mail(self, made: Made, effect: Effect, model: Source) -> tuple[Send, list[Source]] | None:
        """What is given away, and its vectors; None: it asks for a gradient."""
        if isinstance(effect, Compute):
            return None
        inside = vectors(effect.message) if isinstance(effect, Send) else {}
        if not isinstance(effect, Send) or {*inside} != {*effect.message.__dataclass_fields__} or not inside:
            raise NotLinear("it asks for something else than gradients and mail that is vectors alone")
        sources = [made.source(v) for v in inside.values()]
        if any(source[0] != MADE and source != model for source in sources):
            raise NotLinear("it sends a vector again that it has had before, other than its model")
        return effect, sources

    def _found(
        self, state: State, heard: int, made: Made, varies: Sequence[str], counts: Function | None,
        then: State, wrote: bool, mixed: bool, kept: Sequence[Source],
        mail: Sequence[tuple[Send, list[Source]] | None],
    ) -> Done:  # fmt: skip
        """The same with numbers in place of sources."""

        def number(source: Source) -> int:
            what, which = source
            if what == ZERO:
                return NOTHING
            return which + (0 if what == STATE else state.many if what in (GRADIENT, HEARD) else beyond)

        beyond = state.many + heard
        forms = tuple([_numbered(terms, number, varies) for terms in made.forms])
        effects = [
            None if each is None
            else Mail(each[0].to, type(each[0].message), tuple([number(source) for source in each[1]]))
            for each in mail
        ]  # fmt: skip
        gives = tuple([each for each in effects if each is None or each.to])
        numbers = tuple(map(number, kept))
        idle = not forms and not any(gives) and numbers == tuple(range(state.many))
        done = Done(
            len(self._done), beyond, forms, counts, numbers, then, wrote, mixed, gives, idle, None in gives
        )
        self._done.append(done)
        return done


def _numbered(
    terms: Terms, number: Callable[[Source], int], varies: Sequence[str]
) -> tuple[tuple[int, float, int], ...]:
    """Terms, by the numbers of their vectors; of coefficients that vary which they are."""

    def scale(c: Any) -> tuple[float, int]:
        return (0.0, varies.index(c.name)) if isinstance(c, Number) else (float(c), NOTHING)

    return tuple([(number((what, which)), *scale(c)) for what, which, c in terms])
