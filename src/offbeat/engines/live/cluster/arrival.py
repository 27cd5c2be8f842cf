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

from offbeat.core.codecs import codec_of, fits
from offbeat.core.errors import OffbeatError
from offbeat.engines.live.cluster.peer import Raw
from offbeat.engines.live.shm.board import CHANGES
from offbeat.engines.live.shm.layout import Layout, Tag, Words
from offbeat.engines.live.shm.letters import PREFIX, letter_size, opened
from offbeat.engines.live.shm.slots import read_text

LARGEST = 1 << 38  # bytes of a vector that anybody may announce
MOST = 1 << 62  # versions, as in a trace
KIND = re.compile(r"[\w.]+:[\w.<>]+")

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
        if not KIND.fullmatch(layout.kind):
            raise ValueError(f"{layout.kind!r:.80} is no name of a message type")
        if layout.offsets[-1] > LARGEST:
            raise ValueError(f"a vector of {layout.offsets[-1]:,} bytes")
        names = [name for name, _ in layout.numbers] + [name for name, _ in layout.vectors]
        if any(type_ not in ("int", "float") for _, type_ in layout.numbers) or len({*names}) < len(names):
            raise ValueError(f"the fields {layout.numbers} and {names}")
        fields = layout.numbers, [name for name, _ in layout.vectors]
        if (known := self.kinds.setdefault(layout.kind, fields)) != fields:
            raise ValueError(f"a {layout.kind} has the fields {fields}; expected {known}")
        sent = dict(layout.vectors)
        for name, said, shape in layout.packing:
            codec = codec_of(said)
            if codec is None or name not in sent or not fits(codec, shape, sent[name]):
                raise ValueError(f"its {name} cannot have been compressed by {said}")

    def version(self, layout: Layout, words: bytes, vectors: Raw) -> Bytes:
        """The vectors of a version of a register as an array."""
        raw = np.frombuffer(vectors, dtype=np.uint8)
        if len(words) != layout.words.size or len(raw) != layout.offsets[-1]:
            sizes = f"{layout.words.size} and {layout.offsets[-1]:,}"
            raise ValueError(f"{len(words)} and {len(raw):,} bytes came; expected {sizes}")
        self.words(layout, layout.words.unpack(words))
        self.places(layout, raw)
        return raw

    def words(self, layout: Layout, words: Words) -> None:
        tag = Tag.of(words)
        times = math.isfinite(tag.start) and math.isfinite(tag.end)
        if not (0 <= tag.membership <= CHANGES and times and -1 <= tag.letter < MOST):
            raise ValueError(f"its tag is {tag}")
        for agent, version in filter(None, layout.origins(words)):
            if not (agent < self.agents and 0 <= version < MOST):
                what = f"version {version} of the model of agent {agent}"
                raise ValueError(f"a vector is {what}; there are {self.agents} agents")

    def places(self, layout: Layout, vectors: Bytes) -> None:
        """Where the numbers of a vector belong of which not all were sent."""
        offsets = iter(layout.offsets)
        at = {name: [next(offsets) for _ in sent] for name, sent in layout.vectors}
        sent = dict(layout.vectors)
        for name, said, shape in layout.packing:
            first = zip(sent[name][::2], at[name][::2], shape, strict=True)
            for (dtype, count), start, (_, length) in first if _placed(said) else ():
                found = np.frombuffer(vectors, dtype, count, start)
                if count and not 0 <= found.min() <= found.max() < length:
                    raise ValueError(f"its {name} has numbers at places beyond {length:,}")

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
            self.places(layout, letter[start:])
            at += total
            found.append(letter)
        return found


def _placed(said: str) -> bool:
    codec = codec_of(said)
    return codec is not None and codec.places
