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
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from offbeat.core.errors import OffbeatError
from offbeat.engines.live.cluster.asking import NoAnswer
from offbeat.engines.live.cluster.attaching import adopt, newest
from offbeat.engines.live.cluster.clocks import offset
from offbeat.engines.live.cluster.exchange import Exchange
from offbeat.engines.live.cluster.keeper import Ended
from offbeat.engines.live.cluster.lives import Fleet, RemoteLife
from offbeat.engines.live.cluster.results import Grown, bring, fetch
from offbeat.engines.live.launcher.children import MachineSeen, OnOutput
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node.ending import Failure
from offbeat.engines.live.shm.board import Row

AGAIN = 0.1  # seconds before a gateway is asked again that gave no answer
MODELS = 5.0  # seconds that copies of all models may take
BURIED = 5.0  # seconds between looks at whether a machine that is lost is back
UNSEEN = 2.0  # seconds of an agent's life that may not have been seen here, at most
ENDS = 20.0  # seconds that a machine has to end what is left there


class RemoteChildren:
    """See the module. Made when the machines' gateways are there."""

    def __init__(
        self,
        fleet: Fleet,
        launcher: Launcher,
        on_output: OnOutput,
        states: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        """With the `states` of the gateways of a run that goes on already: be its launcher's."""
        self.fleet, self.launcher, self.on_output = fleet, launcher, on_output
        folder, n = launcher.settings.folder, launcher.board.n
        self.running: dict[int, RemoteLife] = {}
        self.grown = {i: Grown(i, folder) for i in range(n)}
        self.lost: dict[int, str] = {}
        self._starts: dict[int, dict[str, Any]] = {}
        self._waiting: list[tuple[int, Ended]] = []  # until what they have written has come
        self._written: list[int | None] = [None] * n  # on which machine what an agent has written is
        self._heard = [0] * len(fleet.names)
        self._offsets = [0] * len(fleet.names)
        self._said: dict[str, Any] = {}
        self._news: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._changed = [asyncio.Event() for _ in fleet.names]
        self._over = asyncio.Event()
        hosts, launcher_board = fleet.hosts, launcher.board
        self.exchange = Exchange(launcher.shared, launcher_board, -1, hosts, self._notice)
        self._known = None if not states else newest(states)
        for i, (machine, incarnation) in adopt(launcher, states).items() if states else ():
            self.running[i] = RemoteLife(i, incarnation, machine, self.grown[i])
            self._written[i] = machine
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
        life = self.running[agent] = RemoteLife(agent, incarnation, machine, self.grown[agent])
        start = {"agent": agent, "incarnation": incarnation, "command": [*command], "more": {**more}}
        self._do(self._begin(life, start | {"row": self.launcher.board.rows[agent].tolist()}))
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

    @property
    def links(self) -> Mapping[int, MachineSeen]:
        """What is seen of each machine, but for those that are lost and those that never answered."""
        now, links = time.monotonic(), self.exchange.links
        known = {m: links[m] for m in self._machines() if m in links and links[m].heard}
        return {m: MachineSeen(self.fleet.called(m), now - at.heard, at.received) for m, at in known.items()}

    def machine(self, agent: int) -> int:
        return self.fleet.hosts[agent]

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

    def _lose(self, machine: int, why: str, silent: float) -> list[RemoteLife]:
        """All agents of a machine are lost at once; of their logs there is left what has come."""
        self.lost[machine] = why
        board = self.launcher.board
        elapsed = max(1.0, (time.monotonic_ns() - board.zero) / 1e9)
        gone = [life for life in self.running.values() if life.machine == machine]
        for life in gone:
            life.code = -signal.SIGKILL
            what = f"its machine is lost: {self.fleet.called(machine)}, {why}"
            failure = Failure(what, ("machine", str(machine), str(time.monotonic())), what)
            self._gone(life, vars(failure))
            row = board.row(life.agent)  # versions that others may have seen are not used again
            row[Row.WRITES] += math.ceil(row[Row.WRITES] / elapsed * (silent + UNSEEN)) + 1
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
            with suppress(Exception):  # a machine that is lost
                self._offsets[machine] = (await offset(peer)).ns
            self.exchange.connect(machine, peer)
        if self._known is not None:
            ahead = self._offsets[self._known["plan"]["machine"]]
            self.launcher.board.words[4] = self._known["zero"] - ahead if self._known["zero"] else 0
        over = asyncio.create_task(self._over.wait())
        tasks: set[asyncio.Task[Any]] = {asyncio.create_task(self.exchange.run())}
        tasks |= {asyncio.create_task(work(m)) for m in machines for work in (self._tell, self._look)}
        while not over.done():
            done, tasks = await asyncio.wait({over, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # what none of them should meet
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
                    self._news.put(("lost", (machine, why, time.monotonic() - answered)))
                    await self._bury(machine)
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
        for agent, line in said["newest"].items():
            self.grown[int(agent)].newest = line
        for machine_, ended in [*self._waiting]:
            logged, printed = self.grown[ended.agent].sizes
            if logged >= ended.logged and printed >= ended.silent[0]:
                if logged > ended.logged:
                    os.truncate(self.grown[ended.agent].log, ended.logged)
                self._waiting.remove((machine_, ended))
                self._news.put(("ended", (machine_, ended)))

    async def _begin(self, life: RemoteLife, start: dict[str, Any]) -> None:
        """Have an agent begin once all that it goes on with is there."""
        agent, machine, folder = life.agent, life.machine, self.launcher.settings.folder
        while self.running.get(agent) is life and agent not in self._starts:
            try:
                if self._written[agent] != machine and any(self.grown[agent].sizes):
                    await bring(partial(self.fleet.ask, machine), folder, self.grown[agent])
                self._written[agent] = machine
                self._starts[agent] = start
            except Exception:
                await asyncio.sleep(AGAIN)

    async def _bury(self, machine: int) -> None:
        """Should a machine that is lost come back, end what it still does of the run."""
        while not self._over.is_set():
            await self._try(machine, "end")
            await asyncio.sleep(BURIED)

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
