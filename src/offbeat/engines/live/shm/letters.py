"""Mail as it lies in shared memory: a bounded queue from one sender to one receiver, in order, each once.

The queue is a ring of bytes. `written` counts those that the sender ever put, `taken` those that the receiver
ever took; each is changed by one side only, after the bytes themselves. A message that does not fit waits
with its sender (`put` says so), who is never blocked.

    message   length of all that follows, length of the layout, layout, (aligned) words, (aligned) vectors

To another machine letters cross as they lie here, into a queue of the same size there. What was ever put into
that one is what was ever taken from this one, in bytes; so both sides know how far they are, killed or not.
What agents do with it, with messages, is in `mail`.
"""

import struct
from pathlib import Path
from typing import Any, Self

import numpy as np

from offbeat.engines.live.shm import run_folder
from offbeat.engines.live.shm.layout import Layout, Words, aligned, read_layout

MAGIC = 0x6F66666D61696C32  # "offmail2"
HEAD = struct.Struct("<QQQQQ")  # magic, bytes of the ring, written, taken, whether the sender waits for room
WRITTEN, TAKEN, WANTED = 2, 3, 4
PREFIX = struct.Struct("<QQ")
START = aligned(HEAD.size)

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Letters:
    """The bytes of a queue; `create` it in the sender, `attach` to it in the receiver."""

    def __init__(self, mapped: Any) -> None:
        self._head = memoryview(mapped).cast("q")[: HEAD.size // 8]
        self._ring = np.frombuffer(mapped, dtype=np.uint8)[START:]
        self.capacity = len(self._ring)

    @classmethod
    def create(cls, path: Path, capacity: int) -> Self:
        """An empty queue for this many bytes. Raises SharedMemoryError where it does not fit."""
        capacity = aligned(capacity)
        return cls(run_folder.create(path, START + capacity, HEAD.pack(MAGIC, capacity, 0, 0, 0)))

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Map that of another process. Raises SharedMemoryError where there is none."""
        mapped = run_folder.attach(path, MAGIC, "a mailbox")
        if HEAD.unpack_from(mapped)[1] != len(mapped) - START:
            raise run_folder.not_ours(path, "a mailbox")
        return cls(mapped)

    @property
    def written(self) -> int:
        return int(self._head[WRITTEN])

    @property
    def taken(self) -> int:
        return int(self._head[TAKEN])

    def waiting(self, most: int) -> Bytes:
        """A copy of whole letters, from the first one that was not taken: as many as take `most` bytes, but
        at least one if there is one.
        """
        first, end = self.taken, self.written
        at = first
        while at < end:
            total, _ = PREFIX.unpack(self._copy_out(at, PREFIX.size).tobytes())
            if at > first and at + total - first > most:
                break
            at += total
        return self._copy_out(first, at - first)

    def take_until(self, taken: int) -> None:
        """These are somewhere else now."""
        self._head[TAKEN] = taken

    def put_raw(self, letter: Bytes) -> bool:
        """Add a letter as it lay in another queue, if there is room for it."""
        written = self.written
        if len(letter) > self.capacity - (written - self.taken):
            self._head[WANTED] = 1
            return False
        self._copy_in(written, letter)
        self._head[WRITTEN] = written + len(letter)
        return True

    def wanted(self) -> bool:
        """Whether the sender has been waiting for room; asked after something was taken."""
        waits, self._head[WANTED] = bool(self._head[WANTED]), 0
        return waits

    def _copy_in(self, at: int, data: Bytes) -> None:
        at %= self.capacity
        first = min(len(data), self.capacity - at)
        self._ring[at : at + first] = data[:first]
        self._ring[: len(data) - first] = data[first:]

    def _copy_out(self, at: int, count: int) -> Bytes:
        at %= self.capacity
        first = min(count, self.capacity - at)
        out = np.empty(count, dtype=np.uint8)
        out[:first] = self._ring[at : at + first]
        out[first:] = self._ring[: count - first]
        return out


def letter_size(layout: Layout) -> int:
    return aligned(PREFIX.size + len(layout.text)) + aligned(layout.words.size) + layout.offsets[-1]


def opened(letter: Bytes) -> tuple[Layout, Words, int]:
    """What is in a letter: its layout, its words, and where its vectors begin. Raises SharedMemoryError, or
    what `struct` raises, where it is none.
    """
    _, length = PREFIX.unpack_from(letter.data)
    layout = read_layout(letter[PREFIX.size : PREFIX.size + length].tobytes())
    words_at = aligned(PREFIX.size + length)
    return layout, layout.words.unpack_from(letter.data, words_at), words_at + aligned(layout.words.size)
