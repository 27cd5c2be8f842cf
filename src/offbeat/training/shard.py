"""Each agent's own share of a torch DataLoader, or of any other iterable of batches, without communication.

The order of an epoch comes from a random stream that is named by (seed, epoch) and the same on all agents;
each takes every world-th sample of it: the shares are disjoint, whenever each agent gets there.
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import SubsetRandomSampler as SubsetSampler
from torch.utils.data import WeightedRandomSampler as WeightedSampler
from torch.utils.data.distributed import DistributedSampler

from offbeat.core.errors import SettingError
from offbeat.core.system.streams import WORLD, Purpose

T = TypeVar("T")

KNOWN = (SequentialSampler, RandomSampler, SubsetSampler, WeightedSampler)
"""The samplers whose order is made here instead of asked for; not their subclasses."""

INNER = ("batch_sampler", "sampler", "loader", "base_dataloader")
"""Where a loader, or what wraps one, keeps what orders its batches, beside a data set that does."""


def shard(loader: Iterable[T], rank: int, world: int, seed: int = 0) -> "Shard[T]":
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
    if any(isinstance(part, DistributedSampler) for part in _within(loader)):
        raise SettingError("Got a DistributedSampler, but offbeat shards by itself: pass a plain loader.")
    if not isinstance(loader, DataLoader) or _iterates(loader) or isinstance(loader.dataset, IterableDataset):
        return Shard(loader, Strided(loader, rank, world, seed))
    return Shard(copy.copy(loader), Indexed(loader, rank, world, seed))


def _iterates(loader: DataLoader[Any]) -> bool:
    """Whether it is a subclass that may hand out other batches than its sampler's."""
    names = ("__iter__", "_get_iterator")
    return any(getattr(type(loader), name) is not getattr(DataLoader, name) for name in names)


# -- where the loops are ----------------------------------------------------------------------------


@dataclass(eq=False)
class Position:
    """Where the loops over a loader are: before batch `batch` of epoch `epoch`, both counted from 0.

    Attributes:
        size: the number of batches in an epoch, if that is known
        begun: whether a loop of this process is, or was, in that epoch; the next one begins another
        moves: how often it was put elsewhere
        turn: the number of loops so far
        active: of those that are going on
        ends: which of them is to end, as the run has done enough
    """

    epoch: int = 0
    batch: int = 0
    size: int | None = None
    begun: bool = False
    moves: int = 0
    turn: int = 0
    active: int = 0
    ends: int = 0

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

    def __init__(self, loader: Iterable[T], share: "Indexed[T] | Strided[T] | None") -> None:
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

    def _hand_out(self, share: "Indexed[T] | Strided[T]") -> Iterator[T]:
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
                    if turn == at.ends:
                        return
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


# -- which batches, in which order ------------------------------------------------------------------


class Indexed(Generic[T]):
    """The share of a map-style loader: its own samples, and no others are loaded."""

    def __init__(self, loader: DataLoader[T], rank: int, world: int, seed: int) -> None:
        self.rank, self.seed, self.generator = rank, seed, torch.Generator()
        self.samples = Samples(loader, rank, world, seed)
        self.loader = _copy_with(loader, generator=self.generator, **{self.samples.slot: self.samples})

    def batches(self, epoch: int, skip: int) -> Iterator[T]:
        """Those of an epoch, from number `skip` on. Raises SettingError if other samples are loaded."""
        self.samples.epoch, self.samples.skip, self.samples.asked = epoch, skip, False
        _seed(self.generator, _stream(self.seed, epoch, self.rank, 1))
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
            self.loader = _copy_with(loader, generator=self.generator)
        elif not isinstance(loader, DataLoader):
            length(loader, world)

    def batches(self, epoch: int, skip: int) -> Iterator[T]:
        _set_epoch(self.seed, epoch, self.loader)
        _seed(self.generator, _stream(self.seed, epoch, WORLD, 1))
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
            share = f"{total} samples over {world} agents are less than one batch of {self.size} each"
            raise SettingError(f"{share}, and drop_last drops those: use smaller batches or drop_last=False.")

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
            _set_epoch(self.seed, self.epoch, sampler)
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


def _seed(generator: torch.Generator, numbers: np.random.Generator) -> None:
    generator.manual_seed(int(numbers.integers(2**63)))


def _set_epoch(seed: int, epoch: int, whole: object) -> None:
    """Tell what makes its own order, and its parts, the epoch, and seed it the same on all agents."""
    for part in _within(whole):
        if callable(tell := getattr(part, "set_epoch", None)):
            tell(epoch)
        if isinstance(part, KNOWN) and getattr(part, "generator", part) is None:
            vars(part)["generator"] = torch.Generator()
        if isinstance(generator := getattr(part, "generator", None), torch.Generator):
            _seed(generator, _stream(seed, epoch))


def _within(whole: object) -> list[object]:
    """This and all that it has in the places where order is made, each once."""
    found, waiting = list[object](), [whole]
    while waiting:
        part = waiting.pop(0)
        if part is not None and not any(part is known for known in found):
            found.append(part)
            waiting += [getattr(part, name, None) for name in INNER]
            waiting += [d for d in [getattr(part, "dataset", None)] if isinstance(d, IterableDataset)]
    return found


def _copy_with(loader: DataLoader[Any], **changes: object) -> DataLoader[Any]:
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
        got = f"{total} samples (or batches) for {world} agents"
        raise SettingError(f"Got {got}: pass more data or use fewer agents.")
    return int(total)


def _shuffled(numbers: np.random.Generator, size: int, count: int) -> np.ndarray[Any, Any]:
    """The first `count` numbers of one shuffled range(size) after the other. Versions of numpy may differ."""
    order = np.empty((-(-count // size), size), np.int32 if size < 2**31 else np.int64)
    order[:] = np.arange(size, dtype=order.dtype)
    return numbers.permuted(order, axis=1, out=order).ravel()[:count]
