"""What goes to the machines of a run, and what comes from them: a thread that talks to their gateways.

It keeps the launcher's board like theirs, as the `Exchange` of a machine on which nobody lives, and what the
agents log and print in the launcher's folder. Machines may be lost, and come, meanwhile.
"""

import asyncio
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import Any

from offbeat.core.errors import OffbeatError
from offbeat.engines.live.cluster.asking import NoAnswer
from offbeat.engines.live.cluster.clocks import offset
from offbeat.engines.live.cluster.exchange import Exchange
from offbeat.engines.live.cluster.keeper import RESULTS, Ended
from offbeat.engines.live.cluster.lives import Fleet, RemoteLife
from offbeat.engines.live.cluster.results import Grown, bring, fetch
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node import log
from offbeat.engines.live.shm.board import Row

AGAIN = 0.1  # seconds before a gateway is asked again that gave no answer
COMES = 1.0  # seconds between looks at whether a machine has joined the cluster
BURIED = 5.0  # seconds between looks at whether a machine that is lost is back
LOOK = 0.5  # seconds between looks at whether the thread has failed
ENDS = 20.0  # seconds that a machine has to end what is left there


class Talk:
    """The thread, from `start` to `end`; what it knows is for the launcher's to read.

    Attributes:
        running: the processes that run, as far as is known
        grown: of each agent, what has come of what it writes
        lost: machines that count as lost, and why
        starts: of the lives that are to begin, what they begin with
        written: on which machine what an agent has written is
        said: what the machines are to be told
        changed: by machine, set where that is not what the machine was told last
        news: what is for the launcher's thread: of which kind, and what
    """

    def __init__(self, fleet: Fleet, launcher: Launcher, known: Mapping[str, Any] | None) -> None:
        """With what the gateways know of a run that goes on already."""
        self.fleet, self.launcher = fleet, launcher
        folder = launcher.settings.folder
        self.running: dict[int, RemoteLife] = {}
        self.grown = {i: Grown(i, folder) for i in range(launcher.board.n)}
        self.lost: dict[int, str] = {}
        self.starts: dict[int, dict[str, Any]] = {}
        self.written: dict[int, int] = {}
        self.said: dict[str, Any] = {}
        self.changed: list[asyncio.Event] = []
        self.news: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.exchange = Exchange(launcher.shared, launcher.board, -1, fleet.hosts, self.notice)
        self._known = known
        self._waiting: list[tuple[int, Ended]] = []  # until what they have written has come
        self._heard: list[int] = []
        self._offsets: list[int] = []
        self._loop = asyncio.new_event_loop()
        self._over, self._taking_in, self._closing = asyncio.Event(), asyncio.Lock(), False
        self._leaving, self._left = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="offbeat cluster", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._call(self._over.set)
        self._thread.join()

    def say(self, said: dict[str, Any]) -> None:
        """All that the launcher wants, if that is something else than before."""
        if said != self.said:
            self.said = said
            for changed in self.changed:
                self._call(changed.set)

    def _call(self, what: Callable[[], None]) -> None:
        with self._leaving:
            if not self._left:  # else the thread has failed, which the launcher is told
                self._loop.call_soon_threadsafe(what)

    def do(self, work: Coroutine[Any, Any, Any]) -> "Future[Any] | None":
        """Have something done, whenever that is; None: nothing will be any more."""
        with self._leaving:
            if not self._left:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        return None

    def wait(self, work: Coroutine[Any, Any, Any], seconds: float) -> None:
        """Until this is done, so many seconds have passed, or the thread has failed."""
        end, future = time.monotonic() + seconds, self.do(work)
        while future is not None and (left := end - time.monotonic()) > 0 and self._thread.is_alive():
            try:
                future.result(min(left, LOOK))
            except TimeoutError:
                continue
            except CancelledError:
                pass
            return

    def notice(self, what: str) -> None:
        self.news.put(("line", (0, what)))

    # -- in the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work())
        except BaseException as error:
            self.news.put(("failed", error))
        finally:
            with self._leaving:  # what was asked before is among what is left; nothing is asked any more
                self._left = True
            self._loop.run_until_complete(self._leave())
            self._loop.close()

    async def _leave(self) -> None:
        """Nobody will do any more what is still to be done."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _work(self) -> None:
        machines = range(len(self.fleet.names))
        for machine in machines:
            await self._meet(machine)
        if self._known is not None:
            ahead = self._offsets[self._known["plan"]["machine"]]
            self.launcher.board.words[4] = self._known["zero"] - ahead if self._known["zero"] else 0
        over, more = asyncio.create_task(self._over.wait()), asyncio.create_task(self._more())
        tasks: set[asyncio.Task[Any]] = {asyncio.create_task(self.exchange.run()), more}
        tasks |= {asyncio.create_task(work(m)) for m in machines for work in (self._tell, self._look)}
        while not over.done():
            done, tasks = await asyncio.wait({over, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # what none of them should meet
            if more in done:
                machine, more = more.result(), asyncio.create_task(self._more())
                tasks |= {asyncio.create_task(work(machine)) for work in (self._tell, self._look)} | {more}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _meet(self, machine: int) -> None:
        """A machine whose gateway is there."""
        peer = self.fleet.peer(machine)
        self._offsets.append(0)
        self._heard.append(0)
        self.changed.append(asyncio.Event())
        if self.said:
            self.changed[machine].set()
        with suppress(Exception):  # a machine that is lost
            self._offsets[machine] = (await offset(peer)).ns
        self.exchange.connect(machine, peer)

    async def _more(self) -> int:
        """Until a machine comes that can take part."""
        while True:
            await asyncio.sleep(COMES)
            try:
                async with self._taking_in:
                    machine = None if self._closing else await self.fleet.more()
            except OffbeatError as error:
                self.notice(str(error))
                continue
            if machine is not None:
                await self._meet(machine)
                self.notice(f"{self.fleet.called(machine).capitalize()} has joined the run")
                return machine

    async def no_more(self) -> None:
        """From now on; a machine whose gateway was about to begin is there."""
        self._closing = True
        async with self._taking_in:
            pass

    async def _tell(self, machine: int) -> None:
        changed = self.changed[machine]
        while machine not in self.lost:
            await changed.wait()
            changed.clear()
            said = dict(self.said)
            said["zero"] += self._offsets[machine] if said["zero"] else 0
            said["starts"] = [each for each in said["starts"] if said["hosts"][each["agent"]] == machine]
            for agent, host in enumerate(said["hosts"]):
                if self.exchange.hosts[agent : agent + 1] != [host]:
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
                    self.news.put(("lost", (machine, why, time.monotonic() - answered)))
                    await self._bury(machine)
                    return
                await asyncio.sleep(AGAIN)
                continue
            answered = time.monotonic()
            try:
                self._see(machine, json.loads(said), grown)
            except OSError as error:
                self.news.put(("failed", log.full(self.launcher.settings.folder, error)))
                return  # the launcher ends the run

    def _see(self, machine: int, said: Mapping[str, Any], grown: Sequence[bytes]) -> None:
        for what in said["notices"]:
            self.notice(what)
        for token, request in said["asked"]:
            self.news.put(("asked", (machine, token, request)))
        for each in said["ended"]:
            ended = Ended(**each)
            if ended.number > self._heard[machine]:
                self._heard[machine] = ended.number
                self._waiting.append((machine, ended))
                told = self.grown.setdefault(ended.agent, Grown(ended.agent, self.launcher.settings.folder))
                told.silent.append((ended.silent[0], ended.silent[1]))
        for (agent, kind, at), more in zip(said["files"], grown, strict=True):
            for line in self.grown[agent].take(kind, at, more):
                self.news.put(("line", (agent, line)))
        for agent, line in said["newest"].items():
            self.grown[int(agent)].newest = line
        for machine_, ended in [*self._waiting]:
            logged, printed = self.grown[ended.agent].sizes
            if logged >= ended.logged and printed >= ended.silent[0]:
                if logged > ended.logged:
                    os.truncate(self.grown[ended.agent].log, ended.logged)
                self._waiting.remove((machine_, ended))
                self.news.put(("ended", (machine_, ended)))

    async def begin(self, life: RemoteLife, start: dict[str, Any], donor: int) -> None:
        """Have an agent begin once all that it goes on with is there."""
        agent, machine, folder = life.agent, life.machine, self.launcher.settings.folder
        while self.running.get(agent) is life and agent not in self.starts:
            try:
                if self.written.get(agent) != machine and (donor >= 0 or any(self.grown[agent].sizes)):
                    ask, agents = partial(self.fleet.ask, machine), self.launcher.settings.agents
                    await bring(ask, folder, self.grown[agent], donor, agents)
                self.written[agent] = machine
                self.starts[agent] = start
            except Exception:
                await asyncio.sleep(AGAIN)

    async def answer(self, machine: int, token: str, done: bool, said: str) -> None:
        while machine not in self.lost:
            with suppress(Exception):
                await self.fleet.ask(machine, "answer", token, done, said)
                return
            await asyncio.sleep(AGAIN)

    async def _bury(self, machine: int) -> None:
        """Should a machine that is lost come back, end what it still does of the run."""
        while not self._over.is_set():
            await self.ask(machine, "end")
            await asyncio.sleep(BURIED)

    async def ask(self, machine: int, what: str, *args: Any) -> Any:
        with suppress(Exception):
            return await self.fleet.ask(machine, what, *args)

    async def models(self, most: float) -> None:
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

    async def finish(self, machine: int) -> None:
        """Bring the rest of what is there, and end it; what cannot be brought stays there."""
        called = self.fleet.called(machine).capitalize()
        ask, hosts = partial(self.fleet.ask, machine), self.fleet.hosts
        mine = [i for i, host in enumerate(hosts[: self.launcher.board.n]) if host == machine]
        kept = False
        try:
            await fetch(ask, self.launcher.settings.folder, mine)
        except Exception as error:
            kept = True
            stays = f"it keeps that in its temporary folder, in {RESULTS}{self.fleet.run}-{machine}"
            self.notice(f"{called} did not give all that it has of the run ({error}): {stays}")
        try:
            async with asyncio.timeout(ENDS):
                await ask("end", kept)
        except Exception as error:
            self.notice(f"{called} was not heard to have ended: {error}")
