"""Who is first: the test is exact, and says when seeds are too few."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

import offbeat
from offbeat import Comparison
from offbeat.results.notes import notes
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
    assert said.startswith("adsgd is first in median time to the target, paired by seed")
    assert "before dsgd by 3.25 on average (p = 0.031, 6 seeds)" in said, "never counts as the end, 20"
    (said,) = who_is_first(with_times({"dsgd": [1.5, 1.5, 2.5, 4.5, 4.5, 6.6], "adsgd": first}))
    assert "which may be chance" in said
    (said,) = who_is_first(with_times({"dsgd": later[:3], "adsgd": first[:3]}))
    assert "too few seeds to tell" in said and "with 3 seeds p is 0.25 at least" in said
    assert who_is_first(with_times({"dsgd": later[:1], "adsgd": first[:1]})) == []
    (said,) = who_is_first(with_times({"dsgd": [None] * 6, "adsgd": [None] * 6}))
    assert "final loss" in said and "by nothing (equal in all 6 seeds)" in said


def test_ties_lost_and_missing_seeds_are_said_and_not_passed_over() -> None:
    first: list[float | None] = [1.0, 2, 3, 4, 5, 6]
    (said,) = who_is_first(with_times({"adsgd": first, "dsgd": first}))
    assert "before dsgd by nothing (equal in all 6 seeds)" in said
    (said,) = who_is_first(with_times({"adsgd": first, "dsgd": [4.0, 4, 4, 4, 4, 0.0]}))
    assert "before dsgd in the median, though behind it by 0.167 on average" in said
    (said,) = who_is_first(with_times({"adsgd": first, "dsgd": [*first[:5], None]}))
    assert "never counting as the end of the run" in said
    met = with_times({"adsgd": first, "dsgd": [0.5] * 6}).runs
    lost = [replace(run, diverged_at=10.0) if run.algorithm == "dsgd" else run for run in met]
    (said,) = who_is_first(Comparison(lost))
    assert said.startswith("adsgd is first") and "dsgd by 16.5" in said, "what diverged then is not first"
    several = with_times({"adsgd": first, "dsgd": first, "rfast": first[:3]})
    (said,) = who_is_first(several)
    assert said.endswith("Too few seeds in common to tell: rfast (3); expected 6 or more.")
    some = [run for run in several.runs if (run.seed > 0) == (run.algorithm == "adsgd") or run.seed > 2]
    (said,) = who_is_first(Comparison([run for run in some if run.algorithm != "rfast"]))
    assert "with 3 seeds that both have p is 0.25 at least" in said
    two = [run for run in several.runs if run.algorithm != "rfast"]
    apart = Comparison([run for run in two if (run.seed > 2) == (run.algorithm == "adsgd")])
    assert who_is_first(apart) == []
    (said,) = (note for note in notes(apart) if "in common" in note)
    assert said.startswith("Not compared, for not all have a seed in common: ")
    assert "adsgd seeds 3 to 5" in said and "dsgd seeds 0 to 2" in said
    worse = [replace(run, time_to_target=None) for run in several.runs]
    nan = [
        replace(run, final=run.final | {"loss": None}) if run.algorithm == "rfast" else run for run in worse
    ]
    (said,) = who_is_first(Comparison(nan))
    assert said.endswith("Not compared, for a loss is not finite: rfast.")
