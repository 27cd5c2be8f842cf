"""What an agent of `offbeat.core.rounds` makes in a round, read off its class.

Its handlers are run on vectors that stand for any: the gradient and the letters of a round, in two orders
that have to lead to the same. What it makes of them are linear forms; what it keeps is there in the next
round, and after a few rounds it makes the same in each. How many rounds it was is a number of which only
differences are known, so that nothing depends on it. Other numbers, that it keeps and hears, are carried as
programs (`numbers`), as far as it counts with them and asks nothing of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from offbeat.core.agent import Compute, Effect, Message, Send, View
from offbeat.core.rounds import Rounds
from offbeat.core.rules import Rule
from offbeat.core.vector import Scope, Vector
from offbeat.engines.outbox import vectors
from offbeat.engines.sim.ahead.fields import frozen
from offbeat.engines.sim.ahead.placeholders import (
    GRADIENT,
    HEARD,
    MADE,
    STATE,
    UNKNOWN,
    UNSEEN,
    Made,
    NotLinear,
    Round,
    Source,
    Terms,
)
from offbeat.engines.sim.ahead.repeating import LONGEST, Repeating
from offbeat.engines.sim.ahead.round_numbers import Counted, Counting, numbers_of


@dataclass(frozen=True)
class Form:
    """What is made in a round: sources are what was kept, by its place, the gradient, what was heard, by its
    place among all vectors of all letters, and forms of the round, by their number.

    Attributes:
        forms: one after the other; early: how many of them are made at the gradient
        kept: what is kept, each once, in its places; model, asked: the places of the model, and of where the
            next gradient is taken
        letter: of the vectors of the letters that are sent in the round, one letter after the other, what
            they are; if they are sent as the next round begins, their places; fresh: whether they are made
            at the gradient, else they are the model
        mixed: of whose letters, by their place, the versions enter the model
        counted: what is done with numbers; None: there are none
    """

    forms: tuple[Terms, ...]
    early: int
    kept: tuple[Source, ...]
    model: int
    asked: int
    letter: tuple[Any, ...]
    fresh: bool
    mixed: tuple[int, ...]
    counted: Counted | None = None

    @property
    def loose(self) -> list[int]:
        """The forms that are not kept."""
        return [c for c in range(len(self.forms)) if (MADE, c) not in self.kept]

    @property
    def meaning(self) -> Any:
        """The same as another's if the same is made, in whatever order, and in whatever steps."""
        made = list[Any]()
        for (what, k, c), *rest in self.forms:
            begins = what == MADE and c == 1.0  # the sum goes on from there
            terms = made[k] if begins else ((made[k] if what == MADE else (what, k), c),)
            made.append((*terms, *[(made[k] if what == MADE else (what, k), c) for what, k, c in rest]))
        sources = [*self.kept, *[each for each in self.letter if isinstance(each, tuple)]]
        whole = tuple([made[k] if what == MADE else (what, k) for what, k in sources])
        numbers = self.counted and (self.counted.after, self.counted.varying)
        return whole, self.model, self.asked, self.fresh, self.mixed, numbers


@dataclass(frozen=True)
class RoundForms(Repeating[Form]):
    """Round by round.

    Attributes:
        initial: before the first: made of zero, and of the model that all start from, which is in place 0
        begins: whether letters are sent as rounds begin
        to: who gets each of the letters of a round, by their places among those who listen
        message: one of them
    """

    initial: Form
    once: tuple[Form, ...]
    again: tuple[Form, ...]
    begins: bool
    to: tuple[tuple[int, ...], ...]
    message: Message

    def form(self, k: int) -> Form:
        """What is made in the k-th; -1: before the first."""
        return self.initial if k < 0 else self.all[self.at(k)]

    @property
    def sends(self) -> Any:
        """What is alike for all agents: when they send letters, of which type, and made when."""
        return self.begins, type(self.message), *{form.fresh for form in self.all}

    @property
    def letter(self) -> tuple[str, ...]:
        """The names of its vectors."""
        return tuple(vectors(self.message))


