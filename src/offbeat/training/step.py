"""What `optimizer.step` does once an agent has wrapped the model, and what is said if it is gone past.

The gradient goes to the agent, whose local rule is the optimizer's own step; the model that the agent answers
with, mixed, goes into the parameters.
"""

import types
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from offbeat.core.errors import ContractError, SettingError
from offbeat.core.forms import difference, zero
from offbeat.core.rules import Kept
from offbeat.core.vector import Parts, Vector, lazy, opaque
from offbeat.engines.live.node.driver import Driver, Stopped
from offbeat.engines.live.node.faults import Faults
from offbeat.engines.live.node.guard import Statistics, not_finite
from offbeat.engines.live.shm.board import Order
from offbeat.training.flat import FlatParameters
from offbeat.training.saver import Saver
from offbeat.training.sharable import some

STEPS, CHANGES = 20, 200
"""So many steps of other optimizers, or changes in place, without one of ours are no clipping of weights."""

TURN = 0.01  # a share of agents in low precision may be off by so much

DO = "Only steps of what `wrap` returned are mixed: make optimizers before `wrap`, and step no others."
SKIPPED = "If a GradScaler skipped them all, its gradients were never finite: look at this agent's data."


class OptimizerRule(Kept):
    """The user's optimizer as the local rule: u = x - optimizer(x), at the x of the gradient.

    Of several optimizers, each of its own parameters, the rule is the one whose `step` is called, `turn`:

        g = (g_1, ..., g_K),   g_turn new, every other one as it was last     (0 before it was there)
        u = x - optimizer_turn(x)                                             (0 but for what that one holds)

    So trackers hold the sum of the newest gradients of all parameters, and means are those of the newest.
    """

    driver: Driver  # to be set before the first step

    def __init__(self, flat: FlatParameters, *optimizers: Optimizer) -> None:
        self.flat, self.optimizers, self.turn = flat, optimizers, 0
        self._steps: list[Callable[[], Any]] = [optimizer.step for optimizer in optimizers]
        self._g: Callable[[], Vector | None] = lambda: None
        self._last: Parts | None = None  # of several optimizers, the newest gradients
        self._refused = False

    def gradient(self, which: int = 0) -> Vector:
        """The gradient for an optimizer as it lies in the parameters, gathered only if the algorithm looks at
        it; zero if the guard refuses it, and then the optimizer is not asked.
        """
        guard, self._refused, self.turn = self.driver.guard, False, which
        if guard.on:
            grads, step = self.flat.gradients(which), self.driver.actor.steps + 1
            self._refused = guard.refuses(
                grads.values(), step, lambda: f"the gradient ({some(not_finite(grads))})"
            )
        g = lazy(self._gathered)
        self._g = weakref.ref(g)
        return g

    def _gathered(self) -> Parts:
        parts = self.flat.gradient(self.turn, self._last, self._refused)
        if self.optimizers[1:]:
            self._last = parts
        return tuple(part.cpu() for part in parts)

    def keep(self) -> None:
        """After the step: if the algorithm keeps the gradient, gather it; the parameters' may change now."""
        g = self._g()
        if g is not None:
            g.parts  # noqa: B018  (reading evaluates)

    def state(self) -> dict[str, Any]:
        """The newest gradients, of several optimizers; what these keep is saved with them."""
        if not self.optimizers[1:]:
            return {}
        return {"last": None if self._last is None else tuple(part.cpu() for part in self._last)}

    def restore(self, state: Mapping[str, Any]) -> None:
        if (last := state.get("last")) is not None:
            self._last = tuple(part.to(own.device) for part, own in zip(last, self.flat.parts, strict=True))

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
            if driver.agent.one_model and self.optimizers[1:]:
                self._refuse_other_turns(g.parts)
            self.flat.set_gradient(g.parts, self.turn)
        elif self._refused:
            return zero(x)
        self._steps[self.turn]()
        # If the agent has mixed since, then x is no version that enters the model.
        before = x if x is driver.agent.x else opaque(lambda: x.parts)
        return difference(before, opaque(self.flat.staging.down, of=(g,)))

    def _refuse_other_turns(self, mean: Parts) -> None:
        """Raise SettingError if others have called another optimizer: no two would have one model then."""
        shares = self.flat.turns(mean)
        if abs(shares[self.turn] - 1.0) > TURN:
            said = ", ".join(f"{share:.0%} of the agents number {k}" for k, share in enumerate(shares))
            raise SettingError(
                f"Agents call the steps of their optimizers in different orders: in this one {said}, and "
                f"this agent number {self.turn}. Where all have one and the same model, expected the same "
                "order of all; adsgd, say, takes any."
            )


class BypassDetector:
    """Notices a model that is trained past its agent: by another optimizer than `wrap` returned, or by hand.

    Whatever changes the parameters between two steps is part of the next step. So a second optimizer, made
    after `wrap`, goes unnoticed as long as the first one makes steps too; but if it does all the work,
    nothing of it is ever mixed, and what is exported is the model of before. How often other optimizers have
    made a step is learned from torch, which calls a hook after every one; other changes in place from
    autograd's counters. Use it in a `with` around the agent's steps.
    """

    def __init__(self, flat: FlatParameters, driver: Driver, statistics: Statistics | None) -> None:
        self.flat, self.driver, self.statistics = flat, driver, statistics
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
        ours = any(optimizer is each for each in self.flat.optimizers)
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

    def of(self, which: int) -> types.MethodType:
        """What takes the place of the method `step` of an optimizer."""
        # A function: schedulers of torch look up its __func__.
        return types.MethodType(lambda _, closure=None: self(which, closure), self.flat.optimizers[which])

    def __call__(self, which: int, closure: Callable[[], Any] | None = None) -> Any:
        """A step of one optimizer; returns the loss of the closure. Raises SystemExit if the run has been
        stopped, or this would be a step after the last one.
        """
        with self.bypass or nullcontext():
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            self.flat.check()
            if self.saver is not None:
                self.saver.mend()
            found = getattr(self.flat.optimizers[which], "found_inf", None)
            if found is None or not found:  # GradScaler has a fused optimizer skip the step by itself
                self._make(which)
            return loss

    def _make(self, which: int) -> None:
        if self.saver is not None and self.saver.progress.enough and not self.saver.progress.late():
            raise SystemExit(0)
        if self.saver is not None:
            self.saver.step_begins()
        self.faults.before_step(self.driver.actor.steps)
        try:
            with self.driver.lock:
                x = self.driver.step(self.rule.gradient(which))
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
