"""In place of what a reading does not know: values, the time; and what handlers make of vectors without."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from offbeat.core.agent import Agent
from offbeat.core.forms import Piece, Replaced, pieces
from offbeat.core.rules import Rule, bind
from offbeat.core.vector import Applied, Parts, Vector, form

GRADIENT, STATE, HEARD, MADE, ZERO = range(5)
"""What a term is of: the gradient; a vector of the state before; one of what was heard; the result of one of
the template's other cells; zero."""

Source = tuple[int, int]  # what, which of these
Terms = tuple[tuple[int, int, Any], ...]  # with its coefficient, a number or a `Share`: from left to right
Cuts = tuple[Piece, ...]
"""Of a form's terms, of which piece of a model each is: consecutive ones of one piece make that piece."""


class NotLinear(Exception):
    """The algorithm with this rule does something else than what is read here."""


class Made:
    """The forms that vectors are of, in the order in which they have to be made; known: what vectors are.

    A piece of a model lies where the model would, and is that part of it alone. cuts: of forms that make
    pieces, which.
    """

    def __init__(self, known: dict[int, Source]) -> None:
        self.known, self.forms, self._aliases = dict(known), list[Terms](), dict[Source, int]()
        self.cuts = dict[int, Cuts]()

    def cell(self, v: Vector) -> int:
        """The number of its form; what is no form becomes one, of itself."""
        return self.alias(self.source(v))

    def alias(self, source: Source) -> int:
        what, which = source
        if what == MADE:
            return which
        if source not in self._aliases:
            self.forms.append(((what, which, 1.0),))
            self._aliases[source] = len(self.forms) - 1
        return self._aliases[source]

    def source(self, v: Vector) -> Source:
        """What it is: something that was there, or the form that it becomes."""
        if id(v) not in self.known:
            if isinstance(v._parts, tuple) and getattr(v._parts[0], "zero", False) and not v._terms:
                return ZERO, 0
            self.known[id(v)] = self._applied(v._make) if isinstance(v._make, Applied) else self._sum(v)
        return self.known[id(v)]

    def _sum(self, v: Vector) -> Source:
        if not v._terms:
            raise NotLinear("what it makes is not a linear form of what it has and the gradient")
        cut, terms = cut_of(v), [(*self.source(u), c) for c, u in v._terms]
        return self._form(terms, () if cut is None else (cut,) * len(terms))

    def _applied(self, make: Applied) -> Source:
        """A piece of what it has, and what it has with pieces of others in it."""
        function, (whole, *others) = make.function, make.vectors
        if isinstance(function, Piece) and cut_of(whole) is None:
            return self.source(whole)
        if not isinstance(function, Replaced) or cut_of(whole) is not None:
            raise NotLinear("it makes a function of its numbers")
        cuts, of = pieces(function.n), dict(zip(function.which, others, strict=True))
        if any(cut_of(v) != cuts[c] for c, v in of.items()):
            raise NotLinear("it puts a piece of a model where another belongs")
        return self._form([(*self.source(of.get(c, whole)), 1.0) for c in range(function.n)], cuts)

    def _form(self, terms: Iterable[tuple[int, int, Any]], cuts: Cuts) -> Source:
        self.forms.append((*terms,))
        number = len(self.forms) - 1
        if cuts:
            self.cuts[number] = cuts
        return MADE, number

    def heard(self, v: Vector) -> set[int]:
        """What of that which was heard enters it, through others too: whose versions are mixed."""
        if (source := self.known.get(id(v))) is not None:
            return {source[1]} if source[0] == HEARD else set()
        return set().union(*[self.heard(u) for u in v._made_of()])


class Share:
    """The share of the learning rate that a schedule has at a gradient, times numbers that are known: a
    coefficient that follows from the time, or from how many steps the agent has made.
    """

    def __init__(self, factors: tuple[float, ...] = ()) -> None:
        self.factors = factors

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Vector):
            return form(other._on_the_right(self))  # type: ignore[arg-type]  # it stands for a number
        if not isinstance(other, int | float):
            raise NotLinear("a share of the learning rate enters twice")
        return Share((*self.factors, float(other)))

    __rmul__ = __mul__

    def _refuse(self, *_: Any) -> Any:
        raise NotLinear("it does more with its learning rate than to multiply by it")

    __add__ = __radd__ = __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __neg__ = __float__ = _refuse
    __lt__ = __gt__ = __le__ = __ge__ = __bool__ = _refuse


