"""Vectors as linear forms: what is evaluated, when, and in which order."""

import gc
import pickle
from collections.abc import Sequence
from threading import Thread

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from offbeat.core.forms import (
    concat,
    difference,
    mix,
    opened,
    piece,
    pin,
    replaced,
    split,
    total,
    weighted,
    zero,
)
from offbeat.core.sums import plain
from offbeat.core.system import kernel
from offbeat.core.vector import Leased, Linear, Parts, Scope, Stamp, Vector, opaque

numbers = st.floats(-10, 10, allow_nan=False, width=32)


def vec(*values: float) -> Vector:
    return Vector((torch.tensor(values, dtype=torch.float64),))


def value(v: Vector) -> list[float]:
    return v.parts[0].tolist()


def test_arithmetic() -> None:
    x, y = vec(1, 2), vec(10, 20)
    assert value(x + y) == [11, 22]
    assert value(x - y) == [-9, -18]
    assert value(2 * x - y / 2 + -x) == [-4, -8]
    assert value(total([x, y], start=zero(x))) == [11, 22]
    assert value(mix({0: 0.5, 1: 0.25, 2: 0.25}, {1: y}, own=x)) == [0.5 + 2.5 + 0.25, 1 + 5 + 0.5]


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6))
def test_a_form_is_evaluated_from_left_to_right_bit_for_bit(terms: list[tuple[float, float]]) -> None:
    """(c0 v0 + c1 v1) + ...: what torch computes step by step, whatever was evaluated in between."""
    vectors = [(c, vec(x, -x, 3 * x)) for c, x in terms]
    (c, v), *rest = vectors
    form, expected = c * v, v.parts[0] * c
    for c, v in rest:
        form = form + c * v
        expected = torch.add(expected, v.parts[0], alpha=c)
    assert torch.equal(form.parts[0], expected)


@given(st.data())
def test_reading_a_value_early_does_not_change_the_bits(data: st.DataObject) -> None:
    x, y, z = (vec(*data.draw(st.lists(numbers, min_size=3, max_size=3))) for _ in range(3))
    c = data.draw(numbers)

    def build(read: bool) -> Vector:
        half = x - c * y
        scaled = c * half
        if read:
            assert len(value(half)) == len(value(scaled)) == 3
        return z + scaled - half

    with Scope():
        early, late = build(read=True), build(read=False)
        assert torch.equal(early.parts[0], late.parts[0])


def test_a_shared_term_is_evaluated_once_and_a_dropped_one_never() -> None:
    calls = []

    def make(name: str) -> Vector:
        def compute() -> Parts:
            calls.append(name)
            return (torch.ones(2),)

        return opaque(compute)

    with Scope():
        half = make("shared")
        kept = [2.0 * half + half, half - half]
        make("dropped")
        del half
        gc.collect()
    assert calls == ["shared"]
    assert value(kept[0]) == [3, 3]
    assert value(kept[1]) == [0, 0]


def test_settle_turns_everything_kept_into_values_that_hold_no_history() -> None:
    x = vec(1.0)
    with Scope() as scope:
        for _ in range(50):
            x = 0.5 * x + x
    assert x._terms == ()
    assert not scope.born


def test_values_do_not_change_and_plus_equals_rebinds() -> None:
    x = y = vec(1, 2)
    x += vec(1, 1)
    assert value(x) == [2, 3]
    assert value(y) == [1, 2]


def test_a_vector_is_a_tuple_of_parts() -> None:
    v = Vector((torch.tensor([3.0, 0.0]), torch.tensor([4.0], dtype=torch.float64)))
    assert v.norm() == 5
    assert v.nbytes == 2 * 4 + 8
    doubled = (v + v).parts
    assert [part.dtype for part in doubled] == [torch.float32, torch.float64]
    assert [part.tolist() for part in doubled] == [[6, 0], [8]]


@given(st.integers(1, 12), st.integers(0, 7))
def test_join_undoes_split(n: int, length: int) -> None:
    v = Vector((torch.arange(length).double(), torch.arange(2 * length).float()))
    pieces = split(v, n)
    assert len(pieces) == n
    assert all(torch.equal(a, b) for a, b in zip(concat(pieces).parts, v.parts, strict=True))


@given(st.integers(1, 12), st.integers(0, 7), st.data())
def test_pieces_that_are_replaced_are_those_of_the_other(n: int, length: int, draw: st.DataObject) -> None:
    one, other = (Vector((k * torch.arange(length), k * torch.arange(2 * length))) for k in (1, -1))
    which = draw.draw(st.lists(st.integers(0, n - 1), unique=True))
    made = replaced(one, n, {c: piece(other, n, c) for c in which})
    for c, part in enumerate(split(made, n)):
        expected = piece(other if c in which else one, n, c)
        assert all(torch.equal(a, b) for a, b in zip(part.parts, expected.parts, strict=True))


def test_of_a_multiple_the_piece_alone_is_made() -> None:
    """The multiple of the piece: what else there is of it is never computed."""
    x = vec(1.0, 2.0, 4.0)
    with Scope():
        multiple = 0.1 * x
        second = piece(multiple, 2, 1)
        kept = zero(second) + second
        assert multiple._parts is None
    assert torch.equal(kept.parts[0], 0.1 * x.parts[0][2:])
    assert multiple._parts is not None, "evaluated as it is still referred to"


