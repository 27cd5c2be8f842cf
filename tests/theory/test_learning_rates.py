"""Learning rates and step sizes that theory names: their formulas, and runs at them."""

import math

import numpy as np
import pytest
from runs import LOCKSTEP, models, quadratic, started

from offbeat import Quadratic, World
from offbeat.algorithms import ALGORITHMS, find
from offbeat.core.errors import SettingError
from offbeat.theory import LIMITS, limit
from offbeat.theory.bounds import Given, Pair, bounds, pair_of_horizon, pair_of_rate, spectrum
from offbeat.theory.fixed_points import At, descended, in_rounds
from offbeat.theory.rates import DERIVED, RATES, UNCERTAIN
from offbeat.world.topology import build

GRID = spectrum(build("grid", 9))
STRAGGLER = World(seed=3, slow_compute={3: 5.0}, slow_communication={1: 5.0})


def test_the_spectrum_of_the_grid_is_the_known_one() -> None:
    assert (GRID.second, GRID.last) == pytest.approx((0.7674234614, -0.3162277660))
    assert (GRID.own, GRID.least) == pytest.approx((0.2, 0.2))


def test_a_row_says_for_which_rates_it_converges_if_and_only_if_theory_has_the_number() -> None:
    """The words stand in the table of algorithms, the numbers in `offbeat.theory.rates`."""
    assert {name for name, row in ALGORITHMS.items() if row.bound} == RATES.keys()


@pytest.mark.parametrize("n", [4, 8, 16, 32])
def test_random_pairs_on_a_ring_and_on_a_complete_graph(n: int) -> None:
    assert spectrum(build("ring", n)).pairs == pytest.approx(1 - (1 - math.cos(2 * math.pi / n)) / n)
    assert spectrum(build("complete", n)).pairs == pytest.approx(1 - 1 / (n - 1))


@pytest.mark.parametrize("delay", [0, 1, 20])
@pytest.mark.parametrize("horizon", [1, 10, 10**6])
def test_the_pair_of_a_horizon_meets_the_condition(delay: int, horizon: int) -> None:
    given = Given(9, GRID, L=3.0, D=delay, B=40, K=horizon)
    assert pair_of_horizon(given).admissible(given)
    largest = pair_of_rate(given, 0.3)
    assert largest.admissible(given) and not Pair(0.3, largest.gamma * 1.001).admissible(given)
    with pytest.raises(SettingError, match="Expected gamma <= alpha and gamma <= 1"):
        bounds(given, Pair(0.3, largest.gamma * 1.001))


def test_bounds_fall_as_the_horizon_does_with_the_published_power() -> None:
    """(iii) of the horizon's own pair goes down as K^(-1/3); so does (ii)."""
    far = [Given(9, GRID, D=2, B=30, K=k, sigma=0.5) for k in (10**9, 8 * 10**9)]
    near, later = (bounds(each, pair_of_horizon(each)) for each in far)
    assert near.average / later.average == pytest.approx(2, rel=0.05)
    assert near.consensus / later.consensus == pytest.approx(2, rel=0.05)


def test_what_tracks_gradients_has_astronomically_small_rates() -> None:
    """The two orders of magnitude for three agents that all talk to each other."""
    three = spectrum(build("complete", 3))
    for window, power in ((1, -12.3), (3, -32.4)):
        (rate,) = RATES["rfast"](Given(3, three, B=window))
        assert rate.power == pytest.approx(power, abs=0.1)
        assert rate.source == UNCERTAIN, "never as the publication's statement"


def test_a_longer_window_changes_no_rate_that_waits_for_nobody_and_mixes_models() -> None:
    slow, slower = (Given(9, GRID, L=2.0, D=3, B=window) for window in (9, 900))
    for name in ("adsgd", "swift", "dgd-atc", "prox-dgd"):
        assert RATES[name](slow) == RATES[name](slower)
    for name in ("asbcd", "rfast", "adpsgd"):
        assert RATES[name](slow)[0] != RATES[name](slower)[0]


FREE = ["adsgd", "adsgd:memory-efficient", "swift", "dgd-atc", "prox-dgd"]


@pytest.mark.parametrize("name", FREE)
def test_delays_whatever_they_are_do_no_harm_below_the_rate(name: str) -> None:
    """All curvatures are the largest, so that nothing is easier than the bound takes it to be."""
    task = Quadratic(np.random.default_rng(1).normal(size=(4, 2)), np.full(4, 2.0))
    (rate,) = RATES[name](Given(4, spectrum(build("ring", 4)), L=2.0))
    sim = started(name, task, STRAGGLER, "ring", lr=0.97 * rate.most, check=False)
    sim.run(800)
    wanted = limit(name, task, sim.topology, 0.97 * rate.most)
    assert models(sim) == pytest.approx(wanted, abs=1e-6)
    assert rate.source == DERIVED


@pytest.mark.parametrize(("name", "n"), [("dsgd", 4), ("allreduce", 3), ("dgd-atc", 1), ("dpsgd", 1)])
def test_rates_that_are_sharp(name: str, n: int) -> None:
    """Below them a run converges, above them it does not; one agent alone of those that
    adapt first is gradient descent."""
    task = Quadratic(np.random.default_rng(1).normal(size=(n, 2)), np.full(n, 2.0))
    most = RATES[name](Given(n, spectrum(build("ring", max(n, 3))), L=2.0))[0].most
    ends = []
    for factor in (0.95, 1.1):
        sim = started(name, task, LOCKSTEP, "ring", lr=factor * most, check=False)
        sim.run(200)
        ends.append(np.abs(models(sim)).max())
    assert ends[0] < 10 and ends[1] > 1e4


@pytest.mark.parametrize("name", [name for name in LIMITS if LIMITS[name].most])
def test_no_run_ends_at_or_beyond_what_a_limit_refuses(name: str) -> None:
    """With delays and curvatures that differ; and below what is sharp a run in rounds ends there."""
    task, ring = quadratic(4), build("ring", 4)
    most = LIMITS[name].most
    assert most is not None
    bound = most(At(find(name), task, ring, 1.0, np.full(4, 0.25)))
    sim = started(name, task, STRAGGLER, "ring", lr=1.3 * bound, check=False)
    sim.run(400)
    assert not np.abs(models(sim)).max() < 100
    with pytest.raises(SettingError, match="ends with a learning rate"):
        limit(name, task, ring, bound)
    if most in (in_rounds, descended):
        sim = started(name, task, LOCKSTEP, "ring", lr=0.95 * bound, check=False)
        sim.run(400)
        assert models(sim) == pytest.approx(limit(name, task, ring, 0.95 * bound), abs=1e-6)


def test_every_name_is_that_of_a_row_or_of_one_to_come() -> None:
    assert {*RATES} - {*ALGORITHMS} <= {"apsgd", "spsgd", "kungurtsev"}
