"""What this agent has of a loader whose batches go to whoever comes for one, in all its lives."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from offbeat.core.errors import DataError, SettingError
from offbeat.engines.live.node.enter import AgentContext
from offbeat.engines.live.shm.ledger import Epoch, Ledger
from offbeat.engines.live.shm.part import Part, Places


@dataclass
class Table:
    """Where batches are dealt: what the shares of one process have to know of their run.

    Attributes:
        folder: of the run, in shared memory
        returned: whether it has been there in an earlier life, which died
        alive: who is in the run at present; to be set once the agent has joined
        joined: whether it has, so that all have said what they have saved
        places: in a run over several machines, which one this is: they have no memory in common
    """

    folder: Path
    me: int
    world: int
    returned: bool = False
    alive: Callable[[], Collection[int]] | None = None
    joined: bool = False
    places: Places | None = None

    @staticmethod
    def of(here: AgentContext | None) -> "Table | None":
        """That of the run that this process is an agent of."""
        if here is None:
            return None
        returned = here.incarnation > 1
        return Table(here.shared, here.me, here.settings.agents, returned, places=here.places)


@dataclass(eq=False)
class Hand:
    """The batches that this agent has got of one loader.

    Attributes:
        name: of the loader, the same on all agents
        taken: with how many batches it has made steps, in all epochs
        size: how many batches an epoch has for all agents together, if that is known
        epoch, done: the newest epoch in which it has made a step, and the numbers of those batches
        waiting: epoch, its log and number of what was handed out, and no step made with it yet
    """

    table: Table
    name: str
    taken: int = 0
    size: int | None = None
    epoch: int = 0
    done: list[int] = field(default_factory=list)
    waiting: list[tuple[int, Epoch, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        places = self.table.places
        make = Epoch if places is None else partial(Part, places=places)
        self.ledger = Ledger[Epoch](self.table.folder, self.name, self.table.me, make)
        self._open: tuple[int, Epoch] | None = None

    def open(self, epoch: int, size: int | None) -> Epoch | None:
        """The log of an epoch; None: the epoch is over."""
        if self._open is not None and self._open[0] == epoch and not self._open[1].over:
            return self._open[1]
        log = self.ledger.epoch(epoch, size)
        if log is not None and self.table.returned:
            log.free({self.table.me})  # what the life before was at
            if epoch >= self.epoch:
                self.epoch, self.done = epoch, log.done_by(self.table.me)
        self._open = None if log is None else (epoch, log)
        return log

    def left(self, log: Epoch) -> list[int]:
        """What nobody has begun, once all has been claimed, or has who is no longer there."""
        if self.table.alive is not None:
            alive = self.table.alive()
            log.free([agent for agent in log.agents if agent not in alive])
        return log.left() or log.leave()

    def settle(self) -> list[tuple[int, int]]:
        """A step has been made with all that was handed out: epoch and number of each."""
        made, self.waiting = self.waiting, []
        for epoch, log, number in made:
            log.done([number])
            if epoch > self.epoch:
                self.epoch, self.done = epoch, []
            if epoch == self.epoch:
                self.done.append(number)
            self.taken, self.size = self.taken + 1, log.size
            self.ledger.settle(epoch, log)
        return [(epoch, number) for epoch, _, number in made]

    @property
    def ended(self) -> bool:
        """Whether the epoch that is open has nothing for this agent any more."""
        return self._open is not None and self._open[1].exhausted

    @property
    def passed(self) -> float:
        """How many epochs all agents together have been through, as far as this one has heard."""
        return float(self.epoch) if self._open is None else self._open[0] + self._open[1].passed

    @property
    def share(self) -> float:
        """How many epochs of all data its own steps make up; NaN: it is not known how long an epoch is."""
        return self.taken / self.size if self.size else math.nan

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        size, done = -1 if self.size is None else self.size, torch.tensor(self.done, dtype=torch.int64)
        return {"epoch": self.epoch, "taken": self.taken, "size": size, "done": done}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; of a run that is resumed say what it has, before any batch is dealt."""
        match state:
            case {
                "epoch": int(epoch),
                "taken": int(taken),
                "size": int(size),
                "done": torch.Tensor() as done,
            }:
                self.epoch, self.taken, self.done = epoch, taken, done.tolist()
                self.size = size if size > 0 else None
                if not self.table.returned and self.table.places is not None:
                    raise SettingError(
                        "A run over several machines whose batches go to whoever comes for one cannot be "
                        "resumed: of what each agent had done only its own machine knows. Expected "
                        "share='equal', which goes on where it was, or a run on one machine."
                    )
                if not self.table.returned:
                    self.ledger.resume(epoch, self.done)
            case _:
                raise DataError(f"Got the shares {state!r:.200}; expected some that this version has saved.")
