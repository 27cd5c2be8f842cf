"""The processes of a run as its launcher sees them, where they are on other machines.

`RemoteChildren` is to a `Launcher` what `Children` is on one machine. A thread of its own talks to the
gateways: it keeps the launcher's board like theirs, as the `Exchange` of a machine on which nobody lives, and
what the agents log and print in the launcher's folder. What the launcher wants is compared with what was said
last, and said again whole if it differs.
"""

import asyncio
import json
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from offbeat.core.errors import OffbeatError
from offbeat.engines.live.cluster.asking import NoAnswer
from offbeat.engines.live.cluster.clocks import offset
from offbeat.engines.live.cluster.exchange import Exchange
from offbeat.engines.live.cluster.keeper import Ended
from offbeat.engines.live.cluster.peer import Peer
from offbeat.engines.live.cluster.results import Grown, bring, fetch
from offbeat.engines.live.launcher.children import OnOutput
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node.ending import Failure
from offbeat.engines.live.shm.board import Row

AGAIN = 0.1  # seconds before a gateway is asked again that gave no answer
MODELS = 5.0  # seconds that copies of all models may take
ENDS = 20.0  # seconds that a machine has to end what is left there


class Fleet(Protocol):
    """The machines of a run, and how to reach them."""

    names: list[str]  # of the gateways
    hosts: list[int]  # where every agent lives

    def peer(self, machine: int) -> Peer: ...
    def ask(self, machine: int, what: str, *args: Any) -> Awaitable[Any]:
        """What the method of this name of that machine's gateway gives. Raises whatever it met."""

    def lost(self, machine: int, error: Exception, silent: float) -> str:
        """Why the machine counts as lost, which has given no answer for so many seconds; empty: it does not
        yet.
        """

    def elsewhere(self, agent: int, lost: Sequence[int]) -> int:
        """Where an agent whose machine is lost is to live. Raises OffbeatError if there is no room."""

    def called(self, machine: int) -> str:
        """A machine in words."""

    def end(self) -> None:
        """Nobody needs the gateways any more."""


@dataclass
class RemoteLife:
    """One process of one agent on another machine: a `Life`."""

    agent: int
    incarnation: int
    machine: int
    output: Grown
    started: float = field(default_factory=time.monotonic)
    pid: int = 0
    code: int = 0