def read_rounds(
    new_agent: Callable[[], Rounds], new_rule: Callable[[], Rule], me: int, n: int, view: View
) -> RoundForms:
    """Those of an agent that sees this of the graph. Raises NotLinear."""
    if view.changing is not None or {*view.listeners} != {*view.w} - {me} or not view.listeners:
        raise NotLinear("it does not send letters to those, always the same, from whom it gets some")
    first, other = (_Reader(new_agent, new_rule, me, n, view) for _ in range(2))
    initial, state = first.begin()
    if other.begin()[1] != state:
        raise NotLinear("it does not begin twice in the same way")
    seen, made = {state: 0}, list[Form]()
    while len(made) < LONGEST:
        form, state = first.round(None, turned=False)
        turned, then = other.round(first.message, turned=True)
        if (form.meaning, state) != (turned.meaning, then):
            raise NotLinear("what it makes depends on the order in which letters come")
        made.append(form)
        if state in seen:
            once = seen[state]
            made_in = (*made[:once],), (*made[once:],)
            return RoundForms(initial, *made_in, first.begins, first.to, first.message)
        seen[state] = len(made)
    raise NotLinear(f"what it makes has not repeated itself after {LONGEST} rounds")


class _Reader:
    """One agent, round after round.

    Attributes:
        message: a letter of it; begins: whether letters are sent as a round begins
        to: who gets each of the letters of a round, by their places among those who listen
    """

    def __init__(
        self, new_agent: Callable[[], Rounds], new_rule: Callable[[], Rule], me: int, n: int, view: View
    ) -> None:
        self._agent, x = new_agent(), Vector(UNKNOWN)
        self._agent.join(me, n, x, view, new_rule(), UNSEEN)
        self._agent.now, self._agent.round = UNSEEN, Round(0)  # type: ignore[assignment]
        self._alive = [x]  # what vectors are goes by identity
        self._made, self._letter = Made({id(x): (STATE, 0)}), tuple[Source, ...]()
        self._others, self._listeners = [j for j in view.w if j != me], view.listeners
        self._counting, self.to = Counting(), tuple[tuple[int, ...], ...]()
        self.message: Message = None
        self.begins = self._fresh = False

    def begin(self) -> tuple[Form, Any]:
        """The first round begins: what there is then, and which state that is."""
        self.begins = self._begun(self._call(self._agent.start))
        return self._ended(0, set())

    def round(self, message: Message, turned: bool) -> tuple[Form, Any]:
        """The present one, to where the next begins.

        Args:
            message: a letter of it; None: it is not known before there is a gradient
            turned: first the letters, and of these the last one as the first
        """
        agent, model, early, effects = self._agent, self._agent.model, 0, list[Effect]()
        number, present = agent.round, self._made.source(model)
        places = [-1, *range(len(self._others))]
        for place in reversed(places) if turned else places:
            if effects or agent.model is not model:
                raise NotLinear("it does more in the middle of a round than to take note")
            if place >= 0:
                effects = self._heard(place, message or self.message)
                continue
            g = self._stands((GRADIENT, 0))
            effects = self._call(lambda g=g: agent.on_gradient(g))  # type: ignore[misc]
            early = len(self._made.forms)
            if not self.begins:
                self._posted([each for each in effects if not isinstance(each, Compute)], number, False)
                effects = [each for each in effects if isinstance(each, Compute)]
                self._fresh = self._new(present)
        if agent.model is model or self._begun(effects) != self.begins:
            raise NotLinear("it does not end each round with another model, and in the same way")
        return self._ended(early, self._entered)

    def _heard(self, place: int, message: Message) -> list[Effect]:
        names, fresh = [*vectors(message)], dict[str, Any](self._counting.heard(place, message))
        for f, name in enumerate(names):
            fresh[name] = self._stands((HEARD, place * len(names) + f))
        letter, src = replace(message, k=self._agent.round, **fresh), self._others[place]
        return self._call(lambda: self._agent.on_message(src, letter))

    def _stands(self, source: Source) -> Vector:
        v = Vector(UNKNOWN)
        self._alive.append(v)
        self._made.known[id(v)] = source
        return v

    def _call(self, handler: Callable[[], None]) -> list[Effect]:
        """What it asks for; what it has built, as far as that is still there, is a value from now on."""
        made = self._made
        with Scope() as scope:
            handler()
            self._entered = made.heard(self._agent.model)
            for v in filter(None, [ref() for ref in scope.born]):
                alias = len(v._terms) == 1 and type(c := v._terms[0][0]) is float and c == 1.0
                made.known[id(v)] = made.source(v._terms[0][1] if alias else v)
                v._parts = UNKNOWN
                self._alive.append(v)
            for v in self._alive:
                v._terms = ()
            scope.born.clear()
        return self._agent.drain()

    def _begun(self, effects: Sequence[Effect]) -> bool:
        """A round begins with a gradient, and perhaps letters: whether there are any."""
        asked = [effect for effect in effects if isinstance(effect, Compute)]
        sent = [effect for effect in effects if not isinstance(effect, Compute)]
        if len(asked) != 1:
            raise NotLinear("it begins a round with something else than a gradient and letters")
        self._asked = self._made.source(asked[0].x)
        if sent:
            self._posted(sent, self._agent.round, True)
        return bool(sent)

    def _posted(self, effects: Sequence[Effect], number: int, begins: bool) -> None:
        """The letters of a round: one to each who listens."""
        sent = [each for each in effects if isinstance(each, Send)]
        reached = [j for each in sent for j in each.to]
        if len(sent) < len(effects) or sorted(reached) != sorted(self._listeners):
            raise NotLinear("it does not send one letter to each who listens")
        to = tuple([tuple([self._listeners.index(j) for j in each.to]) for each in sent])
        messages = [each.message for each in sent]
        if to != (self.to or to) or {type(each) for each in messages} != {type(self.message or messages[0])}:
            raise NotLinear("its letters are not always of one type, and to the same")
        for each in messages:
            if {*vectors(each), *numbers_of(each), "k"} != {*each.__dataclass_fields__} or not vectors(each):
                raise NotLinear("its letters have other fields than the round, vectors and numbers")
            if each.k != number:
                raise NotLinear("it sends a letter of another round")
        self.to, self.message = to, messages[0]
        self._letter = tuple([self._made.source(v) for each in messages for v in vectors(each).values()])
        self._counting.posted(messages, begins)

    def _new(self, model: Source) -> bool:
        """Whether its letter has just been made, and so is of the version of then; else it is the model."""
        old = {source for source in self._letter if source[0] != MADE}
        if old and {*self._letter} != {model} and not (self.begins and old == {model}):
            raise NotLinear("it sends a vector again that it has sent before")
        return not old

    def _ended(self, early: int, mixed: set[int]) -> tuple[Form, Any]:
        """What was made in the round, and the state in which the next begins."""
        agent, made = self._agent, self._made
        kept = dict[Source, int]()

        def place(source: Source) -> int:
            return kept.setdefault(source, len(kept))

        model, asked = place(made.source(agent.model)), place(self._asked)
        if self.begins:
            self._new(made.source(agent.model))
        letter = tuple(map(place, self._letter)) if self.begins else self._letter
        fields, numbers = frozen(agent, lambda v: ("v", place(made.source(v)), 0))
        forms, counted = self._counting.ended(made.forms, numbers, self.begins)
        wide = len(vectors(self.message)) if self.message is not None else 1
        heard = tuple(sorted({k // wide for k in mixed}))
        form = _pruned(
            Form(forms, early, (*kept,), model, asked, letter, self._fresh, heard, counted), self.begins
        )
        known = {id(v): made.known[id(v)] for v in self._alive}
        self._made = Made({key: (STATE, kept[source]) for key, source in known.items() if source in kept})
        self._alive = [v for v in self._alive if id(v) in self._made.known]
        return form, (fields, model, asked, letter if self.begins else ())


def _pruned(form: Form, begins: bool) -> Form:
    """Without forms that nobody needs."""
    needed = {*form.kept, *(() if begins else form.letter)}
    for number in reversed(range(len(form.forms))):
        if (MADE, number) in needed:
            needed |= {(what, k) for what, k, _ in form.forms[number]}
    order = [number for number in range(len(form.forms)) if (MADE, number) in needed]
    new = {number: k for k, number in enumerate(order)}

    def moved(what: int, k: int) -> Source:
        return (what, new[k]) if what == MADE else (what, k)

    forms = tuple([tuple([(*moved(what, k), c) for what, k, c in form.forms[number]]) for number in order])
    letter = form.letter if begins else tuple([moved(*source) for source in form.letter])
    early = sum(number < form.early for number in order)
    return replace(
        form, forms=forms, early=early, kept=tuple([moved(*each) for each in form.kept]), letter=letter
    )