def test_an_open_form_gives_its_terms_away() -> None:
    x, y, z = vec(1.0), vec(2.0), vec(3.0)
    flowed = opened(weighted((0.75, x), (0.25, y)))
    assert (difference(z, flowed) / 2)._terms == ((0.5, z), (-0.375, x), (-0.125, y))
    assert (flowed + z)._terms == ((0.75, x), (0.25, y), (1.0, z))


def test_late_bound_moves_on_and_pin_does_not() -> None:
    register = vec(1.0)
    register.late = True
    with Scope():
        pinned = pin(register)
    register.move(vec(2.0))
    assert value(register + vec(0.0)) == [2]
    assert value(pinned) == [1]


def test_sources_name_the_versions_that_enter_a_form() -> None:
    mine, theirs, other = (
        Vector((torch.ones(1),), Stamp(0, 3)),
        Vector((torch.ones(1),), Stamp(1, 7)),
        vec(1.0),
    )
    with Scope():
        form = mine + (theirs - mine) / 2 - 0.1 * other
        assert [v.stamp for v in form.sources()] == [Stamp(0, 3), Stamp(1, 7), Stamp(0, 3)]
    assert list(form.sources()) == []


def test_pickling_materialises() -> None:
    form = vec(1, 2) + vec(3, 4)
    again = pickle.loads(pickle.dumps(form))
    assert value(again) == [4, 6]


@pytest.mark.parametrize("how", [plain, kernel.linear])
def test_parts_that_do_not_fit_are_an_error(how: Linear) -> None:
    """In the simulator, and live."""
    with Scope(how), pytest.raises(ValueError, match=r"shorter|longer"):
        _ = (vec(1.0) + Vector((torch.ones(1), torch.ones(1)))).parts


def test_a_difference_gives_its_terms_away_and_repeats_none() -> None:
    x, y = vec(1.0, -2.0, 3.0), vec(0.1, 0.2, 0.3)
    alone = x - difference(x, y)
    assert alone._terms == ((0.0, x), (1.0, y))
    assert torch.equal(alone.parts[0], y.parts[0]), "to the bit"
    mixed = mix({0: 0.25, 1: 0.75}, {1: y}, own=x) - difference(x, y)
    assert mixed._terms == ((0.25 - 1.0, x), (0.75 + 1.0, y))
    assert (2.0 * difference(x, y))._terms == ((2.0, x), (-2.0, y))


def test_what_depends_on_a_version_that_was_overwritten_is_evaluated_again() -> None:
    late, still = vec(1.0), vec(10.0)
    late.late = True
    rounds = []

    def torn(used: Sequence[Vector]) -> list[Vector]:
        assert all(v is late for v in used)
        rounds.append(float(nested.parts[0]))
        if len(rounds) == 3:
            return []
        late.move(vec(float(1 + len(rounds))))
        return [late]

    with Scope() as scope:
        form = late + still
        nested = 2.0 * (form + late) + still
        apart = still * 3.0
        kept = apart.parts[0]
        scope.settle(torn)
    assert rounds == [34.0, 38.0, 42.0]
    assert float(form.parts[0]) == 13.0
    assert apart.parts[0] is kept, "the others are left alone"


def test_what_was_forced_stays_as_it_is_when_a_register_moves_on() -> None:
    late = vec(1.0)
    late.late = True

    def torn(used: Sequence[Vector]) -> list[Vector]:
        if float(late.parts[0]) > 1.0:
            return []
        late.move(vec(5.0))
        return [late]

    with Scope() as scope:
        early = 2.0 * late
        scope.force(lambda used: [])
        after = late + early
        scope.settle(torn)
    assert float(early.parts[0]) == 2.0
    assert float(after.parts[0]) == 7.0


def test_a_form_is_evaluated_where_the_engine_wants_it() -> None:
    x = vec(1.0, 2.0)
    out = Leased([torch.zeros(2, dtype=x.parts[0].dtype)])
    with Scope():
        form = 3.0 * x
        assert form.into(out)
        assert not form.into(out), "one place only"
    assert form.parts is out
    assert out[0].tolist() == [3.0, 6.0]
    alias = pin(form)
    assert alias.parts[0].data_ptr() != out[0].data_ptr(), "leased memory is copied, never shared"
    assert not x.into(out), "a value stays where it is"


def test_scopes_know_only_of_what_is_built_in_them() -> None:
    with Scope() as outer:
        x = 2.0 * vec(1.0)
        with Scope():
            y = x + vec(1.0)
        assert y._terms == () and x._terms != ()
        assert len(outer.born) == 1
        other = Thread(target=lambda: 3.0 * vec(1.0))  # of another thread
        other.start()
        other.join()
        assert len(outer.born) == 1
    assert value(x) == [2.0]


def test_what_was_half_built_when_something_failed_is_never_computed() -> None:
    made: list[Vector] = []
    with pytest.raises(ZeroDivisionError), Scope():
        made.append(opaque(lambda: pytest.fail("computed")))
        _ = 1 / 0
    with Scope():
        made.append(vec(1.0) + vec(2.0))
    assert value(made[1]) == [3.0]
