"""The exchange of models on one machine, as one agent sees it: registers and mail in shared memory.

Files in the run's folder; `i` and `j` are agents, `a` and `b` their incarnations (1, 2, ...):

    register.i.a.k       the k-th register that agent i made
    mail.i.a.j.b         from i to j
    bell.i               wakes i

An agent that comes back starts with new files, so nothing of its former life can be mistaken for news.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from offbeat.core.agent import Message
from offbeat.core.compression import Packed
from offbeat.core.system.signals import readable
from offbeat.core.vector import Parts, Vector
from offbeat.engines.live.node.link import Link
from offbeat.engines.live.places import register_path
from offbeat.engines.live.shm.board import LAUNCHER, Bell, Board, Row
from offbeat.engines.live.shm.layout import SharedMemoryError, Tag
from offbeat.engines.live.shm.mail import Mailbox
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.wire import layout_of, message_of, stamps, unpacked
from offbeat.engines.outbox import vectors

SLACK = 1 << 16  # bytes of a mailbox beside room for two messages


class Bound(Vector):
    """A vector that lies in a neighbour's register and moves on with it."""

    __slots__ = ("reader",)

    def __init__(self, reader: "Reader") -> None:
        super().__init__()
        self.reader, self.late = reader, True

    @property
    def parts(self) -> Parts:
        """A copy, whole; the vector moves on if its version was overwritten."""
        while True:
            there = self._parts if isinstance(self._parts, tuple) else ()
            copied = tuple(part.clone() for part in there)
            if not self.reader.torn():
                return copied
            self.reader.move_on()

    def bind(self, parts: Parts) -> None:
        self._parts = parts


@dataclass
class Reader:
    """A neighbour's register: which version was handed over, and which one its vectors are bound to."""

    source: int
    register: Register
    transport: "Transport"
    delivered: int = 0
    bound: int = 0
    tag: Tag = field(default_factory=Tag)
    message: Message = None
    vectors: list[Bound] = field(default_factory=list)

    def bind(self) -> None:
        """Move the vectors on to the newest version; as a copy, where numbers stand beside them or they are
        compressed.
        """
        register = self.register
        if not self.vectors:
            self.vectors = [Bound(self) for _ in register.layout.vectors]
        while True:
            version = register.newest
            places, words = register.read(version)
            parts = [tuple(p.clone() for p in each) if register.layout.copied else each for each in places]
            if register.whole(version):
                break
        if register.layout.packing:
            parts = unpacked(register.layout, parts)
        for v, each in zip(self.vectors, parts, strict=True):
            v.bind(each)
        self.bound, self.tag = version, Tag.of(words)
        if self.message is None or register.layout.numbers:
            self.message = message_of(register.layout, words, self.vectors)
        else:
            for v, stamp in zip(self.vectors, stamps(register.layout, words), strict=True):
                v.stamp = stamp

    def move_on(self) -> None:
        """The version that they were bound to is gone: bind the vectors to the newest, and say so."""
        self.bind()
        self.transport.on_moved(self)

    def made(self) -> float:
        """When the newest version was made, in its sender's time."""
        while True:
            version = self.register.newest
            _, words = self.register.read(version)
            if self.register.whole(version):
                return Tag.of(words).end

    def torn(self) -> bool:
        return not self.register.layout.copied and not self.register.whole(self.bound)


