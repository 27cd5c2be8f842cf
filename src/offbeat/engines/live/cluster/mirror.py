"""Registers of agents on other machines: each is asked for by one call at a time, and kept here as it is.

`Shown` answers: it waits until a register has something newer than the asker has seen. `Mirror` asks, and
writes what comes into a register of the same name here. So the newest wins however slow the link is, nobody
waits, and a version crosses once for all agents of a machine. A copy is held on either side while it crosses.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from offbeat.engines.live.cluster.arrival import Arrivals, Bytes, arriving
from offbeat.engines.live.cluster.peer import Version
from offbeat.engines.live.places import register_path
from offbeat.engines.live.shm.layout import SharedMemoryError, Tag
from offbeat.engines.live.shm.slots import Slots

LOOK = 0.002  # seconds between looks at registers that somebody waits for
PATIENCE = 1.0  # seconds until who waits is told that there is nothing
LARGE = 1 << 22  # bytes whose copying is another thread's, so that the loop goes on

Result = TypeVar("Result")


async def apart(work: Callable[..., Result], *args: Any) -> Result:
    """Do it in another thread, to the end even if this is cancelled: nobody else may begin meanwhile."""
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


class Shown:
    """The registers of the agents here, for other machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._attached: dict[tuple[int, int, int], Slots] = {}
        self._waiting: list[tuple[Slots, int, asyncio.Future[None]]] = []

    def register(self, agent: int, incarnation: int, k: int) -> Slots | None:
        """This register; None if there is none."""
        name = agent, incarnation, k
        if name not in self._attached:
            try:
                self._attached[name] = Slots.attach(register_path(self.folder, *name))
            except SharedMemoryError:
                return None
        return self._attached[name]

    def forget(self, agent: int, incarnation: int) -> None:
        """Of its earlier lives nothing is shown any more."""
        for name in [name for name in self._attached if name[0] == agent and name[1] != incarnation]:
            del self._attached[name]

    async def newest(self, register: Slots | None, seen: int) -> Version | None:
        """A copy of the newest version once it is above `seen`; None after a while."""
        if register is None:
            await asyncio.sleep(PATIENCE)
            return None
        if register.newest <= seen:
            future = asyncio.get_running_loop().create_future()
            if not self._waiting:
                asyncio.get_running_loop().call_later(LOOK, self._look)
            self._waiting.append((register, seen, future))
            await asyncio.wait([future], timeout=PATIENCE)
            future.cancel()
        if register.newest <= seen:
            return None
        return await apart(register.raw) if register.nbytes > LARGE else register.raw()

    def _look(self) -> None:
        waiting = []
        for each in self._waiting:
            register, seen, future = each
            if future.done():
                continue
            if register.newest > seen:
                future.set_result(None)
            else:
                waiting.append(each)
        self._waiting = waiting
        if waiting:
            asyncio.get_running_loop().call_later(LOOK, self._look)


class Mirror:
    """One register of an agent elsewhere, kept here.

    Attributes:
        seen: the version at its publisher that is the newest here
        transfers: how many versions have crossed
        made: when that version was made, in the run's clock
        late: seconds after that it was here
    """

    def __init__(self, folder: Path, agent: int, incarnation: int, k: int, text: bytes, arrivals: Arrivals):
        self.agent, self.incarnation, self.k, self.arrivals = agent, incarnation, k, arrivals
        self.name = f"register {k} of agent {agent} in its life {incarnation}"
        self.path = register_path(folder, agent, incarnation, k)
        with arriving(self.name):
            to, layout = arrivals.text(text)
            if self.path.exists():  # a gateway before this one made it
                self.register = Slots.attach(self.path)
                if self.register.text != text:
                    raise ValueError("it has another layout than before")
            else:
                self.register = Slots.create(self.path, layout, to, empty=True)
        self.to, self.seen, self.transfers, self.made, self.late = to, 0, 0, 0.0, 0.0
        self._reserved = False

    @property
    def nbytes(self) -> int:
        return self.register.nbytes

    async def take(self, answer: Version) -> None:
        """Write what has come. Raises Refused, and leaves the register as it is, if it does not fit."""
        with arriving(f"A version of {self.name}"):
            version, words, vectors = answer
            raw = self.arrivals.version(self.register.layout, words, vectors)
            if not self.seen < version < 1 << 62:
                raise ValueError(f"version {version}; expected one above {self.seen}")
        if not self._reserved:
            self.register.reserve(self.path)
            self._reserved = True
        if self.nbytes > LARGE:
            await apart(self._write, words, raw)
        else:
            self._write(words, raw)
        self.made = Tag.of(self.register.layout.words.unpack(words)).end
        self.seen, self.transfers = version, self.transfers + 1

    def _write(self, words: bytes, vectors: Bytes) -> None:
        """Unless a gateway before this one has written it: then nobody is told of it again."""
        register = self.register
        if self.transfers or not register.newest or register.words(register.newest) != words:
            register.put(words, vectors)
