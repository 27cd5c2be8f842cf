"""The gateway of a machine: what the launcher, wherever it is, says to it, and what the launcher sees of it.

Whatever has to be known again after its death lies in the run folder of the machine's keeper, to which a new
gateway attaches: agents do not notice. What is said is the whole state, so it may be said twice; what is seen
is asked for by how much of it is known already.
"""

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from offbeat.core.errors import OffbeatError
from offbeat.core.system.signals import readable
from offbeat.engines.live.cluster import keeper
from offbeat.engines.live.cluster.exchange import Exchange
from offbeat.engines.live.cluster.keeper import Plan
from offbeat.engines.live.cluster.peer import Peer
from offbeat.engines.live.launcher import requests
from offbeat.engines.live.launcher.children import pidfd
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.places import CHECKPOINTS, MEMBERS, joined_with, log_path
from offbeat.engines.live.shm.board import LET_GO, Board, Order, Row

HOSTS = "hosts.json"  # in the run folder: where every agent lives, and how the machines are called
BEAT = 0.1  # seconds between looks at what the launcher is to hear
PATIENCE = 0.5  # seconds until it is told that there is nothing new
AT_ONCE = 1 << 20  # bytes of a file that cross at once
MODELS_EVERY = 1.0  # seconds between copies of models that nobody here mixes: who comes begins from them
DIES = 1.0  # seconds that a process takes to be gone that was killed, at most
QUIET = 10.0  # seconds without a launcher after which nobody will answer who asks for something
NO_LAUNCHER = (
    "The launcher of run {run} has not been heard of here for a while, and only it lets agents in, and out. "
    "If it has died, 'offbeat launch --ray ADDRESS --attach {run}' goes on with the run; then ask again."
)
ENDED = "the process that its agents hang on has ended, and they with it"


class GatewayError(OffbeatError):
    """A machine cannot take part; the message says why."""


