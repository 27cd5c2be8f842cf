"""What an agent has to send: one server, first come first served. What a reader holds of a register."""

from collections import deque
from dataclasses import dataclass, field, replace

from offbeat.core.agent import Accumulate, Message, Publish, Send
from offbeat.core.vector import Vector

Register = tuple[int, type, tuple[int, ...]]
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
    start: float = -1.0
    end: float = -1.0
    incarnations: tuple[int, ...] = ()  # of the receivers: nothing that is for one reaches the next
    membership: int = 0  # in a live run: how many changes of the membership the sender knew of
    kind: int = -1  # in a simulation: what the trace says of the message
    version: int = -1
    given_to: tuple[int, ...] = ()  # by unicast: all receivers that it was given to
    missed: frozenset[int] | None = None  # in a simulation: the receivers that lose it, once that is drawn

    @property
    def register(self) -> Register:
        """Which register it is a version of: there is one for each sender, message type and receivers."""
        return self.sender, type(self.message), self.given_to or self.to

    @property
    def place(self) -> "Place":
        """What it shares with whatever replaces it, or is added to it, while it waits."""
        return self.medium, self.register, self.to, self.incarnations


Place = tuple[Medium, Register, tuple[int, ...], tuple[int, ...]]


@dataclass
class Outbox:
    """The queue of one sender. Mail keeps its order. A register that is still waiting is replaced, and keeps
    its place; an accumulator that is still waiting is added to, unless mail to one of its receivers waits
    behind it: what was given away after that mail arrives after it.
    """

    queue: deque[Transmission] = field(default_factory=deque)
    waiting: dict[Place, Transmission] = field(default_factory=dict)
    busy: bool = False

    def put(self, item: Transmission) -> None:
        if (older := self.waiting.get(item.place)) is not None:
            newest_wins = item.medium is Publish
            older.message = item.message if newest_wins else added(older.message, item.message)
            return
        if item.medium is not Publish and self.waiting:
            for medium, register, to, lives in [*self.waiting]:
                if medium is Accumulate and not set(to).isdisjoint(item.to):
                    del self.waiting[medium, register, to, lives]
        if item.medium is not Send:
            self.waiting[item.place] = item
        self.queue.append(item)

    def take(self) -> Transmission | None:
        item = self.queue.popleft() if self.queue else None
        if item is not None and item.medium is not Send and self.waiting.get(item.place) is item:
            del self.waiting[item.place]
        return item


def vectors(message: Message) -> dict[str, Vector]:
    """The fields of a message that are vectors."""
    found = {}
    for name in message.__dataclass_fields__:
        value = getattr(message, name)
        if isinstance(value, Vector):
            found[name] = value
    return found


class LateBound:
    """What the reader of a register holds: a message whose vectors move on to every newer version."""

    def __init__(self) -> None:
        self._message: Message = None
        self._vectors: dict[str, Vector] = {}

    def moved_on(self, newer: Message) -> Message:
        """The message, of this version now; numbers beside the vectors are of this version too."""
        late = self._vectors
        for name, v in vectors(newer).items():
            if name not in late:
                late[name] = Vector()
                late[name].late = True
            late[name].move(v)
        if self._message is None or len(late) < len(newer.__dataclass_fields__):
            self._message = replace(newer, **late)
        return self._message


def added(older: Message, newer: Message) -> Message:
    """Two accumulated messages as one: vectors are summed; anything else, stamps too, is the newer one's."""
    before, sums = vectors(older), {}
    for name, v in vectors(newer).items():
        sums[name] = before[name] + v
        sums[name].stamp = v.stamp
    return replace(newer, **sums)
