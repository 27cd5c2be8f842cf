"""In place of numbers that a reading does not know, as the time: what is computed from them is a program,
what is asked of them a question for the run. Both do what the handler does, operation by operation.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf, nan
from typing import Any

from offbeat.core.vector import Vector, form
from offbeat.engines.sim.ahead.placeholders import NotLinear

SIGNS = "+", "-", "*", "/", "**", "max", "neg", "<", "<=", ">", ">=", "==", "!=", "constant"
"""Operations, as `compiled/numbers.c` numbers them."""
DRAWS = "choice", "randrange", "randint", "getrandbits"
"""What may be drawn: numbers that repeat themselves."""

EXACT = 2**53
"""As far as floats have all whole numbers."""

Line = tuple[str, str, str]
"""A sign and its operands, by name: t, the time; N[k], a number that the agent has; nk, what line k makes; or
a constant. Without a second operand that is empty.
"""


@dataclass(frozen=True)
class Function:
    """Of the time, and of the numbers that an agent has: for each of some groups of numbers a tuple. A call
    computes them in Python.

    Attributes:
        words: the same for compiled code: how many operations; of each its sign, two operands, and whether it
            may count with whole numbers, which Python does exactly; how many results there are, and which. An
            operand is -1: the time, -2 - k: N[k], or k: what operation k makes
    """

    lines: tuple[Line, ...]
    groups: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = field(hash=False, compare=False)

    def __call__(self, now: float, numbers: Sequence[float]) -> Any:
        return _compiled(self.lines, self.groups)(now, numbers)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What happens next depends on a number that is drawn: by a method of the agent's stream, called so."""

    method: str
    args: tuple[Any, ...]
    after: dict[Any, Any] = field(default_factory=dict)
    known: list[Any] = field(default_factory=list)

    def draw(self, rng: Any) -> int:
        """Which number it is, of those that are known."""
        drawn = getattr(rng, self.method)(*self.args)
        if drawn not in self.known:
            self.known.append(drawn)
        return self.known.index(drawn)

    def value(self, which: int) -> Any:
        """That number."""
        return self.known[which]


@dataclass(frozen=True, eq=False)
class Asked:
    """What happens next depends on whether this holds: the one result of a program."""

    words: Sequence[int]
    after: dict[Any, Any] = field(default_factory=dict)

    def value(self, holds: int) -> bool:
        """Whether it does."""
        return bool(holds)


Question = Drawn | Asked


class Program:
    """What a handler does with numbers, in order.

    Args:
        numbers: how many the agent has
        answers: to its first questions, one after the other
        ask: answers what it asks beyond these

    Attributes:
        now, numbers: what stands for the time, and for these
    """

    def __init__(self, numbers: int, answers: Sequence[Any], ask: Callable[[Question], Any]) -> None:
        self._answers, self._ask, self._lines, self._held = [*answers], ask, list[Line](), dict[Line, bool]()
        self._words, self._at = list[int](), {"t": -1}  # which operation makes what has that name
        self._whole = {"t": False}  # whether that may be a whole number
        self.now = Number(self, "t")
        self.numbers = [Number(self, f"N[{k}]") for k in range(numbers)]

    def ask(self, question: Callable[[], Question]) -> Any:
        """The answer."""
        return self._answers.pop(0) if self._answers else self._ask(question())

    def holds(self, sign: str, left: "Number", right: Any) -> bool:
        """The answer to whether it does: asked once."""
        line = sign, left.name, self.name(right)
        if line not in self._held:
            compared = SIGNS.index(sign), *map(self._operand, line[1:]), False
            before = len(self._words) // 4
            self._held[line] = self.ask(lambda: Asked((before + 1, *self._words, *compared, 1, before)))
        return self._held[line]

    def made(self, sign: str, left: Any, right: Any = None) -> "Number":
        """One more number."""
        a, b, name = self.name(left), "" if right is None else self.name(right), f"n{len(self._lines)}"
        self._lines.append((sign, a, b))
        at = [self._operand(each) for each in (a, b or a)]
        whole = [self._whole[each] for each in (a, b or a)]
        either = any(whole) if sign == "max" else all(whole) and sign != "/"
        self._at[name], self._whole[name] = len(self._words) // 4, either
        self._words += (SIGNS.index(sign), *at, either and sign != "max")
        return Number(self, name)

    def _operand(self, name: str) -> int:
        if name not in self._at:  # a number that the agent has, which may be a whole one
            self._at[name], self._whole[name] = -2 - int(name[2:-1]), True
        return self._at[name]

    def known(self, number: float) -> "Number":
        """One that is known here, and will not be later."""
        return Number(self, self.name(number))

    def name(self, number: Any) -> str:
        """How the program writes it."""
        if isinstance(number, Number):
            return number.name
        if type(number) not in (int, float, bool):
            raise NotLinear("it computes with a number of an unusual type")
        if abs(number) > EXACT and type(number) is int:
            raise NotLinear("it computes with a whole number that is too large for a float")
        name = f"({number!r})"
        if name not in self._at:
            self._at[name], self._whole[name] = len(self._words) // 4, type(number) is not float
            self._words += (SIGNS.index("constant"), *struct.unpack("<q", struct.pack("<d", number)), 0, 0)
        return name

    def function(self, *groups: Sequence[Any]) -> Function:
        """Of each of these groups of numbers a tuple."""
        named = tuple([tuple(map(self.name, each)) for each in groups])
        results = [self._operand(name) for each in named for name in each]
        words = len(self._words) // 4, *self._words, len(results), *results
        return Function(tuple(self._lines), named, words)