@dataclass
class SharedRule:
    """u = s rule(g), in place of a rule that follows a schedule.

    Attributes:
        calls: of all such rules, how often they were called
    """

    rule: Rule
    calls: ClassVar[int] = 0

    def bind(self, agent: Agent) -> None:
        """The agent is that of the rule."""
        bind(self.rule, agent)

    def __call__(self, g: Vector) -> Vector:
        SharedRule.calls += 1
        u: Vector = Share() * self.rule(g)
        return u


class _Unknown:
    """In place of a tensor: numbers that nobody knows yet.

    Attributes:
        length, itemsize: how many, and the bytes of each; None: not known either
        cut: of which piece of a model's they are; None: of all
        zero: whether they are zero
    """

    def __init__(
        self, length: int | None = None, itemsize: int = 0, cut: Piece | None = None, zero: bool = False
    ) -> None:
        self.length, self.itemsize, self.cut, self.zero = length, itemsize, cut, zero

    def __getattr__(self, name: str) -> Any:
        raise NotLinear("it looks at the numbers of a vector")

    def __getitem__(self, where: Any) -> Any:
        raise NotLinear("it looks at the numbers of a vector")

    def numel(self) -> int:
        if self.length is None:
            raise NotLinear("it cuts a vector into pieces, or makes a function of its numbers")
        return self.length

    @property
    def nbytes(self) -> int:
        return self.numel() * self.itemsize

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.zeros_like:
            (of,) = args
            return _Unknown(of.length, of.itemsize, of.cut, zero=True)
        raise NotLinear("it does something else with vectors than to add and to scale them")


class _Unseen:
    """In place of an agent's random stream, of its clock, and of its weights where these differ."""

    def __getattr__(self, name: str) -> Any:
        return self._refuse()

    def _refuse(self, *_: Any) -> Any:
        raise NotLinear("it draws random numbers, looks at the time, or at its weights")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __lt__ = __gt__ = __le__ = __ge__ = __float__ = __bool__ = __eq__ = __ne__ = _refuse
    __hash__ = object.__hash__


@dataclass(frozen=True)
class Round:
    """In place of the number of a round, of which only is known how far it is from others."""

    at: int

    def __add__(self, other: int) -> "Round":
        return Round(self.at + other) if type(other) is int else self._refuse()

    def __sub__(self, other: "Round | int") -> Any:
        return self.at - other.at if isinstance(other, Round) else self + -other

    def __lt__(self, other: "Round") -> bool:
        return self.at < other.at if isinstance(other, Round) else self._refuse()

    def __ge__(self, other: "Round") -> bool:
        return not self < other

    def __gt__(self, other: "Round") -> bool:
        return other < self if isinstance(other, Round) else self._refuse()

    def __le__(self, other: "Round") -> bool:
        return not self > other

    def _refuse(self, *_: Any) -> Any:
        raise NotLinear("what it does depends on the number of its round")

    __mul__ = __rmul__ = __mod__ = __floordiv__ = __truediv__ = __index__ = __bool__ = __float__ = _refuse


UNKNOWN: Any = (_Unknown(),)
UNSEEN: Any = _Unseen()


def unknown(like: Tensor, cut: Piece | None = None) -> Parts:
    """In place of the parts of a model of this one tensor, or of a piece of it."""
    low, high = (0, like.numel()) if cut is None else cut.range(like.numel())
    made: Any = (_Unknown(high - low, like.element_size(), cut),)
    return made  # type: ignore[no-any-return]


def cut_of(v: Vector) -> Piece | None:
    """Which piece of a model it is; None: all of one. Raises NotLinear if it adds different ones."""
    if isinstance(v._parts, tuple):
        return getattr(v._parts[0], "cut", None)
    if isinstance(v._make, Applied):
        return v._make.function if isinstance(v._make.function, Piece) else None
    cuts = {cut_of(u) for _, u in v._terms} or {None}
    if len(cuts) > 1:
        raise NotLinear("it adds different pieces of models")
    return cuts.pop()


def late_bound(parts: Parts) -> Vector:
    v = Vector(parts)
    v.late = True
    return v
