"""Each agent's own share of a torch DataLoader, or of any other iterable of batches, without communication.

The order of an epoch comes from a random stream that is named by (seed, epoch) and the same on all agents;
each takes every world-th sample of it: the shares are disjoint, whenever each agent gets there.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from offbeat.core.errors import SettingError
from offbeat.core.system.streams import WORLD
from offbeat.training.samples import Samples, copy_with, length, refuse_distributed, seeded, set_epoch, stream

T = TypeVar("T")


def shard(loader: Iterable[T], rank: int, world: int, seed: int = 0) -> Shard[T]:
    """The share of agent `rank` of `world` in a loader. Give all agents equal loaders and the same seed.

    What a share is depends on what orders the loader:

    - Sequential, shuffled, `SubsetRandomSampler`: samples rank, rank + world, ... of the epoch's order. All
      shares have floor(N / world) samples, so up to world - 1 are left out of an epoch: the last ones of the
      order, which are others in every epoch where the loader shuffles, always the same where it does not.
    - Drawn with replacement, `WeightedRandomSampler`: every agent draws num_samples // world samples by
      itself.
    - Any other sampler or batch sampler, subclasses of torch's included: items rank, rank + world, ... of its
      order. The shares are disjoint if that order is the same in all processes, which cannot be checked. What
      helps is done at the start of an epoch: `set_epoch` is called where there is one, and `generator` is
      seeded if it is torch's.
    - An `IterableDataset`: batches rank, rank + world, ... of what the loader delivers, so every agent reads
      everything. The shares are disjoint if all agents see the same stream: `set_epoch` and `generator` of
      the data set are treated as above, and workers get the same seeds on all agents. It may split itself
      over its workers, but not over the agents.
    - A subclass of DataLoader with an `__iter__` of its own, such as what Accelerate prepares: batches rank,
      rank + world, ... of what it delivers, as above. Where reading everything is too slow, shard a plain
      DataLoader, and do in your loop, or with Accelerate's `send_to_device`, what the subclass does with a
      batch.
    - Any other iterable: elements rank, rank + world, ... A generator lasts for one epoch.

    Batch size, collate_fn, workers and so on remain the loader's; batches always come in order. Worker seeds
    derive from (seed, rank, epoch). What a loop sees after a restart is in docs/live.md. Raises SettingError
    for a `DistributedSampler`, for something not iterable, and where the share of an agent would be empty.
    """
    if not (isinstance(rank, int) and isinstance(world, int) and 0 <= rank < world):
        raise SettingError(f"Got rank {rank!r} of {world!r} agents; ranks are the integers 0 to agents - 1.")
    if not (isinstance(seed, int) and seed >= 0):
        raise SettingError(f"Got the seed {seed!r}; give an integer of at least 0, the same for all agents.")
    if not isinstance(loader, Iterable):
        raise SettingError(f"Cannot shard a {type(loader).__name__}: pass a DataLoader or another iterable.")
    refuse_distributed(loader)
    if not isinstance(loader, DataLoader) or _iterates(loader) or isinstance(loader.dataset, IterableDataset):
        return Shard(loader, Strided(loader, rank, world, seed))
    return Shard(copy.copy(loader), Indexed(loader, rank, world, seed))


def _iterates(loader: DataLoader[Any]) -> bool:
    """Whether it is a subclass that may hand out other batches than its sampler's."""
    names = ("__iter__", "_get_iterator")
    return any(getattr(type(loader), name) is not getattr(DataLoader, name) for name in names)


class Indexed(Generic[T]):
    """The share of a map-style loader: its own samples, and no others are loaded."""

    def __init__(self, loader: DataLoader[T], rank: int, world: int, seed: int) -> None:
        self.rank, self.seed, self.generator = rank, seed, torch.Generator()
        self.samples = Samples(loader, rank, world, seed)
        self.loader = copy_with(loader, generator=self.generator, **{self.samples.slot: self.samples})

    def batches(self, epoch: int, skip: int) -> Iterator[T]:
        """Those of an epoch, from number `skip` on. Raises SettingError if other samples are loaded."""
        self.samples.epoch, self.samples.skip, self.samples.asked = epoch, skip, False
        seeded(self.generator, stream(self.seed, epoch, self.rank, 1))
        for batch in self.loader:
            if not self.samples.asked:
                what = f"This {type(self.loader).__name__} goes past its sampler"
                raise SettingError(f"{what}, so its samples cannot be split: pass another.")
            yield batch

    def __len__(self) -> int:
        return len(self.samples)


