"""When and what is saved of an agent that trains in the user's own loop, and how it is restored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from offbeat.core.errors import ContractError, SettingError
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.encode import encode
from offbeat.engines.live.node.guard import Statistics, not_finite
from offbeat.engines.live.node.saving import Checkpoints
from offbeat.training.flat import FlatParameters
from offbeat.training.progress import DataProgress


@dataclass
class Saver:
    """Saves one agent with its training, and remembers what it was restored from.

    Attributes:
        restored: the checkpoint that it goes on from, if there is one
        statistics: what keeps the model's buffers finite, unless they may be as they are
    """

    checkpoints: Checkpoints
    driver: Driver
    model: nn.Module
    flat: FlatParameters
    optimizer: Optimizer
    progress: DataProgress
    restored: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.statistics = Statistics(self.model) if self.driver.guard.on else None
        self._checks = 0
        self._known: set[str] = set()
        self._usual: set[str] = set()

    def check(self) -> None:
        """Raise SettingError if something cannot be saved: now, and not after an hour of training."""
        self._checks += 1
        try:
            with self.driver.lock:
                state = {"agent": checkpoint.agent_state(self.driver.agent), **self._training()}
                _, tensors = encode(state)
            new = {name: tensor for name, tensor in tensors.items() if name not in self._known}
            self._known.update(new)
            self._usual.update(not_finite(new))  # a mask of -inf, or whatever an optimizer begins with
        except ContractError as error:
            raise SettingError(
                f"No checkpoint of this training can be saved: {error} Keep it outside the optimizer's "
                "groups and state, the model's get_extra_state, and the fields of an algorithm."
            ) from None

    def _training(self) -> dict[str, Any]:
        shared = set(self.flat.named(self.flat.parts))
        return {
            "rest": {name: t for name, t in self.model.state_dict().items() if name not in shared},
            "optimizer": self.optimizer.state_dict(),
            "data": self.progress.kept,
            "torch": torch.get_rng_state(),
        }

    def step_made(self) -> None:
        """Remember where the data are, and save if it is time again."""
        self.progress.keep()
        if self._checks < 2:
            self.check()  # once more, as optimizers make their state in their first step
        if self.checkpoints.due(self.driver):
            self.save()

    def save(self) -> str:
        """Write a checkpoint of the last step. Returns why it is not written, if it is not finite."""
        at = self.driver.actor.at
        if at is None or not self.checkpoints.due(self.driver, final=True):
            return ""
        self.mend()
        more = {"model": self.flat.named(at.parts), **self._training()}
        return self.checkpoints.save(self.driver, more, self._usual)

    def mend(self) -> None:
        """Give buffers that are not finite their last values."""
        if self.statistics is not None:
            self.statistics.mend()

    def restore(self, step: int | None) -> None:
        """Give optimizer, buffers, random numbers and loops the state that they had in the checkpoint of a
        step; the agent gives the parameters.

        Raises DataError, and SettingError if it is of another run.
        """
        if step is not None:
            state = self.restored = self.checkpoints.load(step)
            self.optimizer.load_state_dict(state["optimizer"])
            self.model.load_state_dict(state["rest"], strict=False)
            torch.set_rng_state(state["torch"])
        self.progress.restore(self.restored.get("data"))
