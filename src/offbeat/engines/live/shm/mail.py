"""Mail in shared memory, as agents use it: messages are put into a queue, and taken out of it.

How it lies there is in `letters`.
"""

from collections.abc import Mapping

import numpy as np
import torch

from offbeat.core.agent import Message
from offbeat.core.compression import Packed
from offbeat.core.vector import Vector
from offbeat.engines.live.shm.layout import SharedMemoryError, Tag, aligned
from offbeat.engines.live.shm.letters import PREFIX, TAKEN, WANTED, WRITTEN, Letters, letter_size, opened
from offbeat.engines.live.shm.wire import layout_of, lying, message_of, parts_at, put_words, unpacked


class Mailbox(Letters):
    """A queue of messages."""

    def put(self, message: Message, tag: Tag, packed: Mapping[str, Packed] | None = None) -> bool:
        """Add a message, its vectors perhaps as they are `packed`, if there is room for it. Raises
        SharedMemoryError if there never will be.
        """
        layout = layout_of(message, packed)
        words_at = aligned(PREFIX.size + len(layout.text))
        vectors_at = words_at + aligned(layout.words.size)
        total, most = letter_size(layout), self.capacity
        if total > most:
            raise SharedMemoryError(f"A message of {total} bytes was sent; the mailbox holds {most}.")
        written = self._head[WRITTEN]
        if total > most - (written - self._head[TAKEN]):
            self._head[WANTED] = 1
            return False
        words = bytearray(layout.words.size)
        put_words(layout, words, 0, message, tag)
        head = PREFIX.pack(total, len(layout.text)) + layout.text
        self._copy_in(written, np.frombuffer(head, dtype=np.uint8))
        self._copy_in(written + words_at, np.frombuffer(words, dtype=np.uint8))
        parts = lying(message, layout, packed)
        for offset, part in zip(layout.offsets, parts, strict=False):  # the last one is the end
            self._copy_in(written + vectors_at + offset, part.contiguous().view(torch.uint8).numpy())
        self._head[WRITTEN] = written + total
        return True

    def take(self) -> tuple[Message, Tag] | None:
        """The next message, as a copy, and its tag; None if there is none."""
        taken = self._head[TAKEN]
        if self._head[WRITTEN] == taken:
            return None
        total, _ = PREFIX.unpack(self._copy_out(taken, PREFIX.size).tobytes())
        body = self._copy_out(taken, total)
        self._head[TAKEN] = taken + total
        layout, words, start = opened(body)
        vectors = [Vector(arrived) for arrived in unpacked(layout, parts_at(layout, body, start))]
        return message_of(layout, words, vectors), Tag.of(words)