class Strided(Generic[T]):
    """Of anything else: every world-th batch of what it delivers; all are loaded, those skipped too.

    The end of a stream is not known before it is there. So where nothing follows the batches to skip, the
    last of them comes again: no epoch is handed out without a batch. `len` may raise TypeError.
    """

    def __init__(self, loader: Iterable[T], rank: int, world: int, seed: int) -> None:
        self.rank, self.world, self.seed, self.generator = rank, world, seed, torch.Generator()
        self.loader = loader
        if isinstance(loader, DataLoader) and not _iterates(loader):
            self.loader = copy_with(loader, generator=self.generator)
        elif not isinstance(loader, DataLoader):
            length(loader, world)

    def batches(self, epoch: int, skip: int) -> Iterator[T]:
        set_epoch(self.seed, epoch, self.loader)
        seeded(self.generator, stream(self.seed, epoch, WORLD, 1))
        mine = islice(iter(self.loader), self.rank, None, self.world)
        skipped = deque(islice(mine, skip), 1)
        for batch in mine:
            skipped.clear()
            yield batch
        yield from skipped

    def __len__(self) -> int:
        return len(range(self.rank, len(self.loader), self.world))  # type: ignore[arg-type]


@dataclass(eq=False)
class Position:
    """Where the loops over a loader are: before batch `batch` of epoch `epoch`, both counted from 0.

    Attributes:
        size: the number of batches in an epoch, if that is known
        begun: whether a loop of this process is, or was, in that epoch; the next one begins another
        moves: how often it was put elsewhere
        turn: the number of loops so far
        active: of those that are going on
    """

    epoch: int = 0
    batch: int = 0
    size: int | None = None
    begun: bool = False
    moves: int = 0
    turn: int = 0
    active: int = 0

    def next(self) -> tuple[int, int]:
        """Epoch and batch of what comes next; known at the last batch already, where the size is."""
        return (self.epoch + 1, 0) if self.batch and self.batch == self.size else (self.epoch, self.batch)

    def move(self, epoch: int, batch: int) -> None:
        """Go elsewhere: the next loop, and one that is going on, go on there."""
        self.epoch, self.batch, self.begun, self.moves = epoch, batch, False, self.moves + 1

    def open(self) -> None:
        """A loop begins, or goes on after a move."""
        self.epoch, self.batch = (self.epoch + 1, 0) if self.begun else self.next()
        self.begun = True

    def close(self) -> None:
        self.epoch, self.batch, self.begun = self.epoch + 1, 0, False


class Shard(Generic[T]):
    """One agent's share of a loader. Each `for` over it is one epoch, whether it runs to the end or not.

    `len` is the number of batches in a whole epoch, and raises TypeError where that is not known. Any other
    attribute, such as `dataset` and `batch_size`, is the loader's: that of all agents together, not of the
    share. Without a `share` it hands out what the loader does, to the bit.
    """

    def __init__(self, loader: Iterable[T], share: Indexed[T] | Strided[T] | None) -> None:
        self._loader, self._share, self.position, self.used = loader, share, Position(), False

    @property
    def epoch(self) -> int:
        """How many epochs have been started; 1 during the first."""
        return self.position.epoch + (self.position.begun or self.position.batch > 0)

    def __iter__(self) -> Iterator[T]:
        """The batches of the next epoch, or the rest of the one in which a checkpoint was written."""
        if self._share is None:
            self.position.open()
            return iter(self._loader)
        return self._hand_out(self._share)

    def __len__(self) -> int:
        return len(self._loader if self._share is None else self._share)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"A Shard has no attribute {name!r}.")
        return getattr(self._loader, name)

    def is_of(self, loader: object) -> bool:
        return self._loader is loader

    def _hand_out(self, share: Indexed[T] | Strided[T]) -> Iterator[T]:
        if self.used and isinstance(self._loader, Iterator):
            kind = type(self._loader).__name__
            raise SettingError(f"A {kind} lasts for one epoch; for more, pass a list, a loader.")
        at, self.used = self.position, True
        at.size, at.active = length(self, 0), at.active + 1
        turn = at.turn = at.turn + 1
        try:
            while True:
                at.open()
                first, moves = at.batch, at.moves
                for batch in share.batches(at.epoch, first):
                    at.batch += 1
                    yield batch
                    if turn != at.turn:
                        raise SettingError("A newer loop over this share took over: use a second loader.")
                    if moves != at.moves:
                        break
                else:
                    handed_out = at.batch - first
                    at.close()
                    if handed_out:
                        return
                    if not first:
                        raise SettingError("An epoch has no batch for this agent: pass more data.")
        finally:
            at.active -= 1
