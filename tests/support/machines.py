"""Several machines in one process: run folders, their gateways' data plane, and links that can be cut.

Time is the loop's own: where nothing can be done before a moment, it is that moment. So delays cost nothing,
and every schedule comes out the same.
"""

import asyncio
import json
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

import torch

from offbeat.core.compression import Packed
from offbeat.core.vector import Scope, Stamp, Vector
from offbeat.engines.live.cluster.exchange import Exchange
from offbeat.engines.live.cluster.peer import Asked
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.shm.board import ROW, Board, Row, State
from offbeat.engines.live.shm.layout import Tag

LENGTH, NO_TAG = 64, Tag()
Item = TypeVar("Item")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Model:
    x: Vector


@dataclass(frozen=True)
class Numbered:
    k: int
    x: Vector


class _Selector(selectors.DefaultSelector):
    loop: "Instant"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing will ever happen"
            self.loop.now += timeout
        return found


class Instant(asyncio.SelectorEventLoop):
    """A loop whose time is its own."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def at_once(test: Callable[Arguments, Coroutine[Any, Any, None]]) -> Callable[Arguments, None]:
    """A test that runs in a loop of that kind."""

    @wraps(test)
    def run(*args: Arguments.args, **more: Arguments.kwargs) -> None:
        with asyncio.Runner(loop_factory=Instant) as runner:
            runner.run(test(*args, **more))

    return run


async def until(holds: Callable[[], object], seconds: float = 60.0, look: float = 0.001) -> float:
    """How long it took; fails if it never does."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not holds():
        assert loop.time() < began + seconds, "it never happened"
        await asyncio.sleep(look)
    return loop.time() - began


async def coming(look: Callable[[], Iterable[Item]], count: int = 1) -> list[Item]:
    """So many things, as one look after the other finds them."""
    found: list[Item] = []

    def enough() -> bool:
        found.extend(look())
        return len(found) >= count

    await until(enough)
    return found


class Between(Asked):
    """A link to a machine, which can be cut. It is none if its gateway is not there.

    Attributes:
        cut: "fails" or "hangs", while it is
        delay: seconds of the next way, there or back
        loses: whether the next way is the last that is seen of a question, or an answer
        alter: what arrives of an answer
        asked: questions by name, and answers with something in them
    """

    def __init__(self, machine: "Machine") -> None:
        self.machine, self.cut, self.asked = machine, "", Counter[str]()
        self.delay: Callable[[], float] = lambda: 0.0
        self.loses: Callable[[], bool] = lambda: False
        self.alter: Callable[[str, Any], Any] = lambda name, answer: answer

    async def _ask(self, what: str, *args: Any) -> Any:
        self.asked[what] += 1
        await self._way()
        answer = await self.machine.answer(what, *args)
        await self._way()
        self.asked[f"{what} answered"] += answer is not None
        return self.alter(what, answer)

    async def _way(self) -> None:
        await asyncio.sleep(self.delay())
        if self.cut == "hangs":
            await asyncio.Event().wait()
        if self.cut or self.loses():
            raise ConnectionError("no way there")


class Machine:
    """A run folder and its gateway, which can be killed and started again. links: from it to others."""

    def __init__(self, folder: Path, number: int, hosts: list[int], about: Mapping[str, Any]) -> None:
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({**about}))
        self.folder, self.number, self.hosts = folder, number, hosts
        self.board = Board.create(folder / "board", len(hosts))
        self.board.begin()
        self.said: list[str] = []
        self.links: dict[int, Between] = {}
        self.exchange: Exchange | None = None
        self._running: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Start the gateway."""
        assert self.exchange is None
        self.exchange = Exchange(self.folder, self.board, self.number, self.hosts, self.said.append)
        for number, link in self.links.items():
            self.exchange.connect(number, link)
        self._keep(self.exchange.run())

    async def kill(self) -> None:
        """The gateway is gone, and all that it was doing."""
        self.exchange, running = None, [*self._running]
        for task in running:
            task.cancel()
        for result in await asyncio.gather(*running, return_exceptions=True):
            assert not isinstance(result, Exception), result

    async def answer(self, name: str, *args: Any) -> Any:
        if self.exchange is None:
            raise ConnectionError("nobody is there")
        try:
            return await self._keep(getattr(self.exchange, name)(*args))
        except asyncio.CancelledError:
            if self.exchange is None:
                raise ConnectionError("it was killed") from None
            raise

    def _keep(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def agent(self, i: int, life: int = 1, size: int = 1000) -> Transport:
        """An agent of this machine, in a new life, as its driver has it."""
        self.board.row(i)[:] = memoryview(bytes(8 * ROW)).cast("q")
        transport = Transport(self.folder, self.board, i, life, size)
        transport.row[Row.STATE] = State.RUNNING
        return transport


@asynccontextmanager
async def machines(*hosts: int, count: int = 0, **about: Any) -> AsyncIterator[list[Machine]]:
    """The machines of a run whose agents live on these, with links between all; their gateways run. `about`:
    the settings of the run, if anything is looked for there.
    """
    with TemporaryDirectory(dir="/dev/shm", prefix="offbeat-test-") as folder:
        numbers = range(max(count, max(hosts) + 1))
        there = [Machine(Path(folder) / str(k), k, [*hosts], about) for k in numbers]
        for machine in there:
            machine.links = {other.number: Between(other) for other in there if other is not machine}
            machine.start()
        try:
            yield there
        finally:
            for machine in there:
                await machine.kill()


def vector(value: float, source: int = 0, length: int = LENGTH) -> Vector:
    return Vector((torch.full((length,), value, dtype=torch.float64),), Stamp(source, int(value)))


def publish(transport: Transport, message: Any, to: tuple[int, ...], tag: Tag = NO_TAG) -> None:
    """As an agent does."""
    register = transport.register(message, to)
    with Scope():
        (placed,) = register.begin([message.x])
    placed.stamp = message.x.stamp
    register.finish(type(message)(**{**vars(message), "x": placed}), tag)


def compressed(transport: Transport, message: Model, to: tuple[int, ...], packed: Packed) -> None:
    transport.register(message, to, {"x": packed}).write(message, Tag(), {"x": packed})
