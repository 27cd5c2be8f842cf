"""Random worlds of six agents with links, slowdowns and cuts."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from offbeat import World
from offbeat.world.changes import Change, Cut, Slowdown
from offbeat.world.per_link import PerLink

LINKS = [(i, j) for i in range(6) for j in range(6) if i != j]
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(
        lambda group, at, long: Cut(frozenset(group), at, at + long),
        st.sets(st.integers(0, 5), min_size=1, max_size=3), st.sampled_from([3.0, 7.5, 12.25]),
        st.sampled_from([1.0, 9.0]),
    ),
    st.builds(
        lambda who, factor, at, long: Slowdown(who, factor, at, at + long),
        st.integers(0, 5), st.sampled_from([0.2, 6.0]), st.sampled_from([2.0, 8.5]),
        st.sampled_from([3.0, 11.0]),
    ),
)  # fmt: skip


def by_link(values: Sequence[float], usual: float) -> st.SearchStrategy[PerLink]:
    own = st.dictionaries(st.sampled_from(LINKS), st.sampled_from(values), max_size=6)
    return st.builds(PerLink, st.just(usual), own)


WORLDS = st.builds(
    World, seed=st.integers(0, 10_000), loss=st.one_of(st.just(0.0), by_link([0.1, 0.9, 1.0], 0.2)),
    latency=by_link([0.3, 2.0, 11.0], 0.1), bandwidth=by_link([0.2, 3.0], 1.0),
    sending=st.sampled_from(["multicast", "unicast"]), network=st.sampled_from(["serial", "fair"]),
    changes=st.lists(CHANGES, max_size=3).map(tuple),
)  # fmt: skip
GRAPHS = st.sampled_from(["ring", "grid", "complete", "star"])
LINKED = WORLDS.map(lambda world: replace(world, network="serial"))
"""Those of them in which what happens when is known beforehand."""
