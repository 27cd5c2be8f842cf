"""The user's optimizer as the local rule of an agent: u = x - optimizer(x), at the x of the gradient."""

import weakref
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from offbeat.core.forms import difference, zero
from offbeat.core.vector import Vector, lazy, opaque
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.guard import not_finite
from offbeat.training.flat import FlatParameters, some


class OptimizerRule:
    """The local rule. Set `driver` before the first step."""

    def __init__(self, flat: FlatParameters, optimizer: Optimizer) -> None:
        self.flat, self.optimizer = flat, optimizer
        self._step: Callable[[], Any] = optimizer.step
        self.driver: Driver | None = None
        self._g: Callable[[], Vector | None] = lambda: None
        self._refused = False

    def gradient(self) -> Vector:
        """The gradient as it lies in the parameters; gathered only if the algorithm looks at it.

        One that the guard refuses is zero, and the optimizer is not asked about it.
        """
        self._refused = self._refuses()
        make = self.flat.zeros if self._refused else self.flat.gradient
        g = lazy(lambda: tuple(part.cpu() for part in make()))
        self._g = weakref.ref(g)
        return g

    def _refuses(self) -> bool:
        if self.driver is None or not self.driver.guard.on:
            return False
        grads, step = self.flat.gradients(), self.driver.actor.steps + 1
        return self.driver.guard.refuses(
            grads.values(), step, lambda: f"the gradient ({some(not_finite(grads))})"
        )

    def keep(self) -> None:
        """After the step: if the algorithm keeps the gradient, gather it; the parameters' may change now."""
        g = self._g()
        if g is not None:
            g.parts  # noqa: B018  (reading evaluates)

    def __call__(self, g: Vector) -> Vector:
        driver = self.driver
        assert driver is not None
        x = driver.snapshot
        assert x is not None
        if g is not self._g():
            steps, guard = driver.actor.steps, driver.guard
            driver.performer.force()  # not on a version that may be overwritten before the handler ends
            if guard.refuses(g.parts, steps + 1, lambda: "the tracked or averaged gradient"):
                return zero(x)
            self.flat.set_gradient(g.parts)
        elif self._refused:
            return zero(x)
        self._step()
        # If the agent has mixed since, then x is no version that enters the model.
        before = x if x is driver.agent.x else opaque(lambda: x.parts)
        return difference(before, opaque(self.flat.staging.down, of=(g,)))
