"""What `optimizer.step` does once an agent has wrapped the model, and what is said if it is gone past.

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
from torch.optim.optimizer import register_optimizer_step_post_hook

from offbeat.core.errors import ContractError, SettingError
from offbeat.core.forms import difference, zero
from offbeat.core.vector import Vector, lazy, opaque
from offbeat.engines.live.node.driver import Driver, Stopped
from offbeat.engines.live.node.faults import Faults
from offbeat.engines.live.node.guard import Statistics, not_finite
from offbeat.engines.live.shm.board import Order
from offbeat.training.flat import FlatParameters, some
from offbeat.training.saver import Saver

STEPS, CHANGES = 20, 200
"""So many steps of other optimizers, or changes in place, without one of ours are no clipping of weights."""

DO = "Only steps of the optimizer that `wrap` returned are mixed: make it before `wrap`, and step no other."
SKIPPED = "If a GradScaler skipped them all, its gradients were never finite: look at this agent's data."


class OptimizerRule:
    """The user's optimizer as the local rule: u = x - optimizer(x), at the x of the gradient."""

    driver: Driver  # to be set before the first step

    def __init__(self, flat: FlatParameters, optimizer: Optimizer) -> None:
        self.flat, self.optimizer = flat, optimizer
        self._step: Callable[[], Any] = optimizer.step
        self._g: Callable[[], Vector | None] = lambda: None
        self._refused = False

    def gradient(self) -> Vector:
        """The gradient as it lies in the parameters, gathered only if the algorithm looks at it; zero if the
        guard refuses it, and then the optimizer is not asked.
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
        if x is None or driver.actor.at is not None:
            raise ContractError(
                "the rule was asked for a step while a gradient was outstanding: "
                "in a user's script the rule is the optimizer, and the script computes with its parameters. "
                "Expected steps in on_gradient, or later, before the next compute."
            )
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


class BypassDetector:
    """Notices a model that is trained past its agent: by another optimizer than `wrap` returned, or by hand.

    Whatever changes the parameters between two steps is part of the next step. So a second optimizer, made
    after `wrap`, goes unnoticed as long as the first one makes steps too; but if it does all the work,
    nothing of it is ever mixed, and what is exported is the model of before. How often other optimizers have
    made a step is learned from torch, which calls a hook after every one; other changes in place from
    autograd's counters. Use it in a `with` around the agent's steps.
    """

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


@dataclass(frozen=True)
class TrainingStep:
    """One step of a wrapped model; without a run, where the agent is alone, nothing is saved or watched.

    Attributes:
        after_first: called after the first step that the agent makes in all its lives
    """

    flat: FlatParameters
    rule: OptimizerRule
    driver: Driver
    faults: Faults
    saver: Saver | None
    bypass: BypassDetector | None
    after_first: Callable[[], None]

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
                # With the lock: mail may move the model on at any time, and recycle the memory of this one.
                self.flat.write(x.parts, told=self.saver is not None)  # alone nothing is mixed
        except Stopped:
            raise SystemExit(0) from None  # `leave` saves
        if self.saver is not None:
            self.saver.step_made()
        if self.driver.actor.steps == 1:
            self.after_first()
        self.faults.after_step()
