"""The partitions: their invariants, their laws, their extremes, their errors."""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offbeat.core.errors import SettingError
from offbeat.tasks.partition.equal import Labels, Rows, _fill, by_label, dirichlet

Split = Callable[[Labels, int, float, np.random.Generator], Rows]

SEEDS = st.integers(0, 2**32 - 1)
LABELS = st.lists(st.integers(-3, 300), min_size=1, max_size=120).map(np.array)
SKEWS = st.floats(0, 1)
ALPHAS = st.floats(0, 1e308, exclude_min=True)


def classes_per_shard(labels: Labels, shards: Rows) -> float:
    """The mean number of distinct labels in a shard."""
    return float(np.mean([len(np.unique(labels[row])) for row in shards]))


@pytest.fixture
def balanced() -> Labels:
    """10,000 samples of 10 classes, 1,000 of each, in random order."""
    return np.random.default_rng(7).permutation(np.arange(10_000) % 10)


def check(split: Split, labels: Labels, n: int, knob: float, seed: int) -> Rows:
    """What holds for every split, whatever its knob."""
    shards = split(labels, n, knob, np.random.default_rng(seed))
    assert shards.shape == (n, len(labels) // n)
    assert shards.dtype == np.int64
    assert shards.min() >= 0
    assert shards.max() < len(labels)
    assert len(np.unique(shards)) == shards.size
    again = split(labels, n, knob, np.random.default_rng(seed))
    assert np.array_equal(shards, again)
    return shards


@given(LABELS, st.data(), SKEWS, SEEDS)
def test_by_label_splits_and_sorts_its_lot(
    labels: Labels, data: st.DataObject, skew: float, seed: int
) -> None:
    n = data.draw(st.integers(1, len(labels)))
    shards = check(by_label, labels, n, skew, seed)
    dealt = labels[shards[:, : round(skew * shards.shape[1])]].ravel()
    assert np.all(np.diff(dealt) >= 0)


@given(LABELS, st.data(), ALPHAS, SEEDS)
def test_dirichlet_splits(labels: Labels, data: st.DataObject, alpha: float, seed: int) -> None:
    check(dirichlet, labels, data.draw(st.integers(1, len(labels))), alpha, seed)


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-3, 1.0, 1e3, 1e308])
def test_dirichlet_takes_any_positive_alpha(alpha: float, balanced: Labels) -> None:
    check(dirichlet, balanced, 8, alpha, seed=1)


def test_shards_do_not_depend_on_what_the_labels_are_called(balanced: Labels) -> None:
    for split in (by_label, dirichlet):
        plain = split(balanced, 7, 0.5, np.random.default_rng(3))
        renamed = split(balanced * 11 - 40, 7, 0.5, np.random.default_rng(3))
        assert np.array_equal(plain, renamed)


def test_full_skew_gives_each_agent_its_own_label(balanced: Labels) -> None:
    shards = by_label(balanced, 10, 1.0, np.random.default_rng(0))
    assert np.array_equal(balanced[shards], np.repeat(np.arange(10), 1000).reshape(10, 1000))


def test_no_skew_is_uniform(balanced: Labels) -> None:
    shards = by_label(balanced, 10, 0.0, np.random.default_rng(0))
    counts = np.array([np.bincount(balanced[row], minlength=10) for row in shards])
    # A count is hypergeometric with mean 100 and standard deviation 9.
    assert np.abs(counts - 100).max() < 45


def test_half_skew_is_half_one_label(balanced: Labels) -> None:
    shards = by_label(balanced, 10, 0.5, np.random.default_rng(0))
    own = [(balanced[row] == agent).mean() for agent, row in enumerate(shards)]
    assert np.allclose(own, 0.55, atol=0.06)


def test_ties_within_a_label_are_in_random_order() -> None:
    row = by_label(np.zeros(1000, dtype=np.int64), 2, 1.0, np.random.default_rng(0))[0]
    assert 200 < np.sum(row < 500) < 300
    assert abs(np.corrcoef(row, np.arange(500))[0, 1]) < 0.2


@pytest.mark.parametrize("split", [by_label, dirichlet])
def test_what_is_left_over_is_dropped_uniformly(split: Split) -> None:
    labels = np.arange(11) // 4
    rng = np.random.default_rng(5)
    dropped = np.zeros(11)
    for _ in range(2200):
        dropped[np.setdiff1d(np.arange(11), split(labels, 4, 0.7, rng))] += 1
    # 3 of 11 each time: a count is binomial with mean 600 and standard deviation 21.
    assert np.abs(dropped - 600).max() < 100