@lru_cache(maxsize=4096)
def _compiled(lines: tuple[Line, ...], groups: tuple[tuple[str, ...], ...]) -> Callable[..., Any]:
    """That, as a function."""
    body = [f"n{k} = {_written(*line)}" for k, line in enumerate(lines)]
    rows = ["".join([f"{name}, " for name in each]) for each in groups]
    body.append("return " + "".join([f"({row}), " for row in rows]))
    made: dict[str, Any] = {"inf": inf, "nan": nan}
    exec(compile("\n ".join(["def function(t, N):", *body]), "<numbers>", "exec"), made)
    function: Callable[..., Any] = made["function"]
    return function


def _written(sign: str, left: str, right: str) -> str:
    if sign == "max":
        return f"max({left}, {right})"
    return f"-{left}" if sign == "neg" else f"{left} {sign} {right}"


class Stream:
    """In place of an agent's random stream."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method not in DRAWS:
            raise NotLinear(f"it draws by {method}, whose numbers do not repeat themselves")
        return lambda *args: self._program.ask(lambda: Drawn(method, tuple(map(_drawn_from, args))))


def _drawn_from(arg: Any) -> Any:
    """What it is drawn from, as it is now: a handler may change a list later. Raises NotLinear where numbers
    that are drawn would not be told apart, or are not known.
    """
    if not isinstance(arg, list | tuple | range):
        return _known(arg)
    try:
        apart = len({*map(_known, arg)}) == len({(type(x), repr(x)) for x in arg})
    except TypeError:
        apart = False
    if not apart:
        raise NotLinear("it draws among things that are equal, or cannot be told apart")
    return type(arg)(arg) if isinstance(arg, list) else arg


def _known(x: Any) -> Any:
    if isinstance(x, Number | Vector):
        raise NotLinear("it draws among numbers that are not known")
    return x


def _binary(sign: str, turned: bool = False) -> Callable[["Number", Any], Any]:
    def made(self: "Number", other: Any) -> "Number":
        return self.program.made(sign, *((other, self) if turned else (self, other)))

    return made


def _asked(sign: str) -> Callable[["Number", Any], Any]:
    def answer(self: "Number", other: Any) -> bool:
        return self.program.holds(sign, self, other)

    return answer


class Number:
    """A float that is not known: of which program, and its name there. What it cannot do raises NotLinear."""

    __slots__ = ("name", "program")
    __array_ufunc__ = None  # numpy's numbers leave it to this one

    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name

    __add__, __radd__ = _binary("+"), _binary("+", turned=True)
    __sub__, __rsub__ = _binary("-"), _binary("-", turned=True)
    __truediv__, __rtruediv__ = _binary("/"), _binary("/", turned=True)
    __lt__, __le__, __gt__, __ge__ = map(_asked, ("<", "<=", ">", ">="))
    _product, __rmul__, _power = _binary("*"), _binary("*", turned=True), _binary("**", turned=True)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Vector):
            return form(other._on_the_right(self))  # type: ignore[arg-type]  # it stands for a number
        return self._product(other)

    def __rpow__(self, base: Any) -> Any:
        positive = type(base) in (int, float) and base > 0  # what is not may give complex numbers
        return self._power(base) if positive else self._refuse()

    def larger(self, other: Any) -> "Number":
        """See `offbeat.core.forms.larger`."""
        return self.program.made("max", other, self)

    def __neg__(self) -> "Number":
        return self.program.made("neg", self)

    def __bool__(self) -> bool:
        return self.program.holds("!=", self, 0)

    def _refuse(self, *_: Any) -> Any:
        raise NotLinear("it looks at the time, or at what follows from it, otherwise than to count with it")

    __eq__, __ne__ = _asked("=="), _asked("!=")
    __pow__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _refuse
    __float__ = __int__ = __index__ = __complex__ = __abs__ = _refuse
    __round__ = __trunc__ = __floor__ = __ceil__ = _refuse
    __hash__ = __str__ = __repr__ = __format__ = __reduce_ex__ = _refuse

    def __getattr__(self, name: str) -> Any:
        return self._refuse()
