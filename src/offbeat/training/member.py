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
all-reduce the mean of all agents' gradients: these are written into the parameters' `grad` before the
optimizer's step.

A step that mixed precision skips is no event: the optimizer is not called then. Steps that accumulate
gradients are as many events as there are calls of `step`.

Several models or optimizers are one agent, with one vector x of all parameters:

    g_opt, d_opt = agent.wrap([g, d], [torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters())])

A call of any `step` is one step of the algorithm. Its gradient is new in the parameters that this optimizer
holds, and in all others what it was last; its u is zero in those others; and all parameters are mixed. With
x = (x_1, ..., x_K) by optimizers, and a step of number k, ADSGD is

    x_i,k <- sum_j w_ij x_j,k - (x_i,k - optimizer_k(x_i,k)),   x_i,p <- sum_j w_ij x_j,p for p other than k.

So five calls of `d_opt.step()` and one of `g_opt.step()` are six steps, and agents may take theirs in any
order. Not so where all have one and the same model, all-reduce: there everybody's order has to be the same.
"""

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from offbeat.algorithms import Algorithm, check_codec, find
from offbeat.core.agent import Agent
from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system.own import pinned
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Vector
from offbeat.engines.live.node.driver import Driver, Stopped
from offbeat.engines.live.node.enter import AgentContext, agent_context, own_folder
from offbeat.engines.live.node.faults import Faults
from offbeat.engines.live.node.guard import NotFinite
from offbeat.engines.live.node.log import Log
from offbeat.engines.live.node.performer import Clock, Performer
from offbeat.engines.live.node.transport import model_of
from offbeat.engines.live.settings import CONTINUE, RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import Row
from offbeat.training.alone import interactive, one_of_several
from offbeat.training.flat import FlatParameters
from offbeat.training.hand import Table
from offbeat.training.others import refuse_stateless
from offbeat.training.progress import DataProgress
from offbeat.training.saver import Saver
from offbeat.training.sharable import listed, some
from offbeat.training.shard import EQUAL, Shard
from offbeat.training.step import BypassDetector, OptimizerRule, TrainingStep
from offbeat.training.unshared import SAID, has_whole_loader
from offbeat.world.topology import Topology

T = TypeVar("T")

ALONE = RunSettings(agents=1, folder=Path(), program=ScriptProgram("complete"))  # without a launcher

_joined: "list[Member]" = []


def join(algorithm: str | type[Agent] | Agent | None = None) -> "Member":
    """This process's place in a run: rank, world, graph and algorithm come from `offbeat launch`.

    Without a launcher the agent is alone, and trains as if offbeat were not there. `algorithm`: a name, or a
    class of your own, in place of what the launcher says.

    At a prompt or in a notebook a second call gives the same agent again, or one with the other algorithm in
    its place. Raises SettingError if a script or an agent of a run has joined before, or the algorithm is
    unknown. What to do is said where torchrun, mpirun or srun has started several of these processes.
    """
    here = agent_context()
    if _joined and (here is not None or not interactive()):
        raise SettingError("This process has joined already; expected one offbeat.join(), before wrapping.")
    if _joined and (algorithm is None or _joined[0].has(algorithm)):
        return _joined[0]
    member = Member(here, algorithm)
    if here is None and not _joined and (advice := one_of_several()):
        sys.stderr.write(f"offbeat: {advice}\n")
    _joined.clear()
    _joined.append(member)
    return member


def joined() -> "list[Member]":
    return [*_joined]


class Member:
    """One agent of a run."""

    def __init__(self, here: AgentContext | None, algorithm: str | type[Agent] | Agent | None = None) -> None:
        self._here = here
        settings = ALONE if here is None else here.settings
        self._rank, self.seed = 0 if here is None else here.me, settings.seed
        self._codec = settings.program.codec
        self._asked_who = False  # whether the script knows which agent it is, or of how many
        with pinned(settings.code, settings.code):
            self.algorithm: Algorithm = find(settings.algorithm if algorithm is None else algorithm)
        self._growing = settings.growing()
        self.topology: Topology = self._growing.after(() if here is None else here.grown)
        self._world = self.topology.n
        self.algorithm.check(self.topology)
        if here is not None:
            self.algorithm.check_script()
            if here.joins:
                self.algorithm.check_newcomers(self._growing.first, self.topology)
            if settings.on_death == CONTINUE:
                self.algorithm.check_goes_on(self.topology)
            check_codec(self.algorithm, self._codec)
        self._progress = DataProgress(self._rank, self._world, self.seed, here is None, Table.of(here))
        self._flat: FlatParameters
        self._driver: Driver | None = None
        self._saver: Saver | None = None
        self._bypass: BypassDetector | None = None

    def has(self, algorithm: str | type[Agent] | Agent) -> bool:
        """Whether that is its algorithm, and the same version of it."""
        asked, mine = find(algorithm), self.algorithm
        return asked.asked == mine.asked and type(asked.prototype) is type(mine.prototype)

    @property
    def rank(self) -> int:
        """The number of this agent, from 0."""
        self._asked_who = True
        return self._rank

    @property
    def world(self) -> int:
        """How many agents there are; more, once others have joined."""
        self._asked_who = True
        return self._world if self._driver is None else self._driver.topology.n

    @property
    def is_first(self) -> bool:
        """Whether it is agent 0, or alone: for what a script does once, such as a file."""
        return self._rank == 0

    @property
    def folder(self) -> Path:
        """A folder for this agent's own files, in that of the run, alone in the current one."""
        return own_folder(Path.cwd() if self._here is None else self._here.settings.folder, self._rank)

    @property
    def wrapped(self) -> bool:
        """Whether it has a model."""
        return self._driver is not None

    @property
    def steps(self) -> int:
        """How many steps this agent has made, in all its lives."""
        return 0 if self._driver is None else self._driver.actor.steps

    def __repr__(self) -> str:
        alone = self._here is None
        who = "alone" if alone else f"rank {self._rank} of {(self._driver or self).topology.n}"
        what = self.algorithm.name if alone else f"{self.algorithm.name} on {self.topology.name}"
        return (
            f"<offbeat agent: {who}, {what}, {self.steps:,} steps, {'' if self.wrapped else 'not '}wrapped>"
        )

    def shard(self, loader: Iterable[T], share: str = EQUAL) -> Shard[T]:
        """This agent's share of a loader, see `offbeat.training.shard.shard`; each `for` over it is an epoch.
        With share "speed" or "random" whoever comes first gets the next batch. "Restarts and your loops" in
        docs/live.md says what a loop sees after a restart. A loader that is made anew in every epoch goes on
        with the next epoch. Alone, all that the loader hands out, to the bit.
        """
        return self._progress.shard(loader, share)

    def epochs(self, n: int) -> Iterable[int]:
        """The epochs that are left of n: `range(n)`; after a restart, from the interrupted one on.

        So nothing, once all are over: do not rely, after the loop, on a name that is only set within. See
        "Restarts and your loops" in docs/live.md. Wrap the model before the loop.
        """
        return self._progress.epochs(n)

    @overload
    def wrap(
        self,
        model: nn.Module | Sequence[nn.Module],
        optimizer: Optimizer,
        *,
        later: Iterable[nn.Parameter] = (),
    ) -> Optimizer: ...

    @overload
    def wrap(
        self,
        model: nn.Module | Sequence[nn.Module],
        optimizer: Sequence[Optimizer],
        *,
        later: Iterable[nn.Parameter] = (),
    ) -> list[Optimizer]: ...

    def wrap(
        self,
        model: nn.Module | Sequence[nn.Module],
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        later: Iterable[nn.Parameter] = (),
    ) -> Optimizer | list[Optimizer]:
        """Join the run with this model; its optimizer, returned, mixes in every `step`.

        All agents start from agent 0's parameters. At a prompt or in a notebook, where there is no run, a
        second call takes the place of the first. Raises SettingError for a model or an optimizer that
        cannot be shared (see `offbeat.training.sharable`), and if the other agents have another model.

        Args:
            model: or several, which are called 0, 1, ... as in nn.ModuleList(models): in checkpoints, in what
                is exported, in `average`
            optimizer: or several, of which each has parameters of its own; returned as a list, too
            later: parameters that are frozen now and trained later; any others that are frozen are nobody
                else's business, and an error if they become trainable. They are sent and mixed from the
                start. Whoever has them frozen takes what the others make of them.
        """
        if self._driver is not None and self._here is None and interactive():
            for each in self._flat.optimizers:  # they are no longer the agent's
                vars(each).pop("step", None)
        elif self._driver is not None:
            do = "expected one, with all its optimizers: agent.wrap([g, d], [opt_g, opt_d])"
            raise SettingError(f"This agent has wrapped a model already; {do}.")
        whole, optimizers = listed(model, optimizer)
        here, flat = self._here, FlatParameters(whole, *optimizers, later=later)
        initial = Vector(tuple(part.detach().cpu().clone() for part in flat.parts))
        rule = OptimizerRule(flat, *optimizers)
        agent, random = self.algorithm.new(), python_stream(self.seed, Purpose.ALGORITHM, self._rank)
        view = self.topology.view(self._rank, frozenset(range(self._world)))
        agent.join(self._rank, self._world, initial, view, rule, random)
        agent.check()
        self._flat = flat
        if here is None:
            driver = Driver(Performer(agent, None, Log(None), Clock()), self.topology)
        else:
            size, growing = initial.nbytes, self._growing
            driver = here.driver(agent, self.topology, size, codec=self._codec, growing=growing)
        driver.in_step = len(self.algorithm.needed(self.topology)) == self._world
        self._driver = rule.driver = driver
        try:
            if here is None:
                x = driver.start()
            else:
                self._saver = Saver(here, self.algorithm, driver, whole, flat, self._progress)
                x = self._saver.enter(initial)
                self._bypass = BypassDetector(flat, driver, self._saver.statistics)
        except Stopped:
            raise SystemExit(0) from None
        flat.write(x.parts)
        faults = Faults([]) if here is None else here.faults()
        step = TrainingStep(flat, rule, driver, faults, self._saver, self._bypass, self._look_for_unshared)
        for k, each in enumerate(optimizers):
            each.step = step.of(k)  # type: ignore[method-assign]
        driver.attend()
        return optimizers if isinstance(optimizer, Sequence) else optimizers[0]

    def save_also(self, **objects: Any) -> None:
        """Save these with the agent, by name, and restore them when it is restarted or resumed: learning-rate
        schedulers, gradient scalers, averaged models, whatever has `state_dict` and `load_state_dict`.

            agent.save_also(scheduler=scheduler, scaler=scaler)

        After `wrap` and before the first step; what a checkpoint has of them is restored here. A checkpoint
        is then written as the next step begins, so it has what `scheduler.step()` did after the one before.
        Alone, nothing is saved. Raises SettingError for what has no such state, or one that a checkpoint
        cannot hold, which it names.
        """
        refuse_stateless(objects)
        if self._driver is None:
            raise SettingError("agent.save_also() came before agent.wrap(): wrap the model first.")
        if self._saver is not None:
            self._saver.save_also(objects)

    def _look_for_unshared(self) -> None:
        """Say it once in a run if the data were not shared out, where that is known."""
        one_for_all = self._rank == 0 and self._world > 1
        if one_for_all and not (self._asked_who or self._progress.known) and has_whole_loader():
            assert self._driver is not None
            self._driver.guard.tell(SAID)

    def log(self, loss: float | Tensor | None = None, metric: float | Tensor | None = None) -> None:
        """Show this agent's loss, and one more number of your choice, in the run's metrics. Never waits."""
        if self._driver is not None and self._driver.transport is not None:
            for which, value in ((Row.LOSS, loss), (Row.METRIC, metric)):
                if value is not None:
                    number = value.detach() if isinstance(value, Tensor) else value
                    self._driver.transport.float_row[which] = float(number)

    def average(self) -> dict[str, Tensor]:
        """The mean of all agents' newest models, by parameter name; those who have none yet are left out.

        For `model.load_state_dict(agent.average(), strict=False)`: buffers, such as BatchNorm's statistics,
        are not in it. Never waits, so it is the mean of what is there at this moment.
        """
        if self._driver is None:
            raise SettingError("There is no model to average: wrap one first.")
        driver = self._driver
        with driver.lock:
            models = [driver.actor.model.parts]
            if (transport := driver.transport) is not None:
                others = [j for j in range(driver.topology.n) if j != self._rank]
                found = [model_of(transport.folder, transport.board, j) for j in others]
                models += [each[0].parts for each in found if each is not None]
            mean = tuple(torch.stack(list(parts)).mean(0) for parts in zip(*models, strict=True))
        return self._flat.named(mean)

    def leave(self) -> None:
        """Done: say so, and answer the others until all are. Called when a launched script ends.

        Raises NotFinite, once all are done, if what this agent has reached is not finite, and so not saved.
        """
        if self._driver is not None:
            if self._bypass is not None:
                self._bypass.finish()
                if never := [name for name in self._flat.later if name in self._flat.frozen]:
                    said = f"later= named {some(never)}, still frozen at the end: this agent never trained it"
                    self._driver.guard.tell(said)
            lost = "" if self._saver is None else self._saver.save()
            self._driver.leave()
            self._driver.close()
            self._driver = None
            if lost:
                raise NotFinite(f"Agent {self._rank}: the last model is lost: {lost}")

    def rescue(self) -> None:
        """The script has failed: save what it had reached, if that was between two steps. Raises nothing."""
        if self._driver is not None and self._saver is not None:
            with suppress(OffbeatError):  # the script's own error is the one to tell
                self._flat.check()
                self._saver.save()
