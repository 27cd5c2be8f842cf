"""Numbers that follow from the time: agents that go by them, without handlers, against the oracle."""

import copy
import ctypes
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_mailing import Note, Plain, both, nothing

from offbeat.core.agent import Agent
from offbeat.core.errors import ContractError
from offbeat.core.vector import Vector
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.loop import evaluated
from offbeat.engines.sim.ahead.machine import Done
from offbeat.engines.sim.ahead.mailing import MailRun
from offbeat.engines.sim.ahead.numbers import SIGNS, Asked, Drawn, Number, Program
from offbeat.engines.sim.ahead.placeholders import UNKNOWN, NotLinear


@dataclass
class Ages(Plain):
    """Steps as far as its gradient took, and mixes less of what comes late."""

    last: float = field(init=False, default=0.0)
    mean: float = field(init=False, default=0.0)

    def on_gradient(self, g: Vector) -> None:
        took = self.now - self.last
        self.mean, self.last = (0.5 * took + self.mean / 2 if self.mean else took), self.now
        self.x = self.x - took / (1 + took) * self.rule(g)
        self.give()
        self.compute(self.x)

    def give(self) -> None:
        self.send(self.rng.choice(self.view.listeners), Note(self.x))

    def on_message(self, src: int, message: Note) -> None:
        age = self.now - self.last
        c = 0.25 if age == 0 or age != age else 2**-age / 2 if age < self.mean / 2 else 1 / (2 + age)
        self.x = c * message.x + (1 - c) * self.x


@dataclass
class Undefined(Ages):
    """Has a number that is none, which is neither more nor less than another."""

    nothing: float = field(init=False, default=0.0)

    def on_message(self, src: int, message: Note) -> None:
        self.nothing = self.now * math.inf - self.now * math.inf
        c = 0.1 if self.nothing > 1 else 0.2 if self.nothing <= 1 else 0.3 if self.nothing else 0.4
        self.x = c * message.x + (1 - c) * self.x


class Many(Ages):
    """Chooses in two ways, between questions: where to, and whether."""

    def give(self) -> None:
        if self.rng.randrange(3) and self.now - self.mean > self.rng.randint(1, 3):
            super().give()


def questions(run: MailRun) -> Iterator[Asked | Drawn]:
    """All that was asked in a run."""
    nodes = [
        node
        for machine in run.discovered.machines
        for state in machine._states.values()
        for node in state.after.values()
    ]
    for node in nodes:  # it grows
        if not isinstance(node, Done):
            yield node
            nodes += node.after.values()


@pytest.mark.parametrize("settings", [{}, {"latency": 0.3}, {"compute": "constant"}])
@pytest.mark.parametrize("kind", [Ages, Undefined, Many])
def test_who_goes_by_the_time_is_the_simulators_to_the_byte(
    kind: type[Agent], settings: dict[str, Any]
) -> None:
    mine, oracle = both(kind, **settings)
    for engine in (mine, oracle):
        engine.start()
        engine.run(20.0)
    assert mine.traced().digest() == oracle.traced().digest()
    assert all(a.equal(b) for a, b in zip(mine.everybody(), oracle.everybody(), strict=True))
    asked = [node for node in questions(mine) if isinstance(node, Asked)]
    assert kind is Undefined or any({*node.after} == {True, False} for node in asked)


@dataclass
class Divides(Plain):
    """By nothing, some day."""

    def on_message(self, src: int, message: Note) -> None:
        self.x = (1 / (self.now * 0)) * self.x


class DividesAndAsks(Divides):
    """To compare."""

    def on_message(self, src: int, message: Note) -> None:
        if 1 / (self.now * 0) > 1:
            self.x = message.x


class Catches(Divides):
    """Is prepared for it."""

    def on_message(self, src: int, message: Note) -> None:
        with suppress(ZeroDivisionError):
            if 1 / (self.now * 0) > 1:
                self.x = 2 * message.x


