"""Registers in shared memory, as agents use them: vectors are evaluated into a slot, and read in place.

How they lie there, and why nobody waits, is in `slots`.
"""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from offbeat.core.agent import Message
from offbeat.core.compression import Packed
from offbeat.core.forms import pin
from offbeat.core.vector import Leased, Vector
from offbeat.engines.live.shm.layout import Tag, Words
from offbeat.engines.live.shm.slots import NEWEST, SLOTS, Slots
from offbeat.engines.live.shm.wire import lying, parts_at, put_words, stamps, unpacked


class Register(Slots):
    """One register, with its vectors."""

    def __init__(self, mapped: Any, text: bytes) -> None:
        super().__init__(mapped, text)
        self._parts = [[Leased(parts) for parts in parts_at(self.layout, mapped, at)] for at in self._bodies]
        self._tenants: list[list[weakref.ref[Vector]]] = [[] for _ in range(SLOTS)]

    def begin(self, vectors: Sequence[Vector]) -> list[Vector]:
        """Begin the next version: these vectors are to be evaluated into its slot. For the writer only.

        Whatever vector still lies in that slot moves out of it first. What has a value already, or is on its
        way elsewhere, is copied: the vectors that will lie in the slot are returned.
        """
        version = self.newest + 1
        slot = version % SLOTS
        for ref in self._tenants[slot]:
            if (old := ref()) is not None:
                old.move_out(self._parts[slot])
        self._cells[self._counter[slot]] = 2 * version - 1
        placed = []
        for v, parts in zip(vectors, self._parts[slot], strict=True):
            if not v.into(parts):
                v = pin(v)
                v.into(parts)
            placed.append(v)
        self._tenants[slot] = [weakref.ref(v) for v in placed]
        return placed

    def write(self, message: Message, tag: Tag, packed: Mapping[str, Packed]) -> int:
        """The next version at once, as it is packed. Returns its number. For the writer only."""
        version = self.newest + 1
        slot = version % SLOTS
        self._cells[self._counter[slot]] = 2 * version - 1
        places = [place for parts in self._parts[slot] for place in parts]
        for place, part in zip(places, lying(message, self.layout, packed), strict=True):
            place.copy_(part)
        return self.finish(message, tag)

    def finish(self, message: Message, tag: Tag) -> int:
        """The vectors have been evaluated: make the version visible. Returns its number."""
        version = self.newest + 1
        slot = version % SLOTS
        put_words(self.layout, self._memory, self._words[slot], message, tag)
        self._cells[self._counter[slot]] = 2 * version
        self._cells[NEWEST] = version
        return version

    def read(self, version: int) -> tuple[list[Leased], Words]:
        """The vectors of a version in place, and its words; whole only if `whole(version)` afterwards."""
        slot = version % SLOTS
        return self._parts[slot], self.layout.words.unpack_from(self._memory, self._words[slot])

    def copy(self) -> tuple[int, list[Vector], Words]:
        """The newest version as a copy, whole, its vectors stamped; version 0 if there is none."""
        while True:
            version = self.newest
            if version == 0:
                return 0, [], ()
            parts, words = self.read(version)
            copied = [tuple(part.clone() for part in each) for each in parts]
            if self.whole(version):
                pairs = zip(unpacked(self.layout, copied), stamps(self.layout, words), strict=True)
                return version, [Vector(*pair) for pair in pairs], words
