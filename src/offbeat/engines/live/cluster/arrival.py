"""What comes from another machine is checked here before it is where an agent looks.

It may be damaged, cut off, or made by somebody who means harm: names, types, sizes and numbers are compared
with what is known, and what does not fit is refused whole. What is within a vector is the agents' to judge,
as are the models of their neighbours (`--on-nan`); that of a compressed one is checked as far as it has to be
to be unpacked.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offbeat.core.compression import Packed, codec_of
from offbeat.core.errors import OffbeatError
from offbeat.core.vector import Parts
from offbeat.engines.live.cluster.peer import Raw
from offbeat.engines.live.shm.board import CHANGES
from offbeat.engines.live.shm.mail import PREFIX, letter_size, opened
from offbeat.engines.live.shm.register import read_text
from offbeat.engines.live.shm.wire import Layout, Tag, Words

LARGEST = 1 << 38  # bytes of a vector that anybody may announce
MOST = 1 << 62  # versions, as in a trace
KIND = re.compile(r"[\w.]+:[\w.<>]+")
DTYPES = {
    "float64", "float32", "float16", "bfloat16", "complex64", "complex128",
    "int64", "int32", "int16", "int8", "uint8", "bool",
}  # fmt: skip

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Refused(OffbeatError):
    """Another machine sent what it cannot have meant."""


@contextmanager
def arriving(what: str) -> Iterator[None]:
    """Whatever is raised within becomes Refused: `what` has arrived, and why it is not taken."""
    try:
        yield
    except Exception as error:
        said = str(error) or type(error).__name__
        do = "Nothing of it was used. Do all machines run the same version of offbeat and of the script?"
        raise Refused(f"{what} was refused: {said.rstrip('.')}. {do}") from error


@dataclass
class Arrivals:
    """Checks what comes to a run of so many agents.

    Attributes:
        kinds: message type -> names and types of its fields, as they first came
    """

    agents: int
    kinds: dict[str, Any] = field(default_factory=dict)

    def text(self, text: bytes) -> tuple[tuple[int, ...], Layout]:
        """Of a register: whom it is for, and its layout. Raises within `arriving`."""
        to, layout = read_text(bytes(text))
        if not all(0 <= i < self.agents for i in to):
            raise ValueError(f"it is for the agents {to}; there are {self.agents}")
        self.layout(layout)
        return to, layout

    def layout(self, layout: Layout) -> None:
        shapes = [shape for _, shape in layout.vectors] + [shape for *_, shape in layout.packing]
        if not KIND.fullmatch(layout.kind):
            raise ValueError(f"{layout.kind!r:.80} is no name of a message type")
        if odd := {dtype for shape in shapes for dtype, _ in shape} - DTYPES:
            raise ValueError(f"numbers of the type {', '.join(sorted(odd))} are no vector's")
        if layout.offsets[-1] > LARGEST:
            raise ValueError(f"a vector of {layout.offsets[-1]:,} bytes")
        names = [name for name, _ in layout.numbers] + [name for name, _ in layout.vectors]
        if any(type_ not in ("int", "float") for _, type_ in layout.numbers) or len({*names}) < len(names):
            raise ValueError(f"the fields {layout.numbers} and {names}")
        fields = layout.numbers, [name for name, _ in layout.vectors]
        if (known := self.kinds.setdefault(layout.kind, fields)) != fields:
            raise ValueError(f"a {layout.kind} has the fields {fields}; expected {known}")

    def version(self, layout: Layout, words: bytes, vectors: Raw) -> Bytes:
        """The vectors of a version of a register as an array."""
        raw = np.frombuffer(vectors, dtype=np.uint8)
        if len(words) != layout.words.size or len(raw) != layout.offsets[-1]:
            sizes = f"{layout.words.size} and {layout.offsets[-1]:,}"
            raise ValueError(f"{len(words)} and {len(raw):,} bytes came; expected {sizes}")
        self.words(layout, layout.words.unpack(words))
        if layout.packing:
            self.packed(layout, layout.parts(raw.copy(), 0))  # torch wants what it could write to
        return raw

    def words(self, layout: Layout, words: Words) -> None:
        tag = Tag.of(words)
        if not (0 <= tag.membership <= CHANGES and math.isfinite(tag.start) and math.isfinite(tag.end)):
            raise ValueError(f"its tag is {tag}")
        for stamp in filter(None, layout.stamps(words)):
            if not (stamp.agent < self.agents and 0 <= stamp.version < MOST):
                raise ValueError(f"a vector is of {stamp}; there are {self.agents} agents")

    def packed(self, layout: Layout, parts: list[Parts]) -> None:
        lying = {name: each for (name, _), each in zip(layout.vectors, parts, strict=True)}
        for name, said, shape in layout.packing:
            codec = codec_of(said)
            if codec is None or name not in lying or not Packed(codec, shape, lying[name]).fits():
                raise ValueError(f"its {name} cannot have been compressed by {said}")

    def letters(self, raw: Bytes) -> list[Bytes]:
        """The letters that lie there one after another, all of them checked."""
        found, at = [], 0
        while at < len(raw):
            if len(raw) - at < PREFIX.size:
                raise ValueError(f"{len(raw) - at} bytes are no letter")
            total, _ = PREFIX.unpack_from(raw.data, at)
            if not PREFIX.size <= total <= len(raw) - at:
                raise ValueError(f"a letter of {total:,} bytes; {len(raw) - at:,} came")
            letter = raw[at : at + total]
            layout, words, start = opened(letter)
            self.layout(layout)
            if (size := letter_size(layout)) != total:
                raise ValueError(f"a letter of {total:,} bytes; its layout says {size:,}")
            self.words(layout, words)
            if layout.packing:
                self.packed(layout, layout.parts(letter.copy(), start))
            at += total
            found.append(letter)
        return found
