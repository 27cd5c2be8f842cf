"""What `optimizer.step` does once an agent has wrapped the model.

The gradient goes to the agent, whose rule is the optimizer's own step; the model that the agent answers with,
mixed, goes into the parameters.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from offbeat.engines.live.node.driver import Driver, Stopped
from offbeat.engines.live.node.faults import Faults
from offbeat.training.bypass import BypassDetector
from offbeat.training.flat import FlatParameters
from offbeat.training.optimizer_rule import OptimizerRule
from offbeat.training.saver import Saver


@dataclass(frozen=True)
class TrainingStep:
    """One step of a wrapped model.

    Attributes:
        saver, bypass: None where the agent is alone, without a run
    """

    flat: FlatParameters
    rule: OptimizerRule
    driver: Driver
    faults: Faults
    saver: Saver | None
    bypass: BypassDetector | None

    def __call__(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the loss of the closure. Raises SystemExit if the run has been stopped."""
        with self.bypass or nullcontext():
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            self.flat.check()
            if self.saver is not None:
                self.saver.mend()
            found = getattr(self.rule.optimizer, "found_inf", None)
            if found is None or not found:  # GradScaler has a fused optimizer skip the step by itself
                self._make()
            return loss

    def _make(self) -> None:
        self.faults.before_step(self.driver.actor.steps)
        try:
            with self.driver.lock:
                x = self.driver.step(self.rule.gradient())
                self.rule.keep()
        except Stopped:
            raise SystemExit(0) from None  # `leave` saves
        self.flat.write(x.parts, told=self.saver is not None)  # alone nothing is mixed
        if self.saver is not None:
            self.saver.step_made()
        self.faults.after_step()
