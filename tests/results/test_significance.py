"""Who is first: the test is exact, and says when seeds are too few."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

import offbeat
from offbeat import Comparison
from offbeat.results.significance import ENOUGH, EXACT, LEVEL, paired_p, who_is_first


def test_the_sign_flip_test_counts_all_signs() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 8):
        d = rng.normal(0.5, 1, n)
        signs = np.array([*product((1, -1), repeat=n)])
        exact = np.mean(np.abs(signs @ d) >= abs(d.sum()) * (1 - 1e-12))
        assert paired_p(d.tolist()) == exact
        assert paired_p((-d).tolist()) == exact
    theirs = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert paired_p(d.tolist()) == pytest.approx(theirs.pvalue)
    assert paired_p([1.0] * ENOUGH) == 2 / 2**ENOUGH < LEVEL < 2 / 2 ** (ENOUGH - 1)
    assert paired_p([0.0] * 8) == 1.0
    many = rng.normal(0.3, 1, EXACT + 4)
    assert paired_p(many.tolist()) == stats.wilcoxon(many).pvalue


def with_times(times: dict[str, list[float | None]]) -> Comparison:
    run = offbeat.simulate("adsgd", task="quadratic", agents=4, topology="ring", until=20, eval_every=10)
    return Comparison([
        replace(run, algorithm=name, seed=seed, time_to_target=time)
        for name, several in times.items()
        for seed, time in enumerate(several)
    ])  # fmt: skip


def test_who_is_first_is_said_with_its_seeds() -> None:
    first: list[float | None] = [1.0, 2, 3, 4, 5, 6]
    later: list[float | None] = [2.0, 3.5, 4, 5, 6, None]
    (said,) = who_is_first(with_times({"dsgd": later, "adsgd": first}))
    assert said.startswith("adsgd is first in time to the target, paired by seed")
    assert "before dsgd by 3.25 on average (p = 0.031, 6 seeds)" in said, "never counts as the end, 20"
    (said,) = who_is_first(with_times({"dsgd": [1.5, 1.5, 2.5, 4.5, 4.5, 6.6], "adsgd": first}))
    assert "which may be chance" in said
    (said,) = who_is_first(with_times({"dsgd": later[:3], "adsgd": first[:3]}))
    assert "too few seeds to tell" in said and "with 3 seeds p is 0.25 at least" in said
    assert who_is_first(with_times({"dsgd": later[:1], "adsgd": first[:1]})) == []
    (said,) = who_is_first(with_times({"dsgd": [None] * 6, "adsgd": [None] * 6}))
    assert "final loss" in said and "p = 1" in said
