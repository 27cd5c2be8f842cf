"""Compression: what a vector becomes on its way, and what arrives of it.

    bf16         every number as the nearest bfloat16: 2 bytes a number
    int8         part by part q = round(v / s), s a little above max |v| / 127: 1 byte a number, and s
    top-k:0.01   the hundredth of a part's numbers that are largest: 4 bytes of place and the number for each

A receiver gets numbers of the vector's own types again. All round to nearest, ties to even, and of numbers of
one size the first are taken: there is no randomness, so the same bits arrive in every engine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from offbeat.core.errors import SettingError
from offbeat.core.vector import Parts, Vector
from offbeat.core.words import Parameter, headed, read, spelt

NONE = "none"
SHARE = {
    "share": Parameter(
        about="the share of its numbers that is sent", asked=True, low=0, high=1, above=True, example=0.01
    )
}
EXPECTED = "expected none, bf16, int8, or top-k with a share above 0, at most 1, as in 'top-k:0.01'"

LEVELS = 127
DIGITS = 16  # binary ones of a scale: so few that LEVELS times it is a float32


class Codec(Protocol):
    """A way to compress. sums: whether it is only for what is accumulated, since it leaves most of it out."""

    sums: bool

    def pack(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """A flat tensor as it is sent: two, of which one may be empty."""

    def unpack(self, first: Tensor, second: Tensor, length: int) -> Tensor:
        """What arrives of a tensor of this length; its numbers may be of another type yet."""

    def fits(self, first: Tensor, second: Tensor, length: int) -> bool:
        """Whether these can be what was sent of a tensor of this length."""


@dataclass(frozen=True)
class BF16:
    """8 of a number's binary digits are sent: |error| <= 2^-8 |v|, for 1.2e-38 <= |v| <= 3.3e38."""

    sums = False

    def __str__(self) -> str:
        return "bf16"

    def pack(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """In bfloat16; what is beyond its largest number becomes infinite."""
        return part.to(torch.bfloat16), part.new_empty(0)

    def unpack(self, first: Tensor, second: Tensor, length: int) -> Tensor:
        return first

    def fits(self, first: Tensor, second: Tensor, length: int) -> bool:
        return len(first) == length and first.dtype == torch.bfloat16 and not len(second)


@dataclass(frozen=True)
class Int8:
    """q = round(v / s) is sent, and s: |error| <= s / 2, where s <= (1 + 2^-15) max |v| / 127.

    s has 16 binary digits at most, so q s is exact: what has been compressed once is not changed by it again.
    A part that is not finite arrives as NaN.
    """

    sums = False

    def __str__(self) -> str:
        return "int8"

    def pack(self, part: Tensor) -> tuple[Tensor, Tensor]:
        wide = _wide(part)
        scale = _scale(float(wide.abs().max()) if len(wide) else 0.0, wide.dtype)
        if scale > 0:
            levels = (wide / scale).round_().clamp_(-LEVELS, LEVELS).to(torch.int8)
        else:  # nothing but zeros, or numbers that are not finite
            levels = torch.zeros_like(part, dtype=torch.int8)
        return levels, wide.new_full((min(1, len(part)),), scale)

    def unpack(self, first: Tensor, second: Tensor, length: int) -> Tensor:
        return first.to(second.dtype) * second

    def fits(self, first: Tensor, second: Tensor, length: int) -> bool:
        one_scale = len(second) == min(1, length) and second.is_floating_point()
        return len(first) == length and first.dtype == torch.int8 and one_scale


@dataclass(frozen=True)
class TopK:
    """The ceil(share m) of m numbers that are largest in size are sent, with their places; the others arrive
    as 0. Where that would be no shorter, all are sent.
    """

    share: float
    sums = True

    def __str__(self) -> str:
        return spelt("top-k", {"share": self.share}, SHARE, "share")

    def pack(self, part: Tensor) -> tuple[Tensor, Tensor]:
        length = len(part)
        count = max(1, math.ceil(self.share * length - 1e-9))
        place = torch.int32 if length < 1 << 31 else torch.int64
        if count * (place.itemsize + part.itemsize) >= length * part.itemsize:
            return part.new_empty(0, dtype=place), part
        size = part.abs().nan_to_num(nan=math.inf)  # what is not finite is to be seen
        least = size.topk(count, sorted=False).values.min()
        larger, alike = (size > least).nonzero()[:, 0], (size == least).nonzero()[:, 0]
        chosen = torch.cat([larger, alike[: count - len(larger)]]).sort().values
        return chosen.to(place), part[chosen]

    def unpack(self, first: Tensor, second: Tensor, length: int) -> Tensor:
        if len(second) == length:
            return second
        return second.new_zeros(length).index_put_((first.long(),), second)

    def fits(self, first: Tensor, second: Tensor, length: int) -> bool:
        if len(second) == length and not len(first):
            return True
        if len(first) != len(second) or first.is_floating_point() or not len(first):
            return False
        return int(first.min()) >= 0 and int(first.max()) < length


CODECS: dict[str, Codec] = {"bf16": BF16(), "int8": Int8()}


def codec_of(said: str) -> Codec | None:
    """The codec of this name; None for 'none'. Raises SettingError for what is no name of one."""
    name, words = headed(said)
    if name == "top-k":
        return TopK(**read("compression", name, words, SHARE, "share"))
    if words or name not in (NONE, *CODECS):
        raise SettingError(f"Cannot compress by '{said}'; {EXPECTED}.")
    return CODECS.get(name)


Shape = tuple[tuple[str, int], ...]  # of a vector: dtype and length of each part


def shape_of(parts: Parts) -> Shape:
    return tuple([(str(part.dtype).removeprefix("torch."), part.numel()) for part in parts])


@dataclass(frozen=True, eq=False)
class Packed:
    """A vector as it is sent: two tensors for each part of it; `shape` is that of the vector."""

    codec: Codec
    shape: Shape
    parts: Parts

    @staticmethod
    def of(v: Vector, codec: Codec) -> "Packed":
        return Packed(codec, shape_of(v.parts), tuple([t for part in v.parts for t in codec.pack(part)]))

    @property
    def nbytes(self) -> int:
        return sum([part.nbytes for part in self.parts])

    def fits(self) -> bool:
        """Whether it can be unpacked: it may have come from anywhere."""
        first, second = self.parts[::2], self.parts[1::2]
        if not len(first) == len(second) == len(self.shape):
            return False
        sent = zip(self.shape, first, second, strict=True)
        return all(self.codec.fits(a, b, length) for (_, length), a, b in sent)

    def unpacked(self) -> Parts:
        """What arrives, in memory of its own."""
        sent = zip(self.shape, self.parts[::2], self.parts[1::2], strict=True)
        unpack = self.codec.unpack
        return tuple([unpack(a, b, length).to(getattr(torch, dtype)) for (dtype, length), a, b in sent])


def rest(given: Sequence[Tensor], arrived: Sequence[Tensor]) -> Parts:
    """What has not been sent: given - arrived. The sum of the two is `given` to the bit."""
    return tuple([part - sent for part, sent in zip(given, arrived, strict=True)])


def _wide(part: Tensor) -> Tensor:
    """In at least single precision."""
    return part.to(torch.promote_types(part.dtype, torch.float32))


def _scale(largest: float, dtype: torch.dtype) -> float:
    """largest / LEVELS, rounded up to DIGITS binary digits; NaN if that is not finite."""
    if not largest or not math.isfinite(largest):
        return largest - largest
    limits = torch.finfo(dtype)
    smallest = limits.smallest_normal * limits.eps  # number above 0
    exact = max(largest / LEVELS, smallest)
    step = max(math.ldexp(1.0, math.frexp(exact)[1] - DIGITS), smallest)
    scale = math.ceil(exact / step) * step
    return scale if scale * LEVELS >= largest else scale + step  # it was rounded down, next to 0
