"""What algorithms build from vectors, besides sums and multiples: mixtures, pins, pieces; and the larger
of two numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from offbeat.core.vector import Parts, Vector, applied, form


def mix(w: Mapping[int, float], heard: Mapping[int, Vector], own: Vector) -> Vector:
    """sum_j w_j x_j over the keys of `w`; whoever has not been heard counts as `own`.

    The weight of an unheard neighbour thereby goes on the diagonal, and the row stays stochastic.
    """
    return form(tuple([(w_j, heard.get(j, own)) for j, w_j in w.items()]))


def damped(w: Mapping[int, float], me: int, theta: float) -> dict[int, float]:
    """An agent's row of (1 - theta) I + theta W; for theta = 1 that of W to the bit."""
    return {j: theta * w_j + (1.0 - theta) * (j == me) for j, w_j in w.items()}


def pin(v: Vector) -> Vector:
    """The value of `v` now, also when `v` came out of a register and moves on."""
    return form(((1.0, v),))


def difference(x: Vector, y: Vector) -> Vector:
    """x - y, whose terms go into what it is added to or taken from: x - (x - y) is 0 x + y, y to the bit."""
    return opened(x - y)


def opened(v: Vector) -> Vector:
    """The form, whose terms go into what it is added to or taken from: it is no term of its own there."""
    v._open = True
    return v


def zero(like: Vector) -> Vector:
    """The zero vector in the shape of `like`."""
    return Vector(tuple(torch.zeros_like(part) for part in like.parts))


def weighted(*terms: tuple[float, Vector]) -> Vector:
    """c_1 v_1 + c_2 v_2 + ..., as one form."""
    return form(terms)


def total(vectors: Iterable[Vector], start: Vector) -> Vector:
    """start + v_1 + v_2 + ..., as one form."""
    for v in vectors:
        start = start + v
    return start


@dataclass(frozen=True)
class Piece:
    """Piece `c` of `n`."""

    n: int
    c: int

    def range(self, length: int) -> tuple[int, int]:
        """Where it begins in so many numbers, and where it ends."""
        size, longer = divmod(length, self.n)
        low = self.c * size + min(self.c, longer)
        return low, low + size + (self.c < longer)

    def __call__(self, parts: Parts) -> Parts:
        return tuple([part[slice(*self.range(part.numel()))] for part in parts])


def split(v: Vector, n: int) -> list[Vector]:
    """`v` cut into n consecutive pieces, as equal as possible; some are empty if n exceeds its length."""
    return [applied(cut, v, lengths=lengths) for cut, lengths in _cuts(n, v.lengths)]


def piece(v: Vector, n: int, c: int) -> Vector:
    """Piece `c` of those of `split(v, n)`, alone; of a multiple that is not evaluated yet, the multiple of
    the piece: the rest of it need not be made.
    """
    if v._parts is None and len(v._terms) == 1:
        ((scale, whole),) = v._terms
        return scale * piece(whole, n, c)
    cut, lengths = _cuts(n, v.lengths)[c]
    return applied(cut, v, lengths=lengths)


@dataclass(eq=False, slots=True)
class Replaced:
    """A vector with others in place of some of its `n` pieces: of these."""

    n: int
    which: tuple[int, ...]

    def __call__(self, whole: Parts, *given: Parts) -> Parts:
        of = dict(zip(self.which, given, strict=True))
        return joined(*[of[c] if c in of else cut(whole) for c, cut in enumerate(pieces(self.n))])


def replaced(v: Vector, n: int, by: Mapping[int, Vector], of: tuple[Vector, ...] = ()) -> Vector:
    """`v` with these in place of its own of `n` pieces; the versions of those in `of` count as mixed."""
    return applied(Replaced(n, tuple(by)), v, *by.values(), of=of)


@lru_cache(8)
def pieces(n: int) -> tuple[Piece, ...]:
    """All of `n`."""
    return tuple([Piece(n, c) for c in range(n)])


@lru_cache(8)
def _cuts(n: int, whole: tuple[int, ...]) -> list[tuple[Piece, tuple[int, ...]]]:
    """All pieces, and how long each is."""
    return [(p, tuple([high - low for low, high in map(p.range, whole)])) for p in pieces(n)]


def concat(pieces: list[Vector], of: tuple[Vector, ...] = ()) -> Vector:
    """The inverse of `split`; the versions of the pieces in `of` count as mixed."""
    lengths = tuple(map(sum, zip(*[piece.lengths for piece in pieces], strict=True)))
    return applied(joined, *pieces, of=of, lengths=lengths)


def larger(a: int, b: int) -> int:
    """max(a, b), without a question: what stands for a number that is not known is not compared."""
    of = getattr(b, "larger", None)
    return max(a, b) if of is None else of(a)


def joined(*pieces: Parts) -> Parts:
    """One after the other."""
    return tuple([torch.cat(parts) for parts in zip(*pieces, strict=True)])
