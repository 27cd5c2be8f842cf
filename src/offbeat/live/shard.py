"""Every agent its own share of a torch DataLoader, or of any other iterable of batches, without communication.

The order of an epoch comes from a random stream that is named by (seed, epoch) and the same on all agents; each takes
every world-th sample of it. So the shares of an epoch are disjoint, whenever each agent gets there. (Shuffling is
numpy's: agents with different versions of it may disagree.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import SubsetRandomSampler as SubsetSampler
from torch.utils.data import WeightedRandomSampler as WeightedSampler
from torch.utils.data.distributed import DistributedSampler

from offbeat.errors import SettingError
from offbeat.streams import WORLD, Purpose

T = TypeVar("T")
KNOWN = (SequentialSampler, RandomSampler, SubsetSampler, WeightedSampler)
"""The samplers whose order is made here instead of asked for; not their subclasses."""


def shard(loader: Iterable[T], rank: int, world: int, seed: int = 0) -> Shard[T]:
    """The share of agent `rank` of `world` in a loader. Give all agents equal loaders and the same seed.

    What a share is depends on what orders the loader:

    - Sequential, shuffled, `SubsetRandomSampler`: samples rank, rank + world, ... of the epoch's order. All shares have
      floor(N / world) samples, so up to world - 1 are left out of an epoch: the last ones of the order, which are
      others in every epoch where the loader shuffles, always the same where it does not.
    - Drawn with replacement, `WeightedRandomSampler`: every agent draws num_samples // world samples by itself.
    - Any other sampler or batch sampler, subclasses of torch's included: items rank, rank + world, ... of its order.
      The shares are disjoint if that order is the same in all processes, which cannot be checked. What helps is done
      at the start of an epoch: `set_epoch` is called where there is one, and `generator` is seeded if it is torch's.
    - An `IterableDataset`: batches rank, rank + world, ... of what the loader delivers, so every agent reads
      everything. The shares are disjoint if all agents see the same stream: `set_epoch` and `generator` of the data
      set are treated as above, and workers get the same seeds on all agents. It may split itself over its workers,
      but not over the agents.
    - Any other iterable: elements rank, rank + world, ... A generator lasts for one epoch.

    One agent alone gets everything. Batch size, collate_fn, workers and so on remain the loader's; batches always come
    in order. Worker seeds derive from (seed, rank, epoch). Raises SettingError for a `DistributedSampler`, for
    something not iterable, and where the share of an agent would be empty.
    """
    return Shard(loader, rank, world, seed)


class Shard(Generic[T]):
    """One agent's share of a loader. Each `for` over it is one epoch, whether it runs to the end or not."""

    epoch: int
    """How many epochs have been started; 1 during the first."""

    def __init__(self, loader: Iterable[T], rank: int, world: int, seed: int = 0) -> None:
        if not (isinstance(rank, int) and isinstance(world, int) and 0 <= rank < world):
            raise SettingError(f"Got rank {rank!r} of {world!r} agents; ranks are the integers 0 to agents - 1.")
        if not (isinstance(seed, int) and seed >= 0):
            raise SettingError(f"Got the seed {seed!r}; give an integer of at least 0, the same for all agents.")
        if not isinstance(loader, Iterable):
            raise SettingError(f"Cannot shard a {type(loader).__name__}: pass a DataLoader or an iterable of batches.")
        self._rank, self._world, self._seed = rank, world, seed
        self._source, self._loader, self._samples = loader, loader, None
        self._generator = torch.Generator()
        if not isinstance(loader, DataLoader):
            _length(loader, world)
        elif isinstance(loader.dataset, IterableDataset):
            self._loader = _twin(loader, generator=self._generator)
        else:
            self._samples = _Samples(loader, rank, world, seed)
            self._loader = _twin(loader, generator=self._generator, **{self._samples.slot: self._samples})
        self.epoch = self._batch = self._turn = 0
        self._over = 0  # epochs that a restored loop goes through again, empty
        self._restored = self._used = False

    def __iter__(self) -> Iterator[T]:
        """The batches of the next epoch, or the rest of a restored one."""
        if self._used and isinstance(self._source, Iterator):
            raise SettingError(f"A {type(self._source).__name__} lasts for one epoch; for more, pass a list, a loader.")
        if self._over:
            self._over -= 1
            return iter(())
        if not self._restored:
            self.epoch, self._batch = self.epoch + 1, 0
        self._restored, self._used, self._turn = False, True, self._turn + 1
        return self._hand_out(self._batches(self.epoch - 1, self._batch), self._turn)

    def __len__(self) -> int:
        """The number of batches in a whole epoch. Raises TypeError where the loader has no length."""
        if self._samples is not None:
            return len(self._samples)
        return len(range(self._rank, len(self._source), self._world))  # type: ignore[arg-type]

    def _batches(self, epoch: int, skip: int) -> Iterator[T]:
        if self._samples is not None:
            self._samples.epoch, self._samples.skip = epoch, skip
            _seed(self._generator, _stream(self._seed, epoch, self._rank, 1))
            return iter(self._loader)
        _align(self._seed, epoch, getattr(self._loader, "dataset", self._loader))
        _seed(self._generator, _stream(self._seed, epoch, WORLD, 1))
        return islice(iter(self._loader), self._rank + skip * self._world, None, self._world)

    def _hand_out(self, batches: Iterator[T], turn: int) -> Iterator[T]:
        for batch in batches:
            if turn != self._turn:
                raise SettingError("A newer iteration or restore() took over from this one: use a second shard.")
            self._batch += 1
            yield batch

    def state(self) -> dict[str, int]:
        """The position: epochs started, and batches handed out in this one; what workers prefetched does not count."""
        return {"epoch": self.epoch, "batch": self._batch}

    def restore(self, state: Mapping[str, int], anew: bool = False) -> None:
        """Let the next `for` go on right after that batch, in a shard made with the same arguments.

        anew: the loop over the epochs begins with the first one again, so those that were over are over at once.

        It is the rest of the interrupted epoch: empty if that was at its end. Map-style data sets load nothing again;
        everything else is read and skipped. The random state of workers is not part of the position.
        """
        epoch, batch = state.get("epoch", -1), state.get("batch", -1)
        if epoch < 0 or batch < 0 or batch > 0 == epoch:
            raise SettingError(f"Got the position {dict(state)}; expected what Shard.state() returned.")
        self.epoch, self._batch, self._restored = epoch, batch, epoch > 0
        self._over = max(0, epoch - 1) if anew else 0
        self._turn += 1


