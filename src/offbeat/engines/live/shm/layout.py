"""How a message lies in memory that other processes read: names, types and sizes, as numbers.

A message is a frozen dataclass of vectors and numbers. Its `Layout` says which fields are which and how long
they are; it travels as JSON. The body is words of 8 bytes, then the bytes of the vectors, each part aligned:

    words     the tag, one for each number (int64 or float64),
              agent and version of each vector's stamp (-1, -1: none)
    vectors   part by part, in the order of the fields; of one that is compressed, as it is sent

Messages and tensors are made of it in `wire`. Who only moves the bytes, as a gateway does, needs no torch.
"""

import json
import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from offbeat.core.codecs import Shape, codec_of
from offbeat.core.errors import OffbeatError, SettingError

ALIGN = 64
DTYPES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex128": 16, "complex64": 8,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1,
    "bool": 1,
}  # fmt: skip
"""What the numbers of a vector may be, as torch calls it, and how many bytes one of them takes."""

Words = tuple[Any, ...]  # the numbers before the vectors: tag, numbers, stamps


class SharedMemoryError(OffbeatError):
    """Shared memory cannot be had, or is not what it should be."""


def aligned(at: int) -> int:
    return -(-at // ALIGN) * ALIGN


class Tag(NamedTuple):
    """What travels with every message."""

    round: int = 0  # the sender's
    membership: int = 0  # how many changes of the membership the sender knew of
    start: float = -1.0  # of the transmission
    end: float = -1.0
    letter: int = -1  # of what was accumulated: the number of the last that is in it

    @staticmethod
    def of(words: Words) -> "Tag":
        return Tag(*words[: len(Tag._fields)])


@dataclass(frozen=True)
class Layout:
    """How a message lies in memory."""

    kind: str  # the message type, "module:qualified name"
    numbers: tuple[tuple[str, str], ...]  # field -> "int" or "float"
    vectors: tuple[tuple[str, Shape], ...]  # field -> its shape
    packing: tuple[tuple[str, str, Shape], ...] = ()  # field -> codec, and the shape of what arrives

    @cached_property
    def text(self) -> bytes:
        return json.dumps([self.kind, self.numbers, self.vectors, self.packing]).encode()

    @property
    def copied(self) -> bool:
        """Whether who reads a register copies it: numbers stand beside its vectors, or it is compressed."""
        return bool(self.numbers or self.packing)

    @cached_property
    def words(self) -> struct.Struct:
        numbers = "".join("d" if type_ == "float" else "q" for _, type_ in self.numbers)
        return struct.Struct("<qqddq" + numbers + "qq" * len(self.vectors))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each part begins, in bytes from the words' aligned end; and where the last one ends."""
        sizes = [DTYPES[dtype] * n for _, shape in self.vectors for dtype, n in shape]
        return tuple(accumulate(map(aligned, sizes), initial=0))

    def origins(self, words: Words) -> list[tuple[int, int] | None]:
        """Of each vector: whose model it is, and which version; None: it is no model."""
        first = len(Tag._fields) + len(self.numbers)
        pairs = [(words[k], words[k + 1]) for k in range(first, len(words), 2)]
        return [pair if pair[0] >= 0 else None for pair in pairs]


@lru_cache(maxsize=1000)
def read_layout(text: bytes) -> Layout:
    """The layout from its JSON. Raises SharedMemoryError if it is none."""
    try:
        kind, numbers, vectors, packing = json.loads(text)
        shapes = tuple((str(name), _shape(parts)) for name, parts in vectors)
        packed = tuple((str(name), str(codec_of(codec)), _shape(parts)) for name, codec, parts in packing)
        return Layout(str(kind), tuple((str(name), str(type_)) for name, type_ in numbers), shapes, packed)
    except (ValueError, TypeError, AttributeError, SettingError) as error:
        said = f"Not a message of offbeat: {error}. Do all agents run the same version?"
        raise SharedMemoryError(said) from None


def _shape(parts: Any) -> Shape:
    """From JSON. Raises ValueError or TypeError if it is none."""
    shape = tuple((str(dtype), int(length)) for dtype, length in parts)
    if odd := [dtype for dtype, _ in shape if dtype not in DTYPES]:
        raise ValueError(f"numbers of an unknown dtype, {odd[0]:.20}")
    if any(length < 0 for _, length in shape):
        raise ValueError("a vector of less than nothing")
    return shape
