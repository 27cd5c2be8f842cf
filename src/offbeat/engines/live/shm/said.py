"""A file of records that several processes append to, and what they say of batches: see `ledger`, `part`."""

import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

RECORD = struct.Struct("<iiqqq")  # what, agent, number, of; 32 bytes, so none lies across two pages
AT_ONCE = 1024  # records that are read at once

Said = IntEnum(
    "Said",
    [
        "OPEN", "END", "CLAIM", "BEGIN", "DONE", "FREE", "FLOOR", "OVER",
        "GRANT", "LEAVE", "LEND", "CONFIRM", "RETURN", "TAKE", "DROP", "SETTLED",
    ],
)  # fmt: skip


class Log:
    """A file of records that several processes append to."""

    def __init__(self, path: Path, me: int) -> None:
        self.path, self.me, self._heard = path, me, 0
        self._handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def say(self, what: Said, number: int = 0, of: int = 0) -> int:
        """Append a record; returns its place in the file."""
        os.write(self._handle, RECORD.pack(what, self.me, number, of, 0))
        return os.lseek(self._handle, 0, os.SEEK_CUR) // RECORD.size - 1

    def hear(self) -> Iterator[tuple[int, int, int, int, int]]:
        """What has been said since: place, what, by whom, number, of."""
        while said := os.pread(self._handle, AT_ONCE * RECORD.size, self._heard * RECORD.size):
            for what, agent, number, of, _ in RECORD.iter_unpack(said):
                self._heard += 1
                yield self._heard - 1, what, agent, number, of
            if len(said) < AT_ONCE * RECORD.size:
                return

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    __del__ = close
