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

import torch
from torch import Tensor

from offbeat.core.codecs import BF16, Codec, Int8, Shape, TopK
from offbeat.core.vector import Parts, Vector

LEVELS = 127
DIGITS = 16  # binary ones of a scale: so few that LEVELS times it is a float32


def pack(codec: Codec, part: Tensor) -> tuple[Tensor, Tensor]:
    """A flat tensor as it is sent: two, of which one may be empty."""
    match codec:
        case BF16():  # what is beyond its largest number becomes infinite
            return part.to(torch.bfloat16), part.new_empty(0)
        case Int8():
            return _levels(part)
        case TopK(share):
            return _largest(part, share)


def unpack(codec: Codec, first: Tensor, second: Tensor, length: int) -> Tensor:
    """What arrives of a tensor of this length; its numbers may be of another type yet."""
    match codec:
        case BF16():
            return first
        case Int8():
            return first.to(second.dtype) * second
        case TopK():
            if len(second) == length:
                return second
            return second.new_zeros(length).index_put_((first.long(),), second)


def _levels(part: Tensor) -> tuple[Tensor, Tensor]:
    wide = _wide(part)
    scale = _scale(float(wide.abs().max()) if len(wide) else 0.0, wide.dtype)
    if scale > 0:
        levels = (wide / scale).round_().clamp_(-LEVELS, LEVELS).to(torch.int8)
    else:  # nothing but zeros, or numbers that are not finite
        levels = torch.zeros_like(part, dtype=torch.int8)
    return levels, wide.new_full((min(1, len(part)),), scale)


def _largest(part: Tensor, share: float) -> tuple[Tensor, Tensor]:
    length = len(part)
    count = max(1, math.ceil(share * length - 1e-9))
    place = torch.int32 if length < 1 << 31 else torch.int64
    if count * (place.itemsize + part.itemsize) >= length * part.itemsize:
        return part.new_empty(0, dtype=place), part
    size = part.abs().nan_to_num(nan=math.inf)  # what is not finite is to be seen
    least = size.topk(count, sorted=False).values.min()
    larger, alike = (size > least).nonzero()[:, 0], (size == least).nonzero()[:, 0]
    chosen = torch.cat([larger, alike[: count - len(larger)]]).sort().values
    return chosen.to(place), part[chosen]


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
        return Packed(codec, shape_of(v.parts), tuple([t for part in v.parts for t in pack(codec, part)]))

    @property
    def nbytes(self) -> int:
        return sum([part.nbytes for part in self.parts])

    def unpacked(self) -> Parts:
        """What arrives, in memory of its own."""
        sent = zip(self.shape, self.parts[::2], self.parts[1::2], strict=True)
        codec = self.codec
        return tuple(
            [unpack(codec, a, b, length).to(getattr(torch, dtype)) for (dtype, length), a, b in sent]
        )


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
