"""Codecs: by which names a vector may be compressed on its way, and what is sent of it, as types and lengths.

What a vector becomes, and what arrives, is `compression`'s. Here nothing is computed, and torch is not
needed: a gateway checks with it what comes from another machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from offbeat.core.errors import SettingError
from offbeat.core.words import Parameter, headed, read, spelt

NONE = "none"
SHARE = {
    "share": Parameter(
        about="the share of its numbers that is sent", asked=True, low=0, high=1, above=True, example=0.01
    )
}
EXPECTED = "expected none, bf16, int8, or top-k with a share above 0, at most 1, as in 'top-k:0.01'"

Flat: TypeAlias = tuple[str, int]
"""The dtype of a flat tensor, and its length."""
Shape: TypeAlias = tuple[Flat, ...]
"""Of a vector: that of each part."""

FLOATING = {"float64", "float32", "float16", "bfloat16"}


@dataclass(frozen=True)
class BF16:
    """8 of a number's binary digits are sent: |error| <= 2^-8 |v|, for 1.2e-38 <= |v| <= 3.3e38."""

    sums = False  # whether it is only for what is accumulated, since it leaves most of it out
    places = False  # whether what is sent first says where the numbers of the other belong

    def __str__(self) -> str:
        return "bf16"

    def fits(self, first: Flat, second: Flat, length: int) -> bool:
        """Whether these can be what was sent of a tensor of this length."""
        return first == ("bfloat16", length) and not second[1]


@dataclass(frozen=True)
class Int8:
    """q = round(v / s) is sent, and s: |error| <= s / 2, where s <= (1 + 2^-15) max |v| / 127.

    s has 16 binary digits at most, so q s is exact: what has been compressed once is not changed by it again.
    A part that is not finite arrives as NaN.
    """

    sums = places = False

    def __str__(self) -> str:
        return "int8"

    def fits(self, first: Flat, second: Flat, length: int) -> bool:
        """See `BF16`."""
        return first == ("int8", length) and second[0] in FLOATING and second[1] == min(1, length)


@dataclass(frozen=True)
class TopK:
    """The ceil(share m) of m numbers that are largest in size are sent, with their places; the others arrive
    as 0. Where that would be no shorter, all are sent.
    """

    share: float
    sums = places = True

    def __str__(self) -> str:
        return spelt("top-k", {"share": self.share}, SHARE, "share")

    def fits(self, first: Flat, second: Flat, length: int) -> bool:
        """See `BF16`; whether the places are below the length is not known here."""
        if second[1] == length and not first[1]:
            return True
        return first[0] in ("int32", "int64") and 0 < first[1] == second[1]


Codec: TypeAlias = BF16 | Int8 | TopK
CODECS: dict[str, Codec] = {"bf16": BF16(), "int8": Int8()}


def codec_of(said: str) -> Codec | None:
    """The codec of this name; None for 'none'. Raises SettingError for what is no name of one."""
    name, words = headed(said)
    if name == "top-k":
        return TopK(**read("compression", name, words, SHARE, "share"))
    if words or name not in (NONE, *CODECS):
        raise SettingError(f"Cannot compress by '{said}'; {EXPECTED}.")
    return CODECS.get(name)


def fits(codec: Codec, shape: Shape, sent: Sequence[Flat]) -> bool:
    """Whether this can be what was sent of a vector of this shape: two tensors for each part of it."""
    first, second = sent[::2], sent[1::2]
    if not len(first) == len(second) == len(shape):
        return False
    return all(codec.fits(a, b, n) for a, b, (_, n) in zip(first, second, shape, strict=True))
