"""Some of the random worlds of `make fuzz-worlds`."""

import pytest
from fuzz_worlds import mismatches, world

from offbeat.world.per_link import PerLink


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_executors_agree_with_the_oracle_in_random_worlds(first: int) -> None:
    """Where one does not: python tests/support/fuzz_worlds.py --world NUMBER."""
    assert {number: said for number in range(first, first + 20) if (said := mismatches(number))} == {}


def test_the_worlds_have_every_feature_together() -> None:
    found = set[str]()
    for number in range(100):
        asked = world(number).settings
        found |= {name for name, value in asked.items() if value}
        found |= {f"{name}={asked.get(name)}" for name in ("sending", "network", "objective")}
        found |= {f"{name} by link" for name, value in asked.items() if isinstance(value, PerLink)}
        found |= {type(change).__name__ for change in asked.get("changes", ())}
    wanted = {"speeds", "links", "latency by link", "bandwidth by link", "loss by link", "Cut", "Slowdown"}
    wanted |= {"availability", "crash", "byzantine", "partition", "objective=samples"}
    assert wanted | {"sending=unicast", "network=fair"} <= found
