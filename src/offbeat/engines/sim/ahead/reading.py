"""What an algorithm's class does when something happens to one of its agents, read off the class itself.

`Reading` runs the handlers of an agent on vectors that stand for numbers nobody knows yet, and reads what
they make as linear forms: so the formulas stand in one place, the algorithm's file. What an agent is between
two handlers, its vectors aside, is a `State`; what a handler makes of it is a `Template`, read when it is
needed for the first time. So an agent is a machine of states and templates, and a run walks through it.

What is read must be free-running, and that is found out: it starts with a gradient and asks for the next at
each; at each, or at each h-th, and only then, it gives the same kinds of messages to the same receivers,
whatever it hears; all that it makes are linear forms; it looks at no number of a vector, at no clock, and
draws nothing. Anything else raises `NotLinear`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from offbeat.core.agent import Accumulate, Agent, Compute, Effect, Message, Publish, View
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
    UNKNOWN,
    UNSEEN,
    ZERO,
    Made,
    NotLinear,
    SharedRule,
    Source,
    Terms,
    late_bound,
)

MODEL, ASKED, GIVEN = range(3)
"""The vectors of a state: the model, where the gradient is taken, from here on what was given last, slot by
slot; then those in the agent's fields."""
MOST = 2_000  # states of one agent after which nothing is known of it


class NotSoon(NotLinear):
    """What an agent does takes longer than MOST states to repeat itself."""


@dataclass(frozen=True)
class Slot:
    """What an agent gives at once: while it waits the newest wins, or all is summed.

    Attributes:
        kind: of the message
        to: its receivers
        fields: of the message, which are vectors
        sums: whether it is summed, and arrives as mail
        before: whether it is the model of before the gradient
        first: of the state's vectors, the first that is its own
    """

    message: Message
    to: tuple[int, ...]
    fields: tuple[str, ...]
    sums: bool
    before: bool
    first: int

    @property
    def kind(self) -> str:
        return type(self.message).__name__


@dataclass(eq=False)
class State:
    """What an agent is between two handlers: its fields, pickled, and how many vectors it has.

    Attributes:
        told: for what may be heard, what becomes of it; done: what a gradient makes; as far as it is known
        steady: whether nothing that may happen makes another state of it; None: not known
    """

    fields: bytes
    many: int
    told: dict[int, "Template"] = field(default_factory=dict)
    done: "Template | None" = None
    steady: bool | None = None


@dataclass(eq=False)
class Template:
    """What a handler makes of a state.

    Attributes:
        cells: linear forms, one after the other
        outs: for each vector of the new state, the cell that it is
        then: the new state
        gives: whether something is given away
        mixed: which of what was heard entered the model
        number: among all of the reading
        idle: whether no vector changes, so that there is nothing to make
        adding: the same where what was given before still waits, and is added to
    """

    cells: tuple[Terms, ...]
    outs: tuple[int, ...]
    then: State
    gives: bool
    mixed: tuple[int, ...]
    number: int = -1
    idle: bool = False
    adding: "Template | None" = None


