"""When an agent is saved, and from what it goes on: the same for a user's script and for an experiment."""

import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.differences import refuse_other
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.guard import NotFinite
from offbeat.engines.live.settings import CheckpointPolicy


@dataclass
class Checkpoints:
    """The checkpoints of one agent, in its folder; `about`: of which run."""

    folder: Path
    about: Mapping[str, Any]
    policy: CheckpointPolicy

    def __post_init__(self) -> None:
        self._saved_at, self._saved_step = time.monotonic(), -1

    def due(self, driver: Driver, final: bool = False) -> bool:
        """Whether the agent is to be saved now. One that waits for others never is: its step is half done."""
        actor, policy = driver.actor, self.policy
        if actor.at is None or actor.steps == self._saved_step or not policy:
            return False
        return final or policy.due(actor.steps, time.monotonic() - self._saved_at)

    def save(self, driver: Driver, more: Mapping[str, Any], usual: Set[str] = frozenset()) -> str:
        """Write a checkpoint of the agent and `more`, between steps; only if it is finite, but for tensors in
        `usual`. Returns why it is not written, which the agent's output says too; empty if it is.
        """
        refused, step = "", driver.actor.steps
        try:
            with driver.lock:
                checkpoint.begin(self.folder, step, self.about, {**driver.state(), **more}, usual)
        except NotFinite as error:
            refused = str(error)
            driver.guard.tell(refused)
        else:
            checkpoint.finish(self.folder, step)  # without the lock: mail is answered meanwhile
            self._saved_step = step
        self._saved_at = time.monotonic()
        return refused

    def load(self, step: int) -> Mapping[str, Any]:
        """The state of a step; damaged ones are set aside. Raises SettingError if it is of another run."""
        about, state = checkpoint.load(checkpoint.path_of(self.folder, step), checked=True)
        refuse_other(about, self.about)
        return dict(state)
