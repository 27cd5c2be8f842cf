"""Each agent's own share of a torch DataLoader, or of any other iterable of batches.

The order of an epoch comes from a random stream that is named by (seed, epoch) and the same on all agents.
Which batches of it are whose:

- "equal": all get as many, so in each epoch the slow end later. `shard` says which, by kind of loader.
- "speed": the batches of the whole epoch, in its order, go one by one to whichever agent comes for the
  next. So every sample is seen once an epoch by all together, whatever their speeds, and when nothing is
  left nobody has more to do than the batch that it is at: they end within one step of the slowest. What
  workers have loaded ahead for one agent goes to another that has nothing left. An agent that comes too
  late gets no batch of an epoch: its loop is empty.
- "random": as many batches of an epoch, by speed too, but each is drawn at random from all data, from the
  agent's own stream, without a sample twice in it. So every agent sees the same distribution however
  fast it is, and some samples more often than others. It takes a DataLoader over a map-style data set
  whose sampler is one of torch's.

By speed, samplers of others, streams and subclasses of DataLoader are read whole by every agent, and each
keeps the batches that it comes for. `len` is then a TypeError. Agents join and leave as they like.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.distributed import DistributedSampler

from offbeat.core.errors import SettingError, unknown
from offbeat.training.dealt import DealtSamples, DealtStream, Drawn, Picked
from offbeat.training.equal import Indexed, Strided
from offbeat.training.hand import Hand
from offbeat.training.orders import iterates, length, parts_of
from offbeat.training.position import Position

T = TypeVar("T")

SHARES = EQUAL, SPEED, RANDOM = "equal", "speed", "random"

Share = Indexed[T] | Strided[T] | DealtSamples[T] | DealtStream[T]


def check_share(share: str) -> None:
    """Raise SettingError if there is no such."""
    if share not in SHARES:
        raise unknown("share", str(share), SHARES)


def shard(
    loader: Iterable[T], rank: int, world: int, seed: int = 0, share: str = EQUAL, hand: Hand | None = None
) -> "Shard[T]":
    """The share of agent `rank` of `world` in a loader. Give all agents equal loaders and the same seed.

    `share` is one of those at the head of this module; by speed agents need a `hand`, to say what they have.

    What an equal share is depends on what orders the loader:

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

    Where agents join a run while it goes on, or are asked to leave it (`offbeat join`, `offbeat leave`),
    every agent takes in each epoch that it begins the share of as many agents as there are then: of those who
    have not left, by rising number, agent k of m takes every m-th item from the k-th on. An epoch that it has
    begun stays what it is. So in the epoch in which somebody comes some samples may be seen twice, or by
    nobody; in later ones shares are disjoint again. Whose new share would be empty keeps the one it has.

    Batch size, collate_fn, workers and so on remain the loader's; batches always come in order. Worker seeds
    derive from (seed, rank, epoch). What a loop sees after a restart is in docs/live.md. Raises SettingError
    for a `DistributedSampler`, for something not iterable, and where the share of an agent would be empty.
    """
    _check(loader, rank, world, seed, share, hand)
    if not isinstance(loader, DataLoader) or iterates(loader) or isinstance(loader.dataset, IterableDataset):
        if share == RANDOM:
            raise SettingError(
                f"share='random' draws samples by index, which a {type(loader).__name__} without a map-style "
                "data set and a sampler has not. Expected a DataLoader that shuffles, or share='speed'."
            )
        if hand is not None and hand.table.places is not None and share == SPEED:
            raise SettingError(
                "share='speed' over several machines takes batches in any order, and a "
                f"{type(loader).__name__} without a map-style data set and a sampler delivers them in one. "
                "Expected a plain DataLoader over a data set with indices, or share='equal'; --stop-after "
                "ends a run for all at once."
            )
        if hand is not None and share == SPEED:
            return Shard(loader, DealtStream(loader, hand, seed))
        return Shard(loader, Strided(loader, rank, world, seed))
    if hand is None or share == EQUAL:
        return Shard(copy.copy(loader), Indexed(loader, rank, world, seed))
    samples = Picked(loader, seed) if share == SPEED else Drawn(loader, seed, rank)
    return Shard(copy.copy(loader), DealtSamples(loader, samples, hand, seed))


def _check(loader: object, rank: int, world: int, seed: int, share: str, hand: Hand | None) -> None:
    """Raise SettingError for what no share can be made of."""
    if not (isinstance(rank, int) and isinstance(world, int) and 0 <= rank < world):
        raise SettingError(f"Got rank {rank!r} of {world!r} agents; ranks are the integers 0 to agents - 1.")
    if not (isinstance(seed, int) and seed >= 0):
        raise SettingError(f"Got the seed {seed!r}; give an integer of at least 0, the same for all agents.")
    if not isinstance(loader, Iterable):
        raise SettingError(f"Cannot shard a {type(loader).__name__}: pass a DataLoader or another iterable.")
    if any(isinstance(part, DistributedSampler) for part in parts_of(loader)):
        raise SettingError("Got a DistributedSampler, but offbeat shards by itself: pass a plain loader.")
    check_share(share)
    if share != EQUAL and hand is None:
        raise SettingError(
            f"share='{share}' is for agents of one run: expected agent.shard(loader, '{share}')."
        )


class Shard(Generic[T]):
    """One agent's share of a loader. Each `for` over it is one epoch, whether it runs to the end or not.

    `len` is the number of batches in a whole epoch, and raises TypeError where that is not known. Any other
    attribute, such as `dataset` and `batch_size`, is the loader's: that of all agents together, not of the
    share. Without a `share` it hands out what the loader does, to the bit.
    """

    def __init__(self, loader: Iterable[T], share: Share[T] | None) -> None:
        self._loader, self._share, self.position, self.used = loader, share, Position(), False
        self.place: Callable[[], tuple[int, int]] | None = None

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

    def _open(self, share: Share[T]) -> None:
        """Go on with an epoch, whose share stays what it is; or begin one, with the share of as many agents
        as there are now.
        """
        at = self.position
        if at.batch and at.of:
            share.take(*at.of)
        at.size = length(self, 0)
        at.open()
        if self.place is not None and not at.batch:
            share.take(*self.place())
            at.size = length(self, 0)
        at.of = share.rank, share.world

    def _hand_out(self, share: Share[T]) -> Iterator[T]:
        if self.used and isinstance(self._loader, Iterator):
            kind = type(self._loader).__name__
            raise SettingError(f"A {kind} lasts for one epoch; for more, pass a list, a loader.")
        at, self.used = self.position, True
        at.active += 1
        turn = at.turn = at.turn + 1
        try:
            while True:
                self._open(share)
                first, moves = at.batch, at.moves
                for batch in share.batches(at.epoch, first):
                    at.batch += 1
                    yield batch
                    if turn == at.ends:
                        if at.next()[1]:
                            at.on_early_end()
                        return
                    if turn != at.turn:
                        raise SettingError("A newer loop over this share took over: use a second loader.")
                    if moves != at.moves:
                        break
                else:
                    handed_out = at.batch - first
                    at.close()
                    if handed_out or share.may_be_empty:
                        return
                    if not first:
                        raise SettingError("An epoch has no batch for this agent: pass more data.")
        finally:
            at.active -= 1
