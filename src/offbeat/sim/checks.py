"""Holds an algorithm and the engine to the contract of `offbeat.agent`. For tests: it is slow.

Raises ContractError, which names the promise that was broken.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

from torch import Tensor

from offbeat.agent import Agent, Alarm, Compute, Effect
from offbeat.errors import ContractError
from offbeat.vector import Vector


@dataclass
class Checker:
    """Checks promises b, c, d and e of the agent, and 3 of the engine, after every handler.

    Attributes:
        pickle_every: every how many handlers an agent is pickled
        remember: how many of the newest tensors that were given away are watched
    """

    pickle_every: int = 50
    remember: int = 200
    handlers: int = 0
    clock: dict[int, float] = field(default_factory=dict)
    given: list[tuple[str, Tensor, int]] = field(default_factory=list)

    def handled(self, agent: Agent, effects: list[Effect]) -> None:
        """Called by the engine after a handler, before its effects are performed."""
        name = type(agent).__name__
        if agent.now < self.clock.get(agent.me, 0.0):
            raise ContractError(f"The clock of agent {agent.me} went back to {agent.now} (promise 3 of the engine).")
        self.clock[agent.me] = agent.now
        if agent.model is not agent.model:
            raise ContractError(f"{name}'s model must be the same object until it changes: keep it in a field.")
        if agent.model.late:
            raise ContractError(f"{name}'s model would move on with a register: write pin(v) (promise 5).")
        if sum(type(effect) is Compute for effect in effects) > 1:
            raise ContractError(f"{name} asked for two gradients in one handler (promise c).")
        for effect in effects:
            self._watch(name, effect)
        for what, tensor, version in self.given:
            if tensor._version != version:
                raise ContractError(f"A vector that was given away in {what} was changed afterwards (promise b).")
        del self.given[: -self.remember]
        self.handlers += 1
        if self.handlers % self.pickle_every == 0:
            try:
                pickle.loads(pickle.dumps(agent))
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                raise ContractError(f"{name} cannot be pickled: {error} (promise e).") from error

    def _watch(self, name: str, effect: Effect) -> None:
        if isinstance(effect, Alarm):
            return
        if isinstance(effect, Compute):
            what, inside = f"{name}.compute", {"x": effect.x}
        else:
            message, what = effect.message, f"{name}'s {type(effect.message).__name__}"
            parameters = getattr(message, "__dataclass_params__", None)
            if parameters is None or not parameters.frozen:
                raise ContractError(f"{what} must be a frozen dataclass of vectors and numbers (promise d).")
            inside = {name: getattr(message, name) for name in message.__dataclass_fields__}
        for field_name, value in inside.items():
            if isinstance(value, Vector):
                self.given.extend((f"{what}.{field_name}", part, part._version) for part in value.parts)
            elif not isinstance(value, int | float):
                kind = type(value).__name__
                raise ContractError(f"{what}.{field_name} is a {kind}; expected a vector or a number (promise d).")
