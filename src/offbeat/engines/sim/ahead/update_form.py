"""What an algorithm's class makes at a gradient, read off the class itself.

An algorithm that is declared free-running (`Algorithm.free_running`) promises: whatever it hears, it computes
gradient after gradient; at each, or at each h-th, and only then, it gives one vector to all its listeners;
and all that it makes are linear forms of what it has and hears. `Reading` runs the handlers on vectors that
stand for these, and reads the forms. So the formula stands in one place, the algorithm's file.

What is published is taken in at the next gradient, and the newest is mixed at every one (adsgd, swift,
dgd-atc). What is accumulated is added to a running sum as it comes, and the sum enters at every gradient
(adsgd:memory-efficient): s <- s + w_j d_j; of each neighbour the first d_j counts from the initial model on.
"""

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from offbeat.core.agent import Accumulate, Agent, Compute, Effect, Message, Publish, View
from offbeat.core.rules import Rule
from offbeat.core.vector import Parts, Scope, Vector
from offbeat.engines.outbox import vectors

GRADIENT, OWN, INITIAL, SUM, HEARD, MADE = range(6)
"""What a term is of: the gradient, the model before, that of the start, the running sum, what was heard from
a place in the agent's row of W, the result of one of the forms before."""

Terms = tuple[tuple[int, int, float], ...]  # what, which of these, coefficient: from left to right
MOST = 10_000  # gradients after which what an agent does must have repeated itself


@dataclass(frozen=True)
class UpdateForm:
    """What is made at a gradient: forms, one after the other.

    Attributes:
        model, given: which of them is the new model, and which is given away; -1: nothing is
        unheard: what stands in where a neighbour has not been heard: what, and which of these
    """

    forms: tuple[Terms, ...]
    model: int
    given: int
    unheard: tuple[int, int] = (OWN, 0)

    def heard(self, form: int) -> set[int]:
        """The places in the row of W that enter a form, through others too."""
        found = set[int]()
        for what, which, _ in self.forms[form]:
            found |= {which} if what == HEARD else self.heard(which) if what == MADE else set()
        return found


@dataclass(frozen=True)
class Rhythm:
    """When agents give something away, and how.

    Attributes:
        every: at each so many-th gradient
        mail: whether it is accumulated, and arrives as mail; else it is published
        before: whether it is the model of before the gradient
        mixing: at which gradients what was heard enters the model; repeats itself
        kind: of the message
    """

    every: int = 1
    mail: bool = False
    before: bool = False
    mixing: tuple[bool, ...] = (True,)
    kind: str = ""


class NotLinear(Exception):
    """The algorithm with this rule does something else."""


class NotSoon(NotLinear):
    """What an agent does takes longer than MOST gradients to repeat itself: nothing is known of it."""


