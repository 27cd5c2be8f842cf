"""Where an agent is in its data: in each of its loaders, and in its loop over the epochs."""

import math
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from zlib import crc32

from torch.utils.data import DataLoader

from offbeat.core.errors import DataError, SettingError
from offbeat.training.hand import Hand, Table
from offbeat.training.orders import length
from offbeat.training.position import Position
from offbeat.training.shard import EQUAL, Shard, check_share, shard

T = TypeVar("T")

LATE = 100  # steps that may be made for one batch (of several optimizers, say) once there is enough
MOST = 64  # positions that are kept of loaders that are gone; a script may make others in every epoch


@dataclass(eq=False)
class KnownLoader:
    """A loader that has been sharded, or stands in a checkpoint; only its place is kept, not the loader.

    Attributes:
        kind: what loaders have in common that take each other's place
        loader: refers to the loader, if its Shard does not hold it
        made: to its newest Shard
        held: this Shard, as long as the loader is there, for the workers that it may have
        hand: what this agent has of it, where batches go to whoever comes for one
    """

    kind: str
    position: Position
    loader: weakref.ref[Any] | None = None
    made: weakref.ref[Shard[Any]] | None = None
    held: Shard[Any] | None = None
    hand: Hand | None = None

    @property
    def shard(self) -> Shard[Any] | None:
        return None if self.made is None else self.made()

    def is_of(self, loader: object) -> bool:
        shard, mine = self.shard, self.loader is not None and self.loader() is loader
        return mine or (shard is not None and shard.is_of(loader))

    def hold(self, loader: object, shard: Shard[Any]) -> None:
        self.made, self.loader, self.held = weakref.ref(shard), None, None
        if not shard.is_of(loader):  # else it would stay as long as it does
            self.loader, self.held = weakref.ref(loader, self._let_go), shard

    def _let_go(self, gone: weakref.ref[Any]) -> None:
        if gone is self.loader:
            self.held = None

    def free(self) -> bool:
        """Whether a new loader may take its place: it is gone, and no loop is going on or to come."""
        gone, shard = self.loader is None or self.loader() is None, self.shard
        return gone and self.position.active == 0 and (shard is None or shard.used)


