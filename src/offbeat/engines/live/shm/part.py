"""Who has which batch of one machine's part of an epoch, where agents of several machines deal out one epoch.

A file like that of `ledger`, on each machine, of the numbers that are that machine's: a part of the epoch by
how many agents it had when the run began, less what it has lent to other machines, and what they have lent to
it. Agents see their machine's file alone, and wait for nobody. The gateways, between them, say the rest:

    LEND b, m      number b, which nobody here has begun, is machine m's
    CONFIRM b, m   and m's agents see it; before that those here may TAKE it back, once nothing else is left
    RETURN b, m    they will not: it is nobody's
    GRANT b, m     machine m lends number b to this one; -1: the machine is lost whose number it was
    SETTLED b      m knows what became of that
    DROP b         m has taken it back: nobody here is to begin it
    LEAVE          an agent here has found nothing left: whatever is granted later is refused

So a number that is lent is begun twice only if it takes longer to say so than all agents here have other
batches, and it is lost only with m: until m has it for certain, the lender's agents do not leave the epoch
without. What m had for certain, and has not done when it is lost, nobody does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from offbeat.engines.live.shm.ledger import Epoch
from offbeat.engines.live.shm.said import Said


@dataclass(frozen=True)
class Places:
    """Which machine this is, and on which ones the run's first agents began.

    Attributes:
        machine: this one's number
        hosts: that of each of these agents
    """

    machine: int
    hosts: tuple[int, ...]

    def part(self, size: int, machine: int | None = None) -> range:
        """The numbers of an epoch of so many batches that are a machine's (this one's) at first."""
        at = self.machine if machine is None else machine
        before, mine, n = sum(k < at for k in self.hosts), self.hosts.count(at), len(self.hosts)
        return range(size * before // n, size * (before + mine) // n)


class Part(Epoch):
    """See the module.

    Attributes:
        places: which part is this machine's at first
        pool: this part, and what has been granted, in the order in which it is claimed
        lent: numbers that are another machine's now, and whose
        confirmed: those of them that it has for certain
        granted, refused: numbers that were lent to this machine, and by whom: in time; too late
        settled: those of both of which the lender knows that
        begun: how many numbers agents here have begun
        left_by: whether an agent here has found nothing left
    """

    def __init__(self, path: Path, me: int, size: int | None, places: Places) -> None:
        self.places, self.pool, self._own = places, list[int](), range(0)
        self.lent, self.confirmed = dict[int, int](), set[int]()
        self.granted, self.refused, self.settled = dict[int, int](), dict[int, int](), set[int]()
        self.begun, self.left_by, self._ever = 0, False, set[int]()  # what has ever been lent
        super().__init__(path, me, size)

    def _take(self, place: int, what: int, agent: int, number: int, of: int) -> None:
        match what:
            case Said.OPEN:
                super()._take(place, what, agent, number, of)
                if not self.pool:
                    self.size = number if self.size is None else self.size
                    self._own = self.places.part(number)
                    self.pool += self._own
            case Said.CLAIM if self.claimed >= len(self.pool):
                pass
            case Said.CLAIM:
                self._last = self.pool[self.claimed] if agent == self._log.me else self._last
                self.claimed += 1
            case Said.BEGIN if number in self.lent:
                pass
            case Said.BEGIN | Said.TAKE if number not in self._owner and number not in self.confirmed:
                self.lent.pop(number, None)
                self._owner[number], self.begun = (agent, place), self.begun + 1
            case Said.BEGIN | Said.TAKE:
                pass
            case Said.DONE | Said.FREE | Said.END:
                super()._take(place, what, agent, number, of)
            case _:
                self._agreed(place, what, agent, number, of)

    def _agreed(self, place: int, what: int, agent: int, number: int, of: int) -> None:
        """A record of a gateway, or that makes it say something."""
        match what:
            case Said.LEND if number not in self._owner and number not in self._ever:
                self.lent[number] = of
                self._ever.add(number)
            case Said.CONFIRM if self.lent.get(number) == of:
                self.confirmed.add(number)
            case Said.RETURN if self.lent.get(number) == of and number not in self.confirmed:
                del self.lent[number]
            case Said.GRANT if number in self.granted or number in self.refused:
                pass
            case Said.GRANT if self.left_by and of >= 0:
                self.refused[number] = of
            case Said.GRANT:
                self.granted[number] = of
                self.settled.update([number] if of < 0 else [])
                self.pool.append(number)
            case Said.SETTLED:
                self.settled.add(number)
            case Said.DROP if number not in self._owner:
                self._owner[number] = agent, place
                self._done.add(number)
            case Said.LEAVE:
                self.left_by = True

    # -- what agents do --------------------------------------------------------------------------------

    def claim(self) -> int | None:
        self._hear()
        while self.claimed < len(self.pool):
            self._last = -1
            self._log.say(Said.CLAIM)
            self._hear()
            if self._free(self._last):
                return self._last
        return None

    def begin(self, number: int, last: bool = False) -> bool:
        place = self._log.say(Said.TAKE if last else Said.BEGIN, number)
        self._hear()
        return self._owner.get(number, (-1, -1))[1] == place

    def left(self) -> list[int]:
        """What nobody here has begun, what is lent and may be taken back last."""
        self._hear()
        back = [b for b in self.lent if b not in self.confirmed]
        return [*filter(self._free, self.pool[self.claimed :]), *filter(self._free, self.pool[::-1]), *back]

    def leave(self) -> list[int]:
        if not self.left_by:
            self._log.say(Said.LEAVE)
        return self.left()

    @property
    def exhausted(self) -> bool:
        return self.claimed >= len(self.pool) and not self.left()

    @property
    def passed(self) -> float:
        mine = len(self.pool) - len(self.lent)
        return len(self._done) / mine if mine else float(self.left_by)

    @property
    def over(self) -> bool:
        """Whether a step was made here with every number that is this machine's, and all others know it."""
        waits = {*self.granted, *self.refused} - self.settled or {*self.lent} - self.confirmed
        return self.left_by and not waits and not self.undone()

    def _free(self, number: int) -> bool:
        """Whether agents here may begin it."""
        real = self.size is None or 0 <= number < self.size
        return number >= 0 and real and number not in self._owner and number not in self.lent

    # -- what the gateway does -------------------------------------------------------------------------

    def say(self, what: Said, numbers: Iterable[int], of: int = 0) -> None:
        """The same of each of these."""
        for number in numbers:
            self._log.say(what, number, of)
        self._hear()

    @property
    def opened(self) -> bool:
        """Whether somebody has said how many batches the epoch has."""
        self._hear()
        return self.size is not None

    @property
    def unclaimed(self) -> int:
        """How many numbers there are to be claimed."""
        return len(self.pool) - self.claimed

    def free_ones(self) -> list[int]:
        """What nobody here has begun."""
        return [*filter(self._free, self.pool)]

    def undone(self) -> list[int]:
        """What no step was made with, of what is this machine's."""
        return [b for b in self.pool if b not in self._done and b not in self.lent and b < (self.size or 0)]

    def spare(self, keep: int) -> list[int]:
        """What may be lent, so that so many are left here; what would be begun here last comes first."""
        free = self.free_ones()
        return [b for b in reversed(free) if b in self._own and b not in self._ever][
            : max(0, len(free) - keep)
        ]

    def lent_to(self, machine: int) -> list[int]:
        """What that machine has, and not for certain."""
        return sorted(b for b, m in self.lent.items() if m == machine and b not in self.confirmed)

    def drop(self, numbers: Iterable[int]) -> list[int]:
        """Have nobody here begin these, which another machine has; returns those that somebody has begun."""
        self.say(Said.DROP, numbers := [*numbers])
        return [b for b in numbers if self._owner[b][0] != self._log.me]
