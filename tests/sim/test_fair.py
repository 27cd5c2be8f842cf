"""The fair network: its rates against linear programs and by hand, and runs that it must not change."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import models, quadratic, started
from scipy.optimize import linprog
from scripted import CONSTANT, logs, tables, when

from offbeat import Crash, Delay, World
from offbeat.engines.sim.fair import max_min
from offbeat.world.changes import Slowdown
from offbeat.world.per_link import PerLink

Flows = Sequence[Sequence[Hashable]]


def by_programs(flows: Flows, capacity: Mapping[Hashable, float]) -> list[float]:
    """Lexicographically: raise the smallest rate as far as it goes, keep those that are stuck, go on."""
    names, count = [*capacity], len(flows)
    matrix = np.array([[float(name in flow) for flow in flows] for name in names])
    limits, kept = [capacity[name] for name in names], dict[int, float]()

    def most(aim: np.ndarray, low: float) -> tuple[float, np.ndarray]:
        bounds = [(kept.get(k, low), kept.get(k)) for k in range(count)]
        if len(aim) > count:  # the level that all that are not kept must reach
            rows = [[-float(at == k) for at in range(count)] + [1.0] for k in range(count) if k not in kept]
            a = np.vstack([np.hstack([matrix, np.zeros((len(names), 1))]), rows])
            b = [*limits, *[0.0] * len(rows)]
            found = linprog(-aim, A_ub=a, b_ub=b, bounds=[*bounds, (0, None)], method="highs")
        else:
            found = linprog(-aim, A_ub=matrix, b_ub=limits, bounds=bounds, method="highs")
        assert found.success, found.message
        return -found.fun, found.x

    while len(kept) < count:
        level, _ = most(np.append(np.zeros(count), 1.0), 0.0)
        free = [k for k in range(count) if k not in kept]
        stuck = [k for k in free if most(np.eye(count)[k], level - 1e-9)[0] <= level + 1e-6]
        assert stuck
        kept |= dict.fromkeys(stuck, level)
    return [kept[k] for k in range(count)]


CAPACITIES = st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0, 2.0])


@st.composite
def networks(draw: st.DrawFn) -> tuple[Flows, Mapping[Hashable, float]]:
    pairs = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=7))
    flows = [(("out", i), ("in", j), ("link", k)) for k, (i, j) in enumerate(pairs)]
    return flows, {name: draw(CAPACITIES) for flow in flows for name in flow}


@settings(max_examples=20, deadline=None)
@given(networks())
def test_the_rates_are_those_of_lexicographic_linear_programs(
    network: tuple[Flows, Mapping[Hashable, float]],
) -> None:
    flows, capacity = network
    rates = max_min(flows, capacity)
    assert rates == pytest.approx(by_programs(flows, capacity), abs=1e-5)
    for name, most in capacity.items():
        assert sum(rate for rate, flow in zip(rates, flows, strict=True) if name in flow) <= most * (
            1 + 1e-12
        )
    for rate, flow in zip(
        rates, flows, strict=True
    ):  # each has a resource that is full, and in which none is faster
        full = [
            name for name in flow
            if sum(r for r, f in zip(rates, flows, strict=True) if name in f) >= capacity[name] * (1 - 1e-12)
        ]  # fmt: skip
        assert any(
            max(r for r, f in zip(rates, flows, strict=True) if n in f) <= rate * (1 + 1e-12) for n in full
        )


@pytest.mark.parametrize(
    ("flows", "capacity", "rates"),
    [
        (["ab"], {"a": 1.0, "b": 0.5}, [0.5]),
        (["a", "a", "a"], {"a": 1.0}, [1 / 3] * 3),
        (["ab", "a", "b"], {"a": 1.0, "b": 2.0}, [0.5, 0.5, 1.5]),
        (["ax", "a", "a"], {"a": 1.0, "x": 0.1}, [0.1, 0.45, 0.45]),
        (["abc", "a", "b", "c"], {"a": 1.0, "b": 0.6, "c": 0.8}, [0.3, 0.7, 0.3, 0.5]),
        ([], {}, []),
    ],
)
def test_rates_by_hand(flows: Flows, capacity: Mapping[Hashable, float], rates: list[float]) -> None:
    assert max_min(flows, capacity) == pytest.approx(rates, abs=1e-15)


FAIR = replace(CONSTANT, network="fair")


def test_a_multicast_is_a_flow_to_each_receiver_and_the_next_waits_for_all() -> None:
    """Two flows of length 0.4 at half the rate each; beside a narrow link the other has the rest."""
    quick = replace(FAIR, communication=Delay("constant", 0.4))
    _, one, two = logs(quick, 4.0)
    assert [(round(time, 12), n) for time, n in when(one)] == [(1.8, 1), (2.8, 2), (3.8, 3)]
    assert one == two
    narrow = replace(quick, bandwidth=PerLink(1.0, {(0, 1): 0.25}))
    _, one, two = logs(narrow, 6.0)
    ends = [1.0 + 1.6, 2.6 + 1.6, 4.2 + 1.6]
    assert [time for time, _ in when(one)] == pytest.approx(ends)
    assert [time for time, _ in when(two)] == pytest.approx([e - 1.6 + 0.4 / 0.75 for e in ends])


def test_a_slowdown_takes_capacity_while_flows_go_on() -> None:
    """Alone, from 1 to 1.5 at rate 1, until 3.25 at 1/4, then at 1 again: what is left is 1/16."""
    slow = replace(FAIR, changes=(Slowdown(0, 4.0, 1.5, 3.25),))
    log = logs(replace(slow, compute=Delay("constant", 1.0)), 3.5, n=2)[1]
    assert when(log) == [(3.25 + (1 - 0.5 - 1.75 / 4), 1)]


def test_the_flows_of_who_crashes_end_and_leave_their_rate_to_others() -> None:
    """Agents 0 and 2 send to 1, half the rate each, until 2 dies: 0 has a half left then."""
    world = replace(FAIR, crashes=(Crash(2, 1.5),))
    sim = started("dsgd:after", quadratic(3), world, "chain")
    sim.run(2.9)
    assert sim.recorder.trace().transmissions["end"].tolist()[0] == pytest.approx(1.0 + 0.5 + 0.75)


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd", "adpsgd", "rfast"])
@pytest.mark.parametrize("changed", [{}, {"latency": 0.7}, {"loss": 0.3}, {"slow_communication": {0: 4.0}}])
def test_flows_that_share_nothing_are_as_long_as_transmissions(
    algorithm: str, changed: dict[str, Any]
) -> None:
    """Two agents: each is alone on its way. What is under way at the end has no row yet."""
    found = []
    for network in ("serial", "fair"):
        sim = started(algorithm, quadratic(2), World(seed=7, network=network, **changed), "chain")
        sim.run(12.0)
        found.append((tables(sim), models(sim)))
    if "slow_communication" not in changed:  # there d s at a quarter of the rate is not 4 d s to the last bit
        for name in ("events", "writes", "mixed"):
            assert found[0][0][name] == found[1][0][name], name
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-12)


def test_nothing_is_left_over_where_flows_come_and_go() -> None:
    """All capacity of a receiver is used while something flows to it: a star whose leaves send."""
    sim = started("dsgd:after", quadratic(5), replace(FAIR, seed=1), "star")
    sim.run(20.0)
    sent = sim.recorder.trace().transmissions
    first = np.sort(sent["end"])[:8]
    assert first == pytest.approx([5.0] * 8), "1 to compute, 4 for four flows into the centre, and out of it"
    assert math.isclose(float(sent["start"].min()), 1.0)