class RemoteChildren:
    """See the module. Made when the machines' gateways are there."""

    def __init__(self, fleet: Fleet, launcher: Launcher, on_output: OnOutput) -> None:
        self.fleet, self.launcher, self.on_output = fleet, launcher, on_output
        folder, n = launcher.settings.folder, launcher.settings.agents
        self.running: dict[int, RemoteLife] = {}
        self.grown = {i: Grown(i, folder) for i in range(n)}
        self.lost: dict[int, str] = {}
        self._starts: dict[int, dict[str, Any]] = {}
        self._waiting: list[tuple[int, Ended]] = []  # until what they have written has come
        self._heard = [0] * len(fleet.names)
        self._offsets = [0] * len(fleet.names)
        self._said: dict[str, Any] = {}
        self._news: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._changed = [asyncio.Event() for _ in fleet.names]
        self._over = asyncio.Event()
        hosts, launcher_board = fleet.hosts, launcher.board
        self.exchange = Exchange(launcher.shared, launcher_board, -1, hosts, self._notice)
        self._thread = threading.Thread(target=self._run, name="offbeat cluster", daemon=True)
        self._thread.start()

    # -- what a launcher asks --------------------------------------------------------------------------

    def start(
        self, agent: int, incarnation: int, command: Sequence[str], more: Mapping[str, str], output: Path
    ) -> RemoteLife:
        """Have an agent's process started where it lives, or elsewhere if that machine is lost."""
        machine = self.fleet.hosts[agent]
        if machine in self.lost:
            machine = self.fleet.hosts[agent] = self.fleet.elsewhere(agent, [*self.lost])
            self.on_output(agent, f"goes on on {self.fleet.called(machine)}")
        life = RemoteLife(agent, incarnation, machine, self.grown[agent])
        row = self.launcher.board.rows[agent].tolist()
        about = {"agent": agent, "incarnation": incarnation, "command": [*command], "more": {**more}}
        self.running[agent] = life
        if any(self.grown[agent].sizes):
            work = bring(partial(self.fleet.ask, machine), self.launcher.settings.folder, self.grown[agent])
            self._wait(work, ENDS)
        self._starts[agent] = {**about, "row": row}
        return life

    def wait(self, timeout: float) -> list[RemoteLife]:
        """The processes that have ended meanwhile."""
        self._say()
        ended: list[RemoteLife] = []
        with suppress(queue.Empty):
            news = self._news.get(timeout=timeout)
            while True:
                ended += self._take(*news)
                news = self._news.get_nowait()
        return ended

    def signal(self, number: signal.Signals, agents: Sequence[int] | None = None) -> None:
        whom = None if agents is None else [*agents]
        for machine in self._machines():
            self._do(self._try(machine, "signal", int(number), whom))

    def see_models(self, most: float = math.inf) -> None:
        self._wait(self._models(most), MODELS)

    def close(self) -> None:
        """Bring what the machines have of the run, and leave nothing there."""
        self._say()
        for machine in self._machines():
            self._wait(self._finish(machine), math.inf)
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self.fleet.end()

    # -- in the launcher's thread ----------------------------------------------------------------------

    def _machines(self) -> list[int]:
        return [machine for machine in range(len(self.fleet.names)) if machine not in self.lost]

    def _say(self) -> None:
        """Have said what has changed."""
        board = self.launcher.board
        said = {
            "hosts": [*self.fleet.hosts], "names": self.fleet.names, "agents": board.n,
            "order": int(board.order), "zero": board.zero, "last_step": board.last_step,
            "changes": board.since(0), "starts": [*self._starts.values()],
        }  # fmt: skip
        if said != self._said:
            self._said = said
            for changed in self._changed:
                self._loop.call_soon_threadsafe(changed.set)

    def _take(self, what: str, news: Any) -> list[RemoteLife]:
        match what:
            case "line":
                self.on_output(*news)
            case "ended":
                machine, ended = news
                return [] if (life := self._ended(machine, ended)) is None else [life]
            case "lost":
                return self._lose(*news)
            case "failed":
                raise news
        return []

    def _ended(self, machine: int, ended: Ended) -> RemoteLife | None:
        life = self.running.get(ended.agent)
        if life is None or (life.machine, life.incarnation) != (machine, ended.incarnation):
            return None
        life.code = ended.code
        self.launcher.board.rows[ended.agent] = ended.row
        return self._gone(life, ended.failure)

    def _gone(self, life: RemoteLife, failure: Mapping[str, Any] | None) -> RemoteLife:
        if failure is not None:
            (self.launcher.shared / f"failure.{life.agent}").write_text(json.dumps(failure))
        self._starts.pop(life.agent, None)
        del self.running[life.agent]
        return life

    def _lose(self, machine: int, why: str) -> list[RemoteLife]:
        """All agents of a machine are lost at once."""
        self.lost[machine] = why
        gone = [life for life in self.running.values() if life.machine == machine]
        for life in gone:
            life.code = -signal.SIGKILL
            what = f"its machine is lost: {self.fleet.called(machine)}, {why}"
            failure = Failure(what, ("machine", str(machine), str(time.monotonic())), what)
            self._gone(life, vars(failure))
        return gone

    def _do(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)  # type: ignore[return-value]

    def _wait(self, work: Coroutine[Any, Any, Any], seconds: float) -> None:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(work, self._loop).result(
                None if seconds == math.inf else seconds
            )

    def _notice(self, what: str) -> None:
        self._news.put(("line", (0, what)))

    # -- in the other thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work())
        except BaseException as error:
            self._news.put(("failed", error))
        finally:
            self._loop.close()

    async def _work(self) -> None:
        machines = range(len(self.fleet.names))
        for machine in machines:
            peer = self.fleet.peer(machine)
            self._offsets[machine] = (await offset(peer)).ns
            self.exchange.connect(machine, peer)
        over = asyncio.create_task(self._over.wait())
        tasks = [asyncio.create_task(self.exchange.run()), over]
        tasks += [asyncio.create_task(work(m)) for m in machines for work in (self._tell, self._look)]
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in done - {over}:
            task.result()

    async def _tell(self, machine: int) -> None:
        changed = self._changed[machine]
        while machine not in self.lost:
            await changed.wait()
            changed.clear()
            said = dict(self._said)
            said["zero"] += self._offsets[machine] if said["zero"] else 0
            said["starts"] = [each for each in said["starts"] if self.fleet.hosts[each["agent"]] == machine]
            for agent, host in enumerate(said["hosts"]):
                if self.exchange.hosts[agent] != host:
                    self.exchange.place(agent, host)
            try:
                await self.fleet.ask(machine, "tell", json.dumps(said))
            except Exception:
                changed.set()
                await asyncio.sleep(AGAIN)

    async def _look(self, machine: int) -> None:
        answered = time.monotonic()
        while machine not in self.lost:
            mine = [i for i, host in enumerate(self.fleet.hosts) if host == machine]
            sizes = {i: self.grown[i].sizes for i in mine}
            try:
                said, grown = await self.fleet.ask(machine, "look", self._heard[machine], sizes)
            except Exception as error:
                why = self.fleet.lost(machine, error, time.monotonic() - answered)
                if why:
                    self._news.put(("lost", (machine, why)))
                    return
                await asyncio.sleep(AGAIN)
                continue
            answered = time.monotonic()
            self._see(machine, json.loads(said), grown)

    def _see(self, machine: int, said: Mapping[str, Any], grown: Sequence[bytes]) -> None:
        for what in said["notices"]:
            self._notice(what)
        for each in said["ended"]:
            ended = Ended(**each)
            if ended.number > self._heard[machine]:
                self._heard[machine] = ended.number
                self._waiting.append((machine, ended))
                self.grown[ended.agent].silent.append((ended.silent[0], ended.silent[1]))
        for (agent, kind, at), more in zip(said["files"], grown, strict=True):
            for line in self.grown[agent].take(kind, at, more):
                self._news.put(("line", (agent, line)))
        for agent, newest in said["newest"].items():
            self.grown[int(agent)].newest = newest
        for machine_, ended in [*self._waiting]:
            logged, printed = self.grown[ended.agent].sizes
            if logged >= ended.logged and printed >= ended.silent[0]:
                if logged > ended.logged:
                    os.truncate(self.grown[ended.agent].log, ended.logged)
                self._waiting.remove((machine_, ended))
                self._news.put(("ended", (machine_, ended)))

    async def _try(self, machine: int, what: str, *args: Any) -> Any:
        with suppress(Exception):
            return await self.fleet.ask(machine, what, *args)

    async def _models(self, most: float) -> None:
        exchange, rows = self.exchange, self.launcher.board.rows
        wanted = [m for (i, k), m in exchange.mirrors.items() if rows[i, Row.MODEL] == k + 1]

        async def fetch(mirror: Any) -> None:
            link = exchange.links[exchange.hosts[mirror.agent]]
            with suppress(NoAnswer, OffbeatError):
                name = mirror.agent, mirror.incarnation, mirror.k
                answer = await link.ask(link.peer.newest(*name, mirror.seen), mirror.nbytes)
                if answer is not None and answer[0] > mirror.seen:
                    await mirror.take(answer)

        await asyncio.gather(*(fetch(mirror) for mirror in wanted if mirror.nbytes <= most))

    async def _finish(self, machine: int) -> None:
        """Bring the rest of what is there, and end it."""
        ask, hosts = partial(self.fleet.ask, machine), self.fleet.hosts
        mine = [i for i, host in enumerate(hosts) if host == machine]
        try:
            await fetch(ask, self.launcher.settings.folder, mine)
            async with asyncio.timeout(ENDS):
                await ask("end")
        except Exception as error:
            self._notice(f"{self.fleet.called(machine)} did not give all that it has of the run: {error}")
