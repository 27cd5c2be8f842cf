"""Messages as bytes: what lies where a `Layout` says.

No code is loaded from what another process wrote: a message type is looked up among those that are there.
"""

import struct
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from offbeat.core.agent import Message
from offbeat.core.codecs import Shape, codec_of
from offbeat.core.compression import Packed, shape_of
from offbeat.core.vector import Parts, Stamp, Vector
from offbeat.engines.live.shm.layout import DTYPES, Layout, SharedMemoryError, Tag, Words


def layout_of(message: Message, packed: Mapping[str, Packed] | None = None) -> Layout:
    """That of this message, whose vectors have values, or are `packed`. Raises SharedMemoryError for other
    fields.
    """
    type_, packed = type(message), packed or {}
    numbers: list[tuple[str, str]] = []
    vectors: list[tuple[str, Shape]] = []
    for name in message.__dataclass_fields__:
        value = getattr(message, name)
        if isinstance(value, Vector):
            shape = shape_of(packed.get(name, value).parts)
            if odd := [dtype for dtype, _ in shape if dtype not in DTYPES]:
                got = f"{type_.__name__}.{name} is of {odd[0]}"
                raise SharedMemoryError(f"{got}; expected numbers of one of {', '.join(DTYPES)}.")
            vectors.append((name, shape))
        elif isinstance(value, int | float):
            numbers.append((name, "float" if isinstance(value, float) else "int"))
        else:
            got = f"{type_.__name__}.{name} is a {type(value).__name__}"
            raise SharedMemoryError(f"{got}; expected a vector or a number.")
    packing = [(name, str(each.codec), each.shape) for name, each in packed.items()]
    return Layout(f"{type_.__module__}:{type_.__qualname__}", tuple(numbers), tuple(vectors), tuple(packing))


def parts_at(layout: Layout, memory: Any, start: int) -> list[Parts]:
    """The vectors that begin at `start` in this memory, in place, one for each field."""
    offsets = iter(layout.offsets)

    def part(name: str, length: int) -> torch.Tensor:
        dtype, at = getattr(torch, name), start + next(offsets)
        if not length:  # which `frombuffer` refuses
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(memory, dtype=dtype, count=length, offset=at)

    return [tuple(part(*each) for each in shape) for _, shape in layout.vectors]


def unpacked(layout: Layout, parts: Sequence[Parts]) -> list[Parts]:
    """Of the vectors as they lie in memory, what arrives."""
    packing = {name: (codec_of(codec), shape) for name, codec, shape in layout.packing}

    def arrived(name: str, lying: Parts) -> Parts:
        codec, shape = packing.get(name, (None, ()))
        return lying if codec is None else Packed(codec, shape, lying).unpacked()

    return [arrived(name, lying) for (name, _), lying in zip(layout.vectors, parts, strict=True)]


def put_words(layout: Layout, memory: Any, at: int, message: Message, tag: Tag) -> None:
    """Write tag, numbers and stamps. Raises SharedMemoryError for a number of an unexpected type."""
    numbers = [getattr(message, name) for name, _ in layout.numbers]
    given = [getattr(message, name).stamp or (-1, -1) for name, _ in layout.vectors]
    try:
        layout.words.pack_into(memory, at, *tag, *numbers, *(word for stamp in given for word in stamp))
    except struct.error:
        expected = f"expected numbers of the types {dict(layout.numbers)}"
        raise SharedMemoryError(f"{message} was sent; {expected}.") from None


def stamps(layout: Layout, words: Words) -> list[Stamp | None]:
    """Of its vectors."""
    return [None if pair is None else Stamp(*pair) for pair in layout.origins(words)]


def message_of(layout: Layout, words: Words, vectors: Sequence[Vector]) -> Message:
    """The message with these vectors, which get their stamps."""
    fields = dict(zip((name for name, _ in layout.numbers), words[len(Tag._fields) :], strict=False))
    for (name, _), v, stamp in zip(layout.vectors, vectors, stamps(layout, words), strict=True):
        v.stamp = stamp
        fields[name] = v
    return _message_type(layout.kind)(**fields)


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
