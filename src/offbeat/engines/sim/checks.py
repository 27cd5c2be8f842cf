"""Holds an algorithm and the engine to the contract of `offbeat.core.agent`, where that takes time
(`check=True`). What costs next to nothing is always checked, by `offbeat.core.promises`.
"""

import copyreg
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from offbeat.core.agent import Agent, Alarm, Compute, Effect
from offbeat.core.errors import ContractError
from offbeat.core.vector import Vector
from offbeat.engines.outbox import vectors


@dataclass
class Checker:
    """Checks promises b and e of the agent, that its model keeps its size, and 3 of the engine."""

    pickle_every: int = 50  # so many handlers
    remember: int = 200  # so many of the newest tensors that were given away
    handlers: int = 0
    clock: dict[int, float] = field(default_factory=dict)
    given: list[tuple[str, Tensor]] = field(default_factory=list)
    """What was given away: in what, and a copy of its value then."""
    tensors: list[Tensor] = field(default_factory=list)
    """The tensors of which those are the values."""
    versions: list[int] = field(default_factory=list)
    """How often each had been written to by then, as torch counts it."""
    sizes: dict[int, list[int]] = field(default_factory=dict)

    def handled(self, agent: Agent, effects: Sequence[Effect]) -> None:
        """After a handler, before its effects are performed. Raises ContractError, naming the promise."""
        if agent.now < self.clock.get(agent.me, 0.0):
            raise ContractError(f"the clock went back to {agent.now} (promise 3 of the engine).")
        self.clock[agent.me] = agent.now
        if agent.model is not agent.model:
            raise ContractError("its model must be the same object until it changes: keep it in a field.")
        size = [part.numel() for part in agent.model.parts]
        if size != self.sizes.setdefault(agent.me, size):
            raise ContractError(f"its model has {size} numbers now; it began with {self.sizes[agent.me]}.")
        for effect in effects:
            if isinstance(effect, Compute):
                self._watch("compute", effect.x)
            elif not isinstance(effect, Alarm):
                for name, v in vectors(effect.message).items():
                    self._watch(f"{type(effect.message).__name__}.{name}", v)
        self.handlers += 1
        closely = self.handlers % self.pickle_every == 0
        if closely or [*map(version, self.tensors)] != self.versions:
            self._unchanged()
        for each in (self.given, self.tensors, self.versions):
            del each[: -self.remember]
        if closely:
            try:
                _there_and_back(agent)
            except Exception as error:  # whatever it is: it may come from the agent's own methods
                raise ContractError(f"it cannot be pickled: {error} (promise e).") from error

    def _unchanged(self) -> None:
        for (what, value), tensor, before in zip(self.given, self.tensors, self.versions, strict=True):
            if version(tensor) != before or _bytes(tensor) != _bytes(value):
                raise ContractError(
                    f"a vector that was given away in {what} was changed afterwards (promise b): write "
                    "self.x = self.x + d, never into its tensors."
                )

    def _watch(self, what: str, v: Vector) -> None:
        self.given += [(what, part.clone()) for part in v.parts]
        self.tensors += v.parts
        self.versions += map(version, v.parts)


version = attrgetter("_version")


def _bytes(tensor: Tensor) -> bytes:
    """For who looks closely: they show what was changed behind torch's back, too."""
    return tensor.numpy(force=True).tobytes()


def _there_and_back(agent: Agent) -> None:
    """Pickle it, and make it again; for plain tensors, which can be and take long, others stand."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    pickler.dispatch_table = copyreg.dispatch_table | {Tensor: _standing_in}
    pickler.dump(agent)
    pickle.loads(file.getbuffer())


def _standing_in(tensor: Tensor) -> Any:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if tensor.requires_grad or tensor.__dict__ or not plain:
        return tensor.__reduce_ex__(pickle.DEFAULT_PROTOCOL)  # type: ignore[no-untyped-call]
    return _empty, (tuple(tensor.shape), tensor.dtype)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)
