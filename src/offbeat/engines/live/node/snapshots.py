"""All agents' models, as seen from outside at the times of evaluation: a file that outlives it.

A record is the time, the gradients applied by then, a CRC-32, and the models, part by part. All have one
size, so whatever ends the process, at most one is broken, at the end. The last record of a run that has ended
by itself has the time infinity: the models that it ended with.
"""

import math
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import torch

from offbeat.core.system.reading import content, reading
from offbeat.core.vector import Parts

HEAD, SUM = struct.Struct("<dq"), struct.Struct("<I")
BODY = HEAD.size + SUM.size


class ModelSnapshot(NamedTuple):
    """The time, the models [n, P] per part, the gradients applied by then."""

    time: float
    models: Parts
    steps: int


class ModelSnapshots:
    """The snapshots of one run, like these models; those that are there come first, unless it begins `anew`.

    Attributes:
        final: the models that the run ended with, if it has ended
        error: why snapshots can no longer be written, if so; the run goes on
    """

    def __init__(self, path: Path, models: Parts, anew: bool) -> None:
        self.path, self.error = path, ""
        self._like, self._handle = models, -1
        self._size = BODY + sum(part.nbytes for part in models)
        remedy = f"Remove {path.parent}, and --resume makes its run anew."
        with reading(path, "the models of a live run's agents over time", remedy):
            found = b"" if anew or not path.exists() else content(path)
            self._end = len(found) // self._size * self._size
            there = [self._read(found[at : at + self._size]) for at in range(0, self._end, self._size)]
        self.taken = [each for each in there if math.isfinite(each.time)]
        self.final = next((each.models for each in there[-1:] if not math.isfinite(each.time)), None)

    def add(self, time: float, models: Parts, steps: int) -> None:
        if math.isfinite(time):
            self.taken.append(ModelSnapshot(time, models, steps))
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
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _read(self, record: bytes) -> ModelSnapshot:
        time, steps = HEAD.unpack_from(record)
        checksum = zlib.crc32(record[BODY:], zlib.crc32(record[: HEAD.size]))
        if SUM.unpack_from(record, HEAD.size)[0] != checksum:
            raise ValueError("it is damaged: a checksum does not fit")
        at, parts = BODY, []
        for like in self._like:
            flat = torch.frombuffer(bytearray(record[at : at + like.nbytes]), dtype=like.dtype)
            parts.append(flat.reshape(like.shape))
            at += like.nbytes
        return ModelSnapshot(time, tuple(parts), steps)
