"""What an algorithm's class computes at a gradient, read off the class itself.

An algorithm that is declared free-running (`Algorithm.free_running`) promises: at every gradient, and only
then, it writes its model, as one linear form of its model, of the newest models heard and of the gradient;
gives it to all its listeners; and asks for the next gradient at it. `update_form_of` runs the handlers once,
on vectors that stand for these, and reads the form. So the formula stands in one place, the algorithm's file.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from offbeat.core.agent import Agent, Compute, Message, Publish, View
from offbeat.core.rules import Rule
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Parts, Scope, Vector
from offbeat.engines.outbox import vectors

GRADIENT = -1


@dataclass(frozen=True)
class UpdateForm:
    """sum_k c_k v_k from left to right. columns: places in a row of W, or GRADIENT; kind: of the message."""

    columns: tuple[int, ...]
    coefficients: tuple[float, ...]
    kind: str


class NotLinear(Exception):
    """The algorithm with this rule does something else."""


def update_form_of(
    new_agent: Callable[[], Agent], rule: Rule, me: int, n: int, view: View, initial: Parts
) -> UpdateForm:
    """The form of one agent. Raises NotLinear if it is none."""
    agent, x = new_agent(), Vector(initial)
    agent.join(me, n, x, view, rule, python_stream(0, Purpose.ALGORITHM, me))
    agent.start()
    if [*map(type, agent.drain())] != [Compute] or agent.model is not x:
        raise NotLinear("it does more than to ask for a gradient at the start")
    others, place = [j for j in view.w if j != me], [*view.w].index(me)
    alone, message = _step(agent, x, {})
    if message is None:
        if others:
            raise NotLinear("it does not publish its model")
        return alone
    heard, own = {j: Vector(initial) for j in others}, agent.x
    for j, v in heard.items():
        agent.on_message(j, replace(message, **dict.fromkeys(vectors(message), v)))
        if agent.drain() or agent.model is not own:
            raise NotLinear("it does something when it hears a message")
    together, _ = _step(agent, own, heard)
    if alone != replace(together, columns=tuple(c if c == GRADIENT else place for c in together.columns)):
        raise NotLinear("what it has not heard is not replaced by its own model")
    return together


def _step(agent: Agent, x: Vector, heard: dict[int, Vector]) -> tuple[UpdateForm, Message | None]:
    """One gradient: the form, and the message that was published, if any."""
    view, g = agent.view, Vector(x.parts)
    with Scope():
        agent.on_gradient(g)
        terms, effects = agent.model._terms, agent.drain()
    row = [*view.w]
    known = {id(v): row.index(j) for j, v in heard.items()} | {id(x): row.index(agent.me), id(g): GRADIENT}
    if not terms or any(id(v) not in known for _, v in terms):
        raise NotLinear("its model is not a linear form of models and the gradient")
    published = [effect for effect in effects if isinstance(effect, Publish) and effect.to]
    others = [effect for effect in effects if not isinstance(effect, Publish)]
    asked = [effect.x for effect in others if isinstance(effect, Compute)]
    if len(published) != bool(view.listeners) or len(others) != 1 or asked != [agent.model]:
        raise NotLinear("it does not publish its model and ask for the next gradient")
    for effect in published:
        if effect.to != view.listeners or [*vectors(effect.message).values()] != [agent.model]:
            raise NotLinear("it does not give its model, and nothing else, to all its listeners")
    message = published[0].message if published else None
    kind = type(message).__name__ if published else ""
    return UpdateForm(tuple(known[id(v)] for _, v in terms), tuple(c for c, _ in terms), kind), message