class Reading:
    """One agent's forms: by gradient, repeating themselves; where mail comes, by how many have been heard.

    Attributes:
        forms: these; of mail more are there as more are heard (`hear`)
        weights: by place in the row of W, with which the sum takes in what comes from there
    """

    def __init__(
        self, new_agent: Callable[[], Agent], rule: Rule, me: int, n: int, view: View, initial: Parts
    ) -> None:
        self.agent, x = new_agent(), Vector(initial)
        self.agent.join(me, n, x, view, rule, NO_CHANCE)
        self.agent.start()
        if [*map(type, self.agent.drain())] != [Compute] or self.agent.model is not x:
            raise NotLinear("it does more than to ask for a gradient at the start")
        self._row, self._start = [*view.w], x
        self._sum = self._kept()
        if self._sum is not None and any(bool(part.any()) for part in self._sum.parts):
            raise NotLinear("it keeps another vector than its model, and not a sum that begins at zero")
        self._heard = dict[int, Vector]()  # placeholders
        self.message: Message | None = None
        self.medium: type[Effect] = Publish
        self.weights = [0.0] * len(view.w)
        self.forms = self._cycle()
        others = [j for j in view.w if j != me]
        if others and self.message is None:
            raise NotLinear("it gives its neighbours nothing")
        if len(self.forms) > 1 and issubclass(self.medium, Accumulate):
            raise NotLinear("it gives differences away, but not at every gradient")
        if self._sum is None and others:
            self._hear_all(others)
        self.rhythm = self._rhythm()

    def _rhythm(self) -> Rhythm:
        gives = [form.given >= 0 for form in self.forms]
        every = 1 if all(gives) else len(gives)
        if any(gives) and gives != [every == 1] * (len(gives) - 1) + [True]:
            raise NotLinear("it gives something away at some gradients and not at others")
        if self.message is None:
            return Rhythm()
        given = self.forms[-1].forms[self.forms[-1].given]
        others = {k for k, j in enumerate(self._row) if j != self.agent.me}
        entering = [form.heard(form.model) for form in self.forms]
        if any(each and each != others for each in entering):
            raise NotLinear("it mixes some neighbours and not others")
        mixing, mail = tuple(map(bool, entering)), self.medium is Accumulate
        return Rhythm(every, mail, given == ((OWN, 0, 1.0),), mixing, type(self.message).__name__)

    # -- gradients ---------------------------------------------------------------------------------

    def _cycle(self) -> list[UpdateForm]:
        """The forms of gradient after gradient, until the agent's state, vectors aside, repeats itself."""
        states, forms = [self._state()], list[UpdateForm]()
        while len(forms) < MOST:
            forms.append(self._gradient())
            state = self._state()
            if state in states[:2]:  # the first may be as no later one: the model is that of the start
                again = states.index(state)
                if forms[0] == forms[-again]:
                    period = len(forms) - again
                    for _ in range(-again % period):  # up to where it begins anew
                        self._gradient()
                    return forms[:period]
            states.append(state)
            del states[2:]
        raise NotSoon(f"what an agent does has not repeated itself after {MOST:,} gradients")

    def _gradient(self) -> UpdateForm:
        """One gradient. What is given away is kept as `message`."""
        agent, before = self.agent, self.agent.model
        g = Vector(before.parts)
        with self._reading():
            agent.take(g)
            given = self._given(agent.drain())
            if agent.model is before:
                raise NotLinear("it does not change its model at a gradient")
            made = _Made(self._names() | {id(before): (OWN, 0), id(g): (GRADIENT, 0)})
            out, model = -1 if given is None else made.number(given), made.number(agent.model)
        return UpdateForm(tuple(made.forms), model, out)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What handlers build in it is read, and never computed."""
        with Scope() as scope:
            yield
            for v in filter(None, [ref() for ref in scope.born]):
                v._parts = self._start.parts

    def _given(self, effects: list[Effect]) -> Vector | None:
        """What is given away, if anything. Raises NotLinear for all else that is asked for."""
        given = [e for e in effects if isinstance(e, Publish | Accumulate) and e.to]
        others = [e for e in effects if not isinstance(e, Publish | Accumulate)]
        asked = [e.x for e in others if isinstance(e, Compute)]
        if len(given) > 1 or len(others) != 1 or asked != [self.agent.model]:
            raise NotLinear("it does not give away one thing and ask for the next gradient")
        for effect in given:
            inside = vectors(effect.message)
            if effect.to != self.agent.view.listeners or len(inside) != 1:
                raise NotLinear("it does not give one vector to all its listeners")
            if len(inside) < len(effect.message.__dataclass_fields__):
                raise NotLinear("it gives numbers away that change")
            self.message, self.medium = effect.message, type(effect)
            (v,) = inside.values()
            return v
        return None

    # -- what is heard -----------------------------------------------------------------------------

    def _hear_all(self, others: list[int]) -> None:
        """Read the forms with all neighbours heard; with none heard their places are another vector's."""
        if self.medium is not Publish:
            raise NotLinear("it keeps no sum of the differences that come")
        alone, start = self.forms, self.agent.model
        for j in others:
            self._heard[self._row.index(j)] = v = Vector(start.parts)
            self.agent.on_message(j, self._letter(v))
            if self.agent.drain() or self.agent.model is not start:
                raise NotLinear("it does something when it hears a message")
        together = self._cycle()
        if len(alone) != len(together):
            raise NotLinear("it does other things when it has heard somebody")
        self.forms = [_with_unheard(*both) for both in zip(together, alone, strict=True)]

    def hear(self, j: int) -> None:
        """The first difference of that neighbour comes: read what becomes of it, and of the later ones; and
        the form of a gradient from then on.
        """
        first, again = self._told(j), self._told(j)
        w = again[-1][-1][2]
        since = ((INITIAL, 0, 1.0), (HEARD, 0, 1.0)), ((SUM, 0, 1.0), (MADE, 0, w))
        if again != (((SUM, 0, 1.0), (HEARD, 0, w)),) or first != since:
            raise NotLinear("it does not add what it hears to one sum")
        self.weights[self._row.index(j)] = w
        self.forms.append(self._gradient())
        if len(self.forms) == len(self._row):
            state = self._state()
            self._told(j)
            if self._gradient() != self.forms[-1] or self._state() != state:
                raise NotLinear("it changes otherwise than by its vectors")

    def _told(self, j: int) -> tuple[Terms, ...]:
        """How the sum changes when a difference comes from j."""
        agent, model, d = self.agent, self.agent.model, Vector(self._start.parts)
        with self._reading():
            agent.on_message(j, self._letter(d))
            if agent.drain() or agent.model is not model:
                raise NotLinear("it does more than to add what it hears")
            made, new = _Made(self._names() | {id(d): (HEARD, 0)}), self._kept()
            if new is None:
                raise NotLinear("it keeps no sum of what it hears")
            made.number(new)
        self._sum = new
        return tuple(made.forms)

    def _letter(self, v: Vector) -> Message:
        message: Any = self.message
        return replace(message, **dict.fromkeys(vectors(message), v))

    # -- the agent's state -------------------------------------------------------------------------

    def _kept(self) -> Vector | None:
        """The one vector in its fields, if any, besides its model and that of the start."""
        own = self.agent.model, self._start
        fields = {id(v): v for v in vars(self.agent).values() if isinstance(v, Vector)}
        found = [v for v in fields.values() if not any(v is each for each in own)]
        if len(found) > 1:
            raise NotLinear("it keeps other vectors than its model and a sum")
        return found[0] if found else None

    def _names(self) -> dict[int, tuple[int, int]]:
        names = {id(v): (HEARD, k) for k, v in self._heard.items()} | {id(self._start): (INITIAL, 0)}
        return names if self._sum is None else names | {id(self._sum): (SUM, 0)}

    def _state(self) -> bytes:
        """All that is in its fields, vectors by what they stand for."""
        file = io.BytesIO()
        _State(file, self._names() | {id(self.agent.model): (OWN, 0)}).dump(vars(self.agent))
        return file.getvalue()


