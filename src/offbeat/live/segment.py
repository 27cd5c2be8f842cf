"""Registers in shared memory: one writer, any number of readers, who read in place and never wait.

A segment is a file in a folder that only this user may enter, mapped into every process. It holds

    head     magic, slots, bytes of a slot, and `newest`, the number of the newest finished version
    slots    each: a sequence counter, the version, the numbers of the message, and the bytes of its vectors

Version v (1, 2, ...) is written into slot v mod SLOTS. The writer makes the slot's counter odd (2 v - 1), writes,
makes it even (2 v), and only then moves `newest` on. A reader looks up `newest`, uses the slot in place, and
afterwards checks that its counter is still 2 v: if it is not, the writer has lapped it, and the reader starts
again with a newer version. A writer that dies half-way leaves only its own slot odd; `newest` still names a whole
version.

This needs stores to become visible in the order in which they were made: x86-64 guarantees it. Elsewhere `create` and
`attach` refuse, because plain Python has no memory fence.
"""

from __future__ import annotations

import mmap
import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from offbeat.errors import OffbeatError
from offbeat.vector import Parts

MAGIC = 0x6F66666265617431  # "offbeat1"
SLOTS = 3
ALIGN = 64
HEAD = struct.Struct("<QQQQ")  # magic, slots, bytes of a slot, newest
NUMBERS = 8
"""Numbers that a message may carry beside its vectors."""


class FabricError(OffbeatError):
    """Shared memory cannot be had, or is not what it should be."""


@dataclass(frozen=True)
class Shape:
    """What one version holds: dtype and length of each part, in this order."""

    parts: tuple[tuple[torch.dtype, int], ...]

    @staticmethod
    def of(parts: Parts) -> Shape:
        """The shape of these tensors."""
        return Shape(tuple((part.dtype, part.numel()) for part in parts))

    @property
    def offsets(self) -> list[int]:
        """Where each part begins within a slot, and where the slot ends; all aligned."""
        at, offsets = _aligned(8 * (2 + NUMBERS)), []
        for dtype, length in self.parts:
            offsets.append(at)
            at = _aligned(at + dtype.itemsize * length)
        return [*offsets, at]


def _aligned(at: int) -> int:
    return -(-at // ALIGN) * ALIGN


class Segment:
    """One register in shared memory; `create` it in the writer, `attach` to it in the readers."""

    def __init__(self, path: Path, memory: mmap.mmap, shape: Shape) -> None:
        self.path, self.memory, self.shape = path, memory, shape
        offsets = shape.offsets
        size, first = offsets[-1], _aligned(HEAD.size)
        words = np.frombuffer(memory, dtype=np.uint64)
        self._head = words[: HEAD.size // 8]
        self._words = [words[(first + k * size) // 8 :][: 2 + NUMBERS] for k in range(SLOTS)]
        self._numbers = [slot[2:].view(np.float64) for slot in self._words]
        self._parts: list[Parts] = [
            tuple(
                torch.frombuffer(memory, dtype=dtype, count=length, offset=first + k * size + at)
                if length
                else torch.empty(0, dtype=dtype)
                for (dtype, length), at in zip(shape.parts, offsets[:-1], strict=True)
            )
            for k in range(SLOTS)
        ]

    @staticmethod
    def create(path: Path, shape: Shape) -> Segment:
        """A new segment, of version 0: nothing published yet. Raises FabricError where it does not fit."""
        _require_ordered_stores()
        size = _aligned(HEAD.size) + SLOTS * shape.offsets[-1]
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except OSError as error:
            raise FabricError(f"Cannot create shared memory {path}: {error.strerror}.") from error
        try:
            os.posix_fallocate(handle, 0, size)
            memory = mmap.mmap(handle, size)
        except OSError as error:
            path.unlink()
            room = os.statvfs(path.parent)
            raise FabricError(
                f"Shared memory is too small: {size / 1e6:.0f} MB were asked for, {path.parent} has "
                f"{room.f_bavail * room.f_frsize / 1e6:.0f} MB left ({error.strerror}). In a container, give it more: "
                "docker run --shm-size=2g."
            ) from error
        finally:
            os.close(handle)
        HEAD.pack_into(memory, 0, MAGIC, SLOTS, shape.offsets[-1], 0)
        return Segment(path, memory, shape)

    @staticmethod
    def attach(path: Path, shape: Shape) -> Segment:
        """Map somebody else's segment. Raises FabricError if it is not one, or of another shape."""
        _require_ordered_stores()
        try:
            with path.open("r+b") as file:
                memory = mmap.mmap(file.fileno(), 0)
        except (OSError, ValueError) as error:
            raise FabricError(f"Cannot attach to shared memory {path}: {error}.") from error
        magic, slots, slot_bytes, _ = HEAD.unpack_from(memory, 0) if len(memory) >= HEAD.size else (0, 0, 0, 0)
        if (magic, slots, slot_bytes) != (MAGIC, SLOTS, shape.offsets[-1]):
            raise FabricError(
                f"{path} holds versions of {slot_bytes} bytes in {slots} slots; expected {shape.offsets[-1]} bytes in "
                f"{SLOTS}. Do all agents run the same model and the same version of offbeat?"
            )
        return Segment(path, memory, shape)

    @property
    def newest(self) -> int:
        """The newest finished version; 0 before the first."""
        return int(self._head[3])

    def publish(self, parts: Sequence[Tensor], numbers: Sequence[float] = ()) -> int:
        """Write the next version: one copy. Returns its number. Only the writer may call this."""
        version = self.newest + 1
        slot = version % SLOTS
        words = self._words[slot]
        words[0] = 2 * version - 1
        words[1] = version
        self._numbers[slot][: len(numbers)] = numbers
        for to, part in zip(self._parts[slot], parts, strict=True):
            to.copy_(part)
        words[0] = 2 * version
        self._head[3] = version
        return version

    def read(self, version: int) -> tuple[Parts, list[float]]:
        """The vectors of a version in place, and its numbers; whole only if `whole(version)` afterwards."""
        slot = version % SLOTS
        return self._parts[slot], self._numbers[slot].tolist()

    def whole(self, version: int) -> bool:
        """Whether what `read(version)` gave has not been overwritten since."""
        return int(self._words[version % SLOTS][0]) == 2 * version

    def copy(self) -> tuple[int, Parts, list[float]]:
        """The newest version as a copy, whole; version 0 if there is none."""
        while True:
            version = self.newest
            if version == 0:
                return 0, (), []
            parts, numbers = self.read(version)
            copied = tuple(part.clone() for part in parts)
            if self.whole(version):
                return version, copied, numbers

    def unlink(self) -> None:
        """Remove the name; whoever has it mapped keeps it."""
        self.path.unlink(missing_ok=True)


def _require_ordered_stores() -> None:
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64"):
        raise FabricError(
            "Registers in shared memory need a processor that keeps the order of stores, as x86-64 does; this is "
            f"{machine}. The simulator (offbeat compare) runs anywhere."
        )