@pytest.mark.parametrize("kind", [Divides, DividesAndAsks, Catches])
def test_what_is_no_number_is_left_to_the_simulator(kind: type[Agent]) -> None:
    mine, oracle = both(kind)
    mine.start()
    with pytest.raises(NoTimetable):
        mine.run(20.0)
    oracle.start()
    with pytest.raises(ContractError, match="ZeroDivisionError") if kind is not Catches else nullcontext():
        oracle.run(20.0)


@pytest.mark.parametrize(
    "use",
    [
        int, float, complex, str, repr, hash, abs, round, range, math.sqrt, math.floor, copy.copy,
        "{:.1f}".format, lambda n: n % 2, lambda n: 7 // n, lambda n: n**0.5, lambda n: (-2.0) ** n,
        lambda n: divmod(n, 2), lambda n: [1, 2][n], lambda n: {n: 1}, lambda n: n.is_integer(),
        lambda n: np.float64(2) * n, lambda n: n == np.float32(1), lambda n: Vector(UNKNOWN) * n,
        lambda n: n + "1", lambda n: n < None,
    ],
)  # fmt: skip
def test_what_cannot_be_done_without_the_number_is_found_out(use: Callable[[Any], Any]) -> None:
    with pytest.raises(NotLinear):
        use(Program(0, [], nothing).now)


def test_a_program_counts_as_python_does() -> None:
    """The operations of a handler in their order, with its constants to the bit."""
    program = Program(2, [True], nothing)

    def handler(t: Any, a: Any, b: Any) -> tuple[Any, ...]:
        c = -t / 3 * (a - 1e300) + math.pi**b
        bool(b)
        return c, 1 - c, 0.1 + 0.2 + a, -1e-320 * t, 2**b, t, math.inf - a, b - (-math.inf), -0.0 * t

    function = program.function(handler(program.now, *program.numbers), ())
    for numbers in [(1.5, 0.1, 7.3), (1e-9, 3.0, -2.5), (0.0, -0.0, math.nan)]:
        compiled = evaluated(function.words, numbers[0], (ctypes.c_double * 2)(*numbers[1:]))
        got, want = function(numbers[0], numbers[1:])[0], handler(*numbers)
        assert [*map(float.hex, got)] == [*map(float.hex, compiled)] == [*map(float.hex, want)]


Numbers = st.one_of(st.floats(), st.integers(-(2**53), 2**53))


@given(
    st.lists(st.tuples(st.sampled_from(SIGNS[:-1]), *[st.integers(0, 9)] * 2), max_size=8),
    st.floats(),
    *[Numbers] * 2,
)
def test_compiled_code_counts_as_python_does_or_says_that_it_cannot(
    steps: list[tuple[str, int, int]], now: float, first: float, second: float
) -> None:
    """Whole numbers too, which Python has exactly."""
    program = Program(2, [], nothing)
    named: list[Any] = [program.now, *program.numbers, 3, 0.1, -(2**53), math.inf]
    for sign, a, b in steps:
        right = () if sign == "neg" else (named[b % len(named)],)
        base = named[a % len(named)]
        if sign == "**" and not (type(base) in (int, float) and base > 0):
            continue
        named.append(program.made(sign, base, *right))
    function = program.function([each for each in named if isinstance(each, Number)])
    try:
        (want,) = function(now, (first, second))
    except ArithmeticError:
        want = None
    try:
        got = evaluated(function.words, now, (ctypes.c_double * 2)(first, second))
    except ArithmeticError:
        return
    assert want is not None and [*map(float.hex, got)] == [float(x).hex() for x in want]


def test_what_is_too_large_to_be_exact_is_left_to_the_simulator() -> None:
    program = Program(1, [], nothing)
    n = program.numbers[0]
    for made in (n * n, n + n, 3**n, n - (-n)):
        with pytest.raises(ArithmeticError):
            evaluated(program.function([made]).words, 0.0, (ctypes.c_double * 1)(2.0**53))
    assert evaluated(program.function([n * 1.0]).words, 0.0, (ctypes.c_double * 1)(3.0)) == [3.0]
    with pytest.raises(NotLinear, match="too large"):
        n + (2**53 + 1)