class Gateway(Exchange):
    """See the module. It begins to work at once, in the loop that runs."""

    def __init__(
        self, plan: Plan, hosts: Sequence[int], peer_of: Callable[[str], Peer], again: bool = False
    ) -> None:
        """Attach to this machine's keeper, or begin one, unless a gateway has been here before (`again`)."""
        self.plan, self.peer_of = plan, peer_of
        folder = keeper.find(plan.run, plan.machine) or (None if again else _kept(plan))
        if folder is None:
            raise GatewayError(ENDED)
        (folder / keeper.TOUCHED).write_text(str(os.getpid()))
        keeper.touch(folder)
        faults = [parse_fault(text, len(hosts)) for text in plan.settings["faults"]]
        board, unit = Board.attach(folder / "board"), plan.settings["unit"]
        super().__init__(folder, board, plan.machine, hosts, self._notice, faults, unit, plan.hosts)
        self.models_every = MODELS_EVERY
        self.notices: list[str] = []
        self.names: list[str] = []
        with suppress(OSError):  # not told yet
            known = json.loads((folder / HOSTS).read_text())
            self._reach(known["names"])
            self._settle(known["hosts"])
        self._heard, self._looked = 0, -math.inf  # of the launcher: how far, and when last
        self._began = time.monotonic()
        loop = asyncio.get_running_loop()
        self.working = [loop.create_task(self.run()), loop.create_task(self._beat())]

    # -- what the launcher says ------------------------------------------------------------------------

    async def tell(self, said: str) -> int:
        """All that the launcher wants: where agents live, which lives are to begin, the order, who belongs to
        the run, has joined it, is to leave it. Returns how many changes of the membership are known here now.
        """
        now, board = json.loads(said), self.board
        self._reach(now["names"])
        if now["members"]:  # before anybody is told of a change who then looks there
            keeper.replace(self.folder / MEMBERS, now["members"].encode())
        if now["order"] >= Order.STOP:
            board.order = Order(now["order"])
        elif now["order"] != Order.WAIT:
            await self.agreed()
        if board.n < now["agents"]:
            board.grow(now["agents"])
        if now["zero"]:
            board.words[4] = now["zero"]
        for agent, incarnation in now["changes"][board.membership :]:
            board.change(agent, incarnation)
        board.words[5] = now["last_step"]
        if board.order < now["order"]:
            board.order = Order(now["order"])
        self._settle(now["hosts"])
        for agent, what in now["leaves"].items():
            self._leave(int(agent), what)
        known = self._kept()["starts"]
        for start in now["starts"]:
            if known.get(str(start["agent"]), 0) < start["number"]:
                keeper.ask(self.folder, what="start", **start)
        for i in range(board.n):
            self.bells.ring(i)
        return board.membership

    async def signal(self, number: int, agents: list[int] | None) -> None:
        keeper.ask(self.folder, what="signal", number=number, agents=agents)

    async def answer(self, token: str, done: bool, said: str) -> None:
        """What became of a request of this machine."""
        (self.folder / f"{requests.ASK}{token}").unlink(missing_ok=True)
        requests.answer(self.folder, token, done, said)

    async def end(self, keep: bool = False) -> None:
        """Have nothing left on this machine, or only what agents have written; returns when that is so."""
        keeper.ask(self.folder, what="end", keep=keep)
        while self.folder.exists():
            await asyncio.sleep(0.01)

    # -- what it sees ----------------------------------------------------------------------------------

    async def state(self) -> dict[str, Any]:
        """All that a launcher who has not been there before needs to know."""
        board, joined = self.board, joined_with(self.folder)
        return {
            "plan": asdict(self.plan), "hosts": self.hosts, "names": self.names, "order": int(board.order),
            "zero": board.zero, "last_step": board.last_step, "agents": board.n,
            "changes": board.since(0), "rows": board.all_rows[: len(self.hosts)].tolist(),
            "members": self._members(), "asked": [token for token, _ in self._asked()],
            "joined": None if joined is None else [joined[0], joined[1], sorted(joined[2])],
            "looked": time.monotonic() - self._looked, **self._kept(),
        }  # fmt: skip

    async def look(self, heard: int, sizes: Mapping[int, tuple[int, int]]) -> tuple[str, list[bytes]]:
        """What is new, once there is something, or after a while: JSON, and the bytes by which the logs and
        the outputs of agents have grown, of which the launcher has so much.
        """
        if keeper.gone(self.folder):
            raise GatewayError(ENDED)
        for _ in range(round(PATIENCE / BEAT)):
            said, grown = self._news(heard, sizes)
            if said["ended"] or said["notices"] or grown:
                break
            await asyncio.sleep(BEAT)
        self._looked = time.monotonic()
        if heard > self._heard:
            self._heard = heard
            keeper.ask(self.folder, what="heard", number=heard)
        return json.dumps(said), grown

    async def files(self) -> list[tuple[str, int]]:
        """What the agents have written here: names below the folder of results, and sizes."""
        top = self.plan.results
        found = [Path(at) / name for at, _, names in os.walk(top) for name in names if name[0] != "."]
        return [(str(path.relative_to(top)), path.stat().st_size) for path in sorted(found)]

    async def read(self, name: str, at: int) -> bytes:
        """A part of a file of results."""
        with (self._result(name)).open("rb") as file:
            file.seek(at)
            return file.read(AT_ONCE)

    async def write(self, name: str, at: int, content: bytes) -> None:
        """Write a part of a file of results: what an agent that begins here is to go on with."""
        if self.plan.shared and name.startswith(CHECKPOINTS):
            return  # it is there
        path = self._result(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if at else "wb") as file:
            file.seek(at)
            file.write(content)

    # -- within ----------------------------------------------------------------------------------------

    def _reach(self, names: Sequence[str]) -> None:
        """Know how the machines are called."""
        self.names = [*names]
        for machine, name in enumerate(names):
            if machine != self.machine and machine not in self.links:
                self.connect(machine, self.peer_of(name))

    def _settle(self, hosts: Sequence[int]) -> None:
        """Know where agents live; after a restart too."""
        for i, machine in enumerate(hosts):
            if self.hosts[i : i + 1] != [machine]:
                self.place(i, machine)
        keeper.replace(self.folder / HOSTS, json.dumps({"hosts": self.hosts, "names": self.names}).encode())

    def _kept(self) -> dict[str, Any]:
        kept: dict[str, Any] = json.loads((self.folder / keeper.STATE).read_bytes())
        return kept

    def _news(self, heard: int, sizes: Mapping[int, tuple[int, int]]) -> tuple[dict[str, Any], list[bytes]]:
        """First what was written, then who has ended: an ending that is told comes after it."""
        grown: list[bytes] = []
        files, newest = [], {}
        for agent, (logged, printed) in sizes.items():
            if more := _more(log_path(self.plan.results, agent), logged):
                files.append((agent, 0, logged))
                grown.append(more)
            whole, _, rest = _more(self._output(agent), printed).rpartition(b"\n")
            if whole:
                files.append((agent, 1, printed))
                grown.append(whole + b"\n")
            newest[agent] = rest.decode(errors="replace")
        ended = [each for each in self._kept()["ended"] if each["number"] > heard]
        notices, self.notices = self.notices, []
        asked = [[token, asdict(request)] for token, request in self._asked()]
        news = {"ended": ended, "files": files, "newest": newest, "notices": notices, "asked": asked}
        return news, grown

    def _asked(self) -> list[tuple[str, requests.Request]]:
        """What is asked for on this machine, and not answered yet."""
        return [*requests.requests(self.folder, keep=True)]

    def _members(self) -> str:
        path = self.folder / MEMBERS
        return path.read_text() if path.exists() else ""

    def _leave(self, agent: int, what: int) -> None:
        """An agent here is to leave; or has, and all others know."""
        if self.here(agent):
            row = self.board.row(agent)
            row[Row.LEAVES] = what
            row[Row.MODEL] *= what != LET_GO

    def _output(self, agent: int) -> Path:
        return self.plan.results / f"agent-{agent}.log"

    def _result(self, name: str) -> Path:
        path = (self.plan.results / name).resolve()
        if not path.is_relative_to(self.plan.results.resolve()):
            raise GatewayError(f"{name} is no file of this run's results.")
        return path

    def _notice(self, what: str) -> None:
        self.notices.append(what)

    async def _beat(self) -> None:
        while True:
            keeper.touch(self.folder)
            if time.monotonic() - max(self._looked, self._began) > QUIET:
                for token, _ in self._asked():
                    await self.answer(token, False, NO_LAUNCHER.format(run=self.plan.run))
            steps = max(
                (self.board.row(i)[Row.STEPS] for i in filter(self.here, range(self.board.n))), default=0
            )
            for fault in self.faults if self.board.zero else ():
                if fault.kind == "kill" and fault.machine == self.machine and steps >= fault.step:
                    self._fail()
            await asyncio.sleep(BEAT)

    def _fail(self) -> None:
        """As when the machine loses its power: nothing of it is left, its node of the cluster neither."""
        kept = self._kept()
        pids = [kept["pid"], *(pid for _, pid, _ in kept["running"].values())]
        for handle in filter(None, map(_killed, pids)):
            readable([handle], DIES)
        for folder in (self.plan.own, self.folder):  # else the next run on this machine would remove them
            shutil.rmtree(folder, ignore_errors=True)
        for pid in (os.getppid(), os.getpid()):
            os.kill(pid, signal.SIGKILL)


def _killed(pid: int) -> int | None:
    """Kill a process; a file that can be read when it has ended."""
    handle = pidfd(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return handle


def _more(path: Path, known: int) -> bytes:
    """What a file has beyond so many bytes, or a part of that."""
    try:
        with path.open("rb") as file:
            file.seek(known)
            return file.read(AT_ONCE)
    except FileNotFoundError:
        return b""


def _kept(plan: Plan) -> Path:
    """Start this machine's keeper: its run folder. Raises GatewayError if that cannot be."""
    command = [sys.executable, "-P", "-m", "offbeat.engines.live.cluster.keeper", json.dumps(asdict(plan))]
    made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    folder = keeper.find(plan.run, plan.machine)
    if made.returncode or folder is None:
        raise GatewayError(made.stderr.strip() or "the process that keeps the agents did not start")
    return folder
