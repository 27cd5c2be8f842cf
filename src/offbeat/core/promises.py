"""What is always checked of an algorithm, whatever runs it: cheap, and said by name.

An error names the class, the agent, its handler and the time. What costs more: `offbeat.engines.sim.checks`.
"""

import sys
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import Field
from pathlib import Path
from random import Random
from traceback import extract_tb
from typing import Any

import numpy as np
from torch import Tensor

from offbeat.core.agent import Accumulate, Agent, Compute, Publish, Send
from offbeat.core.errors import ContractError, OffbeatError
from offbeat.core.vector import Vector

Given = Send | Publish | Accumulate
GIVABLE = (Vector, int, float)
# What a class must not have: its agents, and its runs one after another, would share it.
MUTABLE = (list, dict, set, bytearray, deque, Tensor, np.ndarray, Vector, Random, np.random.Generator)


def raise_blamed(error: Exception, agent: Agent, event: str, time: float) -> None:
    """Raise the error as the algorithm's, unless it says already what is wrong, or is somebody else's."""
    ours = isinstance(error, OffbeatError) and not isinstance(error, ContractError)
    if ours or isinstance(error, MemoryError):
        return
    raised = f"it raised {type(error).__name__}: {error}{_line(error, agent)}"
    text = str(error) if isinstance(error, ContractError) else raised
    where = f"{type(agent).__name__} (agent {agent.me}), in {event} at time {time:g}"
    raise ContractError(f"{where}: {text}") from error


def _line(error: Exception, agent: Agent) -> str:
    """The last line of the file of the agent's class that led to this error, if one did."""
    file = getattr(sys.modules.get(type(agent).__module__), "__file__", None)
    lines = [each.lineno for each in extract_tb(error.__traceback__) if each.filename == file]
    return f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""


@contextmanager
def named(agent: Agent, event: str, time: float = 0.0) -> Iterator[None]:
    """Whatever is raised here is the algorithm's. Raises ContractError for it."""
    try:
        yield
    except Exception as error:
        raise_blamed(error, agent, event, time)
        raise


def returned_nothing(value: object) -> None:
    """Raise ContractError unless a handler returned nothing."""
    if value is not None:
        do = "Effects are asked for by calls: self.compute(x), self.publish(...), self.send(...)"
        raise ContractError(f"it returned a {type(value).__name__}; expected None. {do}.")


def checked_model(model: object) -> Vector:
    """The model that a handler has left. Raises ContractError if it is none, or would change by itself."""
    if not isinstance(model, Vector):
        got = type(model).__name__
        raise ContractError(f"the model is a {got}; expected a Vector, as in self.x = self.x + d.")
    if model.late:
        raise ContractError("its model would move on with a register: write pin(v) (promise 5).")
    return model


def check_sent(agent: Agent, effect: Given, neighbours: Collection[int]) -> None:
    """Raise ContractError unless it is a frozen dataclass, and for neighbours.

    It depends on nothing but the type of the message and the receivers, so once for each is enough.
    """
    if wrong := next(_wrong_with(agent, effect, neighbours), None):
        what = f"{type(effect).__name__.lower()} of {type(effect.message).__name__}"
        raise ContractError(f"{what}: {wrong}.")


def _wrong_with(agent: Agent, effect: Given, neighbours: Collection[int]) -> Iterator[str]:
    parameters = getattr(type(effect.message), "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        must = "a message must be a frozen dataclass of vectors and numbers"
        yield f"{must}, decorated with @dataclass(frozen=True) (promise d)"
    for j in effect.to:
        if isinstance(j, bool) or not isinstance(j, int):
            yield f"a receiver is a {type(j).__name__}; expected the number of an agent"
        elif not 0 <= j < agent.n:
            yield f"there is no agent {j}; with {agent.n} agents they are 0 to {agent.n - 1}"
        elif j == agent.me:
            yield f"it is for the agent itself, agent {j}; expected others"
        elif j not in neighbours and not agent.beyond_graph:
            beyond = "A class whose messages go beyond the graph says beyond_graph = True (promise i)"
            yield f"agent {j} is no neighbour; expected some of {sorted(neighbours)}. {beyond}"
    if len(set(effect.to)) < len(effect.to):
        yield f"a receiver is named twice, {effect.to}"


def check_view(agent: Agent, view: object) -> None:
    """Raise ContractError unless the agent has kept the view that it was given."""
    if agent.view is not view:
        raise ContractError("it did not keep the view that it was given: write self.view = view (promise j).")


def check_given(effect: Given | Compute) -> None:
    """Raise ContractError unless a gradient is asked for at a vector; and what is in a message is givable."""
    if isinstance(effect, Compute):
        if not isinstance(effect.x, Vector):
            got = type(effect.x).__name__
            raise ContractError(f"compute was given a {got}; expected a Vector, as in self.compute(self.x).")
        return
    message = effect.message
    for name in message.__dataclass_fields__:
        value = getattr(message, name)
        if not isinstance(value, GIVABLE):
            kind, got = type(message).__name__, type(value).__name__
            raise ContractError(f"{kind}.{name} is a {got}; expected a vector or a number (promise d).")


def check_class(agent: Agent) -> None:
    """Raise ContractError if agents of this class would share what can change, were not made in full, or do
    nothing with the gradient that they ask for.
    """
    cls = type(agent).__name__
    if type(agent).on_gradient is Agent.on_gradient and type(agent).start is Agent.start:
        raise ContractError(f"{cls} must say what it does with a gradient: override on_gradient.")
    shared = "all agents, and all runs, would share it. Expected"
    for name, value in _attributes(type(agent)).items():
        where, kind = f"{cls}.{name}", type(value).__name__
        if isinstance(value, Field):
            do = "decorate it with @dataclass"
            raise ContractError(f"{where} is a field, but {cls} is no dataclass: {do}.")
        if isinstance(value, MUTABLE):
            raise ContractError(
                f"{where} is a {kind} of the class: {shared} a field of each agent, {name}: ... = "
                f"field(init=False, default_factory={kind}), or a constant that cannot change, as a tuple."
            )
        for default in getattr(value, "__defaults__", None) or ():
            if isinstance(default, MUTABLE):
                what = f"a default value that can change, a {type(default).__name__}"
                raise ContractError(f"{where} has {what}: {shared} None, or a tuple.")
    if not isinstance(getattr(agent, "effects", None), list):
        do = "its __init__ must call super().__init__(), or leave __init__ to @dataclass"
        raise ContractError(f"{cls} was not made in full: {do}.")


@contextmanager
def unchanged(cls: type[Agent]) -> Iterator[None]:
    """Raise ContractError if meanwhile, in a run, something changes that belongs to the class."""
    before = _attributes(cls)
    yield
    now = _attributes(cls)
    for name in {**before, **now}:
        if before.get(name, before) is not now.get(name, before):
            shared = "all agents, and all runs, share it. Expected a field of each agent"
            raise ContractError(f"{cls.__name__}.{name} was changed in a run: {shared}, self.{name}.")


def _attributes(cls: type[Agent]) -> dict[str, Any]:
    """What the classes of the user's own have, those of Python's own left out."""
    found: dict[str, Any] = {}
    for each in reversed(cls.__mro__):
        if issubclass(each, Agent) and each is not Agent:
            found |= {name: value for name, value in vars(each).items() if not name.startswith("__")}
    return found
