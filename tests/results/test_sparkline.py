import math

from hypothesis import given
from hypothesis import strategies as st

from offbeat.results.sparkline import BARS, PLAIN, sparkline


def test_heights_are_those_of_the_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BARS[1:]
    assert sparkline([7, 0], encoding="ascii") == PLAIN[-1] + PLAIN[1]
    assert sparkline([1.0, math.nan, 2.0]) == "▁ █"
    assert sparkline([]) == ""
    assert sparkline([3.0, 3.0]) == "▁▁"


@given(st.lists(st.floats(), max_size=100), st.integers(1, 30))
def test_whatever_the_values_it_is_no_wider_than_asked(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(width, len(values))