class Reading:
    """The states and templates of one agent, and of all that see the same of the graph.

    Attributes:
        slots: what it gives, in this order; every: at each so many-th gradient
        inputs: what it may hear: from whom, and which message; `listen` says so
        schedule: what its learning rate follows, if it does
        initial: whether each vector of the first state is zero; else it is the model that all start from
    """

    def __init__(
        self, new_agent: Callable[[], Agent], new_rule: Callable[[], Rule], me: int, n: int, view: View
    ) -> None:
        self._new, self._rule, self._place = new_agent, new_rule, (me, n, view)
        self.schedule: Schedule | None = None
        self.slots, self.inputs = tuple[Slot, ...](), list[tuple[int, Message, bool]]()
        self._places, self._late = list[Vector](), list[list[Vector]]()
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
        self._states, self.templates = dict[bytes, State](), list[Template]()
        me, n, view = self._place
        agent, x = self._new(), Vector(UNKNOWN)
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
        self.inputs = inputs
        self._late = [[late_bound() for _ in vectors(message)] for _, message, _ in inputs]

    @property
    def fields(self) -> list[tuple[int, int]]:
        """The vectors that may be heard: of each its input, and which field of that."""
        return [(k, f) for k, late in enumerate(self._late) for f in range(len(late))]

    # -- handlers ----------------------------------------------------------------------------------

    def gradient(self, state: State) -> Template:
        """What the agent makes of a gradient."""
        if state.done is None:
            agent, names = self._restored(state)
            g, calls = Vector(UNKNOWN), SharedRule.calls
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

    def hear(self, state: State, which: int) -> Template:
        """What becomes of it when that is heard."""
        if which not in state.told:
            agent, names = self._restored(state)
            src, message, mail = self.inputs[which]
            fresh = [Vector(UNKNOWN) for _ in self._late[which]] if mail else self._late[which]
            at = 0 if mail else self.fields.index((which, 0))  # mail has an input of its own
            names |= {id(v): (HEARD, at + f) for f, v in enumerate(fresh)}
            model, calls = agent.model, SharedRule.calls
            with self._handler():
                agent.on_message(src, replace(message, **dict(zip(vectors(message), fresh, strict=True))))
                if agent.drain() or agent.model is not model or SharedRule.calls != calls:
                    raise NotLinear("it does more than to take note of what it hears")
                state.told[which] = self._read(agent, names, [], [])
        return state.told[which]

    def steady(self, state: State) -> bool:
        """Whether it stays in this state, whatever happens."""
        if state.steady is None:
            state.steady = self.gradient(state).then is state and all(
                (told := self.hear(state, k)).then is state and told.idle for k in range(len(self.inputs))
            )
        return state.steady

    @contextmanager
    def _handler(self) -> Iterator[None]:
        """What handlers build in it is read, and never computed."""
        with Scope() as scope:
            yield
            for v in filter(None, [ref() for ref in scope.born]):
                v._parts = UNKNOWN

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
        return [v for effect in gives for v in vectors(effect.message).values()]

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
        cells = [made.cell(model), made.cell(asked[0]) if asked else made.alias((STATE, ASKED))]
        self._check_versions(given, names)
        many = sum(len(slot.fields) for slot in self.slots)
        cells += [made.cell(v) for v in given] or [made.alias((STATE, GIVEN + k)) for k in range(many)]
        order = {id(model): MODEL}
        if asked:
            order.setdefault(id(asked[0]), ASKED)
        known = len(cells)
        late = {id(v): (k, f) for k, each in enumerate(self._late) for f, v in enumerate(each)}

        def name(v: Vector) -> tuple[str, int, int]:
            if id(v) in late:
                return "late", *late[id(v)]
            if id(v) not in order:
                if names.get(id(v), (0, 0))[0] == HEARD:
                    raise NotLinear("it keeps a letter, whose version would count as its own")
                order[id(v)] = len(cells)
                cells.append(made.cell(v))
            return "v", order[id(v)], 0

        fields, _ = frozen(agent, name)
        if len(self._states) > MOST:
            raise NotSoon(f"what an agent does has not repeated itself after {MOST:,} states")
        then = self._states.setdefault(fields, State(fields, len(cells)))
        same = [made.forms[cell] == ((STATE, k, 1.0),) for k, cell in enumerate(cells)]
        idle = not effects and all(same)
        return self._numbered(
            Template(tuple(made.forms), tuple(cells), then, bool(given), mixed, idle=idle), known
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
            made.adding = replace(made, cells=made.cells + sums, outs=tuple(outs), number=made.number + 1)
            self.templates.append(made.adding)
        return made

    def _restored(self, state: State) -> tuple[Agent, dict[int, Source]]:
        """An agent in that state, and what its vectors are."""
        while len(self._places) < state.many:
            self._places.append(Vector(UNKNOWN))
        agent = object.__new__(type(self._new()))
        agent.__dict__.update(Restored(state.fields, agent, self._place[2], self._places, self._late).load())
        names = {id(self._places[k]): (STATE, k) for k in range(state.many)}
        names |= {id(self._late[k][f]): (HEARD, at) for at, (k, f) in enumerate(self.fields)}
        return agent, names
