"""What `optimizer.step` does once an agent has wrapped the model.

The gradient goes to the agent, whose local rule is the optimizer's own step; the model that the agent answers
with, mixed, goes into the parameters.
"""

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from offbeat.core.forms import difference, zero
from offbeat.core.vector import Vector, lazy, opaque
from offbeat.engines.live.node.driver import Driver, Stopped
from offbeat.engines.live.node.faults import Faults
from offbeat.engines.live.node.guard import not_finite
from offbeat.training.bypass import BypassDetector
from offbeat.training.flat import FlatParameters, some
from offbeat.training.saver import Saver


class OptimizerRule:
    """The user's optimizer as the local rule: u = x - optimizer(x), at the x of the gradient.

    Set `driver` before the first step.
    """

    driver: Driver

    def __init__(self, flat: FlatParameters, optimizer: Optimizer) -> None:
        self.flat, self.optimizer = flat, optimizer
        self._step: Callable[[], Any] = optimizer.step
        self._g: Callable[[], Vector | None] = lambda: None
        self._refused = False

    def gradient(self) -> Vector:
        """The gradient as it lies in the parameters; gathered only if the algorithm looks at it.

        One that the guard refuses is zero, and the optimizer is not asked about it.
        """
        guard, self._refused = self.driver.guard, False
        if guard.on:
            grads, step = self.flat.gradients(), self.driver.actor.steps + 1
            self._refused = guard.refuses(
                grads.values(), step, lambda: f"the gradient ({some(not_finite(grads))})"
            )
        make = self.flat.zeros if self._refused else self.flat.gradient
        g = lazy(lambda: tuple(part.cpu() for part in make()))
        self._g = weakref.ref(g)
        return g

    def keep(self) -> None:
        """After the step: if the algorithm keeps the gradient, gather it; the parameters' may change now."""
        g = self._g()
        if g is not None:
            g.parts  # noqa: B018  (reading evaluates)

    def __call__(self, g: Vector) -> Vector:
        driver, x = self.driver, self.driver.snapshot
        assert x is not None
        if g is not self._g():
            driver.performer.force()  # not on a version that may be overwritten before the handler ends
            step, what = driver.actor.steps + 1, "the tracked or averaged gradient"
            if driver.guard.refuses(g.parts, step, lambda: what):
                return zero(x)
            self.flat.set_gradient(g.parts)
        elif self._refused:
            return zero(x)
        self._step()
        # If the agent has mixed since, then x is no version that enters the model.
        before = x if x is driver.agent.x else opaque(lambda: x.parts)
        return difference(before, opaque(self.flat.staging.down, of=(g,)))


@dataclass(frozen=True)
class TrainingStep:
    """One step of a wrapped model; without a run, where the agent is alone, nothing is saved or watched."""

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
