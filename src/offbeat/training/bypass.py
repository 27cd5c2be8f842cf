"""Notices a model that is trained past its agent: by another optimizer than `wrap` returned, or by hand.

Whatever changes the parameters between two steps is part of the next step. So a second optimizer, made after
`wrap`, goes unnoticed as long as the first one makes steps too; but if it does all the work, nothing of it is
ever mixed, and what is exported is the model of before. How often other optimizers have made a step is
learned from torch, which calls a hook after every one; other changes in place from autograd's counters.
"""

from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from offbeat.core.errors import SettingError
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.guard import Statistics
from offbeat.engines.live.shm.board import Order
from offbeat.training.flat import FlatParameters

STEPS, CHANGES = 20, 200
"""So many steps of other optimizers, or changes in place, without one of ours are no clipping of weights."""

DO = "Only steps of the optimizer that `wrap` returned are mixed: make it before `wrap`, and step no other."
SKIPPED = "If a GradScaler skipped them all, its gradients were never finite: look at this agent's data."


class BypassDetector:
    """Counts what changes parameters outside the steps of their agent; use it in a `with` around these."""

    def __init__(
        self, optimizer: Optimizer, flat: FlatParameters, driver: Driver, statistics: Statistics | None
    ) -> None:
        self.optimizer, self.flat, self.driver, self.statistics = optimizer, flat, driver, statistics
        self._ours = {id(p) for p in flat.parameters}
        self._some = [flat.parameters[0], flat.parameters[-1]]
        self._within = self._warned = False
        self._who = ""
        self.hook = register_optimizer_step_post_hook(self._stepped)
        self._reset()

    def __enter__(self) -> None:
        self._within = True
        if self._changes() >= CHANGES:
            self._warn()

    def __exit__(self, *error: object) -> None:
        self._within = False
        self._reset()

    def finish(self) -> None:
        """At the end: was it the agent that was trained? Raises SettingError if only its model was."""
        self.hook.remove()
        actor, transport = self.driver.actor, self.driver.transport
        if actor.at is None or transport is None:
            return
        now = zip(self.flat.parts, actor.at.parts, strict=True)
        changed = any(not torch.equal(part.cpu(), then) for part, then in now)
        if changed and (self._others or self._changes() >= CHANGES):
            self._warn()
        if actor.steps or transport.board.order >= Order.STOP:
            return
        if changed or (self.statistics is not None and self.statistics.changed()):
            said = f"Agent {self.driver.me} made no step, though its model was changed."
            raise SettingError(f"{said} {DO} {SKIPPED}")
        self.driver.guard.tell(f"the script ended without a step. {DO}")

    def _stepped(self, optimizer: Optimizer, *_: Any) -> None:
        stepped = (id(p) for group in optimizer.param_groups for p in group["params"])
        if self._within or self._ours.isdisjoint(stepped):
            return
        self._others += 1
        ours = optimizer is self.optimizer
        whose = "the wrapped optimizer past its own step" if ours else "another optimizer"
        self._who = f"{whose} ({type(optimizer).__name__})"
        if self._others == STEPS:
            self._warn()

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            steps, changes = f"{self._others:,} steps of {self._who}", f"{self._changes():,} changes in place"
            what = f"{steps if self._others else changes} CHANGED THIS MODEL WITHOUT A STEP OF ITS AGENT"
            self.driver.guard.tell(f"{what}; the others hear nothing of that. {DO}")

    def _changes(self) -> int:
        return max(p._version - then for p, then in zip(self._some, self._then, strict=True))

    def _reset(self) -> None:
        self._then = [p._version for p in self._some]
        self._others = 0
