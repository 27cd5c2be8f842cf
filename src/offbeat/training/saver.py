"""An agent that trains in the user's own loop: how it gets into its run, and what is saved of it when.

It starts anew, goes on from a checkpoint, or comes back after a crash, with a neighbour's model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from offbeat.algorithms import Algorithm
from offbeat.core.errors import ContractError, DataError, SettingError
from offbeat.core.vector import Stamp, Vector
from offbeat.engines.events import BatchTaken
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.encode import encode
from offbeat.engines.live.node.enter import AgentContext, agree, begin, begin_with, propose
from offbeat.engines.live.node.guard import Statistics, not_finite
from offbeat.engines.live.node.saving import Checkpoints, donor_of
from offbeat.engines.live.shm.board import Row
from offbeat.training.flat import FlatParameters
from offbeat.training.others import Others
from offbeat.training.progress import DataProgress
from offbeat.training.sharable import some

EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass
class Saver:
    """Saves one agent with its training, and takes up both again.

    Attributes:
        statistics: what keeps the model's buffers finite, unless they may be as they are
        others: what is saved beside model and optimizers
    """

    here: AgentContext
    algorithm: Algorithm
    driver: Driver
    model: nn.Module
    flat: FlatParameters
    progress: DataProgress

    def __post_init__(self) -> None:
        settings, topology = self.here.settings, self.driver.topology.name
        run = {"algorithm": self.algorithm.asked, "agents": settings.agents, "topology": topology}
        run |= {} if (codec := settings.program.codec) is None else {"compress": str(codec)}
        if len(optimizers := self.flat.optimizers) > 1:
            run |= {"optimizers": [some(self.flat.names(k)) for k in range(len(optimizers))]}
        self._groups = [len(optimizer.param_groups) for optimizer in optimizers]
        about = {**run, "seed": settings.seed, "model": self.flat.layout}
        free = {"agents", "topology"} if settings.earlier else set[str]()
        self.checkpoints = Checkpoints(self.here.checkpoints, about, settings.checkpoint_every, free)
        self.statistics = Statistics(self.model) if self.driver.guard.on else None
        self._known, self._usual = set[str](), set[str]()
        self.others = Others(self.flat.optimizers, {})
        self._came = False  # whether it came into a run that goes on, without a checkpoint of its own
        self._stepped = False  # whether a step was made in this life
        self._waiting: dict[str, Any] | None = None  # of a checkpoint, what is as it was after its step

    def enter(self, initial: Vector) -> Vector:
        """Restore what there is to restore, join, and return where the first gradient is to be taken.

        All start from agent 0's `initial`, the model of its script. Raises DataError for a checkpoint that
        cannot be read, SettingError for one of another run.
        """
        here, returns, about = self.here, "return" in self.algorithm.tolerates, self.checkpoints.about
        step = self._step_to_restore(together=not returns)
        saved = {} if step is None else self.checkpoints.load(step)
        new = step is None and here.incarnation == 1 and here.settings.resume and not here.joins
        donor, given = self._from_another(-1) if new else (-1, EMPTY)
        if saved:  # the agent gives the parameters
            self._restore_optimizers(saved)
            self.model.load_state_dict(saved["rest"], strict=False)
            torch.set_rng_state(saved["torch"])
            self.others = Others(self.flat.optimizers, saved)
        self.progress.restore(saved.get("data"))
        if here.incarnation > 1 and self.driver.transport is not None:
            self.progress.lived(self.driver.transport.float_row[Row.DEALT])
        self.mend()
        self._check()
        if self.driver.guard.on and (wrong := not_finite(self.flat.named(self.flat.parts))):
            what = f"The model is not finite to begin with: {some(wrong)}"
            raise SettingError(f"{what}. --on-nan ignore lets it through.")
        needed, closed = self.algorithm.needed(self.driver.topology), self.algorithm.closed
        propose(here, about, initial, returns, needed, closed)
        if here.joins:
            agree(here, about)  # whoever has another model is not let in
        self.driver.join()
        self.progress.place = lambda: self.driver.place
        self.progress.joined(lambda: self.driver.alive)
        initial = agree(here, about)
        if saved and here.incarnation == 1:
            return self.driver.resume(saved, here.graph_of(saved))
        if donor >= 0:
            self.others = self._others_of(donor, given)
            return self._as_another(donor, given)
        x = begin(self.driver, here, initial)
        self._came = not saved and (here.joins or here.incarnation > 1)
        if here.joins and not saved:
            assert self.driver.transport is not None
            self.progress.come(0, self.driver.transport.board.float_row(self.driver.donor)[Row.EPOCHS])
        return x

    def _from_another(self, first: int) -> tuple[int, Mapping[str, Any]]:
        """Of an agent without a checkpoint: whose it takes, that of `first` if there is one, and what is in
        it. Raises SettingError if nobody has one.
        """
        folder, driver = self.here.settings.folder, self.driver
        there = first >= 0 and checkpoint.latest(checkpoint.agent_folder(folder, first))
        donor = first if there else donor_of(folder, driver.me, driver.topology)
        other = replace(self.checkpoints, folder=checkpoint.agent_folder(folder, donor))
        return donor, other.load(checkpoint.latest(other.folder)[0])

    def _others_of(self, donor: int, given: Mapping[str, Any]) -> Others:
        """What another agent's checkpoint has of the objects beside model and optimizers."""
        at = f"of step {given['steps']:,}, in epoch {given['data']['epoch']}"
        return Others(self.flat.optimizers, EMPTY, given, f"the checkpoint of agent {donor}, {at}")

    def _others_of_run(self) -> Others:
        """The same for an agent that came into a run that goes on, and has no checkpoint of its own."""
        try:
            if self.here.joins:
                return self._others_of(*self._from_another(self.driver.donor))
            why = "this agent had no checkpoint when it died, so it"
        except (SettingError, DataError) as error:
            why = f"no neighbour's checkpoint ({error})"
        return Others(self.flat.optimizers, EMPTY, source=why)

    def _as_another(self, donor: int, given: Mapping[str, Any]) -> Vector:
        """Start with the model and the round of what is given, and in the epoch in which that was saved."""
        agent = self.algorithm.new()
        vars(agent).update({name: v for name, v in given["agent"].items() if name not in ("rng", "rule")})
        data, asked = given["data"], self.here.asked()
        self.progress.come(data["loop"], data["epoch"])
        x = Vector(agent.model.parts, Stamp(donor, given["version"]))
        return begin_with(self.driver, self.here, x, agent.round, donor, asked)

    def _step_to_restore(self, together: bool) -> int | None:
        """That of the checkpoint to go on from, if there is one. Raises SettingError if there has to be."""
        here, settings = self.here, self.here.settings
        if here.incarnation > 1:
            checkpoint.set_aside(here.checkpoints, print)  # where all resume, the launcher did so
            return checkpoint.newest(here.checkpoints, settings.agents, together=False)
        if not settings.resume or here.joins:
            return None
        step = checkpoint.newest(here.checkpoints, settings.agents, together)
        if step is None and (self.algorithm.closed or not settings.earlier):
            raise SettingError(
                f"The run in {settings.folder} cannot go on: agent {here.me} has no checkpoint"
                f"{' of a step that all have' * together}. Start a new one, with another --out."
            )
        return step

    def _check(self) -> None:
        """Raise SettingError if something cannot be saved: now, and not after an hour of training."""
        try:
            with self.driver.lock:
                _, tensors = encode({"agent": checkpoint.agent_state(self.driver.agent), **self._training()})
        except ContractError as error:
            raise SettingError(
                f"No checkpoint of this training can be saved: {error} Keep it outside the optimizer's "
                "groups and state, the model's get_extra_state, what save_also names, and the fields of an "
                "algorithm."
            ) from None
        new = {name: tensor for name, tensor in tensors.items() if name not in self._known}
        self._known.update(new)
        self._usual.update(not_finite(new))  # a mask of -inf, or whatever an optimizer begins with

    def _training(self) -> dict[str, Any]:
        shared = set(self.flat.named(self.flat.parts))
        return {
            "rest": {name: t for name, t in self.model.state_dict().items() if name not in shared},
            **self._of_optimizers(),
            "data": self.progress.state(),
            "torch": torch.get_rng_state(),
            "also": self.others.state(),
        }

    def save_also(self, objects: Mapping[str, Any]) -> None:
        """Save and restore these too, before the first step. Raises SettingError if that cannot be."""
        if self._stepped:
            raise SettingError("agent.save_also() came after a step: expected right after agent.wrap().")
        if twice := [name for name in objects if name in self.others.objects]:
            raise SettingError(f"agent.save_also() was given {some(twice)} twice; expected each name once.")
        if self._came and not self.others.objects:
            self.others = self._others_of_run()
        before = self.others.objects
        self.others.objects = {**before, **objects}
        try:
            self._check()
        except SettingError:
            self.others.objects = before
            raise
        for said in self.others.restore([*objects]):
            self.driver.guard.tell(said)

    def _of_optimizers(self) -> dict[str, Any]:
        """What they keep, which groups of parameters they were given since, and what is frozen."""
        called, optimizers = {id(p): name for name, p in self.model.named_parameters()}, self.flat.optimizers
        added = [
            [[called[id(p)] for p in group["params"]] for group in optimizer.param_groups[known:]]
            for optimizer, known in zip(optimizers, self._groups, strict=True)
        ]
        states = [optimizer.state_dict() for optimizer in optimizers]
        kept = {"optimizer": states if len(states) > 1 else states[0]}
        return {**kept, "added": added, "frozen": self.flat.frozen}

    def _restore_optimizers(self, saved: Mapping[str, Any]) -> None:
        """Freeze and unfreeze as it was, give them the groups that they had, and what they kept."""
        optimizers, called = self.flat.optimizers, dict(self.model.named_parameters())
        if "frozen" in saved:
            for at in self.flat.placements:
                at.p.requires_grad_(at.name not in saved["frozen"])
        for optimizer, groups in zip(optimizers, saved.get("added", [[]] * len(optimizers)), strict=True):
            for names in groups:
                optimizer.add_param_group({"params": [called[name] for name in names]})
        states = saved["optimizer"] if len(optimizers) > 1 else [saved["optimizer"]]
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)

    def step_made(self) -> None:
        """Remember where the data are, and save if it is time again."""
        dealt = self.progress.keep()
        if dealt:
            with self.driver.lock:
                for loader, epoch, number in dealt:
                    self.driver.log.rows.event(
                        BatchTaken(self.driver.clock.now(), self.driver.me, loader, epoch, number)
                    )
        if self.driver.transport is not None:
            self.driver.transport.float_row[Row.EPOCHS] = self.progress.passed
            self.driver.transport.float_row[Row.DEALT] = self.progress.share
        if not self._stepped:
            self._stepped = True
            self._check()  # once more, as optimizers make their state in their first step
            if left := [*self.others.given]:
                said = f"{self.others.source} has {some(left)}, which agent.save_also no longer names"
                self.driver.guard.tell(said)
        if self.checkpoints.due(self.driver):
            if self.others.objects:
                self._waiting = self._as_after_the_step()
            else:
                self.save()
        if self.driver.enough:
            self.progress.finish(self.save)

    def _as_after_the_step(self) -> dict[str, Any]:
        """What the script's next forward pass changes, and `save_also`'s objects have nothing to do with."""
        training = self._training()
        rest = {name: t.clone() if isinstance(t, Tensor) else t for name, t in training["rest"].items()}
        return {"rest": rest, "data": training["data"], "torch": training["torch"]}

    def step_begins(self) -> None:
        """Write the checkpoint that waits for what the script does after a step, as a scheduler's."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.save(waiting)

    def save(self, waiting: Mapping[str, Any] = EMPTY) -> str:
        """Write a checkpoint of the last step, `waiting` being as it was then. Returns why it is not written,
        if it is not finite.
        """
        at = self.driver.actor.at
        if at is None or not self.checkpoints.due(self.driver, final=True):
            return ""
        self.mend()
        more = {"model": self.flat.named(at.parts), **self._training(), **waiting}
        return self.checkpoints.save(self.driver, more, self._usual)

    def mend(self) -> None:
        if self.statistics is not None:
            self.statistics.mend()
