"""Messages as bytes: how a message type lies in memory that other processes read.

A message is a frozen dataclass of vectors and numbers. Its `Layout` says which fields are which and how long
they are; it travels as JSON. The body is words of 8 bytes, then the bytes of the vectors, each part aligned:

    words     the tag, one for each number (int64 or float64),
              agent and version of each vector's stamp (-1, -1: none)
    vectors   part by part, in the order of the fields; of one that is compressed, as it is sent

No code is loaded from what another process wrote: a message type is looked up among those that are there.
"""

import json
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from offbeat.core.agent import Message
from offbeat.core.compression import Packed, Shape, codec_of, shape_of
from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.vector import Parts, Stamp, Vector

ALIGN = 64

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

    @staticmethod
    def of(message: Message, packed: Mapping[str, Packed] | None = None) -> "Layout":
        """Of this message, whose vectors have values, or are `packed`. Raises SharedMemoryError for other
        fields.
        """
        type_, packed = type(message), packed or {}
        numbers: list[tuple[str, str]] = []
        vectors: list[tuple[str, Shape]] = []
        for name in message.__dataclass_fields__:
            value = getattr(message, name)
            if isinstance(value, Vector):
                vectors.append((name, shape_of(packed.get(name, value).parts)))
            elif isinstance(value, int | float):
                numbers.append((name, "float" if isinstance(value, float) else "int"))
            else:
                got = f"{type_.__name__}.{name} is a {type(value).__name__}"
                raise SharedMemoryError(f"{got}; expected a vector or a number.")
        packing = [(name, str(each.codec), each.shape) for name, each in packed.items()]
        return Layout(
            f"{type_.__module__}:{type_.__qualname__}", tuple(numbers), tuple(vectors), tuple(packing)
        )

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
        return struct.Struct("<qqdd" + numbers + "qq" * len(self.vectors))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each part begins, in bytes from the words' aligned end; and where the last one ends."""
        sizes = [getattr(torch, dtype).itemsize * n for _, shape in self.vectors for dtype, n in shape]
        return tuple(accumulate(map(aligned, sizes), initial=0))

    def parts(self, memory: Any, start: int) -> list[Parts]:
        """The vectors that begin at `start` in this memory, in place, one for each field."""
        offsets = iter(self.offsets)

        def part(name: str, length: int) -> torch.Tensor:
            dtype, at = getattr(torch, name), start + next(offsets)
            if not length:  # which `frombuffer` refuses
                return torch.empty(0, dtype=dtype)
            return torch.frombuffer(memory, dtype=dtype, count=length, offset=at)

        return [tuple(part(*each) for each in shape) for _, shape in self.vectors]

    def unpacked(self, parts: Sequence[Parts]) -> list[Parts]:
        """Of the vectors as they lie in memory, what arrives."""
        packing = {name: (codec_of(codec), shape) for name, codec, shape in self.packing}

        def arrived(name: str, lying: Parts) -> Parts:
            codec, shape = packing.get(name, (None, ()))
            return lying if codec is None else Packed(codec, shape, lying).unpacked()

        return [arrived(name, lying) for (name, _), lying in zip(self.vectors, parts, strict=True)]

    def put_words(self, memory: Any, at: int, message: Message, tag: Tag) -> None:
        """Write tag, numbers and stamps. Raises SharedMemoryError for a number of an unexpected type."""
        numbers = [getattr(message, name) for name, _ in self.numbers]
        stamps = [getattr(message, name).stamp or (-1, -1) for name, _ in self.vectors]
        try:
            self.words.pack_into(memory, at, *tag, *numbers, *(word for stamp in stamps for word in stamp))
        except struct.error:
            expected = f"expected numbers of the types {dict(self.numbers)}"
            raise SharedMemoryError(f"{message} was sent; {expected}.") from None

    def stamps(self, words: Words) -> list[Stamp | None]:
        first = len(Tag._fields) + len(self.numbers)
        return [Stamp(*words[k : k + 2]) if words[k] >= 0 else None for k in range(first, len(words), 2)]

    def message(self, words: Words, vectors: Sequence[Vector]) -> Message:
        """With these vectors, which get their stamps."""
        fields = dict(zip((name for name, _ in self.numbers), words[len(Tag._fields) :], strict=False))
        for (name, _), v, stamp in zip(self.vectors, vectors, self.stamps(words), strict=True):
            v.stamp = stamp
            fields[name] = v
        return _message_type(self.kind)(**fields)


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
    if any(not isinstance(getattr(torch, dtype, None), torch.dtype) for dtype, _ in shape):
        raise ValueError("an unknown dtype")
    if any(length < 0 for _, length in shape):
        raise ValueError("a vector of less than nothing")
    return shape


def lying(message: Message, layout: Layout, packed: Mapping[str, Packed] | None) -> list[torch.Tensor]:
    """The tensors that are to lie in memory, in their order."""
    there = packed or {}
    return [part for name, _ in layout.vectors for part in there.get(name, getattr(message, name)).parts]


@lru_cache(maxsize=1000)
def _message_type(kind: str) -> type:
    """The loaded class of this name. Raises SharedMemoryError if it is no frozen dataclass."""
    module, _, name = kind.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    parameters = getattr(found, "__dataclass_params__", None)
    if not isinstance(found, type) or parameters is None or not parameters.frozen:
        raise SharedMemoryError(
            f"A neighbour sent a message of type {kind}, which is no frozen dataclass here. Do all agents "
            "run the same script and the same algorithm?"
        )
    return found
