"""One machine's part of a run over several: what its gateway shows to others, and keeps of what they show.

`Exchange` is a `Peer` for the agents that live here. `run` keeps, in this machine's run folder and until it
is cancelled, the rows of all others, the registers that some agent here mixes, and the mailboxes from them;
and sends what waits in the mailboxes for them. All of its state is in that folder: killed, and started again
on the same one, it goes on. The order and the membership are the launcher's to write, on every board alike.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from offbeat.core.errors import OffbeatError
from offbeat.engines.live.cluster import board_rows
from offbeat.engines.live.cluster.agreement import Agreement
from offbeat.engines.live.cluster.arrival import Arrivals, arriving
from offbeat.engines.live.cluster.asking import AGAIN, Link, NoAnswer, seconds
from offbeat.engines.live.cluster.dealing import Dealing
from offbeat.engines.live.cluster.mirror import Mirror, Shown
from offbeat.engines.live.cluster.peer import Peer, Proposal, Raw, Version, in_pieces
from offbeat.engines.live.cluster.post import Bells, Incoming, Name, Outgoing, rung
from offbeat.engines.live.cluster.working import Working
from offbeat.engines.live.node.faults import Fault
from offbeat.engines.live.shm.board import Board, Row, State
from offbeat.engines.live.shm.part import Places
from offbeat.engines.live.shm.slots import Slots

BEAT, LOOKS = 0.1, 10  # seconds between answers with rows, in which so often something may be new
SOON = 0.05  # seconds until a new mailbox is seen
MOST_SAID = 50  # notices
FIRST = 300_000_000  # bytes that are waited for where the size of the model that all start from is not known
SPARED = 20  # a model that nobody mixes is asked for so many times more seldom than it takes to cross


class Exchange:
    """See the module. `hosts`: the machine of every agent; `machine`: this one, on which perhaps none lives.

    Attributes:
        links: machine -> what is known of it; nothing is asked of others
        mirrors: (agent, which of its registers) -> what is kept of it here
        outgoing: the mailboxes for agents elsewhere
        models_every: keep models of agents elsewhere that nobody here mixes too, each at most once in so many
            seconds; None: no
    """

    def __init__(
        self,
        folder: Path,
        board: Board,
        machine: int,
        hosts: Sequence[int],
        on_notice: Callable[[str], None] = lambda what: None,
        faults: Sequence[Fault] = (),
        unit: float = 1.0,
        first: Sequence[int] = (),
    ) -> None:
        """`first`: the machine of each agent when the run began, if some have moved or come since."""
        self.folder, self.board, self.machine, self.hosts = folder, board, machine, [*hosts]
        self.on_notice, self.faults, self.unit = on_notice, faults, unit
        self.models_every: float | None = None
        self.agreement, self.links = Agreement(folder), dict[int, Link]()
        self.mirrors: dict[tuple[int, int], Mirror] = {}
        self.outgoing: dict[Name, Outgoing] = {}
        self.arrivals, self.shown, self.bells = Arrivals(len(hosts)), Shown(folder), Bells(folder)
        self.incoming = Incoming(folder, board, self.bells, self.arrivals, self.here)
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        self._made: dict[int, tuple[int, int]] = {}  # by agent here: its life, and mailboxes that it has made
        self._said: set[str] = set()
        places, working = Places(machine, (*(first or hosts),)), Working(board, self.hosts)
        self.dealing = Dealing(folder, places, working.now, seconds, on_notice)

    def connect(self, machine: int, peer: Peer) -> None:
        """This is the gateway of that machine, from now on."""
        self.links[machine] = Link(peer, lambda: self._cut(machine))

    def place(self, agent: int, machine: int) -> None:
        """The agent's next life is on that machine; it may be a new agent, the next one, of which the boards
        know nothing yet. To be called on every machine after its board says that the agent is gone, and
        before that life begins.
        """
        self.hosts[agent : agent + 1] = [machine]
        self.arrivals.agents = len(self.hosts)
        self.bells.place(agent, machine != self.machine)
        if machine == self.machine:
            self._forget(agent)

    def _link(self, agent: int) -> Link:
        """To where an agent lives. Raises NoAnswer if there is none."""
        if (link := self.links.get(self.hosts[agent])) is None:
            raise NoAnswer
        return link

    def _now(self) -> float:
        """Seconds of the run's clock."""
        return (time.monotonic_ns() - self.board.zero) / 1e9

    def _cut(self, machine: int) -> bool:
        """Whether it and this one are to hear nothing of each other now, by a fault on purpose."""
        now, both = self._now(), (machine, self.machine)
        return bool(self.board.zero) and any(each.cuts(k, now) for each in self.faults for k in both)

    def here(self, agent: int) -> bool:
        return self.hosts[agent] == self.machine

    @property
    def waiting(self) -> int:
        """Bytes of mail that have not arrived for certain."""
        return sum(out.waiting for out in self.outgoing.values())

    async def traffic(self) -> str:
        """What has crossed so far, as JSON: bytes by machine, versions by register, bytes of waiting mail."""
        links = {
            k: {"received": link.received, "sent": link.sent, "silent": link.silent, "error": link.error}
            for k, link in self.links.items()
        }
        kept = [
            {"agent": i, "register": k, "bytes": m.nbytes, "versions": m.transfers, "late": m.late}
            for (i, k), m in self.mirrors.items()
        ]
        return json.dumps({"pid": os.getpid(), "links": links, "registers": kept, "waiting": self.waiting})

    async def agreed(self) -> None:
        """Until it is known here what agents agree on: before that nobody is to be let in."""
        while self.agreement.missing:
            await asyncio.sleep(BEAT / LOOKS)

    # -- what others ask: `Peer` -----------------------------------------------------------------------

    async def clock(self) -> int:
        return time.monotonic_ns()

    async def rows(self, seen: int) -> bytes:
        mine = [i for i in range(len(self.hosts)) if self.here(i)]
        for _ in range(LOOKS):
            if board_rows.checksum(self.board, mine) != seen:
                break
            await asyncio.sleep(BEAT / LOOKS)
        return board_rows.packed(self.board, mine)

    async def proposal(self) -> Proposal | None:
        return self.agreement.shown()

    async def register(self, agent: int, incarnation: int, k: int) -> bytes:
        found = self._shown(agent, incarnation, k)
        return b"" if found is None else found.text

    async def newest(self, agent: int, incarnation: int, k: int, seen: int) -> Version | None:
        return await self.shown.newest(self._shown(agent, incarnation, k), seen)

    async def pieces(self, count: int, *question: int) -> tuple[Any, ...]:
        return await in_pieces(self, count, *question)

    async def take_mail(self, head: bytes, letters: Raw) -> int:
        return await self.incoming.take(head, letters)

    async def deal(self, question: bytes) -> bytes:
        return self.dealing.answer(question)

    def _shown(self, agent: int, incarnation: int, k: int) -> Slots | None:
        now = self.here(agent) and self.board.row(agent)[Row.INCARNATION] == incarnation
        return self.shown.register(agent, incarnation, k) if now else None

    # -- what is kept here -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Until it is cancelled. Raises what no part of it should meet."""
        for i in range(len(self.hosts)):
            if self.here(i):
                self.bells.ring(i)  # a gateway before this one may have ended before it did
            else:
                self.bells.place(i, elsewhere=True)
                self.incoming.count(i)
        try:
            while True:
                for of in [of for of, task in self._tasks.items() if task.done()]:
                    self._tasks.pop(of).result()
                for machine in self.links:
                    self._begin(machine, self._rows, machine)
                    self._begin(("deal", machine), self._deal, machine)
                self.dealing.look()
                for name in self._mailboxes():
                    self._begin(name, self._mail, name)
                for key, mirror in self.mirrors.items():
                    if self._pause(mirror) is not None:
                        self._begin(mirror, self._mirror, key, mirror)
                await asyncio.sleep(SOON)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            self._tasks.clear()
            self.bells.close()

    def _begin(self, of: Any, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Have it done, if it is not being done already."""
        if of not in self._tasks:
            self._tasks[of] = asyncio.create_task(work(*args))

    async def _later(self, error: Exception) -> None:
        """What was to be done cannot be now; if that is no cut link, it is said, once."""
        if isinstance(error, OffbeatError) and str(error) not in self._said and len(self._said) < MOST_SAID:
            self._said.add(str(error))
            self.on_notice(str(error))
        await asyncio.sleep(AGAIN)

    async def _rows(self, machine: int) -> None:
        seen = 0
        while True:
            link = self.links[machine]
            there = [i for i, host in enumerate(self.hosts) if host == machine]
            try:
                answer = await link.beat(link.peer.rows(seen))
                with arriving(f"What machine {machine} says of its agents"):
                    seen, found = board_rows.unpacked(answer, there, self.board.zero)
                for agent, row in found.items():
                    await self._show(machine, agent, row)
            except (NoAnswer, OffbeatError) as error:
                seen = 0
                await self._later(error)

    async def _show(self, machine: int, agent: int, row: board_rows.Words) -> None:
        """Write a row, the files before the numbers that make agents look for them."""
        mine, life, link = self.board.row(agent), int(row[Row.INCARNATION]), self.links[machine]
        if self.hosts[agent] != machine:
            return
        if mine[Row.INCARNATION] != life:
            self._renew(agent, life)
        board_rows.write(self.board, agent, row)
        for k in range(sum(key[0] == agent for key in self.mirrors), int(row[Row.REGISTERS])):
            text = await link.ask(link.peer.register(agent, life, k))
            if not text or self.hosts[agent] != machine:
                return
            self.mirrors[agent, k] = Mirror(self.folder, agent, life, k, text, self.arrivals)
            mine[Row.REGISTERS] = max(mine[Row.REGISTERS], k + 1)
        mine[Row.MODEL] = min(int(row[Row.MODEL]), mine[Row.REGISTERS])
        if row[Row.STATE] and self.agreement.missing:
            self.agreement.keep(await link.ask(link.peer.proposal(), FIRST), self.arrivals)
        mine[Row.STATE] = int(row[Row.STATE])

    def _renew(self, agent: int, life: int) -> None:
        """The agent is in another life: of those before nothing is left."""
        mine = self.board.row(agent)
        mine[Row.STATE] = State.ABSENT
        mine[Row.REGISTERS] = mine[Row.MODEL] = mine[Row.MAILBOXES] = 0
        mine[Row.INCARNATION] = life
        self._forget(agent, life)
        self.incoming.count(agent)

    def _forget(self, agent: int, life: int = 0) -> None:
        """Remove what an agent has shown and sent in its lives, but in this one."""
        for key in [key for key in self.mirrors if key[0] == agent]:
            del self.mirrors[key]
        for path in (*self.folder.glob(f"register.{agent}.*"), *self.folder.glob(f"mail.{agent}.*")):
            if int(path.name.split(".")[2]) != life:
                path.unlink(missing_ok=True)
        self.incoming.forget(agent, life)

    async def _deal(self, machine: int) -> None:
        while True:
            try:
                await self.dealing.ask(machine, self.links[machine])
                await asyncio.sleep(SOON)
            except (NoAnswer, OffbeatError) as error:
                await self._later(error)

    def _pause(self, mirror: Mirror) -> float | None:
        """Seconds between two versions of a register; None: it is not wanted."""
        if any(self.here(i) for i in mirror.to):
            return 0.0
        model = self.board.row(mirror.agent)[Row.MODEL] == mirror.k + 1
        return self.models_every if model else None

    async def _mirror(self, key: tuple[int, int], mirror: Mirror) -> None:
        agent, life, k = mirror.agent, mirror.incarnation, mirror.k
        while self.mirrors.get(key) is mirror and (pause := self._pause(mirror)) is not None:
            began = time.monotonic()
            try:
                link = self._link(agent)
                answer = await link.ask(link.peer.newest(agent, life, k, mirror.seen), mirror.nbytes)
                if answer is not None:
                    await mirror.take(answer)
                    mirror.late = self._now() - mirror.made * self.unit
                    link.received += mirror.nbytes
                took, answer = time.monotonic() - began if answer else 0.0, None  # or it would be held on
                if pause:
                    await asyncio.sleep(max(pause, SPARED * took))
            except (NoAnswer, OffbeatError) as error:
                await self._later(error)

    def _mailboxes(self) -> list[Name]:
        """Those of agents here for agents elsewhere that may have something to send."""
        for i in filter(self.here, range(len(self.hosts))):
            row = self.board.row(i)
            made = row[Row.INCARNATION], row[Row.MAILBOXES]
            if self._made.get(i) != made:
                self._made[i] = made
                self.shown.forget(i, made[0])
                for path in self.folder.glob(f"mail.{i}.{made[0]}.*"):
                    name = Name.of(path)
                    if not self.here(name.to) and name not in self.outgoing:
                        self.outgoing[name] = Outgoing(self.folder, name)
        gone = [name for name, out in self.outgoing.items() if not self._current(out)]
        for name in gone:
            del self.outgoing[name]
        return [*self.outgoing]

    def _current(self, out: Outgoing) -> bool:
        """Whether sender and receiver are, as far as is known, still in the lives that it is of."""
        source, life, to, its_life = out.name
        lives = [self.board.row(i)[Row.INCARNATION] for i in (source, to)]
        return lives[0] == life and lives[1] <= its_life and out.path.exists() and not self.here(to)

    async def _mail(self, name: Name) -> None:
        out = self.outgoing[name]
        with self.bells.listening(name.to) as event:
            while self.outgoing.get(name) is out:
                event.clear()
                head, letters = out.letters()
                if not len(letters):
                    await rung(event, 1.0)
                    continue
                before = out.waiting
                try:
                    link = self._link(name.to)
                    until = await link.ask(link.peer.take_mail(head, letters), len(letters))
                    if out.arrived(until) and out.box.wanted():
                        self.bells.ring(name.source)
                    link.sent += max(0, before - out.waiting)
                except (NoAnswer, OffbeatError) as error:
                    await self._later(error)
