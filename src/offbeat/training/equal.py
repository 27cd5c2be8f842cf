"""Equal shares of a loader: every agent takes each world-th sample, or batch, of an order that all know."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from torch.utils.data import SubsetRandomSampler as SubsetSampler
from torch.utils.data import WeightedRandomSampler as WeightedSampler

from offbeat.core.errors import SettingError
from offbeat.core.system.streams import WORLD
from offbeat.training.orders import (
    KNOWN,
    copy_with,
    epoch_stream,
    iterates,
    length,
    seed_with,
    set_epoch,
    shuffled,
)

T = TypeVar("T")


class Indexed(Generic[T]):
    """The share of a map-style loader: its own samples, and no others are loaded."""

    may_be_empty = False

    def __init__(self, loader: DataLoader[T], rank: int, world: int, seed: int) -> None:
        self.agent, self.seed, self.generator = rank, seed, torch.Generator()
        self.samples = Samples(loader, rank, world, seed)
        self.loader = copy_with(loader, generator=self.generator, **{self.samples.slot: self.samples})

    def batches(self, epoch: int, skip: int) -> Iterator[T]:
        """Those of an epoch, from number `skip` on. Raises SettingError if other samples are loaded."""
        self.samples.epoch, self.samples.skip, self.samples.asked = epoch, skip, False
        seed_with(self.generator, epoch_stream(self.seed, epoch, self.agent, 1))
        for batch in self.loader:
            if not self.samples.asked:
                what = f"This {type(self.loader).__name__} goes past its sampler"
                raise SettingError(f"{what}, so its samples cannot be split: pass another.")
            yield batch

    def take(self, rank: int, world: int) -> None:
        self.samples.take(rank, world)

    @property
    def rank(self) -> int:
        return self.samples.rank

    @property
    def world(self) -> int:
        return self.samples.world

    def __len__(self) -> int:
        return len(self.samples)


class Strided(Generic[T]):
    """Of anything else: every world-th batch of what it delivers; all are loaded, those skipped too.

    The end of a stream is not known before it is there. So where nothing follows the batches to skip, the
    last of them comes again: no epoch is handed out without a batch. `len` may raise TypeError.
    """

    may_be_empty = False

    def __init__(self, loader: Iterable[T], rank: int, world: int, seed: int) -> None:
        self.rank, self.world, self.seed, self.generator = rank, world, seed, torch.Generator()
        self.loader = loader
        if isinstance(loader, DataLoader) and not iterates(loader):
            self.loader = copy_with(loader, generator=self.generator)
        elif not isinstance(loader, DataLoader):
            length(loader, world)

    def take(self, rank: int, world: int) -> None:
        if (total := length(self.loader, 0)) is None or total >= world:
            self.rank, self.world = rank, world

    def batches(self, epoch: int, skip: int) -> Iterator[T]:
        set_epoch(self.seed, epoch, self.loader)
        seed_with(self.generator, epoch_stream(self.seed, epoch, WORLD, 1))
        mine = islice(iter(self.loader), self.rank, None, self.world)
        skipped = deque(islice(mine, skip), 1)
        for batch in mine:
            skipped.clear()
            yield batch
        yield from skipped

    def __len__(self) -> int:
        return len(range(self.rank, len(self.loader), self.world))  # type: ignore[arg-type]


class Samples:
    """The sampler that takes the place of a map-style loader's own: this agent's share of that one's order.

    Attributes:
        asked: whether the loader has asked for them since this was last set to False
    """

    def __init__(self, loader: DataLoader[Any], rank: int, world: int, seed: int) -> None:
        self.rank, self.world, self.seed, self.epoch, self.skip, self.asked = rank, world, seed, 0, 0, False
        self.slot = "sampler" if loader.batch_sampler is None else "batch_sampler"
        outer: Any = getattr(loader, self.slot)
        inner = outer if type(outer) is BatchSampler else loader
        self.size, self.drop_last = inner.batch_size, inner.drop_last
        self.sampler: Any = outer if self.size is None else inner.sampler
        if (total := length(self.sampler, world)) is not None and len(self) == 0:
            each = f" over {world} agents" if world > 1 else ""
            share = f"{total} samples{each} are less than one batch of {self.size}{' each' * (world > 1)}"
            raise SettingError(f"{share}, and drop_last drops those: use smaller batches or drop_last=False.")

    def take(self, rank: int, world: int) -> None:
        """From now on this share, unless it would be empty."""
        before, self.rank, self.world = (self.rank, self.world), rank, world
        total = length(self.sampler, 0)
        if total is not None and (total < world or not len(self)):
            self.rank, self.world = before

    def __iter__(self) -> Iterator[Any]:
        """What the loader asks its sampler for: indices, or lists of them where it batches."""
        self.asked = True
        indices = self.indices(self.skip * (self.size or 1))
        return indices if self.size is None else iter(BatchSampler(indices, self.size, self.drop_last))

    def __len__(self) -> int:
        first = self.world - 1 if type(self.sampler) in KNOWN else self.rank
        share = range(first, len(self.sampler), self.world)
        return len(share if self.size is None else BatchSampler(share, self.size, self.drop_last))

    def indices(self, start: int) -> Iterator[Any]:
        """This agent's items of the epoch's order, from the given one on."""
        sampler, kind = self.sampler, type(self.sampler)
        if kind not in KNOWN:
            set_epoch(self.seed, self.epoch, sampler)
            return islice(iter(sampler), self.rank + start * self.world, None, self.world)
        total, share = len(sampler), len(sampler) // self.world
        mine = slice(self.rank + start * self.world, share * self.world, self.world)
        if kind is SequentialSampler:
            return iter(range(total)[mine])
        own = epoch_stream(self.seed, self.epoch, self.rank)
        if kind is WeightedSampler:
            odds = np.asarray(sampler.weights, np.float64)
            return map(int, own.choice(len(odds), share, sampler.replacement, odds / odds.sum())[start:])
        size = total if kind is SubsetSampler else len(sampler.data_source)
        if kind is RandomSampler and sampler.replacement:
            return map(int, own.integers(size, size=share)[start:])
        order = map(int, shuffled(epoch_stream(self.seed, self.epoch), size, total)[mine].copy())
        return order if kind is RandomSampler else map(sampler.indices.__getitem__, order)