class _Samples:
    """The sampler that takes the place of a map-style loader's own: this agent's share of that one's order."""

    def __init__(self, loader: DataLoader[Any], rank: int, world: int, seed: int) -> None:
        self.rank, self.world, self.seed, self.epoch, self.skip = rank, world, seed, 0, 0
        self.slot = "sampler" if loader.batch_sampler is None else "batch_sampler"
        outer: Any = getattr(loader, self.slot)
        inner = outer if type(outer) is BatchSampler else loader
        self.size, self.drop_last = inner.batch_size, inner.drop_last
        self.sampler: Any = outer if self.size is None else inner.sampler
        if any(isinstance(part, DistributedSampler) for part in (self.sampler, getattr(outer, "sampler", None))):
            raise SettingError("Got a DistributedSampler, but offbeat shards by itself: pass a plain loader.")
        total = _length(self.sampler, world)
        if total is not None and len(self) == 0:
            share = f"{total} samples over {world} agents are less than one batch of {self.size} each"
            raise SettingError(f"{share}, and drop_last drops those: use smaller batches or drop_last=False.")

    def __iter__(self) -> Iterator[Any]:
        """What the loader asks its sampler for: indices, or lists of them where it batches."""
        indices = self.indices(self.skip * (self.size or 1))
        return indices if self.size is None else iter(BatchSampler(indices, self.size, self.drop_last))

    def __len__(self) -> int:
        share = range(self.world - 1 if type(self.sampler) in KNOWN else self.rank, len(self.sampler), self.world)
        return len(share if self.size is None else BatchSampler(share, self.size, self.drop_last))

    def indices(self, start: int) -> Iterator[Any]:
        """This agent's items of the epoch's order, from the given one on."""
        sampler, kind = self.sampler, type(self.sampler)
        if kind not in KNOWN:
            _align(self.seed, self.epoch, sampler, getattr(sampler, "sampler", None))
            return islice(iter(sampler), self.rank + start * self.world, None, self.world)
        total, share = len(sampler), len(sampler) // self.world
        mine = slice(self.rank + start * self.world, share * self.world, self.world)
        if kind is SequentialSampler:
            return iter(range(total)[mine])
        own = _stream(self.seed, self.epoch, self.rank)
        if kind is WeightedSampler:
            odds = np.asarray(sampler.weights, np.float64)
            return map(int, own.choice(len(odds), share, sampler.replacement, odds / odds.sum())[start:])
        size = total if kind is SubsetSampler else len(sampler.data_source)
        if kind is RandomSampler and sampler.replacement:
            return map(int, own.integers(size, size=share)[start:])
        order = map(int, _shuffled(_stream(self.seed, self.epoch), size, total)[mine].copy())
        return order if kind is RandomSampler else map(sampler.indices.__getitem__, order)


def _stream(seed: int, epoch: int, agent: int = WORLD, *use: int) -> np.random.Generator:
    """The random stream of an epoch; by default that of all agents."""
    key = (agent, Purpose.SHARD, epoch, *use)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def _seed(generator: torch.Generator, stream: np.random.Generator) -> None:
    generator.manual_seed(int(stream.integers(2**63)))


def _shuffled(stream: np.random.Generator, size: int, count: int) -> np.ndarray[Any, Any]:
    """The first `count` numbers of one shuffled range(size) after the other."""
    order = np.empty((-(-count // size), size), np.int32 if size < 2**31 else np.int64)
    order[:] = np.arange(size, dtype=order.dtype)
    return stream.permuted(order, axis=1, out=order).ravel()[:count]


def _align(seed: int, epoch: int, *parts: object) -> None:
    """Tell what makes its own order which epoch it is, and seed it the same on all agents."""
    for part in parts:
        if callable(tell := getattr(part, "set_epoch", None)):
            tell(epoch)
        if isinstance(part, KNOWN) and getattr(part, "generator", part) is None:
            vars(part)["generator"] = torch.Generator()
        if isinstance(generator := getattr(part, "generator", None), torch.Generator):
            _seed(generator, _stream(seed, epoch))


def _twin(loader: DataLoader[Any], **changes: object) -> DataLoader[Any]:
    """A copy with other attributes: that keeps all else, even a subclass, which a constructor call would not."""
    twin = copy.copy(loader)
    vars(twin).update(changes, in_order=True, _iterator=None)
    return twin


def _length(items: Any, world: int) -> int | None:
    """How many there are, if they know. Raises SettingError where not every agent gets one."""
    try:
        total = len(items)
    except (TypeError, NotImplementedError):
        return None
    if total < world:
        raise SettingError(f"Got {total} samples (or batches) for {world} agents: pass more data or use fewer agents.")
    return total
