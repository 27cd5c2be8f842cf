"""Letters that wait for their sender's link, and versions of registers that wait for their readers: as in the
simulator (`offbeat.engines.outbox`, `offbeat.engines.sim.links`).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from offbeat.core.system.streams import BufferedStream, Purpose, uniform
from offbeat.world.sending import Sender
from offbeat.world.world import World


@dataclass(slots=True, eq=False)
class Letter:
    """To whom it is, of which type, how many bytes, of which version; its values, and its numbers; when it
    left. Of a version of a register also all that it was given to, and who loses it, once that is drawn.
    """

    to: tuple[int, ...]
    kind: type
    size: int
    version: int
    values: list[int]
    numbers: Sequence[float]
    start: float = -1.0
    given_to: tuple[int, ...] = ()
    missed: frozenset[int] | None = None

    def takes(self, newer: "Letter") -> None:
        """While it waits the newest version takes its place."""
        self.version, self.values, self.numbers = newer.version, newer.values, newer.numbers


Place = tuple[type, tuple[int, ...], tuple[int, ...]]
"""What versions of a register share that wait for their sender's link: type, receivers, whom it was given."""
Register = tuple[int, type, tuple[int, ...]]
"""Its sender, the type of its versions, and its readers."""


class Post:
    """All agents' outboxes, and what each has not read yet."""

    def __init__(self, world: World, senders: Sequence[Sender]) -> None:
        self._senders, self._lossy, agents = senders, world.lossy, range(len(senders))
        self._busy, self._outbox = [False for _ in agents], [deque[Letter]() for _ in agents]
        self._waiting = [dict[Place, Letter]() for _ in agents]  # of the outbox, versions of registers
        self._lost = [BufferedStream(uniform, world.seed, Purpose.LOSS, i) for i in agents]
        self._unread = [dict[Register, tuple[Letter, float]]() for _ in agents]  # and when it came

    def put(self, i: int, letter: Letter) -> bool:
        """An agent gives it away: whether it leaves at once. Else it waits, of a register the newest."""
        if not self._busy[i]:
            self._busy[i] = True
            return True
        if letter.given_to:
            older = self._waiting[i].setdefault((letter.kind, letter.to, letter.given_to), letter)
            if older is not letter:
                older.takes(letter)
                return False
        self._outbox[i].append(letter)
        return False

    def following(self, i: int) -> Letter | None:
        """An agent's link is free: what leaves next, if anything waits."""
        outbox = self._outbox[i]
        if not outbox:
            self._busy[i] = False
            return None
        letter = outbox.popleft()
        if letter.given_to:
            del self._waiting[i][letter.kind, letter.to, letter.given_to]
        return letter

    def leave(self, i: int, letter: Letter, there: Iterable[int], now: float) -> None:
        """A version of a register is with these readers, but for those that lose it."""
        sender = self._senders[i]
        if self._lossy and letter.missed is None:
            letter.missed = sender.missing(letter.to, self._lost[i])
        missed, register = letter.missed or (), (i, letter.kind, letter.given_to)
        for j in there:
            if j not in missed and not (sender.cuts and sender.parted(j, now)):
                self._unread[j].pop(register, None)  # the newest is handed over last
                self._unread[j][register] = letter, now

    def read(self, i: int) -> Iterable[tuple[Register, tuple[Letter, float]]]:
        """What is new to an agent, the oldest first."""
        unread = self._unread[i]
        if not unread:
            return ()
        self._unread[i] = {}
        return unread.items()

    def letters(self) -> list[Letter]:
        """All that wait."""
        letters = [letter for outbox in self._outbox for letter in outbox]
        return letters + [letter for unread in self._unread for letter, _ in unread.values()]
