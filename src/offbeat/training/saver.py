"""When and what is saved of an agent that trains in the user's own loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from offbeat.core.errors import ContractError, SettingError
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.encode import encode
from offbeat.engines.live.node.guard import Statistics, not_finite
from offbeat.training.flat import FlatParameters
from offbeat.training.progress import DataProgress


@dataclass(frozen=True)
class Every:
    """How often: after so many steps, or so many seconds."""

    steps: int = 0
    seconds: float = 0.0

    @staticmethod
    def parse(text: str) -> Every:
        """'500' steps, or '60s'. Raises SettingError."""
        try:
            every = Every(seconds=float(text[:-1])) if text.endswith("s") else Every(steps=int(text))
        except ValueError:
            raise SettingError(
                f"Cannot read '{text}'; expected a number of steps, '500', or of seconds, '60s'."
            ) from None
        if not 0 < max(every.steps, every.seconds) < math.inf:
            raise SettingError(f"Checkpoints every {text}: expected more than 0, and less than for ever.")
        return every


@dataclass
class Saver:
    """Saves one agent into its folder, and remembers what it was restored from."""

    folder: Path
    about: Mapping[str, Any]
    every: Every
    model: nn.Module
    flat: FlatParameters
    optimizer: Optimizer
    places: DataProgress
    restored: Mapping[str, Any] = field(default_factory=dict)
    statistics: Statistics | None = None
    """What keeps the model's buffers finite, if anything does."""

    def __post_init__(self) -> None:
        self._saved_at, self._saved_step, self._checks = time.monotonic(), -1, 0
        self._known: set[str] = set()
        self._usual: set[str] = set()

    def due(self, steps: int) -> bool:
        """Whether it is time again."""
        if self.every.steps:
            return steps % self.every.steps == 0
        return time.monotonic() - self._saved_at >= self.every.seconds

    def check(self, driver: Driver) -> None:
        """Raise SettingError if something cannot be saved: now, and not after an hour of training."""
        self._checks += 1
        try:
            with driver.lock:
                _, tensors = encode({"agent": checkpoint.agent_state(driver.agent), **self._training()})
            new = {name: tensor for name, tensor in tensors.items() if name not in self._known}
            self._known.update(new)
            self._usual.update(not_finite(new))  # a mask of -inf, or whatever an optimizer begins with
        except ContractError as error:
            raise SettingError(
                f"No checkpoint of this training can be saved: {error} Keep it outside the optimizer's "
                "groups and state, the model's get_extra_state, and the fields of an algorithm."
            ) from None

    def _training(self) -> dict[str, Any]:
        """What is saved beside the agent and its parameters."""
        shared = set(self.flat.named(self.flat.parts))
        return {
            "rest": {name: t for name, t in self.model.state_dict().items() if name not in shared},
            "optimizer": self.optimizer.state_dict(),
            "data": self.places.kept,
            "torch": torch.get_rng_state(),
        }

    def save(self, driver: Driver, final: bool = False) -> str:
        """Write a checkpoint if one is due, or `final`. Returns why it is not written, if it is not finite."""
        if self._checks < 2:
            self.check(driver)  # once more, as optimizers make their state in their first step
        at, steps = driver.performer.at, driver.performer.steps
        if at is None or steps == self._saved_step or not (final or self.due(steps)):
            return ""
        self.mend()
        more = {"model": self.flat.named(at.parts), **self._training()}
        refused = driver.save(self.folder, self.about, more, self._usual)
        self._saved_at = time.monotonic()
        self._saved_step = self._saved_step if refused else steps
        return refused

    def mend(self) -> None:
        """Give buffers that are not finite their last values (`Statistics.mend`)."""
        if self.statistics is not None:
            self.statistics.mend()

    def load(self, step: int) -> Mapping[str, Any]:
        """The checkpoint of a step. Raises DataError, and SettingError if it is of another run."""
        about, state = checkpoint.load(self.folder / f"{checkpoint.step_name(step)}.safetensors")
        checkpoint.refuse_other(about, dict(self.about))
        self.restored = state
        return self.restored

    def restore_training(self) -> None:
        """Give optimizer, buffers, random numbers and loops their state; the agent gives the parameters."""
        if self.restored:
            self.optimizer.load_state_dict(self.restored["optimizer"])
            self.model.load_state_dict(self.restored["rest"], strict=False)
            torch.set_rng_state(self.restored["torch"])
        self.places.restore(self.restored.get("data"))
