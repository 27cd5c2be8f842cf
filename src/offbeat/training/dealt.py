"""Shares by speed: the batches of an epoch go, one by one, to whichever agent comes for the next."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler
from torch.utils.data import SubsetRandomSampler as SubsetSampler
from torch.utils.data import WeightedRandomSampler as WeightedSampler

from offbeat.core.errors import SettingError
from offbeat.core.system.streams import WORLD
from offbeat.engines.live.shm.ledger import Epoch
from offbeat.training.equal import Samples
from offbeat.training.hand import Hand
from offbeat.training.orders import KNOWN, copy_with, epoch_stream, iterates, length, seed_with, set_epoch

T = TypeVar("T")


class Dealt(Generic[T]):
    """The batches that this agent comes for before others do; all make up one epoch together.

    `len` is not known: how many these are is seen when the epoch is over, for an agent there may be none.
    """

    may_be_empty = True

    def __init__(self, hand: Hand, size: int | None) -> None:
        self.hand, self.size = hand, size
        self.rank, self.world = hand.table.me, hand.table.world

    def take(self, rank: int, world: int) -> None:
        """However many there are, whoever comes gets the next batch."""

    def batches(self, epoch: int, skip: int) -> Iterator[T]:
        """Those of an epoch, as long as there are any that nobody trains with."""
        if not self.hand.table.joined:
            raise SettingError(
                "Batches that go to whoever comes first were asked for before agent.wrap(): wrap the model, "
                "then begin the loop over agent.shard(loader, share=...)."
            )
        if (log := self.hand.open(epoch, self.size)) is not None:
            for number, batch in self._dealt(epoch, log):
                self.hand.waiting.append((epoch, log, number))
                yield batch

    def _dealt(self, epoch: int, log: Epoch) -> Iterator[tuple[int, T]]:
        """Number and batch of those that this agent has begun."""
        raise NotImplementedError

    def __len__(self) -> int:
        of = "" if self.size is None else f" of the {self.size} batches of an epoch"
        raise TypeError(f"How many{of} an agent gets by its speed is known when the epoch is over.")


class DealtSamples(Dealt[T]):
    """Of a map-style loader. What workers load ahead may go to another agent that has nothing left."""

    def __init__(self, loader: DataLoader[T], samples: "Picked", hand: Hand, seed: int) -> None:
        super().__init__(hand, length(samples, 0))
        self.samples, self.seed, self.generator = samples, seed, torch.Generator()
        self.loader = copy_with(loader, generator=self.generator, **{samples.slot: samples})
        self._here = copy_with(
            self.loader, num_workers=0, prefetch_factor=None, persistent_workers=False, timeout=0
        )

    def _dealt(self, epoch: int, log: Epoch) -> Iterator[tuple[int, T]]:
        samples = self.samples
        seed_with(self.generator, epoch_stream(self.seed, epoch, self.hand.table.me, 1))
        samples.epoch, samples.wanted, samples.asked = epoch, iter(log.claim, None), False
        samples.ended = None
        for batch in self.loader:
            if not samples.asked:
                what = f"This {type(self.loader).__name__} goes past its sampler"
                raise SettingError(f"{what}, so its samples cannot be split: pass another.")
            if log.begin(number := samples.picked.popleft()):
                yield number, batch
        if samples.ended is not None:
            log.ends_at(samples.ended)
        while left := self.hand.left(log):
            if log.begin(number := left[0], last=True):
                samples.wanted = iter([number])
                yield number, next(iter(self._here))


class DealtStream(Dealt[T]):
    """Of anything else: all agents read everything, to its end, and each keeps what it comes for first."""

    def __init__(self, loader: Iterable[T], hand: Hand, seed: int) -> None:
        stream = isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset)
        super().__init__(hand, None if stream else length(loader, 0))
        self.loader, self.seed, self.generator = loader, seed, torch.Generator()
        if isinstance(loader, DataLoader) and not iterates(loader):
            self.loader = copy_with(loader, generator=self.generator)

    def _dealt(self, epoch: int, log: Epoch) -> Iterator[tuple[int, T]]:
        set_epoch(self.seed, epoch, self.loader)
        seed_with(self.generator, epoch_stream(self.seed, epoch, WORLD, 1))
        delivered = enumerate(iter(self.loader))
        at = -1
        while (number := log.claim()) is not None:
            for at, batch in delivered:
                if at == number:
                    if log.begin(number):
                        yield number, batch
                    break
            else:
                log.ends_at(at + 1)
        for _ in delivered:  # a loader may have one iterator for all epochs
            pass


class Picked(Samples):
    """The order of all agents' batches, of which those are loaded that are wanted.

    Attributes:
        wanted: their numbers; each that is below the one before costs another look through the order
        picked: those that are being loaded
        ended: how many there are, once that has turned out to be fewer than thought
    """

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        super().__init__(loader, 0, 1, seed)
        self.wanted: Iterator[int] = iter(())
        self.picked = deque[int]()
        self.ended: int | None = None

    def __iter__(self) -> Iterator[Any]:
        self.picked.clear()
        items, at = enumerate(super().__iter__()), -1
        for number in self.wanted:
            if number <= at:  # another machine has lent it
                items, at = enumerate(super().__iter__()), -1
            for at, item in items:
                if at == number:
                    self.picked.append(number)
                    yield item
                    break
            else:
                self.ended = at + 1
                return


class Drawn(Picked):
    """Every batch is drawn anew from all data, from the agent's own stream: no sample comes twice in one, but
    where the loader's sampler draws with replacement.
    """

    def __init__(self, loader: DataLoader[Any], seed: int, me: int) -> None:
        super().__init__(loader, seed)
        if type(self.sampler) not in KNOWN:
            raise SettingError(
                f"share='random' draws by index, and a {type(self.sampler).__name__} makes an order of its "
                "own. Expected a DataLoader that shuffles, or share='speed'."
            )
        self.me, self.total = me, len(self.sampler)
        self.odds: np.ndarray[Any, Any] | None = None
        if type(self.sampler) is WeightedSampler:
            odds = np.asarray(self.sampler.weights, np.float64)
            self.odds = odds / odds.sum()

    def __iter__(self) -> Iterator[Any]:
        self.picked.clear()
        self.asked = True
        for number in self.wanted:
            self.picked.append(number)
            indices = self.draw(number)
            yield indices if self.size is not None else indices[0]

    def draw(self, number: int) -> list[Any]:
        """The samples of a batch."""
        sampler, size = self.sampler, self.size or 1
        own = epoch_stream(self.seed, self.epoch, self.me, 2, number)
        count = min(size, self.total - number * size)
        if self.odds is not None:
            return [int(i) for i in own.choice(len(self.odds), count, sampler.replacement, self.odds)]
        among = self.total if type(sampler) is not RandomSampler else len(sampler.data_source)
        again = count > among or (type(sampler) is RandomSampler and sampler.replacement)
        drawn = own.choice(among, count, replace=again).tolist()
        return [sampler.indices[i] for i in drawn] if type(sampler) is SubsetSampler else drawn
