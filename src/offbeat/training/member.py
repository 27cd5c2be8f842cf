"""An agent in the user's own training loop: `offbeat.join()`, then `wrap` the model and its optimizer.

    agent = offbeat.join()
    optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters()))
    for x, y in agent.shard(loader):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()                # mixes here, never waits

Order of step and mix. `optimizer.step()` hands the gradient to the agent, which asks for its local rule; the
rule is the user's optimizer, applied to the parameters x at which the gradient was taken, u = x -
optimizer(x). ADSGD then is

    x_i <- sum_j w_ij x_j - u_i,

so the optimizer's step is taken at the model before the mixing, and its state (momentum, moments) stays
local, about the agent's own gradients. Whatever else changed the parameters between two steps (clipping of
weights, say) is part of u. R-FAST gives the rule its tracker of the average gradient instead of the gradient,
all-reduce the mean of all agents'
gradients: these are written into the parameters' `grad` before the optimizer's step.

A step that mixed precision skips is no event: the optimizer is not called then. Steps that accumulate
    gradients are as
many events as there are calls of `step`.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from offbeat.algorithms import Algorithm, find
from offbeat.core.agent import Agent
from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Vector, difference, lazy, opaque, zero
from offbeat.engines.live.node.checkpoint import newest, set_aside
from offbeat.engines.live.node.driver import Driver, Stopped
from offbeat.engines.live.node.enter import Place, agree, begin, place, propose, resume
from offbeat.engines.live.node.faults import Faults
from offbeat.engines.live.node.guard import NotFinite, Statistics, not_finite
from offbeat.engines.live.node.log import Log
from offbeat.engines.live.shm.board import Order, Row
from offbeat.training.bypass import DO, BypassDetector
from offbeat.training.flat import FlatParameters, some
from offbeat.training.progress import DataProgress
from offbeat.training.saver import Every, Saver
from offbeat.training.shard import Shard
from offbeat.world.topology import Topology, build

T = TypeVar("T")

SKIPPED = "If a GradScaler skipped them all, its gradients were never finite: look at this agent's data."

_joined: list[Member] = []


def join(algorithm: str | type[Agent] | Agent | None = None) -> Member:
    """This process's place in a run: rank, world, graph and algorithm come from `offbeat launch`.

    Without a launcher the agent is alone, and trains as if offbeat were not there. `algorithm`: a name, or a
    class of your own, in place of what the launcher says.

    Raises SettingError if the process has joined before, or the algorithm is unknown.
    """
    if _joined:
        raise SettingError(
            "This process has joined already; expected one offbeat.join(), before the model is wrapped."
        )
    member = Member(place(), algorithm)
    _joined.append(member)
    return member


def joined() -> list[Member]:
    """The member of this process, if it has joined."""
    return [*_joined]


class Member:
    """One agent of a run. rank: its number; world: how many agents there are."""

    def __init__(self, here: Place | None, algorithm: str | type[Agent] | Agent | None = None) -> None:
        self._here = here
        settings: dict[str, Any] = {} if here is None else here.settings
        self._settings = settings
        self.rank: int = 0 if here is None else here.me
        self.world: int = int(settings.get("agents", 1))
        self.seed: int = int(settings.get("seed", 0))
        self.algorithm: Algorithm = find(
            settings.get("algorithm", "adsgd") if algorithm is None else algorithm
        )
        self.topology: Topology = build(settings.get("topology", "complete"), self.world, self.seed)
        self.algorithm.check(self.topology)
        self._places = DataProgress(self.rank, self.world, self.seed, alone=here is None)
        self._driver: Driver | None = None
        self._saver: Saver | None = None
        self._bypass: BypassDetector | None = None

    @property
    def steps(self) -> int:
        """How many steps this agent has made, in all its lives."""
        return 0 if self._driver is None else self._driver.performer.steps

    def shard(self, loader: Iterable[T]) -> Shard[T]:
        """This agent's share of a loader; every `for` over it is an epoch. See
        `offbeat.training.shard.shard`.

        Alone, all that the loader hands out, to the bit. A loader that is made anew in every epoch goes on
        with the next epoch. "Restarts and your loops" in docs/live.md says what a loop sees after a restart.
        """
        return self._places.shard(loader)

    def epochs(self, n: int) -> Iterable[int]:
        """The numbers of the epochs that are left of n: `range(n)`; after a restart, from the interrupted one
        on.

        So nothing, once all are over: do not rely, after the loop, on a name that is only set within. See
            "Restarts and
        your loops" in docs/live.md. Wrap the model before the loop.
        """
        return self._places.epochs(n)

    def wrap(self, model: nn.Module, optimizer: Optimizer) -> Optimizer:
        """Join the run with this model; its optimizer, returned, mixes in every `step`.

        All agents start from agent 0's parameters. Raises SettingError for a model or an optimizer that
        cannot be shared (see `offbeat.training.flat`), and if the other agents have another model.
        """
        if self._driver is not None:
            raise SettingError(
                "This agent has wrapped a model already; expected one model, with one optimizer."
            )
        if isinstance(optimizer, torch.optim.LBFGS):
            raise SettingError(
                "LBFGS evaluates the loss several times a step; expected an optimizer of one gradient."
            )
        flat = FlatParameters(model, optimizer)
        initial = Vector(tuple(part.detach().cpu().clone() for part in flat.parts))
        local = OptimizerRule(flat, optimizer)
        agent = self.algorithm.new()
        everybody = frozenset(range(self.world))
        rng = python_stream(self.seed, Purpose.ALGORITHM, self.rank)
        agent.join(self.rank, self.world, initial, self.topology.view(self.rank, everybody), local, rng)
        agent.check()
        driver = self._driver = self._made_driver(agent, flat, initial)
        local.driver = driver
        try:
            x = (
                driver.start()
                if self._here is None
                else self._enter(self._here, driver, initial, model, optimizer)
            )
        except Stopped:
            raise SystemExit(0) from None
        flat.write(x.parts)
        optimizer.step = types.MethodType(self._stepper(flat, local), optimizer)  # type: ignore[method-assign]
        driver.attend()
        return optimizer

    def log(self, loss: float | Tensor | None = None, metric: float | Tensor | None = None) -> None:
        """Show this agent's loss, and one more number of your choice, in the run's metrics. Never waits."""
        if self._driver is not None and self._driver.fabric is not None:
            numbers = self._driver.fabric.float_row
            if loss is not None:
                numbers[Row.LOSS] = _number(loss)
            if metric is not None:
                numbers[Row.METRIC] = _number(metric)

    def average(self) -> dict[str, Tensor]:
        """The mean of all agents' newest models, by parameter name; those who have none yet are left out.

        For `model.load_state_dict(agent.average(), strict=False)`: buffers, such as BatchNorm's statistics,
        are not in it. Never waits, so it is the mean of what is there at this moment.
        """
        if self._driver is None:
            raise SettingError("There is no model to average: wrap one first.")
        driver = self._driver
        with driver.lock:
            models = [driver.performer.model.parts]
            if driver.fabric is not None:
                others = [driver.fabric.model_of(j) for j in range(self.world) if j != self.rank]
                models += [found[0].parts for found in others if found is not None]
            mean = tuple(torch.stack(list(parts)).mean(0) for parts in zip(*models, strict=True))
        named: dict[str, Tensor] = self._flat.named(mean)
        return named

    def leave(self) -> None:
        """Done with training: say so, and answer the others until all are. Called when a launched script
        ends.

        Raises NotFinite, once all are done, if what this agent has reached is not finite, and so was not
        saved.
        """
        if self._driver is not None:
            self._check_trained(self._driver)
            lost = "" if self._saver is None else self._saver.save(self._driver, final=True)
            self._driver.leave()
            self._driver.close()
            self._driver = None
            if lost:
                raise NotFinite(f"Agent {self.rank}: the last model is lost: {lost}")

    def rescue(self) -> None:
        """The script has failed: save what had been reached, if that was between two steps. Raises nothing."""
        if self._driver is not None and self._saver is not None:
            with suppress(OffbeatError):  # the script's own error is the one to tell
                self._flat.check()
                self._saver.save(self._driver, final=True)

    def _check_trained(self, driver: Driver) -> None:
        """Before it leaves: was it the agent that was trained? Raises SettingError if only its model was."""
        watch, at = self._bypass, driver.performer.at
        if watch is None or at is None or driver.fabric is None:
            return
        changed = any(
            not torch.equal(now.cpu(), then) for now, then in zip(self._flat.parts, at.parts, strict=True)
        )
        watch.close(changed)
        if driver.performer.steps or driver.fabric.board.order >= Order.STOP:
            return
        statistics = None if self._saver is None else self._saver.statistics
        if changed or (statistics is not None and statistics.changed()):
            raise SettingError(
                f"Agent {self.rank} made no step, though its model was changed. {DO} {SKIPPED}"
            )
        driver.guard.tell(f"the script ended without a step. {DO}")

    # -- inside ------------------------------------------------------------------------------------

    def _made_driver(self, agent: Agent, flat: FlatParameters, initial: Vector) -> Driver:
        self._flat = flat
        if self._here is None:
            return Driver(agent, self.topology, None, Log(None))
        return self._here.driver(agent, self.topology, initial.nbytes)

    def _enter(
        self, here: Place, driver: Driver, initial: Vector, model: nn.Module, optimizer: Optimizer
    ) -> Vector:
        """Into the run: from the start, from a checkpoint of the whole run, or back after a crash."""
        about = {
            "algorithm": self.algorithm.name, "agents": self.world, "topology": self.topology.name, "seed": self.seed,
            "model": self._flat.names,
        }  # fmt: skip
        every = Every.parse(self._settings["checkpoint_every"])
        folder = here.folder / "checkpoints" / f"agent-{self.rank}"
        saver = self._saver = Saver(folder, about, every, model, self._flat, optimizer, self._places)
        returned = here.incarnation > 1
        state = None
        if self._settings["resume"] or returned:
            if returned:  # of a run that is resumed, the launcher has done so for all
                set_aside(folder, print)
            together = not returned and "return" not in self.algorithm.tolerates
            step = newest(folder, self.world, together)
            if step is None and not returned:
                raise SettingError(
                    f"The run in {here.folder} cannot go on: agent {self.rank} has no checkpoint"
                    f"{' of a step that all have' * together}. Start a new one, with another --out."
                )
            state = None if step is None else saver.load(step)
        saver.statistics = Statistics(model) if driver.guard.on else None
        saver.restore_training()
        saver.mend()
        saver.check(driver)
        if driver.guard.on and (wrong := not_finite(self._flat.named(self._flat.parts))):
            raise SettingError(
                f"The model is not finite to begin with: {some(wrong)}. --on-nan ignore lets it through."
            )
        propose(here, about, initial, "return" in self.algorithm.tolerates)
        driver.join()
        initial = agree(here, about)
        if state is not None and not returned:
            return resume(driver, here, state)
        return begin(driver, here, initial)

    def _stepper(self, flat: FlatParameters, local: OptimizerRule) -> Callable[..., Any]:
        driver, here = self._driver, self._here
        assert driver is not None
        faults = Faults([]) if here is None else here.faults()
        mend: Callable[[], None] = (lambda: None) if self._saver is None else self._saver.mend
        if here is not None:
            self._bypass = BypassDetector(local.optimizer, flat.parameters, driver.guard.tell)
        watch = nullcontext() if self._bypass is None else self._bypass

        def step(optimizer: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
            with watch:
                return made(optimizer, closure)

        def made(optimizer: Optimizer, closure: Callable[[], Any] | None) -> Any:
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            flat.check()
            if (found := getattr(optimizer, "found_inf", None)) is not None and bool(found):
                mend()
                return loss  # of GradScaler, which has a fused optimizer skip the step by itself
            faults.before_step(driver.performer.steps)
            mend()
            try:
                with driver.lock:
                    x = driver.step(local.gradient())
                    local.keep()
            except Stopped:
                raise SystemExit(0) from None  # `leave` saves
            flat.write(x.parts, told=here is not None)  # alone nothing is mixed
            if self._saver is not None:
                self._places.keep()
                self._saver.save(driver)
            faults.after_step()
            return loss

        return step


def _number(value: float | Tensor) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


class OptimizerRule:
    """The user's optimizer as the local rule: u = x - optimizer(x), at the x that the gradient was taken at."""

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
        grads, step = self.flat.gradients(), self.driver.performer.steps + 1
        return self.driver.guard.refuses(
            grads.values(), step, lambda: f"the gradient ({some(not_finite(grads))})"
        )

    def keep(self) -> None:
        """The step is made. If the algorithm keeps the gradient, gather it: the parameters' may change now."""
        g = self._g()
        if g is not None:
            g.parts  # noqa: B018  (reading evaluates)

    def __call__(self, g: Vector) -> Vector:
        """One step of the optimizer along g."""
        assert self.driver is not None
        x = self.driver.snapshot
        assert x is not None
        if g is not self._g():
            performer, guard = self.driver.performer, self.driver.guard
            performer.force()  # not on a version that may be overwritten before the handler ends
            if guard.refuses(g.parts, performer.steps + 1, lambda: "the tracked or averaged gradient"):
                return zero(x)
            self.flat.set_gradient(g.parts)
        elif self._refused:
            return zero(x)
        self._step()
        moved = (
            x is not self.driver.agent.x
        )  # the agent has mixed since: then x is no version that enters the model
        return difference(opaque(lambda: x.parts) if moved else x, opaque(self.flat.staging.down, of=(g,)))
