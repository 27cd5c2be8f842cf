"""What an algorithm's class does when something happens to one of its agents, read off the class itself.

`Reading` runs the handlers of an agent on vectors that stand for numbers nobody knows yet, and reads what
they make as linear forms: so the formulas stand in one place, the algorithm's file. What an agent is between
two handlers, its vectors aside, is a `State`; what a handler makes of it is a `Template`, read when it is
needed for the first time. So an agent is a machine of states and templates, and a run walks through it.

What is read must be free-running, and that is found out: it starts with a gradient and asks for the next at
each; at each, or at each h-th, and only then, it gives the same kinds of messages to the same receivers,
whatever it hears; all that it makes are linear forms, of models or of pieces of them, and models with pieces
of others in them; it looks at no number of a vector, at no clock, and draws nothing. Anything else raises
`NotLinear`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import dropwhile
from typing import Any

from torch import Tensor

from offbeat.core.agent import Accumulate, Agent, Compute, Effect, Message, Publish, View
from offbeat.core.forms import Piece
from offbeat.core.rules import Rule, Scheduled
from offbeat.core.schedules import Schedule
from offbeat.core.vector import Scope, Vector
from offbeat.engines.outbox import vectors
from offbeat.engines.sim.ahead.fields import Restored, frozen
from offbeat.engines.sim.ahead.placeholders import (
    GRADIENT,
    HEARD,
    MADE,
    STATE,
    UNSEEN,
    ZERO,
    Made,
    NotLinear,
    SharedRule,
    Source,
    cut_of,
    late_bound,
    unknown,
)
from offbeat.engines.sim.ahead.states import ASKED, GIVEN, MODEL, Slot, State, Template
from offbeat.engines.sim.ahead.unchanged import Unchanged

FEW = 16  # inputs up to which the same ones are often heard together
MOST = 2_000  # states of one agent after which nothing is known of it


class NotSoon(NotLinear):
    """What an agent does takes longer than MOST states to repeat itself."""


class Reading:
    """The states and templates of one agent, and of all that see the same of the graph.

    Attributes:
        slots: what it gives, in this order; every: at each so many-th gradient
        inputs: what it may hear: from whom, and which message; `listen` says so
        fields: the vectors that may be heard: of each its input, and which field of that
        together: whether all that it hears before a gradient is read at once, as the same set hardly comes
            again; else one by one
        schedule: what its learning rate follows, if it does
        initial: whether each vector of the first state is zero; else it is the model that all start from
    """

    def __init__(
        self, new_agent: Callable[[], Agent], new_rule: Callable[[], Rule], model: Tensor,
        me: int, n: int, view: View,
    ) -> None:  # fmt: skip
        self._new, self._rule, self._model, self._place = new_agent, new_rule, model, (me, n, view)
        self.schedule: Schedule | None = None
        self.slots, self.inputs = tuple[Slot, ...](), list[tuple[int, Message, bool]]()
        self._places, self._late, self.fields = list[Vector](), list[list[Vector]](), list[tuple[int, int]]()
        self._heard, self._named = dict[int, Source](), dict[int, tuple[str, int, int]]()
        self.together = False
        self._opened: tuple[State, Agent, dict[int, Source], Unchanged] | None = None
        self._begin()
        gives = self._alone()
        if len(view.listeners) and not self.slots:
            raise NotLinear("it gives its neighbours nothing")
        if self.slots:
            self._begin()
            gives = self._alone()
        self.every = 1 + gives.index(True) if any(gives) else 1
        if any(gives) and gives != [(k + 1) % self.every == 0 for k in range(len(gives))]:
            raise NotLinear("it gives something away at some gradients and not at others")

    def _begin(self) -> None:
        """The state in which it starts."""
        self._states, self.templates = dict[tuple[Any, ...], State](), list[Template]()
        me, n, view = self._place
        agent, x = self._new(), Vector(unknown(self._model))
        agent.join(me, n, x, view, self._stepping(), UNSEEN)
        agent.now = UNSEEN
        with self._handler():
            agent.start()
            effects = agent.drain()
            if [*map(type, effects)] != [Compute] or agent.model is not x:
                raise NotLinear("it does more than to ask for a gradient at the start")
            first = self._read(agent, {id(x): (STATE, MODEL)}, effects, [])
        many = sum(len(slot.fields) for slot in self.slots)
        sources = [first.cells[cell] for cell in first.outs]
        sources[GIVEN : GIVEN + many] = [((ZERO, 0, 1.0),)] * many  # nothing was given yet
        if any(cell not in (((STATE, MODEL, 1.0),), ((ZERO, 0, 1.0),)) for cell in sources):
            raise NotLinear("it starts with other vectors than its model and zero")
        self.initial = [cell == ((ZERO, 0, 1.0),) for cell in sources]
        self.start, self.templates = first.then, []

    def _stepping(self) -> Rule:
        """The local rule; without its schedule, which says how much of the learning rate there is when."""
        rule = self._rule()
        if not isinstance(rule, Scheduled):
            return rule
        self.schedule = rule.schedule
        return SharedRule(rule.rule)

    def _alone(self) -> list[bool]:
        """Whether it gives something, gradient after gradient, until it repeats itself; hearing nobody."""
        state, seen, gives = self.start, dict[int, int](), list[bool]()
        while id(state) not in seen:
            seen[id(state)] = len(gives)
            done = self.gradient(state)
            gives.append(done.gives)
            state = done.then
        once = gives[: seen[id(state)]]
        again = gives[len(once) :]
        for k in range(len(gives)):  # the period once more, from wherever it begins
            gives.append(again[k % len(again)])
        return gives

    def listen(self, inputs: list[tuple[int, Message, bool]]) -> None:
        """What may be heard: of each from whom, what, and whether it is mail."""
        self.inputs, self.together = inputs, len(inputs) > FEW and not any(mail for _, _, mail in inputs)
        self._late = [[late_bound(v.parts) for v in vectors(message).values()] for _, message, _ in inputs]
        self.fields = [(k, f) for k, late in enumerate(self._late) for f in range(len(late))]
        self._heard = {id(self._late[k][f]): (HEARD, at) for at, (k, f) in enumerate(self.fields)}
        self._named = {id(self._late[k][f]): ("late", k, f) for k, f in self.fields}

    # -- handlers ----------------------------------------------------------------------------------

    def gradient(self, state: State) -> Template:
        """What the agent makes of a gradient."""
        if state.done is None:
            agent, names = self._restored(state)
            g, calls = Vector(unknown(self._model)), SharedRule.calls
            with self._handler():
                agent.take(g)
                if self.schedule is not None and SharedRule.calls != calls + 1:
                    raise NotLinear("it asks its local rule for no step at a gradient, or for two")
                effects = agent.drain()
                given = self._given(effects)
                if names.get(id(agent.model)) is not None:
                    raise NotLinear("it does not change its model at a gradient")
                state.done = self._read(agent, names | {id(g): (GRADIENT, 0)}, effects, given)
        return state.done

    def hear(self, state: State, what: tuple[int, ...]) -> Template:
        """What becomes of it when these are heard, one after the other."""
        what = (*dropwhile(state.idle.__contains__, what),)
        if not what or what in state.told:
            return state.told.get(what) or state.same
        agent, names, unchanged = self._open(state)
        model, calls, idle = agent.model, SharedRule.calls, True
        with self._handler():
            for at, which in enumerate(what):
                names = self._told(agent, which) | names
                if agent.effects or agent.model is not model or SharedRule.calls != calls:
                    raise NotLinear("it does more than to take note of what it hears")
                if idle and unchanged():
                    state.idle.add(which)
                elif idle:
                    idle, what = False, what[at:]
            if idle:
                return state.same
            self._opened = None
            state.told[what] = self._read(agent, names, [], [])
        return state.told[what]

    def _told(self, agent: Agent, which: int) -> dict[int, Source]:
        """The agent is told that; the vectors in it, if it has them for itself."""
        src, message, mail = self.inputs[which]
        late = self._late[which]
        given = [Vector(v.parts) for v in late] if mail else late
        agent.on_message(src, replace(message, **dict(zip(vectors(message), given, strict=True))))
        return {id(v): (HEARD, f) for f, v in enumerate(given)} if mail else {}

    def steady(self, state: State) -> bool:
        """Whether it stays in this state, whatever happens."""
        if state.steady is None:
            state.steady = self.gradient(state).then is state and all(
                (told := self.hear(state, (k,))).then is state and told.idle for k in range(len(self.inputs))
            )
        return state.steady

    @contextmanager
    def _handler(self) -> Iterator[None]:
        """What handlers build in it is read, and never computed."""
        with Scope() as scope:
            yield
            for v in filter(None, [ref() for ref in scope.born]):
                v._parts = unknown(self._model, cut_of(v))

    def _given(self, effects: list[Effect]) -> list[Vector]:
        """What is given away, slot by slot. Raises NotLinear for all else that is asked for."""
        gives = [e for e in effects if isinstance(e, Publish | Accumulate) and e.to]
        others = [e for e in effects if not isinstance(e, Publish | Accumulate)]
        if [*map(type, others)] != [Compute]:
            raise NotLinear("at a gradient it does not just give something away and ask for the next")
        for effect in gives:
            inside = vectors(effect.message)
            if not inside or len(inside) < len(effect.message.__dataclass_fields__):
                raise NotLinear("it gives numbers away, too")
        keys = [(type(e.message), e.to, isinstance(e, Accumulate)) for e in gives]
        if not self.slots:
            self._slots(gives)
        if keys and keys != [(type(s.message), s.to, s.sums) for s in self.slots]:
            raise NotLinear("it gives other things away at other gradients")
        given = [v for effect in gives for v in vectors(effect.message).values()]
        if given and [*map(cut_of, given)] != self._cuts:
            raise NotLinear("it gives other pieces away at other gradients")
        return given

    @property
    def _cuts(self) -> list[Piece | None]:
        """Of the vectors that it gives, which piece of a model each is."""
        return [cut_of(v) for slot in self.slots for v in vectors(slot.message).values()]

    def _slots(self, gives: list[Publish | Accumulate]) -> None:
        first, made = GIVEN, list[Slot]()
        for e in gives:
            names = tuple(vectors(e.message))
            before = any(v is self._places[MODEL] for v in vectors(e.message).values())
            made.append(Slot(e.message, e.to, names, isinstance(e, Accumulate), before, first))
            first += len(names)
        self.slots = tuple(made)

    # -- states ------------------------------------------------------------------------------------

    def _read(
        self, agent: Agent, names: dict[int, Source], effects: list[Effect], given: list[Vector]
    ) -> Template:
        """The template of what a handler has just made, and the state that it leads to."""
        made, model = Made(names), agent.model
        mixed = tuple(sorted({self.fields[k][0] for k in made.heard(model)})) if given or effects else ()
        asked = [e.x for e in effects if isinstance(e, Compute)]
        if any(cut_of(v) is not None for v in (model, *asked)):
            raise NotLinear("its model is a piece of one")
        cells = [made.cell(model), made.cell(asked[0]) if asked else made.alias((STATE, ASKED))]
        self._check_versions(given, names)
        many = sum(len(slot.fields) for slot in self.slots)
        cells += [made.cell(v) for v in given] or [made.alias((STATE, GIVEN + k)) for k in range(many)]
        order = {id(model): MODEL}
        if asked:
            order.setdefault(id(asked[0]), ASKED)
        known = len(cells)
        cuts = [None, None, *self._cuts]

        def name(v: Vector) -> tuple[str, int, int]:
            if id(v) in self._named:
                return self._named[id(v)]
            if id(v) not in order:
                if names.get(id(v), (0, 0))[0] == HEARD:
                    raise NotLinear("it keeps a letter, whose version would count as its own")
                order[id(v)] = len(cells)
                cells.append(made.cell(v))
                cuts.append(cut_of(v))
            return "v", order[id(v)], 0

        fields, _ = frozen(agent, name)
        if len(self._states) > MOST:
            raise NotSoon(f"what an agent does has not repeated itself after {MOST:,} states")
        if (made.cuts or any(cuts)) and not agent.beyond_graph:
            raise NotLinear("its pieces of models go by numbers of agents, which are not those of neighbours")
        then = self._states.setdefault((fields, *cuts), State(fields, (*cuts,)))
        same = [made.forms[cell] == ((STATE, k, 1.0),) for k, cell in enumerate(cells)]
        idle = not effects and all(same)
        return self._numbered(
            Template(tuple(made.forms), tuple(cells), then, bool(given), mixed, made.cuts, idle=idle), known
        )

    def _check_versions(self, given: list[Vector], names: dict[int, Source]) -> None:
        """What is given is of this version, or all of it the model of before."""
        before = [slot.before for slot in self.slots for _ in slot.fields]
        for v, old in zip(given, before, strict=False):
            source = names.get(id(v))
            if source not in (((STATE, MODEL),) if old else (None, (GRADIENT, 0))):
                raise NotLinear("it gives something away that is neither new nor its model")

    def _numbered(self, made: Template, known: int) -> Template:
        """It is one of the templates; where sums wait, so is what adds to them."""
        made.number = len(self.templates)
        self.templates.append(made)
        if made.gives and any(slot.sums for slot in self.slots):
            given = range(GIVEN, known)
            sums = tuple(((STATE, k, 1.0), (MADE, made.outs[k], 1.0)) for k in given)
            outs = [*made.outs]
            outs[GIVEN:known] = range(len(made.cells), len(made.cells) + len(sums))
            of = zip(outs[GIVEN:known], made.then.cuts[GIVEN:known], strict=True)
            cuts = {**made.cuts, **{cell: (cut, cut) for cell, cut in of if cut is not None}}
            made.adding = replace(
                made, cells=made.cells + sums, cuts=cuts, outs=tuple(outs), number=made.number + 1
            )
            self.templates.append(made.adding)
        return made

    def _open(self, state: State) -> tuple[Agent, dict[int, Source], Unchanged]:
        """An agent in that state, what its vectors are, and whether it is still in it."""
        if self._opened is None or self._opened[0] is not state:
            agent, names = self._restored(state)
            self._opened = state, agent, names, Unchanged(agent)
        return self._opened[1:]

    def _restored(self, state: State) -> tuple[Agent, dict[int, Source]]:
        """An agent in that state, and what its vectors are."""
        self._opened = None  # its vectors have other places
        while len(self._places) < state.many:
            self._places.append(Vector(unknown(self._model)))
        for place, cut in zip(self._places, state.cuts, strict=False):
            place._parts = unknown(self._model, cut)
        agent = object.__new__(type(self._new()))
        agent.__dict__.update(Restored(state.fields, agent, self._place[2], self._places, self._late).load())
        return agent, self._heard | {id(self._places[k]): (STATE, k) for k in range(state.many)}