class DataProgress:
    """Where agent `rank` of `world` is. alone: there is no run, so loaders are handed out as they are; table:
    where batches are dealt, in a run.

    A loader made anew in every epoch goes on where the last one of its kind was: after an epoch, with the
    next one. So does, after a restart, the first loader of a kind.
    """

    def __init__(
        self, rank: int, world: int, seed: int, alone: bool = False, table: Table | None = None
    ) -> None:
        self.rank, self.world, self.seed, self.alone, self.table = rank, world, seed, alone, table
        self.place: Callable[[], tuple[int, int]] = lambda: (rank, world)
        """Which one this agent is now of those that share the data, and how many these are."""
        self._epoch = 0  # in which a new loader begins
        self.known: list[KnownLoader] = []
        self.kept: dict[str, Any] = {}
        """How things were at the last step: what a checkpoint holds, whatever has been handed out since."""
        self._loops = 0  # loops over `epochs` that were begun in this process
        self._at = self._first = (0, 0)  # which of them, and its epoch: now, and the one to go on with
        self._over = False  # whether the data of that epoch are
        self._before = 0.0  # share of dealt batches that earlier lives had, beyond what was saved
        self.enough, self._late = False, 0  # whether the last step has been made; those made since

    def shard(self, loader: Iterable[T], share: str = EQUAL) -> Shard[T]:
        """The share of a loader; the same one as long as loader and way to share are the same."""
        check_share(share)
        kind = _kind(loader) + f" by {share}" * (share != EQUAL)
        for known in self.known:
            if known.is_of(loader) and known.kind == kind and (made := known.shard) is not None:
                return made
        free = [known for known in self.known if known.kind == kind and known.free()]
        known = [*free, KnownLoader(kind, Position(self._epoch))][0]
        if not free:
            oldest = [old for old in self.known if old.free()][: max(0, len(self.known) - MOST)]
            self.known = [*(old for old in self.known if old not in oldest), known]
        if self.alone:
            made = Shard(loader, None)
        else:
            if share != EQUAL and known.hand is None:
                known.hand = self._hand(known)
            made = shard(loader, self.rank, self.world, self.seed, share, known.hand)
        made.position, made.place = known.position, self.place
        known.hold(loader, made)
        return made

    def _hand(self, of: KnownLoader) -> Hand | None:
        """For what is dealt of a loader, by a name that is the same on all agents and in all their lives."""
        alike = [known for known in self.known if known.kind == of.kind]
        name = f"data.{crc32(of.kind.encode()):08x}.{alike.index(of)}"
        return None if self.table is None else Hand(self.table, name)

    def epochs(self, n: int) -> Iterable[int]:
        return range(n) if self.alone else self._epochs(n)

    def _epochs(self, n: int) -> Iterator[int]:
        if not self.kept:
            raise SettingError("agent.epochs() has begun before agent.wrap(): wrap the model first.")
        loop, (interrupted, where) = self._loops, self._first
        self._loops += 1
        start = n if loop < interrupted else where if loop == interrupted else 0
        try:
            for epoch in range(start, n):
                if self.enough:
                    break
                self._at, self._over = (loop, epoch), False
                yield epoch
                if self._loops > loop + 1:
                    raise SettingError("agent.epochs() began within another loop over it: use range() there.")
        finally:
            if self._loops == loop + 1:
                self._at, self._over = max(self._at, (loop + 1, 0)), False

    def keep(self) -> list[tuple[int, int, int]]:
        """A step has been made: this is where a checkpoint goes on. Returns loader, epoch and number of the
        batches that were dealt for it.

        An epoch is over when all that was handed out for its last step was the end of something: of the
        training data, also if others have been evaluated meanwhile.
        """
        dealt = list[tuple[int, int, int]]()
        for k, known in enumerate(self.known):
            if known.hand is not None and (made := known.hand.settle()):
                dealt += [(k, *each) for each in made]
                known.position.size = known.position.batch if known.hand.ended else None
        places, before = self._positions(), self.kept["places"]
        new = [place for place in places if place not in before and any(place[1:3])]
        if new:
            self._over = not any(place[2] for place in new)
        loop, epoch = self._at
        self.kept = {"loop": loop, "epoch": epoch + self._over, "places": places}
        return dealt

    def finish(self, save: Callable[[], object]) -> None:
        """The last step has been made: the loops in which it was made end, as if there were no more. `save`
        what there is when one does so within its epoch: the script will take it for a whole one.
        """
        self.enough = True
        for position in [known.position for known in self.known]:
            position.ends = position.turn if position.active else 0
            position.on_early_end = save

    def late(self) -> bool:
        """Whether a step after that is one for a batch that the loops had been given before."""
        self._late += 1
        loops = [known.position for known in self.known if known.position.active]
        return self._late <= LATE and any(at.turn == at.ends for at in loops)

    @property
    def passed(self) -> float:
        """How many epochs of its share this agent has been through, of the loader with most batches; NaN:
        there is none.
        """
        most = max((known for known in self.known if known.position.turn), key=_batches, default=None)
        if most is None:
            return math.nan
        if most.hand is not None:
            return most.hand.passed
        at = most.position
        return at.epoch + (at.batch / at.size if at.size else 0.0)

    @property
    def share(self) -> float:
        """How many epochs of all data its own steps make up, in all lives, where they are dealt; else NaN."""
        dealt = [known.hand for known in self.known if known.hand is not None and known.hand.taken]
        return self._before + max(dealt, key=lambda hand: hand.taken).share if dealt else math.nan

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        hands = [None if known.hand is None else known.hand.state() for known in self.known]
        return {**self.kept, "hands": hands} if any(hands) else self.kept

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on where a checkpoint was written, if there is one; loops that are going on do so too."""
        if state is not None:
            self._at, places = _read(state)
            self._first, waiting = self._at, [*self.known]
            for (kind, epoch, batch, *of), dealt in zip(places, _hands(state, len(places)), strict=True):
                known = next((known for known in waiting if known.kind == kind), None)
                if known is None:
                    self.known.append(known := KnownLoader(kind, Position()))
                else:
                    waiting.remove(known)
                known.position.move(epoch, batch, tuple(of))
                if dealt is not None and (hand := known.hand or self._hand(known)) is not None:
                    known.hand = hand
                    hand.restore(dealt)
        loop, epoch = self._at
        self.kept = {"loop": loop, "epoch": epoch, "places": self._positions()}

    def come(self, loop: int, epoch: float) -> None:
        """The agent comes to a run, with the model of one that is in that loop over `epochs`, in that epoch
        (NaN: nobody knows), with which it begins.
        """
        self._epoch = 0 if math.isnan(epoch) else int(epoch)
        self._at = self._first = (loop, self._epoch)
        for known in self.known:
            known.position.move(self._epoch, 0)
        self.restore(None)

    def lived(self, share: float) -> None:
        """That of the earlier lives of this agent in this run; NaN: nothing was dealt."""
        if not math.isnan(share):
            saved = self.share
            self._before = share - (0.0 if math.isnan(saved) else saved)

    def joined(self, alive: Callable[[], Collection[int]]) -> None:
        """The agent is in its run, and so are all that were to be there: batches may be dealt."""
        if self.table is not None:
            self.table.joined, self.table.alive = True, alive

    def _positions(self) -> list[list[Any]]:
        """Of each loader kind, epoch and batch; within an epoch also which share of how many it is of."""
        places = [(known.kind, known.position.of, *known.position.next()) for known in self.known]
        return [[kind, epoch, batch, *(of if batch else ())] for kind, of, epoch, batch in places]


def _read(state: Mapping[str, Any]) -> tuple[tuple[int, int], list[Any]]:
    """What `keep` wrote. Raises DataError for anything else."""
    match state:
        case {"loop": int(loop), "epoch": int(epoch), "places": [*places]}:
            types = [[*map(type, place)] for place in places if isinstance(place, list)]
            numbers = [loop, epoch, *(n for _, *pair in places for n in pair)] if types else [loop, epoch]
            known = all(each in ([str, int, int], [str, int, int, int, int]) for each in types)
            if known and len(types) == len(places) and min(numbers) >= 0:
                return (loop, epoch), places
    raise DataError(f"Got the place {state!r:.200} in the data; expected one that this version has saved.")


def _hands(state: Mapping[str, Any], count: int) -> list[Mapping[str, Any] | None]:
    """What was dealt of each of so many loaders, or None. Raises DataError for anything else."""
    match state.get("hands", [None] * count):
        case [*hands] if len(hands) == count and all(
            hand is None or isinstance(hand, dict) for hand in hands
        ):
            return hands
    raise DataError(f"Got the shares {state['hands']!r:.200} of {count} loaders; expected one of each.")


def _batches(known: KnownLoader) -> float:
    at = known.position
    return at.epoch * (at.size or 1) + at.batch if known.hand is None else known.hand.taken


def _kind(loader: object) -> str:
    """What a loader that is made again has in common with the one before."""
    if not isinstance(loader, DataLoader):
        return f"{getattr(loader, '__qualname__', type(loader).__qualname__)} {length(loader, 0)}"
    parts = (loader, loader.dataset, loader.batch_sampler, loader.sampler)
    names = " ".join(type(part).__qualname__ for part in parts)
    return f"{names} {length(loader.dataset, 0)} {loader.batch_size}"
