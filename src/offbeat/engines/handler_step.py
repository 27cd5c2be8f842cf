"""One handler step: what happens when a handler of an agent is called, whichever engine calls it.

    the handler runs; what it returned, and what it asks for, is checked
    its model is another object: a *write*. It is counted, and what it mixed is read off its form
    what was written or is given away is stamped, and whatever is still referred to becomes a value
    a model that is not finite takes its former value again, where updates are looked at
    the event and the write are recorded; what was asked for is performed

A write is a *step* too if its handler asks for the next gradient, unless that was `rejoin`. The simulator,
the live node and the replay differ in how they settle, record and perform: each is an `Engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from offbeat.core import promises
from offbeat.core.agent import Accumulate, Agent, Alarm, Compute, Effect, Message, Publish, Send
from offbeat.core.errors import ContractError
from offbeat.core.forms import zero
from offbeat.core.sums import finite
from offbeat.core.vector import Scope, Stamp, Vector
from offbeat.engines.events import HANDLERS, Event, GradientDone, Regrouped, Rejoined, Resumed, ViewChanged
from offbeat.engines.outbox import Medium, values_of, vectors

GIVEN, VECTOR = (Send, Publish, Accumulate), (Vector,)
BEGIN_ANEW = Rejoined, Resumed, Regrouped
"""The events with which an agent begins that has been another before."""

Mixed = Sequence[Stamp] | None
"""The versions of others that entered what was written; None if nothing was."""


class Engine(Protocol):
    """What every engine does in its own way. Errors that it blames are the algorithm's; `scope` knows what a
    handler builds; `idle`: whether it wants to know of handlers after which there is nothing to do, and to
    settle and record where nothing was built or written.
    """

    blames: type[Exception]
    scope: Scope
    idle: bool

    def settle(self, actor: Actor, effects: Sequence[Effect], wrote: bool) -> None:
        """Have what the handler built evaluated."""
        self.scope.settle()

    def record(self, actor: Actor, effects: Sequence[Effect], mixed: Mixed, refused: bool) -> None:
        """Record a write, if there was one. The event is recorded, nothing performed. refused: the new model
        was not finite: it is the former one.
        """

    def compute(self, actor: Actor, x: Vector) -> None:
        """Start a gradient at x."""

    def give(self, actor: Actor, medium: Medium, to: tuple[int, ...], message: Message) -> None:
        """Have a message, whose vectors are fixed and stamped, on its way. What is accumulated has the number
        `actor.letter`.
        """

    def alarm(self, actor: Actor, after: float, name: str) -> None: ...


class SkipNotFinite:
    """A gradient that is not finite counts as zero before the algorithm sees it; a model that was written
    takes its former value. To look at the numbers alone is enough, so a replay does the same.
    """

    def refuses(self, tensors: Iterable[Tensor], step: int, what: Callable[[], str]) -> bool:
        """Whether these numbers, `what` they are, are not finite: the update of this step is skipped."""
        return not finite(tensors)

    def gradient(self, g: Vector, step: int) -> Vector:
        return zero(g) if self.refuses(g.parts, step, lambda: "the gradient") else g

    def restores(self, model: Vector, former: Vector, step: int) -> bool:
        """Whether a model that was just written has to be the former one again; it is, then."""
        refused = self.refuses(model.parts, step, lambda: "the new model")
        if refused:
            model.become(former)
        return refused


class Actor:
    """One agent as its engine drives it; its handlers are called here alone.

    Attributes:
        model, stamp, steps: the newest model, its stamp once it was written, how many gradients were applied
        at: where the gradient is taken that is outstanding; None: the agent has not asked for one
        letter: the number of what was accumulated last: the version then or, if there is one of that number,
            the next. It says up to where a sum goes; each life begins anew
    """

    def __init__(
        self, agent: Agent, engine: Engine, record: Callable[[Event], None], guard: SkipNotFinite | None
    ) -> None:
        self.agent, self.me, self.model, self.steps = agent, agent.me, agent.x, 0
        self.stamp = Stamp(agent.me, 0)
        self.at: Vector | None = None
        self.letter = -1
        self._engine, self._record, self._guard = engine, record, guard
        self._neighbours = agent.view.peers
        # What was found right to send, and how its values are read.
        self._allowed: dict[tuple[type, type, tuple[int, ...]], Callable[[Message], tuple[Any, ...]]] = {}

    @property
    def version(self) -> int:
        """How often its model was written."""
        return self.stamp.version

    def handle(self, event: Event, *args: Any) -> None:
        """Call the agent's handler for this event, and do all that follows. Raises ContractError."""
        agent, kind, engine = self.agent, type(event), self._engine
        handler, now = HANDLERS[kind], event.time
        agent.now = now
        if kind in BEGIN_ANEW:
            self.letter = -1
        try:
            local = kind is GradientDone and agent.local_steps > 1
            returned = getattr(agent, "take" if local else handler)(*args)
            if returned is not None:
                promises.returned_nothing(returned)
            if kind is ViewChanged:
                promises.check_view(agent, args[0])
            if agent.effects or engine.scope.born or engine.idle or agent.model is not self.model:
                self._finish(event)
            else:
                self._record(event)
        except engine.blames as error:
            promises.raise_blamed(error, agent, handler, now)
            raise

    def _finish(self, event: Event) -> None:
        engine, model, effects = self._engine, self.agent.model, self.agent.drain()
        wrote, refused, mixed = model is not self.model, False, None
        entered = self._written(model, event, effects) if wrote else ()
        late = self._stamped(effects)
        if engine.scope.born or engine.idle:
            engine.settle(self, effects, wrote)
        if wrote and self._guard is not None and self._guard.restores(model, self.model, self.steps):
            refused, effects = True, [effect for effect in effects if type(effect) is not Publish]
        self._record(event)
        if wrote:
            self.model, mixed = model, self._versions(entered)
        if wrote or engine.idle:
            engine.record(self, effects, mixed, refused)
        for effect in effects:
            if isinstance(effect, Compute):
                self.at = _fixed(effect.x) if late else effect.x
                engine.compute(self, self.at)
            elif isinstance(effect, Alarm):
                engine.alarm(self, effect.after, effect.name)
            elif effect.to:
                message = effect.message
                if late:
                    message = replace(message, **{name: _fixed(v) for name, v in vectors(message).items()})
                if type(effect) is Accumulate:
                    self.letter = max(self.letter + 1, self.version)
                engine.give(self, type(effect), effect.to, message)

    def _written(self, model: Vector, event: Event, effects: list[Effect]) -> list[Vector]:
        """Count a write, and stamp it. Returns the vectors with a stamp that enter it."""
        promises.checked_model(model)
        self.stamp = Stamp(self.me, self.stamp.version + 1)
        self.steps += type(event) is not Rejoined and Compute in map(type, effects)
        return stamped(model, self.stamp)

    def _versions(self, entered: Sequence[Vector]) -> Sequence[Stamp]:
        """Those of others, each once."""
        me, stamps = self.me, {v.stamp for v in entered}
        found = [stamp for stamp in stamps if stamp is not None and stamp[0] != me]
        return sorted(found) if len(found) > 1 else found

    def _stamped(self, effects: list[Effect]) -> bool:
        """Stamp what is given away without a stamp, with this version. Returns whether some is late bound.

        Raises ContractError for what the agent has promised not to ask for.
        """
        late, waiting, stamp = False, 0 if self.at is None else 1, self.stamp
        allowed: tuple[type, ...]
        for effect in effects:
            if isinstance(effect, Compute):
                inside: tuple[Any, ...] = (effect.x,)
                waiting, allowed = waiting + 1, VECTOR
            elif isinstance(effect, GIVEN):
                message, key = effect.message, (type(effect), type(effect.message), effect.to)
                if (values := self._allowed.get(key)) is None:
                    promises.check_sent(self.agent, effect, {*self._neighbours, *self.agent.view.peers})
                    values = self._allowed[key] = values_of(type(message))
                inside, allowed = values(message), promises.GIVABLE
            elif isinstance(effect, Alarm):
                continue
            else:
                raise ContractError(f"it asked for {effect!r}, which is no effect of the contract.")
            for v in inside:
                if not isinstance(v, Vector):
                    if not isinstance(v, allowed):
                        promises.check_given(effect)
                elif v.late:
                    late = True
                elif v.stamp is None:
                    v.stamp = stamp
        if waiting > 1:
            raise ContractError("it asked for a second gradient while one was outstanding (promise c).")
        return late


def stamped(model: Vector, stamp: Stamp) -> list[Vector]:
    """Stamp what was written. Returns the vectors with a stamp that enter it; itself, if it is another's."""
    entered = model.sources()
    if model.stamp is None:
        model.stamp = stamp
    elif model.stamp.agent != stamp.agent:
        entered.append(model)
    return entered


def _fixed(v: Vector) -> Vector:
    """A vector that is given away: its value now, if it moves on with a register."""
    return v.fixed() if v.late else v