def test_large_alpha_is_the_prior_and_small_alpha_is_few_classes(balanced: Labels) -> None:
    def spread(alpha: float) -> float:
        return classes_per_shard(balanced, dirichlet(balanced, 100, alpha, np.random.default_rng(2)))

    # Not 10: the agents that come last must do with what is left.
    assert spread(1e6) > 9.6
    assert spread(1e-6) < 1.3
    assert spread(1e-6) < spread(0.5) < spread(5.0) < spread(1e6)


def test_small_alpha_stays_few_classes_when_shards_are_larger_than_classes(balanced: Labels) -> None:
    # Each of the 8 shards needs more than one class; what comes second must be one class again.
    assert classes_per_shard(balanced, dirichlet(balanced, 8, 1e-9, np.random.default_rng(4))) < 3.5


def test_the_mixture_has_the_moments_of_the_dirichlet_law() -> None:
    prior, alpha, size = np.array([0.5, 0.3, 0.2]), 2.0, 1000
    plenty = np.full(3, 10**6)
    rng = np.random.default_rng(11)
    share = np.array([_fill(alpha * prior, plenty, size, rng) for _ in range(4000)]) / size
    variance = prior * (1 - prior) * (1 / (alpha + 1) + alpha / (alpha + 1) / size)
    assert np.allclose(share.mean(axis=0), prior, atol=0.02)
    assert np.allclose(share.var(axis=0), variance, rtol=0.08)


def test_filling_at_once_has_the_law_of_filling_one_by_one() -> None:
    q, left, size, rounds = np.array([0.6, 0.3, 0.1]), np.array([4, 7, 30]), 16, 4000
    rng = np.random.default_rng(13)

    def one_by_one() -> np.ndarray:
        take = np.zeros(3, dtype=np.int64)
        for _ in range(size):
            weights = np.where(take < left, q, 0)
            take[rng.choice(3, p=weights / weights.sum())] += 1
        return take

    # At a concentration this high, q is what it is divided by.
    fast = np.array([_fill(1e12 * q, left, size, rng) for _ in range(rounds)])
    slow = np.array([one_by_one() for _ in range(rounds)])
    assert np.all(fast <= left)
    assert np.all(fast.sum(axis=1) == size)
    for c in range(3):
        counts = [np.bincount(takes[:, c], minlength=size + 1) / rounds for takes in (fast, slow)]
        assert np.abs(counts[0] - counts[1]).max() < 0.05


def test_late_agents_are_not_the_highest_indices() -> None:
    # The last to fill its shard gets what is left, so it has all the classes; it must not always be agent 3.
    labels = np.arange(400) % 4
    last = set()
    for seed in range(30):
        shards = dirichlet(labels, 4, 0.05, np.random.default_rng(seed))
        last.add(int(np.argmax([len(np.unique(labels[row])) for row in shards])))
    assert last == {0, 1, 2, 3}


def test_dirichlet_is_fast_at_the_size_of_mnist() -> None:
    labels = np.random.default_rng(1).integers(0, 10, 60_000)
    start = time.process_time()
    dirichlet(labels, 1024, 0.1, np.random.default_rng(0))
    assert time.process_time() - start < 2


@pytest.mark.parametrize("skew", [-0.1, 1.0000001, math.nan, math.inf])
def test_bad_skew(skew: float) -> None:
    with pytest.raises(SettingError, match=r"skew is .*from 0"):
        by_label(np.zeros(4, dtype=np.int64), 2, skew, np.random.default_rng(0))


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_bad_alpha(alpha: float) -> None:
    with pytest.raises(SettingError, match=r"alpha is .*positive"):
        dirichlet(np.zeros(4, dtype=np.int64), 2, alpha, np.random.default_rng(0))


@pytest.mark.parametrize("split", [by_label, dirichlet])
@pytest.mark.parametrize(("total", "n"), [(4, 0), (4, -1), (4, 5), (0, 1)])
def test_bad_number_of_agents(split: Split, total: int, n: int) -> None:
    with pytest.raises(SettingError, match=f"split {total} samples over {n} agents"):
        split(np.zeros(total, dtype=np.int64), n, 0.5, np.random.default_rng(0))
