"""What an agent has to send: one server, first come first served. What a reader holds of a register."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from offbeat.core.agent import Accumulate, Agent, Message, Publish, Send
from offbeat.core.codecs import Codec
from offbeat.core.compression import Packed, rest
from offbeat.core.vector import Vector

Register = tuple[int, type, tuple[int, ...]]
Receivers = tuple[tuple[int, int], ...]  # agents, and which incarnation of each
Medium = type[Send] | type[Publish] | type[Accumulate]
"""How something is given away: mail, a register, an accumulator."""


@dataclass(slots=True)
class Transmission:
    """Something on its way: it leaves at `start`, when its content is fixed, and arrives at `end`.

    In a world where receivers get it at different times, `end` is when its sender's server is free again, and
    each receiver gets a copy with an `end` of its own.
    """

    sender: int
    medium: Medium
    to: tuple[int, ...]
    message: Message
    receivers: Receivers = ()  # and their incarnations: nothing that is for one reaches the next
    letter: int = -1  # of what is accumulated: the number of the last that is in it
    given_to: tuple[int, ...] = ()  # by unicast: all receivers that it was given to
    start: float = -1.0
    end: float = -1.0
    membership: int = 0  # in a live run: how many changes of the membership the sender knew of
    kind: int = -1  # in a simulation: what the trace says of the message
    version: int = -1
    missed: frozenset[int] | None = None  # in a simulation: the receivers that lose it, once that is drawn
    packed: Mapping[str, Packed] | None = None  # compressed: its vectors as they are sent; None: not yet

    @property
    def register(self) -> Register:
        """Which register it is a version of: there is one for each sender, message type and receivers."""
        return self.sender, type(self.message), self.given_to or self.to

    @property
    def place(self) -> "Place":
        """What it shares with whatever replaces it, or is added to it, while it waits."""
        return self.medium, self.register, self.to, self.receivers

    @property
    def size(self) -> int:
        """Bytes of its vectors as they are sent; scalars are free."""
        given = vectors(self.message)
        if self.packed:
            return sum([self.packed.get(name, v).nbytes for name, v in given.items()])
        return sum([v.nbytes for v in given.values()])


Place = tuple[Medium, Register, tuple[int, ...], Receivers]


@dataclass(frozen=True)
class Compression:
    """What a codec does to messages; any other message goes as it is.

    Attributes:
        models: types of messages, published or mailed, that are compressed each by itself
        changes: types of messages that are accumulated: of each what does not arrive is added to the next
    """

    codec: Codec
    models: tuple[type, ...]
    changes: tuple[type, ...]

    @staticmethod
    def of(codec: Codec | None, agent: Agent) -> "Compression | None":
        """Of the messages of such an agent; None: there is no codec."""
        return None if codec is None else Compression(codec, agent.sends_models, agent.sends_changes)

    def keeps(self, medium: Medium, message: Message) -> bool:
        """Whether what does not arrive of it is kept for the next."""
        return medium is Accumulate and isinstance(message, self.changes)

    def rounds(self, medium: Medium, message: Message) -> bool:
        """Whether it is compressed by itself."""
        return medium is not Accumulate and isinstance(message, self.models) and not self.codec.sums

    def fixed(self, medium: Medium, message: Message) -> tuple[Message, Mapping[str, Packed], Message | None]:
        """The message as it arrives; how it is sent; and what is kept of it, if anything is."""
        keeps = self.keeps(medium, message)
        if not keeps and not self.rounds(medium, message):
            return message, {}, None
        given = vectors(message)
        packed = {name: Packed.of(v, self.codec) for name, v in given.items()}
        arrives = {name: Vector(packed[name].unpacked(), v.stamp) for name, v in given.items()}
        if not keeps:
            return replace(message, **arrives), packed, None
        left = {name: Vector(rest(v.parts, arrives[name].parts), v.stamp) for name, v in given.items()}
        return replace(message, **arrives), packed, replace(message, **left)


@dataclass
class Outbox:
    """The queue of one sender. Mail keeps its order. A register that is still waiting is replaced, and keeps
    its place; an accumulator that is still waiting is added to, unless mail to one of its receivers waits
    behind it: what was given away after that mail arrives after it.

    Where messages are compressed, that happens when they leave. What is kept of an accumulated one is added
    to the next; it is sent as it is, before anything else that was given away later and is no sum with it:
    mail to one of its receivers, or what is accumulated for others too.
    """

    compression: Compression | None = None
    queue: deque[Transmission] = field(default_factory=deque)
    waiting: dict[Place, Transmission] = field(default_factory=dict)
    kept: dict[Place, Transmission] = field(default_factory=dict)
    busy: bool = False

    def put(self, item: Transmission) -> None:
        if item.packed is not None:  # its content is fixed
            self.queue.append(item)
            return
        medium = item.medium
        if medium is not Send:
            place = item.place
            if (older := self.waiting.get(place)) is not None:
                newest_wins = medium is Publish
                older.message = item.message if newest_wins else added(older.message, item.message)
                older.letter = item.letter
                return
        if medium is not Publish and (self.waiting or self.kept):
            self._close(item)
        if medium is not Send:
            self.waiting[place] = item
        self.queue.append(item)

    def _close(self, item: Transmission) -> None:
        """Add nothing more to what was accumulated for one of its receivers."""
        for place in [*self.waiting]:
            if place[0] is Accumulate and not set(place[2]).isdisjoint(item.to):
                del self.waiting[place]
        queued = {each.place for each in self.queue}  # these have what is kept with them when they leave
        for place in [*self.kept]:
            if place != item.place and place not in queued and not set(place[2]).isdisjoint(item.to):
                self.queue.append(self.kept.pop(place))

    def head(self) -> Transmission | None:
        """What leaves next. Where messages are compressed, its content is fixed now."""
        item = self.queue[0] if self.queue else None
        if item is not None and item.packed is None and self.compression is not None:
            place = item.place
            if (older := self.kept.pop(place, None)) is not None:
                item.message = added(older.message, item.message)
            item.message, item.packed, left = self.compression.fixed(item.medium, item.message)
            if left is not None:
                kept = replace(item, message=left, packed={})
                if self.waiting.get(place) is item:
                    self.kept[place] = kept
                else:
                    self.queue.insert(1, kept)
        return item

    def take(self) -> Transmission | None:
        item = self.head() if self.queue else None
        if item is not None:
            self.queue.popleft()
            if item.medium is not Send and self.waiting.get(item.place) is item:
                del self.waiting[item.place]
        return item


def values_of(kind: type) -> Callable[[Message], tuple[Any, ...]]:
    """What gives the values of all fields of such a message: for who sends millions."""
    match tuple(kind.__dataclass_fields__):  # type: ignore[attr-defined]
        case ():
            return lambda _: ()
        case (name,):
            return lambda message: (getattr(message, name),)
        case names:
            return attrgetter(*names)  # one call, whatever their number


def vectors(message: Message) -> dict[str, Vector]:
    """The fields of a message that are vectors."""
    found = {}
    for name in message.__dataclass_fields__:
        value = getattr(message, name)
        if isinstance(value, Vector):
            found[name] = value
    return found


def version_of(message: Message) -> int:
    """Of whose sender's model a message is: the first that one of its vectors is stamped with; -1: none."""
    return next((v.stamp.version for v in vectors(message).values() if v.stamp is not None), -1)


class LateBound:
    """What the reader of a register holds: a message whose vectors move on to every newer version."""

    def __init__(self) -> None:
        self._message: Message = None
        self._vectors: dict[str, Vector] = {}

    def moved_on(self, newer: Message) -> Message:
        """The message, of this version now; numbers beside the vectors are of this version too."""
        late, alone = self._vectors, True
        for name in newer.__dataclass_fields__:
            v = getattr(newer, name)
            if not isinstance(v, Vector):
                alone = False
                continue
            if (held := late.get(name)) is None:
                held = late[name] = Vector()
                held.late = True
            held.move(v)
        if self._message is None or not alone:
            self._message = replace(newer, **late)
        return self._message


def added(older: Message, newer: Message) -> Message:
    """Two accumulated messages as one: vectors are summed; anything else, stamps too, is the newer one's."""
    before, sums = vectors(older), {}
    for name, v in vectors(newer).items():
        sums[name] = before[name] + v
        sums[name].stamp = v.stamp
    return replace(newer, **sums)
