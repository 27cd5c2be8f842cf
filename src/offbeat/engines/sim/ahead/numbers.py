"""In place of numbers that a reading does not know, as the time: what is computed from them is a program,
what is asked of them a question for the run. Both do what the handler does, operation by operation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf, nan
from typing import Any

from offbeat.core.vector import Vector, form
from offbeat.engines.sim.ahead.placeholders import NotLinear

Function = Callable[[float, Sequence[float]], Any]
"""Of the time, and of the numbers that an agent has."""
DRAWS = "choice", "randrange", "randint", "getrandbits"
"""What may be drawn: numbers that repeat themselves."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What happens next depends on a number that is drawn: by a method of the agent's stream, called so."""

    method: str
    args: tuple[Any, ...]
    after: dict[Any, Any] = field(default_factory=dict)

    def answer(self, rng: Any, now: float, numbers: Sequence[float]) -> Any:
        """That number."""
        return getattr(rng, self.method)(*self.args)


@dataclass(frozen=True, eq=False)
class Asked:
    """What happens next depends on whether this holds."""

    holds: Function
    after: dict[Any, Any] = field(default_factory=dict)

    def answer(self, rng: Any, now: float, numbers: Sequence[float]) -> Any:
        """Whether it does; numpy's numbers, as a world may have, give numpy's answers."""
        return bool(self.holds(now, numbers))


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
        self._answers, self._ask, self._lines, self._held = [*answers], ask, list[str](), dict[str, bool]()
        self.now = Number(self, "t")
        self.numbers = [Number(self, f"N[{k}]") for k in range(numbers)]

    def ask(self, question: Callable[[], Question]) -> Any:
        """The answer."""
        return self._answers.pop(0) if self._answers else self._ask(question())

    def holds(self, what: str) -> bool:
        """The answer to whether it does: asked once."""
        if what not in self._held:
            self._held[what] = self.ask(lambda: Asked(_compiled(tuple(self._lines), what)))
        return self._held[what]

    def made(self, how: str) -> "Number":
        """One more number."""
        name = f"n{len(self._lines)}"
        self._lines.append(f"{name} = {how}")
        return Number(self, name)

    def known(self, number: float) -> "Number":
        """One that is known here, and will not be later."""
        return Number(self, self.name(number))

    def name(self, number: Any) -> str:
        """How the program writes it."""
        if isinstance(number, Number):
            return number.name
        if type(number) not in (int, float, bool):
            raise NotLinear("it computes with a number of an unusual type")
        return f"({number!r})"

    def function(self, *groups: Sequence[Any]) -> Function:
        """Of each of these groups of numbers a tuple."""
        rows = ["".join([f"{self.name(number)}, " for number in each]) for each in groups]
        return _compiled(tuple(self._lines), "".join([f"({row}), " for row in rows]))


@lru_cache(maxsize=4096)
def _compiled(lines: tuple[str, ...], what: str) -> Function:
    """That, as a function."""
    source = "\n ".join(["def function(t, N):", *lines, f"return {what}"])
    made: dict[str, Any] = {"inf": inf, "nan": nan}
    exec(compile(source, "<numbers>", "exec"), made)
    function: Function = made["function"]
    return function


class Stream:
    """In place of an agent's random stream."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method not in DRAWS:
            raise NotLinear(f"it draws by {method}, whose numbers do not repeat themselves")
        return lambda *args: self._program.ask(lambda: Drawn(method, args))


def _binary(sign: str, turned: bool = False) -> Callable[["Number", Any], Any]:
    def made(self: "Number", other: Any) -> "Number":
        pair = self.name, self.program.name(other)
        return self.program.made(f" {sign} ".join(pair[::-1] if turned else pair))

    return made


def _asked(sign: str) -> Callable[["Number", Any], Any]:
    def answer(self: "Number", other: Any) -> bool:
        return self.program.holds(f"{self.name} {sign} {self.program.name(other)}")

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
        return self.program.made(f"max({self.program.name(other)}, {self.name})")

    def __neg__(self) -> "Number":
        return self.program.made(f"-{self.name}")

    def __bool__(self) -> bool:
        return self.program.holds(f"{self.name} != 0")

    def _refuse(self, *_: Any) -> Any:
        raise NotLinear("it looks at the time, or at what follows from it, otherwise than to count with it")

    __eq__, __ne__ = _asked("=="), _asked("!=")
    __pow__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _refuse
    __float__ = __int__ = __index__ = __complex__ = __abs__ = _refuse
    __round__ = __trunc__ = __floor__ = __ceil__ = _refuse
    __hash__ = __str__ = __repr__ = __format__ = __reduce_ex__ = _refuse

    def __getattr__(self, name: str) -> Any:
        return self._refuse()
