"""A live run on several machines that are all this one: `install` before `offbeat live`.

Each machine has a run folder and a gateway of its own, a process with a socket. The launcher has a folder
without agents, as on a cluster; what it writes on its board each gateway copies to its own. Links can be cut
and gateways killed at given times; the clocks of machines can be wrong by so many seconds.
"""

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from warm import forked

from offbeat.core.system.signals import end_with_parent
from offbeat.engines.live.cluster.board_rows import checksum
from offbeat.engines.live.cluster.exchange import Exchange
from offbeat.engines.live.cluster.peer import Asked
from offbeat.engines.live.launcher import launch
from offbeat.engines.live.launcher.children import Child, Children, OnOutput
from offbeat.engines.live.launcher.launch import KEPT
from offbeat.engines.live.shm.board import FLOAT_FIELDS, LAUNCHER, Bell, Board, Order, Row
from offbeat.engines.live.shm.run_folder import Shared, make_run_folder

Times = Sequence[tuple[float, float]]
"""Seconds of the run's clock: from, to."""


def install(
    hosts: Sequence[int], cut: Times = (), kills: Sequence[tuple[float, int]] = (), skew: float = 0.0
) -> None:
    """Have the next launcher's agents live on these machines.

    Args:
        cut: when there is no way from any machine to another
        kills: when the gateway of which machine is killed
        skew: by how many seconds the clock of each machine is more wrong than that of the one before
    """
    vars(launch)["Children"] = lambda bell, on_output: Split(bell, on_output, hosts, cut, kills, skew)


class Client(Asked):
    """The gateway behind a socket: a connection for each question."""

    def __init__(self, path: Path, board: Board, cut: Times) -> None:
        self.path, self.board, self.cut = path, board, cut

    async def _ask(self, what: str, *args: Any) -> Any:
        now = (time.monotonic_ns() - self.board.zero) / 1e9
        if self.board.zero and any(start <= now < end for start, end in self.cut):
            raise ConnectionError("cut")
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            writer.write(pickle.dumps((what, *args)))
            writer.write_eof()
            answer = pickle.loads(await reader.read())
        finally:
            writer.close()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Gateway:
    """A gateway's process. `folders`: of all machines; the last one is the launcher's."""

    def __init__(self, folders: Sequence[Path], machine: int, hosts: Sequence[int], cut: Times, skew: float):
        self.folders, self.machine, self.hosts, self.cut, self.skew = folders, machine, hosts, cut, skew

    def run(self) -> None:
        end_with_parent()
        asyncio.run(self._run())

    async def _run(self) -> None:
        folder = self.folders[self.machine]
        self.board, self.launchers = Board.attach(folder / "board"), Board.attach(self.folders[-1] / "board")
        said = (folder.parent / f"{folder.name}-said").open("a", buffering=1)
        exchange = Exchange(folder, self.board, self.machine, self.hosts, lambda text: print(text, file=said))
        exchange.models_every = 0.0 if folder == self.folders[-1] else None
        for other in range(len(self.folders)):
            if other != self.machine:
                path = self.folders[other] / "socket"
                exchange.connect(other, Client(path, self.launchers, self.cut))
        (folder / "socket").unlink(missing_ok=True)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                name, *args = pickle.loads(await reader.read())
                found = await getattr(exchange, name)(*args)
            except Exception as error:
                found = error
            with suppress(ConnectionError):  # whoever asked may be gone
                writer.write(pickle.dumps(found))
                await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(answer, folder / "socket")
        async with server:
            await asyncio.gather(exchange.run(), self._obey(exchange))

    async def _obey(self, exchange: Exchange) -> None:
        """Copy what the launcher says; tell it what there is to see."""
        mine, theirs = self.board, self.launchers
        at_launcher = self.machine == len(self.folders) - 1
        here = [i for i, host in enumerate(self.hosts) if host == self.machine]
        bells = [Bell(self.folders[self.machine], i) for i in ([LAUNCHER] if at_launcher else here)]
        before: tuple[Any, ...] = ()
        while True:
            if at_launcher:
                now: tuple[Any, ...] = (checksum(mine, range(mine.n)),)
            else:
                order = theirs.order  # first: whatever it was given after is then seen below
                if theirs.membership > mine.membership:
                    await exchange.agreed()
                for agent, incarnation in theirs.since(mine.membership):
                    mine.change(agent, incarnation)
                if theirs.zero and not mine.zero:
                    mine.words[4] = theirs.zero + int(1e9 * self.skew * self.machine)
                mine.words[5] = theirs.last_step
                if mine.order is not order and (theirs.zero or order >= Order.STOP):
                    mine.order = order
                now = mine.order, mine.membership
            if now != before:
                for bell in bells:
                    bell.ring()
            before = now
            await asyncio.sleep(0.005)