class Transport:
    """What agent `me` gives to others and takes from them. Not for several threads at once.

    Attributes:
        membership: how many changes of the membership this agent knows of
        floor: what was sent to this agent before that many of them is not for it
    """

    def __init__(self, folder: Path, board: Board, me: int, incarnation: int, model_bytes: int) -> None:
        self.folder, self.board, self.me, self.incarnation = folder, board, me, incarnation
        self.model_bytes = model_bytes
        self.membership = self.floor = 0
        self.link: Link | None = None  # emulates the delays of a world; None: as fast as the machine is
        self.lifeline: list[int] = []  # files that can be read when the launcher is gone
        self.on_moved: Callable[[Reader], None] = lambda reader: None  # told of vectors that moved on
        self.bell = Bell(folder, me)
        self.launcher = Bell(folder, LAUNCHER)
        self.row, self.float_row = board.row(me), board.float_row(me)
        self._look_at_all()
        self.row[Row.INCARNATION] = incarnation
        self.mine: list[Register] = []
        self.alive: dict[int, int] = {}  # the others that are there, and their incarnations
        self.readers: dict[int, list[Reader]] = {}
        self.heard: dict[int, dict[str, float]] = {}  # when what came last was made, by source and kind
        self.bells: dict[int, Bell] = {}
        self.outgoing: dict[int, Mailbox] = {}
        self.incoming: dict[int, Mailbox] = {}
        self.boxes = [0] * len(self._rows)

    def _look_at_all(self) -> None:
        """At the rows of all agents that have belonged to the run by now."""
        self._made = self.board.column(Row.MAILBOXES)
        self._rows = [self.board.row(j) for j in range(len(self._made))]

    def wait(self, timeout: float | None) -> bool:
        """Until the bell rings, or so many seconds. Returns whether the launcher is gone."""
        return any(file != self.bell.handle for file in self.bell.wait(timeout, self.lifeline))

    def orphaned(self, timeout: float = 0.0) -> bool:
        return bool(readable(self.lifeline, timeout))

    def meet(self, agent: int, incarnation: int) -> None:
        """This agent belongs to the run from now on, perhaps as a new one."""
        if agent >= len(self._rows):
            self._look_at_all()
            self.boxes += [0] * (len(self._rows) - len(self.boxes))
        self.forget(agent)
        self.alive[agent] = incarnation
        self.bells[agent] = Bell(self.folder, agent)
        self.readers[agent], self.heard[agent] = [], {}

    def forget(self, agent: int) -> None:
        self.alive.pop(agent, None)
        self.readers.pop(agent, None)
        self.heard.pop(agent, None)
        if agent in self.bells:
            self.bells.pop(agent).close()
        for boxes in (self.outgoing, self.incoming):
            boxes.pop(agent, None)
        self.boxes[agent] = 0

    def register(
        self, message: Message, to: tuple[int, ...], packed: Mapping[str, Packed] | None = None
    ) -> Register:
        """My register for this kind of message and these receivers, and perhaps others, who are gone. packed:
        its vectors, where they are compressed.
        """
        kind = f"{type(message).__module__}:{type(message).__qualname__}"
        for register in self.mine:
            if register.layout.kind == kind and (
                register.to == to
                or (to and {*to} < {*register.to} and self.alive.keys().isdisjoint({*register.to} - {*to}))
            ):
                return register
        path = register_path(self.folder, self.me, self.incarnation, len(self.mine))
        self.mine.append(Register.create(path, layout_of(message, packed), to))
        self.row[Row.REGISTERS] = len(self.mine)
        return self.mine[-1]

    def poll(self, agents: tuple[int, ...]) -> Iterator[Reader]:
        """The registers of these agents that have something new for me, moved on to it.

        Of one kind an agent may have several, for me and others: what it made last comes last.
        """
        for j in agents:
            if j not in self.alive:
                continue
            readers, row, heard = self.readers[j], self._rows[j], self.heard[j]
            if row[Row.REGISTERS] != len(readers) and row[Row.INCARNATION] == self.alive[j]:
                self._attach(j, row[Row.REGISTERS])
            mine = [each for each in readers if self.me in each.register.to]
            fresh = [each for each in mine if each.register.newest > each.delivered]
            for reader in sorted(fresh, key=Reader.made) if len(fresh) > 1 else fresh:
                kind = reader.register.layout.kind
                if len(mine) > 1 and reader.made() < heard.get(kind, -math.inf):  # of one none is older
                    reader.delivered = reader.register.newest
                    continue
                reader.bind()
                reader.delivered, heard[kind] = reader.bound, reader.tag.end
                if reader.tag.membership >= self.floor:
                    yield reader

    def _attach(self, j: int, count: int) -> None:
        readers = self.readers[j]
        try:
            while len(readers) < count:
                path = register_path(self.folder, j, self.alive[j], len(readers))
                readers.append(Reader(j, Register.attach(path), self))
        except SharedMemoryError:
            if self.board.membership == self.membership:  # else the agent is gone, and its files with it
                raise

    def post(self, to: int, message: Message, tag: Tag, packed: Mapping[str, Packed] | None = None) -> bool:
        """Put a message into the mailbox of `to`, if there is room. What is sent to nobody is gone."""
        if to not in self.alive:
            return True
        if to not in self.outgoing:
            size = max(self.model_bytes, sum(v.nbytes for v in vectors(message).values()))
            name = f"mail.{self.me}.{self.incarnation}.{to}.{self.alive[to]}"
            self.outgoing[to] = Mailbox.create(self.folder / name, 2 * size + SLACK)
            self.row[Row.MAILBOXES] += 1
        box = self.outgoing[to]
        if not (box.put(message, tag, packed) or box.put(message, tag, packed)):
            return False
        self.bells[to].ring()
        return True

    def receive(self) -> Iterator[tuple[int, Message, Tag]]:
        if (made := self._made.tolist()) != self.boxes:  # a copy: more may be made meanwhile
            for j, count in enumerate(made):
                if count != self.boxes[j] and j in self.alive and j not in self.incoming:
                    path = self.folder / f"mail.{j}.{self.alive[j]}.{self.me}.{self.incarnation}"
                    if path.exists():
                        self.incoming[j] = Mailbox.attach(path)
            self.boxes = made
        for j in list(self.incoming):
            while (box := self.incoming.get(j)) is not None and (mail := box.take()) is not None:
                if box.wanted():
                    self.bells[j].ring()
                yield j, *mail


def model_of(folder: Path, board: Board, agent: int) -> tuple[Vector, Tag] | None:
    """A copy of an agent's newest model and the tag that it came with; None before its first."""
    row = board.row(agent)
    if not row[Row.MODEL]:
        return None
    path = register_path(folder, agent, row[Row.INCARNATION], row[Row.MODEL] - 1)
    try:
        version, copies, words = Register.attach(path).copy()
    except SharedMemoryError:  # gone meanwhile
        return None
    return (copies[0], Tag.of(words)) if version else None
