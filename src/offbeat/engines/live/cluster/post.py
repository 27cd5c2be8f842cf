"""Mail between machines: every letter once, in order, whatever is cut, delayed, or started again.

An agent puts its letters for one that lives elsewhere into a mailbox of its own run folder, as for any other.
The gateway sends what waits there to a mailbox of the same name in the other machine's folder. How many bytes
that one has ever been given is the number up to which all has arrived: it is the answer, and only then are
those bytes taken from the mailbox here. So a letter is in at least one of the two, what comes twice is known
by its place, and a gateway that starts again finds where it was in the mailboxes themselves. A full mailbox
there leaves the one here full, so that the sender sees that there is no room, as on one machine.
"""

import asyncio
import struct
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offbeat.engines.live.cluster.arrival import Arrivals, arriving
from offbeat.engines.live.cluster.peer import Raw
from offbeat.engines.live.shm.board import Bell, Board, Row
from offbeat.engines.live.shm.letters import Letters

HEAD = struct.Struct("<6q")  # `Name`, the mailbox's capacity, and how much was sent before these letters
AT_ONCE = 1 << 20  # bytes of letters that cross together; a longer one crosses alone
LARGEST = 1 << 38  # bytes that a mailbox may hold
PATIENCE, SOON = 1.0, 0.05  # seconds to wait for room; for an agent that has just begun

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Name(NamedTuple):
    """Whose mailbox: sender, its incarnation, receiver, its incarnation."""

    source: int
    life: int
    to: int
    its_life: int

    def path(self, folder: Path) -> Path:
        return folder / f"mail.{self.source}.{self.life}.{self.to}.{self.its_life}"

    @staticmethod
    def of(path: Path) -> "Name":
        return Name(*map(int, path.name.split(".")[1:]))


class Bells:
    """The bells of a run folder. Those of agents elsewhere ring for whoever listens here."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._bells = folder, dict[int, Bell]()
        self._heard: set[int] = set()
        self._events: dict[int, set[asyncio.Event]] = defaultdict(set)

    def _bell(self, agent: int) -> Bell:
        if agent not in self._bells:
            self._bells[agent] = Bell(self.folder, agent)
        return self._bells[agent]

    def ring(self, agent: int) -> None:
        self._bell(agent).ring()

    def place(self, agent: int, elsewhere: bool) -> None:
        """An agent lives elsewhere, or here: then nobody but itself hears its bell."""
        loop, bell = asyncio.get_running_loop(), self._bell(agent)
        if elsewhere and agent not in self._heard:
            loop.add_reader(bell.handle, self._rung, agent)
            self._heard.add(agent)
        elif not elsewhere and agent in self._heard:
            loop.remove_reader(bell.handle)
            self._heard.remove(agent)

    @contextmanager
    def listening(self, agent: int) -> Iterator[asyncio.Event]:
        """An event that is set whenever this agent's bell rings; whoever waits clears it before he looks."""
        event = asyncio.Event()
        self._events[agent].add(event)
        try:
            yield event
        finally:
            self._events[agent].remove(event)

    def _rung(self, agent: int) -> None:
        self._bells[agent].quiet()
        for event in self._events[agent]:
            event.set()

    def close(self) -> None:
        for agent in [*self._heard]:
            self.place(agent, elsewhere=False)
        for bell in self._bells.values():
            bell.close()
        self._bells.clear()


