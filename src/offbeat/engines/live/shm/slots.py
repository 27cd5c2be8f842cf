"""Registers as they lie in shared memory: three slots, one writer, any number of readers who never wait.

A register holds the newest versions of one message type in three slots. Version v (1, 2, ...) is written into
slot v mod 3. The writer makes the slot's counter odd (2 v - 1), writes, makes it even (2 v), and only then
moves `newest` on. A reader looks up `newest`, uses the slot in place, and afterwards checks that its counter
is still 2 v: if it is not, the writer has lapped it, and the reader starts again with a newer version. A
writer that dies half-way leaves only its own slot odd; `newest` still names a whole version.

A version crosses to another machine as it lies here (`raw`), and is put there into a register of the same
text, which counts its versions itself: those that it misses would else be written over what is being read.
What agents do with it, with tensors, is in `register`.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from offbeat.core.system.reading import reading
from offbeat.engines.live.shm import run_folder
from offbeat.engines.live.shm.layout import Layout, aligned, read_layout

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

MAGIC = 0x6F66666265617432  # "offbeat2"
SLOTS = 3
HEAD = struct.Struct("<QQQ")  # magic, bytes of the text, newest
NEWEST = 2


class Slots:
    """The bytes of one register; `create` it in the writer, `attach` to it in the readers. `to`: whom it is
    for.
    """

    def __init__(self, mapped: Any, text: bytes) -> None:
        self.text, (self.to, self.layout) = text, read_text(text)
        first, (body, size) = aligned(HEAD.size + len(text)), _slot(self.layout)
        starts = [first + k * (body + size) for k in range(SLOTS)]
        self._memory, self._cells = mapped, memoryview(mapped).cast("q")
        self._counter = [at // 8 for at in starts]
        self._words = [at + 8 for at in starts]
        self._bodies, self.nbytes = [at + body for at in starts], size

    @classmethod
    def create(cls, path: Path, layout: Layout, to: Sequence[int] = (), empty: bool = False) -> Self:
        """A new register, nothing published yet. Raises SharedMemoryError where it does not fit.

        Args:
            empty: whether it takes no memory before `reserve`
        """
        text = json.dumps([*to]).encode() + b"\n" + layout.text
        size = aligned(HEAD.size + len(text)) + SLOTS * sum(_slot(layout))
        head = HEAD.pack(MAGIC, len(text), 0) + text
        return cls(run_folder.create(path, size, head, size if not empty else len(head)), text)

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Map that of another process. Raises SharedMemoryError where there is none."""
        mapped = run_folder.attach(path, MAGIC, "a register")
        with reading(path, "a register of a run"):
            _, length, _ = HEAD.unpack_from(mapped)
            return cls(mapped, bytes(mapped[HEAD.size : HEAD.size + length]))

    @property
    def newest(self) -> int:
        """The newest finished version; 0 before the first."""
        return self._cells[NEWEST]

    def whole(self, version: int) -> bool:
        """Whether what `read(version)` gave has not been overwritten since."""
        return self._cells[self._counter[version % SLOTS]] == 2 * version

    def raw(self) -> tuple[int, bytes, Bytes] | None:
        """A copy of the newest version, whole: its number, words, vectors as they lie; None without."""
        while version := self.newest:
            words, vectors = self.words(version), self._vectors(version).copy()
            if self.whole(version):
                return version, words, vectors
        return None

    def words(self, version: int) -> bytes:
        """Those of a version, as they lie."""
        at = self._words[version % SLOTS]
        return bytes(self._memory[at : at + self.layout.words.size])

    def put(self, words: bytes, vectors: Bytes) -> None:
        """The next version, as `raw` gave it; sizes have been checked. For the only writer."""
        version = self.newest + 1
        slot = version % SLOTS
        self._cells[self._counter[slot]] = 2 * version - 1
        np.copyto(self._vectors(version), vectors)
        self._memory[self._words[slot] : self._words[slot] + len(words)] = words
        self._cells[self._counter[slot]] = 2 * version
        self._cells[NEWEST] = version

    def reserve(self, path: Path) -> None:
        """Take the memory that one made `empty` has not. Raises SharedMemoryError where it does not fit."""
        run_folder.reserve(path, len(self._memory))

    def _vectors(self, version: int) -> Bytes:
        return np.frombuffer(self._memory, np.uint8, self.nbytes, self._bodies[version % SLOTS])


def read_text(text: bytes) -> tuple[tuple[int, ...], Layout]:
    """Whom a register is for, and its layout. Raises SharedMemoryError, ValueError or TypeError."""
    to, _, layout = text.partition(b"\n")
    return tuple(int(i) for i in json.loads(to)), read_layout(layout)


def _slot(layout: Layout) -> tuple[int, int]:
    """Bytes of the counter and the words, and of the vectors."""
    return aligned(8 + layout.words.size), layout.offsets[-1]
