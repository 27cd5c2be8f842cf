"""Who has which batch, where batches go to whoever comes for one: a log that all agents append to.

Whatever is said is one record at the end of a file in the run's shared memory. The kernel puts what several
processes append one after the other, so all read the same records in the same order, and each works out of
them the same state, without a lock: nobody waits, and who is killed leaves what it has said and no more.

    OPEN n       n batches are in this epoch (END n: it has turned out to be so)
    CLAIM        the next number that nobody has claimed is mine: the k-th CLAIM claims number k, from 0
    BEGIN b      I train with number b now. The first who says so has it, whoever claimed it
    DONE b       a step was made with it
    FREE b, r    number b is nobody's, whom record r gave it: its process has died
    FLOOR e, OVER e      of all epochs: those below e are over; epoch e is, and its file gone

What is claimed is loaded ahead, by workers say; whoever finds nothing left to claim may begin what another
has only claimed.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from offbeat.core.errors import SettingError
from offbeat.engines.live.shm.said import Log, Said


class Epoch:
    """The batches of one epoch.

    Attributes:
        size: how many there are, as far as that is known
        claimed: how many numbers have been
    """

    def __init__(self, path: Path, me: int, size: int | None = None) -> None:
        self.size, self.claimed, self._log = size, 0, Log(path, me)
        self._last = -1  # the number that this agent has claimed last
        self._owner: dict[int, tuple[int, int]] = {}  # number -> who has begun it, by which record
        self._done = set[int]()
        self._other: tuple[int, int] | None = None  # an agent that has other batches, and how many
        if size is not None:
            self._log.say(Said.OPEN, size)
        self._hear()
        if self._other is not None:
            agent, theirs = self._other
            who = f"Agent {agent}" if agent >= 0 else "Another machine"
            raise SettingError(
                f"{who} shares out {theirs} batches an epoch where agent {me} has {size}: expected "
                "the same loaders on all agents, shared out in the same order."
            )

    def _hear(self) -> None:
        for place, what, agent, number, of in self._log.hear():
            self._take(place, what, agent, number, of)

    def _take(self, place: int, what: int, agent: int, number: int, of: int) -> None:
        """A record."""
        match what:
            case Said.OPEN:
                self._other = (agent, number) if self.size not in (None, number) else self._other
            case Said.END:
                self.size = number if self.size is None else min(self.size, number)
            case Said.CLAIM:
                self._last = self.claimed if agent == self._log.me else self._last
                self.claimed += 1
            case Said.BEGIN:
                self._owner.setdefault(number, (agent, place))
            case Said.DONE if self._owner.get(number, (-1,))[0] == agent:
                self._done.add(number)
            case Said.FREE if number not in self._done and self._owner.get(number, (-1, -1))[1] == of:
                del self._owner[number]

    def claim(self) -> int | None:
        """A number that nobody has, to load it; None: all have been claimed."""
        while self.size is None or self.claimed < self.size:
            self._log.say(Said.CLAIM)
            self._hear()
            if self.size is not None and self._last >= self.size:
                break
            if self._last not in self._owner:  # as those are that were begun before the run was resumed
                return self._last
        return None

    def begin(self, number: int, last: bool = False) -> bool:
        """Whether it is this agent that trains with it; `last`: it is one of those that are `left`."""
        place = self._log.say(Said.BEGIN, number)
        self._hear()
        return self._owner[number][1] == place

    def done(self, numbers: Sequence[int]) -> None:
        """A step was made with these."""
        for number in numbers:
            self._log.say(Said.DONE, number)
        self._hear()

    def ends_at(self, size: int) -> None:
        """There is nothing from this number on."""
        self._log.say(Said.END, size)
        self._hear()

    @property
    def exhausted(self) -> bool:
        """Whether all have been claimed, and begun."""
        known = self.size is not None and self.claimed >= self.size
        return known and not self.left()

    def left(self) -> list[int]:
        """Numbers that nobody has begun, once all have been claimed, the last one first."""
        self._hear()
        if self.size is None or self.claimed < self.size:
            return []
        return [number for number in reversed(range(self.size)) if number not in self._owner]

    def leave(self) -> list[int]:
        """This agent has found nothing left: what there is nevertheless."""
        return []

    def free(self, gone: Collection[int]) -> None:
        """What these agents have begun, and made no step with, is nobody's: they are no longer there."""
        self._hear()
        for number, (agent, place) in [*self._owner.items()]:
            if agent in gone and number not in self._done:
                self._log.say(Said.FREE, number, place)
        self._hear()

    @property
    def agents(self) -> list[int]:
        """Who has begun something that is not done."""
        return [*dict.fromkeys(a for number, (a, _) in self._owner.items() if number not in self._done)]

    def done_by(self, agent: int) -> list[int]:
        return [number for number in self._done if self._owner[number][0] == agent]

    @property
    def passed(self) -> float:
        """Which part of the batches a step was made with; 0 where it is not known how many there are."""
        return len(self._done) / self.size if self.size else 0.0

    @property
    def over(self) -> bool:
        """Whether a step was made with every batch."""
        return self.size is not None and len(self._done) >= self.size

    def mark(self, numbers: Sequence[int]) -> None:
        """This agent has trained with these in a run that is resumed."""
        for number in numbers:
            self._log.say(Said.BEGIN, number)
        self.done(numbers)

    def bury(self) -> None:
        """Once the epoch is over, who has the file open may go on to read it, and nobody else needs to."""
        self._log.path.unlink(missing_ok=True)


E = TypeVar("E", bound=Epoch)


class Ledger(Generic[E]):
    """The epochs of one loader, in files that are called so.

    Attributes:
        floor: epochs below it are over
    """

    def __init__(self, folder: Path, name: str, me: int, make: Callable[[Path, int, int | None], E]) -> None:
        self.folder, self.name, self.me, self.floor, self._make = folder, name, me, 0, make
        self._over = set[int]()
        self._log = Log(folder / name, me)

    def epoch(self, number: int, size: int | None) -> E | None:
        """That epoch, or None, if it is over for everybody."""
        epoch = self._make(self.path(number), self.me, size)
        for _, what, _, e, _ in self._log.hear():  # after the file was opened: it may have been made anew
            if what == Said.FLOOR:
                self.floor = max(self.floor, e)
            else:
                self._over.add(e)
        self._over = {e for e in self._over if e >= self.floor}
        if number >= self.floor and number not in self._over:
            return epoch
        epoch.bury()
        return None

    def path(self, epoch: int) -> Path:
        return self.folder / f"{self.name}.{epoch}"

    def settle(self, number: int, epoch: E) -> None:
        """Remove an epoch that is over."""
        if epoch.over:
            self._log.say(Said.OVER, number)
            epoch.bury()

    def resume(self, epoch: int, done: Sequence[int]) -> None:
        """All go on in the newest epoch that any of them has saved; there, this agent has done these."""
        self._log.say(Said.FLOOR, epoch)
        self._make(self.path(epoch), self.me, None).mark(done)
