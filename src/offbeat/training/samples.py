"""The order of an epoch: from a random stream named by (seed, epoch), or from what orders the data itself.

(Shuffling is numpy's: agents with different versions of it may disagree.)
"""

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import SubsetRandomSampler as SubsetSampler
from torch.utils.data import WeightedRandomSampler as WeightedSampler
from torch.utils.data.distributed import DistributedSampler

from offbeat.core.errors import SettingError
from offbeat.core.system.streams import WORLD, Purpose

KNOWN = (SequentialSampler, RandomSampler, SubsetSampler, WeightedSampler)
"""The samplers whose order is made here instead of asked for; not their subclasses."""

INNER = ("batch_sampler", "sampler", "loader", "base_dataloader")
"""Where a loader, or what wraps one, keeps what orders its batches, beside a data set that does."""


class Samples:
    """The sampler that takes the place of a map-style loader's own: this agent's share of that one's order.

    Attributes:
        asked: whether the loader has asked for them since this was last set to False
    """

    asked = False

    def __init__(self, loader: DataLoader[Any], rank: int, world: int, seed: int) -> None:
        self.rank, self.world, self.seed, self.epoch, self.skip = rank, world, seed, 0, 0
        self.slot = "sampler" if loader.batch_sampler is None else "batch_sampler"
        outer: Any = getattr(loader, self.slot)
        inner = outer if type(outer) is BatchSampler else loader
        self.size, self.drop_last = inner.batch_size, inner.drop_last
        self.sampler: Any = outer if self.size is None else inner.sampler
        total = length(self.sampler, world)
        if total is not None and len(self) == 0:
            share = f"{total} samples over {world} agents are less than one batch of {self.size} each"
            raise SettingError(f"{share}, and drop_last drops those: use smaller batches or drop_last=False.")

    def __iter__(self) -> Iterator[Any]:
        """What the loader asks its sampler for: indices, or lists of them where it batches."""
        self.asked = True
        indices = self.indices(self.skip * (self.size or 1))
        return indices if self.size is None else iter(BatchSampler(indices, self.size, self.drop_last))

    def __len__(self) -> int:
        share = range(
            self.world - 1 if type(self.sampler) in KNOWN else self.rank, len(self.sampler), self.world
        )
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
        own = stream(self.seed, self.epoch, self.rank)
        if kind is WeightedSampler:
            odds = np.asarray(sampler.weights, np.float64)
            return map(int, own.choice(len(odds), share, sampler.replacement, odds / odds.sum())[start:])
        size = total if kind is SubsetSampler else len(sampler.data_source)
        if kind is RandomSampler and sampler.replacement:
            return map(int, own.integers(size, size=share)[start:])
        order = map(int, _shuffled(stream(self.seed, self.epoch), size, total)[mine].copy())
        return order if kind is RandomSampler else map(sampler.indices.__getitem__, order)


def stream(seed: int, epoch: int, agent: int = WORLD, *use: int) -> np.random.Generator:
    """The random stream of an epoch; by default that of all agents."""
    key = (agent, Purpose.SHARD, epoch, *use)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def seeded(generator: torch.Generator, numbers: np.random.Generator) -> None:
    generator.manual_seed(int(numbers.integers(2**63)))


def set_epoch(seed: int, epoch: int, *parts: object) -> None:
    """Tell what makes its own order, and its parts, the epoch, and seed it the same on all agents."""
    for part in _within(parts):
        if callable(tell := getattr(part, "set_epoch", None)):
            tell(epoch)
        if isinstance(part, KNOWN) and getattr(part, "generator", part) is None:
            vars(part)["generator"] = torch.Generator()
        if isinstance(generator := getattr(part, "generator", None), torch.Generator):
            seeded(generator, stream(seed, epoch))


def _within(parts: tuple[object, ...]) -> list[object]:
    """These and all that they have in the places where order is made, each once."""
    found: list[object] = []
    waiting = [*parts]
    while waiting:
        part = waiting.pop(0)
        if part is not None and not any(part is known for known in found):
            found.append(part)
            waiting += [getattr(part, name, None) for name in INNER]
            waiting += [d for d in [getattr(part, "dataset", None)] if isinstance(d, IterableDataset)]
    return found


def refuse_distributed(loader: object) -> None:
    if any(isinstance(part, DistributedSampler) for part in _within((loader,))):
        raise SettingError("Got a DistributedSampler, but offbeat shards by itself: pass a plain loader.")


def copy_with(loader: DataLoader[Any], **changes: object) -> DataLoader[Any]:
    """A copy with other attributes: it keeps all else, even a subclass, as a constructor would not."""
    copied = copy.copy(loader)
    vars(copied).update(changes, in_order=True, _iterator=None)
    return copied


def length(items: Any, world: int) -> int | None:
    """How many there are, if they know. Raises SettingError where not every agent gets one."""
    try:
        total = len(items)
    except (TypeError, NotImplementedError):
        return None
    if total < world:
        raise SettingError(
            f"Got {total} samples (or batches) for {world} agents: pass more data or use fewer agents."
        )
    return int(total)


def _shuffled(numbers: np.random.Generator, size: int, count: int) -> np.ndarray[Any, Any]:
    """The first `count` numbers of one shuffled range(size) after the other."""
    order = np.empty((-(-count // size), size), np.int32 if size < 2**31 else np.int64)
    order[:] = np.arange(size, dtype=order.dtype)
    return numbers.permuted(order, axis=1, out=order).ravel()[:count]