async def rung(event: asyncio.Event, seconds: float) -> bool:
    """Whether the bell has rung within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


class Outgoing:
    """A mailbox of an agent here for one that lives elsewhere."""

    def __init__(self, folder: Path, name: Name) -> None:
        self.name, self.path = name, name.path(folder)
        self.box = Letters.attach(self.path)

    @property
    def waiting(self) -> int:
        """Bytes that have not arrived for certain."""
        return self.box.written - self.box.taken

    def letters(self) -> tuple[bytes, Bytes]:
        """What is to be sent next, perhaps nothing, and its head."""
        letters = self.box.waiting(AT_ONCE)
        return HEAD.pack(*self.name, self.box.capacity, self.box.taken), letters

    def arrived(self, until: int) -> bool:
        """So far all has arrived: there is room again. Returns whether anything has; raises Refused for a
        number that cannot be.
        """
        with arriving(f"An answer to {self.path.name}"):
            before = self.box.taken
            if not before <= until <= self.box.written:
                raise ValueError(f"{until:,} bytes; expected {before:,} to {self.box.written:,}")
            self.box.take_until(until)
        return until > before


class Incoming:
    """The mailboxes here of agents that live elsewhere.

    Attributes:
        dropped: bytes that were for a former life of an agent, or of one
    """

    def __init__(
        self, folder: Path, board: Board, bells: Bells, arrivals: Arrivals, here: Callable[[int], bool]
    ) -> None:
        self.folder, self.board, self.bells, self.arrivals, self.here = folder, board, bells, arrivals, here
        self.boxes: dict[Name, Letters] = {}
        self.dropped = 0
        self._taking: dict[Name, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def take(self, head: bytes, letters: Raw) -> int:
        """See `Peer.take_mail`. Raises Refused for what is no mail."""
        with arriving("Mail"):
            *names, capacity, before = HEAD.unpack(head)
            name, raw = Name(*names), np.frombuffer(letters, dtype=np.uint8)
            n = self.arrivals.agents
            if not (0 <= name.source < n and 0 <= name.to < n and name.life > 0 and name.its_life > 0):
                raise ValueError(f"it is for {name}; there are {n} agents")
            if not (0 < capacity <= LARGEST and before >= 0):
                raise ValueError(f"a mailbox of {capacity:,} bytes, after {before:,}")
        life, its_life = (self.board.row(i)[Row.INCARNATION] for i in (name.source, name.to))
        if name.life < life or name.its_life < its_life:
            self.dropped += len(raw)
            return int(before) + len(raw)
        if name.its_life > its_life or not self.here(name.to):
            await asyncio.sleep(SOON)  # it has not begun as far as is known here
            return int(before)
        async with self._taking[name]:
            with arriving(f"Mail from agent {name.source} to agent {name.to}"):
                box = self._box(name, capacity)
                if before > box.written:
                    raise ValueError(f"it is the bytes from {before:,}; there are {box.written:,}")
                left = self.arrivals.letters(raw[box.written - before :])
                if any(len(letter) > box.capacity for letter in left):
                    raise ValueError(f"a letter is longer than its mailbox, {box.capacity:,} bytes")
            await self._put(name, box, left)
            return box.written

    async def _put(self, name: Name, box: Letters, letters: list[Bytes]) -> None:
        """As many of them as there is room for; if there is none, for a while."""
        loop = asyncio.get_running_loop()
        until, queue = loop.time() + PATIENCE, deque(letters)
        with self.bells.listening(name.source) as room:  # whoever takes a letter rings for its sender
            while queue and loop.time() < until:
                room.clear()
                if box.put_raw(queue[0]) or box.put_raw(queue[0]):
                    queue.popleft()
                elif len(queue) < len(letters):
                    break
                else:
                    await rung(room, until - loop.time())
        if len(queue) < len(letters):
            self.bells.ring(name.to)

    def _box(self, name: Name, capacity: int) -> Letters:
        if name not in self.boxes:
            path = name.path(self.folder)
            made = not path.exists()  # else a gateway before this one made it
            self.boxes[name] = Letters.create(path, capacity) if made else Letters.attach(path)
            self.count(name.source)
        box = self.boxes[name]
        if box.capacity != capacity:
            raise ValueError(f"a mailbox of {capacity:,} bytes; here it has {box.capacity:,}")
        return box

    def count(self, source: int) -> None:
        """Have the agents here see how many mailboxes of this agent's present life there are, and wake those
        whose they are: letters may have come before anything else was known of that life.
        """
        row = self.board.row(source)
        there = [*self.folder.glob(f"mail.{source}.{row[Row.INCARNATION]}.*")]
        row[Row.MAILBOXES] = len(there)
        for path in there:
            self.bells.ring(Name.of(path).to)

    def forget(self, agent: int, incarnation: int) -> None:
        """Of what its other lives have sent nothing is taken any more."""
        for name in [name for name in self.boxes if name.source == agent and name.life != incarnation]:
            del self.boxes[name]