class Split(Children):
    """The processes of a run on several machines."""

    def __init__(
        self,
        bell: int,
        on_output: OnOutput,
        hosts: Sequence[int],
        cut: Times,
        kills: Sequence[tuple[float, int]],
        skew: float,
    ) -> None:
        super().__init__(bell, on_output)
        self.hosts, self.cut, self.kills, self.skew = hosts, cut, [*kills], skew
        self.rooms: list[Shared] = []
        self.gateways: list[int] = []

    def start(
        self, agent: int, incarnation: int, command: Sequence[str], more: Mapping[str, str], output: Path
    ) -> Child:
        if not self.rooms:
            self._found(Path(more["OFFBEAT_RUN"]))
        board = self.boards[self.hosts[agent]]
        row, kept = board.rows[agent], board.rows[agent][KEPT].copy()
        row[:] = 0
        board.numbers[agent, FLOAT_FIELDS] = float("nan")
        row[KEPT] = kept
        there = {**more, "OFFBEAT_RUN": str(self.folders[self.hosts[agent]])}
        return super().start(agent, incarnation, command, there, output)

    def _found(self, launchers: Path) -> None:
        """Make the folders of the machines, and start their gateways."""
        for _ in range(max(self.hosts) + 1):
            self.rooms.append(make_run_folder({}))
        self.folders = [*(room.path for room in self.rooms), launchers]
        for folder in self.folders[:-1]:
            (folder / "run.json").write_bytes((launchers / "run.json").read_bytes())
            Board.create(folder / "board", len(self.hosts))
        self.boards = [Board.attach(folder / "board") for folder in self.folders]
        self.gateways = [self._gateway(machine) for machine in range(len(self.folders))]

    def _gateway(self, machine: int) -> int:
        return forked(Gateway(self.folders, machine, self.hosts, self.cut, self.skew).run)

    def wait(self, timeout: float) -> list[Child]:
        zero = self.boards[-1].zero
        while self.kills and zero and self.kills[0][0] <= (time.monotonic_ns() - zero) / 1e9:
            _, machine = self.kills.pop(0)
            _end(self.gateways[machine])
            self.gateways[machine] = self._gateway(machine)
        due = [zero / 1e9 + self.kills[0][0] - time.monotonic()] if self.kills and zero else []
        ended = super().wait(max(0.0, min(timeout, *due, timeout)))
        for child in ended:
            folder = self.folders[self.hosts[child.agent]]
            with suppress(OSError):
                (folder / f"failure.{child.agent}").rename(self.folders[-1] / f"failure.{child.agent}")
            self.boards[-1].rows[child.agent] = self.boards[self.hosts[child.agent]].rows[child.agent]
            if self.boards[-1].row(child.agent)[Row.STATE] != 3:
                for what in ("register", "mail"):
                    for path in folder.glob(f"{what}.{child.agent}.*"):
                        path.unlink()
        return ended

    def close(self) -> None:
        super().close()
        for pid in self.gateways:
            _end(pid)
        for room in self.rooms:
            with suppress(OSError):
                print((room.path.parent / f"{room.path.name}-said").read_text(), flush=True)
                (room.path.parent / f"{room.path.name}-said").unlink()
            room.remove()
        (self.folders[-1].parent / f"{self.folders[-1].name}-said").unlink(missing_ok=True)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