def readings(
    new_agent: Callable[[], Agent], new_rule: Callable[[], Rule], views: Sequence[View], initial: Parts
) -> tuple[list[Reading], Rhythm]:
    """Those of all agents, of those alike the same one; and when they give. Raises NotLinear."""
    known, n = dict[Any, Reading](), len(views)
    found, rhythm = list[Reading](), Rhythm()
    for i, view in enumerate(views):
        shape = (*view.w.values(), [*view.w].index(i), bool(view.listeners), rhythm.mail and i)
        if shape not in known:
            known[shape] = Reading(new_agent, new_rule(), i, n, view, initial)
            rhythm = known[shape].rhythm
        found.append(known[shape])
    return found, rhythm


class _Made:
    """The forms that vectors are of, in the order in which they have to be made."""

    def __init__(self, known: dict[int, tuple[int, int]]) -> None:
        self._known, self.forms = known, list[Terms]()

    def number(self, v: Vector) -> int:
        """The number of its form; what is no form becomes one, of itself."""
        what, which = self._of(v)
        if what == MADE:
            return which
        self.forms.append(((what, which, 1.0),))
        return len(self.forms) - 1

    def _of(self, v: Vector) -> tuple[int, int]:
        if id(v) not in self._known:
            if not v._terms:
                raise NotLinear("what it makes is not a linear form of what it has and the gradient")
            self.forms.append(tuple([(*self._of(u), c) for c, u in v._terms]))
            self._known[id(v)] = MADE, len(self.forms) - 1
        return self._known[id(v)]


class _NoChance:
    """The random stream of an agent that must not draw."""

    def __getattr__(self, name: str) -> Any:
        raise NotLinear("it draws random numbers")


NO_CHANCE: Any = _NoChance()


class _State(pickle.Pickler):
    """Fields of an agent, with names for vectors."""

    def __init__(self, file: io.BytesIO, names: dict[int, tuple[int, int]]) -> None:
        super().__init__(file)
        self._names = names

    def persistent_id(self, obj: Any) -> tuple[int, int] | None:
        if isinstance(obj, _NoChance | View):  # the same at all times
            return -1, 0
        if not isinstance(obj, Vector):
            return None
        if id(obj) not in self._names:
            raise NotLinear("it keeps a vector that is neither its model nor what it hears")
        return self._names[id(obj)]


def _with_unheard(together: UpdateForm, alone: UpdateForm) -> UpdateForm:
    """The form, and what stands in for the unheard: what is there where nobody was heard."""
    if [*map(len, together.forms)] != [*map(len, alone.forms)]:
        raise NotLinear("it does other things when it has heard somebody")
    both = [*zip(chain(*together.forms), chain(*alone.forms), strict=True)]
    instead = {b[:2] for a, b in both if a[0] == HEARD}
    if len(instead) > 1:
        raise NotLinear("what it has not heard is not replaced by one vector of its own")
    unheard = instead.pop() if instead else (OWN, 0)
    same = all(b == (a if a[0] != HEARD else (*unheard, a[2])) for a, b in both)
    if not same or (together.model, together.given) != (alone.model, alone.given):
        raise NotLinear("what it has not heard is not replaced by a vector of its own")
    return replace(together, unheard=unheard)
