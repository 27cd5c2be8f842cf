"""Some of the random worlds of `make fuzz-worlds`."""

import pytest
from fuzz_worlds import mismatches


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_executors_agree_with_the_oracle_in_random_worlds(first: int) -> None:
    """Where one does not: python tests/support/fuzz_worlds.py --world NUMBER."""
    assert {number: said for number in range(first, first + 20) if (said := mismatches(number))} == {}
