"""Vectors: what agents compute with, written as linear forms.

A `Vector` stands for a tuple of flat tensors, one per (dtype, device) that the model has. Agents add,
subtract and scale vectors as if they were numbers; what they build is a *linear form* sum_k c_k v_k, and
nothing is computed until the handler that built it ends. The rules:

1. A form is evaluated term by term from left to right, ((c_1 v_1) + c_2 v_2) + ...; so the bits of the result
   depend on what the algorithm wrote and on nothing else, whichever engine runs it.
2. `a + b` continues the form on its left; a form on its right that has several terms, or that is scaled, is a
   term of its own, evaluated once, however many forms share it.
3. When a handler ends, every vector that is still referred to becomes a plain value: the engine settles its
   `Scope`, which knows of all that were built in it.
4. What is not linear (slices, an adaptive step) is an `opaque` node: evaluated once, like a form. If it is
   `applied`, a function of the values of vectors that it names, an engine may put it off, as it may a form.
5. Values never change. `+=` rebinds the name, as it does for numbers.

One exception to the last rule is on purpose: a vector that came out of a register is *late bound*, it stands
for the newest version that was handed over, and moves on with the register. `pin(v)` keeps the bytes of this
moment. Outside of every scope, in a test or an interactive session, a form is evaluated when it is read.

An engine that puts evaluation off has a `Later` in the place of a value: whoever reads that has it computed.
For engines whose memory is shared or recycled: `into` says where a form is to be evaluated; parts that are
`Leased` will be overwritten one day, so an alias of them is a copy; and `settle` evaluates again what had
mixed a version that was overwritten meanwhile.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar, Token
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from offbeat.core.sums import combined, plain

Parts = tuple[Tensor, ...]
Linear = Callable[[Tensor, Sequence[tuple[float, Tensor]]], None]
"""out <- sum_k c_k v_k from left to right; the same bits as `plain` gives."""

Term = tuple[float, "Vector"]
_VECTOR: Callable[[Term], Vector] = itemgetter(1)


class Leased(tuple[Tensor, ...]):
    """Parts in memory that somebody will overwrite, when all have been told."""

    __slots__ = ()


class Stamp(NamedTuple):
    """Whose model a vector is, and how many times that agent had written its model by then."""

    agent: int
    version: int


class Later(ABC):
    """A value that is computed when its parts are asked for, or whenever its engine likes."""

    __slots__ = ("lengths", "nbytes")
    lengths: tuple[int, ...]  # numbers in each part
    nbytes: int

    @abstractmethod
    def read(self) -> Parts:
        """The parts: one object, whenever it is called."""


class Applied(NamedTuple):
    """A function of the values of vectors, and how many numbers are in each part of what it gives."""

    function: Callable[..., Parts]
    vectors: tuple[Vector, ...]
    lengths: tuple[int, ...]

    def __call__(self) -> Parts:
        return self.function(*[v.parts for v in self.vectors])


class Vector:
    """A tuple of flat tensors, or a linear form over other vectors that will become one."""

    __slots__ = ("__weakref__", "_done", "_make", "_of", "_open", "_out", "_parts", "_terms", "late", "stamp")

    def __init__(
        self, parts: Parts | Later | None = None, stamp: Stamp | None = None, terms: tuple[Term, ...] = ()
    ) -> None:
        self._parts = parts
        self._terms = terms
        self._make: Callable[[], Parts] | Applied | None = None
        self._out: Parts | None = None
        self._of: tuple[Vector, ...] = ()  # what it was made from, where that is no form
        self._done = False  # evaluated for good, whatever its registers do until the handler's end
        self._open = False  # whether its terms are those of whatever form it is added to
        self.stamp = stamp
        self.late = False  # whether it came out of a register, and moves on with it

    def __add__(self, other: Vector) -> Vector:
        return form(_joined(self, other, 1.0))

    def __sub__(self, other: Vector) -> Vector:
        return form(_joined(self, other, -1.0))

    def __mul__(self, scale: float) -> Vector:
        return form(self._on_the_right(float(scale)))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Vector:
        return self * (1.0 / divisor)

    def __neg__(self) -> Vector:
        return self * -1.0

    def _on_the_right(self, scale: float) -> tuple[Term, ...]:
        terms = self._terms
        if not self._done and (len(terms) == 1 or (self._open and terms)):
            return tuple([(scale * c, v) for c, v in terms])
        return ((scale, self),)

    @property
    def parts(self) -> Parts:
        """The tensors. Reading them forces the evaluation of whatever they depend on."""
        parts = self._parts
        if parts is None:
            parts = self._make() if self._make is not None else _combine(self._terms, self._out)
            self._parts = parts
        return parts if isinstance(parts, tuple) else parts.read()

    @property
    def nbytes(self) -> int:
        there = self._parts or self.value()  # (no look at its class: that of an abstract one takes long)
        return sum([part.nbytes for part in there]) if isinstance(there, tuple) else there.nbytes

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many numbers are in each part; of a form nothing is evaluated for it."""
        if self._parts is None and self._terms:
            return self._terms[0][1].lengths
        if self._parts is None and isinstance(self._make, Applied):
            return self._make.lengths
        there = self.value()
        return tuple([p.numel() for p in there]) if isinstance(there, tuple) else there.lengths

    def value(self) -> Parts | Later:
        """The value, which may be computed later. For engines only."""
        there = self._parts
        return self.parts if there is None or isinstance(there, tuple) else there

    def fixed(self) -> Vector:
        """Another of this value, that does not move on with a register. For engines only."""
        return Vector(self.value(), self.stamp)

    def norm(self) -> float:
        """The Euclidean norm over the whole tuple."""
        return float(sum(float(part.double().square().sum()) for part in self.parts) ** 0.5)

    def _made_of(self) -> list[Vector]:
        """What it is computed from, as far as it says."""
        return [*map(_VECTOR, self._terms), *self._of]

    def sources(self) -> list[Vector]:
        """The vectors with a stamp that enter this form: whose versions were mixed."""
        found, forms = list[Vector](), [self]
        for each in forms:
            for _, v in (*each._terms, *[(1.0, v) for v in each._of]) if each._of else each._terms:
                if v.stamp is not None:
                    found.append(v)
                elif v._terms or v._of:
                    forms.append(v)
        return found

    def move(self, other: Vector) -> None:
        """Rebind a late-bound vector to a newer version. For engines only."""
        self._parts, self.stamp = other._parts or other.parts, other.stamp

    def become(self, other: Vector) -> None:
        """Take another's value, as a copy, in place of its own. For engines only."""
        self._parts = tuple(part.clone() for part in other.parts)

    def into(self, out: Parts) -> bool:
        """Have a form evaluated into these tensors, and say whether it will be. For engines only."""
        if self._parts is not None or self._make is not None or self._out is not None:
            return False
        self._out = out
        return True

    def move_out(self, leased: Iterable[Parts]) -> None:
        """Take a copy if its value lies in one of these. For engines only."""
        if self._parts is not None and any(self._parts is parts for parts in leased):
            self._parts = tuple(part.clone() for part in self.parts)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copying and pickling materialise: the value travels, the form does not."""
        return Vector, (self.parts, self.stamp)

    def __repr__(self) -> str:
        if self._parts is None:
            return f"Vector({len(self._terms)} terms, not evaluated yet)"
        return f"Vector({', '.join(f'{p.dtype}[{p.numel()}]' for p in self.parts)})"


def _joined(left: Vector, right: Vector, scale: float) -> tuple[Term, ...]:
    """The terms of left + scale * right; what an open form repeats is read once, with both coefficients."""
    own = ((1.0, left),) if left._done or not left._terms else left._terms
    terms = (*own, *right._on_the_right(scale))
    if not right._open:
        return terms
    merged: dict[int, Term] = {}
    for c, v in terms:
        merged[id(v)] = (merged[id(v)][0] + c if id(v) in merged else c, v)
    return tuple(merged.values())


def form(terms: tuple[Term, ...]) -> Vector:
    v = Vector(None, None, terms)
    scope = _current.get()
    if scope is not None:
        scope.born.append(weakref.ref(v))
    return v


def opaque(make: Callable[[], Parts], of: tuple[Vector, ...] = ()) -> Vector:
    """A vector that is not a linear form: `make` computes it, at the latest when the handler ends.

    It is made from the vectors `of`, where their versions count as mixed.
    """
    v = form(())
    v._make, v._of = make, of
    return v


def applied(
    function: Callable[..., Parts],
    *vectors: Vector,
    of: tuple[Vector, ...] = (),
    lengths: tuple[int, ...] | None = None,
) -> Vector:
    """An opaque vector that is a function of the parts of these, and of nothing else.

    Args:
        of: the vectors whose versions count as mixed
        lengths: how many numbers are in each part of it; None: as many as in the first vector
    """
    v = form(())
    v._make, v._of = Applied(function, vectors, vectors[0].lengths if lengths is None else lengths), of
    return v


def lazy(make: Callable[[], Parts]) -> Vector:
    """Computed only if somebody reads it. For engines, which keep what `make` reads until then."""
    v = Vector()
    v._make = make
    return v


Torn = Callable[[Sequence[Vector]], Sequence[Vector]]
"""Given the late-bound vectors that were used, those that were overwritten, and have moved on by then."""


class Scope:
    """The vectors that are built while it is open; scopes may be nested, and those of threads are apart.

    An engine owns one, and settles it at the end of every handler; `with Scope():` is enough where a few
    lines build vectors that are values afterwards.
    """

    def __init__(self, linear: Linear | None = None) -> None:
        self.linear = plain if linear is None else linear  # what evaluates forms: all give the same bits
        # The vectors; weakly, so that what was only passed through is never computed.
        self.born: list[weakref.ref[Vector]] = []
        self._outer: list[Token[Scope | None]] = []

    def __enter__(self) -> Scope:
        self._outer.append(_current.set(self))
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.settle()
        finally:
            self.born.clear()  # after an error, what was half built is never evaluated
            _current.reset(self._outer.pop())

    def settle(self, torn: Torn | None = None) -> None:
        """Every vector that is still referred to becomes a value.

        After that `torn` is called; what depends on the versions it names is evaluated again, until none are.
        """
        if not self.born:
            return
        kept = self.force(torn)
        self.born.clear()
        for v in kept:
            v._terms, v._of, v._make, v._out, v._open, v._done = (), (), None, None, False, False

    def force(self, torn: Torn | None = None) -> list[Vector]:
        """Within a handler: evaluate for good what has been built so far, and return it. See `settle`."""
        kept = []
        for ref in self.born:
            v = ref()
            if v is not None:
                v.parts  # noqa: B018  (reading evaluates)
                kept.append(v)
        if torn is not None:
            fresh = [v for v in kept if not v._done]
            used = [term for v in fresh for term in v._made_of() if term.late]
            while used and (moved := torn(used)):
                stale = {id(v) for v in moved}
                for v in fresh:  # in the order of their birth: what a form is made of comes first
                    if any(id(term) in stale for term in v._made_of()):
                        stale.add(id(v))
                        v._parts = None
                for v in fresh:
                    v.parts  # noqa: B018
            for v in fresh:
                v._done = True
        return kept


_current: ContextVar[Scope | None] = ContextVar("scope", default=None)


def _combine(terms: tuple[Term, ...], out: Parts | None = None) -> Parts:
    """sum_k c_k v_k from left to right, by part. One term with c = 1 is an alias, except of leased memory."""
    (c0, v0), *rest = terms
    first = _raw(v0)
    if out is None and not rest and c0 == 1.0:
        return tuple(part.clone() for part in first) if type(first) is Leased else first
    scope = _current.get()
    linear = plain if scope is None else scope.linear
    if out is None and linear is not plain:
        out = tuple(torch.empty_like(part) for part in first)
    if out is not None:
        coefficients, values = [c for c, _ in terms], [_raw(v) for _, v in terms]
        for total, *parts in zip(out, *values, strict=True):
            linear(total, [*zip(coefficients, parts, strict=True)])
        return out
    return combined([c for c, _ in terms], first, *[_raw(v) for _, v in rest])


def _raw(v: Vector) -> Parts:
    """The parts as they lie in memory; a late-bound vector may give others to who asks for `parts`."""
    return v._parts if isinstance(v._parts, tuple) else v.parts
