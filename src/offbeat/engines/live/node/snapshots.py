"""All agents' models, as they were seen from outside at the times of evaluation: a file that outlives the
launcher.

A record is the time, the gradients applied by then, a CRC-32, and the models, part by part. All have one
size, so whatever ends the process, the file holds whole records and at most one broken one, at its end. The
last one of a run
that has ended by itself has the time infinity: the models that it ended with.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from pathlib import Path

import torch

from offbeat.core.system.reading import content, reading
from offbeat.core.vector import Parts

HEAD, SUM = struct.Struct("<dq"), struct.Struct("<I")
BODY = HEAD.size + SUM.size

ModelSnapshot = tuple[float, Parts, int]
"""The time, the models [n, P] per part, the gradients applied by then."""


class ModelSnapshots:
    """The looks of one run.

    Attributes:
        path: the file
        models: all agents' models, of the shapes and dtypes that every look has
        anew: forget what is there; else what is there is in `taken`, and new looks come after it; DataError
            if it is damaged
        error: why looks can no longer be written, if so; the run goes on
    """

    def __init__(self, path: Path, models: Parts, anew: bool) -> None:
        self.path, self.error = path, ""
        self._like = models
        self._size = BODY + sum(part.nbytes for part in models)
        self._handle = -1
        with reading(
            path, "the looks at a live run", f"Remove {path.parent}, and --resume makes its run anew."
        ):
            found = b"" if anew or not path.exists() else content(path)
            whole = len(found) // self._size
            looks = [self._read(found[k * self._size : (k + 1) * self._size]) for k in range(whole)]
        self.taken = [look for look in looks if math.isfinite(look[0])]
        self.final = looks[-1][1] if looks and not math.isfinite(looks[-1][0]) else None
        """The models that the run ended with, if it has ended."""
        self._end = 0 if anew else whole * self._size

    def add(self, time: float, models: Parts, steps: int) -> None:
        """Remember a look, and write it."""
        if math.isfinite(time):
            self.taken.append((time, models, steps))
        else:
            self.final = models
        if self.error:
            return  # a gap would be worse than an early end
        head, body = HEAD.pack(time, steps), b"".join(part.contiguous().numpy().tobytes() for part in models)
        record = head + SUM.pack(zlib.crc32(body, zlib.crc32(head))) + body
        try:
            if self._handle < 0:
                self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
                os.ftruncate(self._handle, self._end)
            if os.pwrite(self._handle, record, self._end) < len(record):
                raise OSError("no room is left")
            self._end += len(record)
        except OSError as error:
            self.error = f"Cannot write {self.path}: {error.strerror or error}."

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _read(self, record: bytes) -> ModelSnapshot:
        time, steps = HEAD.unpack_from(record)
        if SUM.unpack_from(record, HEAD.size)[0] != zlib.crc32(
            record[BODY:], zlib.crc32(record[: HEAD.size])
        ):
            raise ValueError("it is damaged: a checksum does not fit")
        at, parts = BODY, []
        for like in self._like:
            flat = torch.frombuffer(bytearray(record[at : at + like.nbytes]), dtype=like.dtype)
            parts.append(flat.reshape(like.shape))
            at += like.nbytes
        return time, tuple(parts), steps
