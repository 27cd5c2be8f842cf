"""Who is first, and whether seeds could tell: paired by seed, for all algorithms meet the same delays."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from offbeat.results.ranking import Ranking, rankings
from offbeat.results.values import ComparisonValues, RunValues, value_text

EXACT = 16  # seeds up to which all 2^n signs are tried
LEVEL = 0.05
ENOUGH = 6  # seeds with which p may fall below it: 2 / 2^6 = 0.031, and of five 2 / 2^5 = 0.0625
WORLDS = 6  # of more nothing is said


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p of the hypothesis that paired differences are as likely to be of either sign.

    The sign-flip permutation test, exact, up to 16 of them: with S = |sum_k d_k|, and s over all 2^n vectors
    of signs,

        p = #{s : |sum_k s_k d_k| >= S} / 2^n,     which is never below 2 / 2^n.

    (E. J. G. Pitman, "Significance tests which may be applied to samples from any populations", Suppl. J.
    Royal Stat. Soc. 4, 1937.) Of more it is Wilcoxon's signed-rank test, scipy's `wilcoxon`. Of differences
    that are all 0 it is 1. Raises ValueError for none.
    """
    d = np.array(differences, dtype=float)
    if not len(d):
        raise ValueError("no differences")
    if not d.any():
        return 1.0
    if len(d) > EXACT:
        from scipy.stats import wilcoxon

        return float(wilcoxon(d).pvalue)
    sums = np.zeros(1)
    for each in d:
        sums = np.concatenate([sums + each, sums - each])
    reached = np.abs(sums) >= abs(d.sum()) * (1 - 1e-12)
    return float(reached.mean())


def who_is_first(comparison: ComparisonValues, band: str = "range") -> list[str]:
    """A sentence or two for each world where several seeds ran: who is first, and against whom it is sure.

    First is whom `offbeat.results.ranking` has first. Each p is that of one pair, by itself, over the seeds
    that both have: with k others, p times k (Bonferroni) bounds that of all of them. In a difference of times
    one that was never met, or met by a run that diverged then, counts as the end of the run.
    """
    ranked = rankings(comparison, band)
    if len(ranked) > WORLDS:
        return []
    several = [each for each in ranked.values() if len(each.groups) > 1]
    several = [each for each in several if any(len(runs) > 1 for runs in each.groups.values())]
    return list(dict.fromkeys(said for each in several for said in _first(comparison, each)))


def _first(comparison: ComparisonValues, ranked: Ranking) -> list[str]:
    timed, groups, best = ranked.timed, ranked.groups, ranked.first
    values = {key: {run.seed: _value(run, timed) for run in runs} for key, runs in groups.items()}
    lost = [key for key, of in values.items() if not all(map(math.isfinite, of.values()))]
    values = {key: of for key, of in values.items() if key not in lost}
    if len(values) < 2 or best is None:
        return []
    said, few = list[str](), dict[str, int]()
    for key, others in values.items():
        seeds, name = sorted(others.keys() & values[best].keys()), comparison.label(key, world=False)
        if key != best and len(seeds) < ENOUGH:
            few[name] = len(seeds)
        elif key != best:
            said.append(_pair(name, [others[seed] - values[best][seed] for seed in seeds], ranked.centre))
    first = comparison.label(best, world=False)
    where = ", ".join(f"{name} {value_text(value)}" for name, value in best.world)
    if not said:
        most = max(few.values())
        shared = " that both have" * any(of.keys() != values[best].keys() for of in values.values())
        seeds_said = f"{most} seed{'s' * (most > 1)}{shared}"
        reach = f"with {seeds_said} p is {2 / 2**most:.2g} at least; expected {ENOUGH} or more"
        why = "too few seeds to tell, paired by seed"
        return [f"Who is first in {ranked.what}{f' of {where}' * bool(where)}: {why} ({reach})."]
    test = "sign-flip test" if max(map(len, values.values())) <= EXACT else "Wilcoxon's test"
    where = f"Of {where}, " if where else ""
    ends = timed and any(_never(run) for key in values for run in groups[key])
    test += ", never counting as the end of the run" * ends
    head = f"{where}{first} is first in {ranked.what}, paired by seed, {test}: before {'; '.join(said)}."
    return [head + _left_out(few, [comparison.label(key, world=False) for key in lost])]


def _pair(name: str, d: Sequence[float], centre: str) -> str:
    """By how much one is behind the first, and whether it is sure. d: of every seed"""
    if not any(d):
        return f"{name} by nothing (equal in all {len(d)} seeds)"
    p, much = paired_p(d), float(np.mean(d))
    sure = "" if p < LEVEL else ", which may be chance"
    by = f"{name} by {much:.3g}" if much >= 0 else f"{name} in the {centre}, though behind it by {-much:.3g}"
    return f"{by} on average (p = {p:.2g}, {len(d)} seeds{sure})"


def _left_out(few: Mapping[str, int], lost: Sequence[str]) -> str:
    """Whom nothing is said of, and why."""
    names = ", ".join(f"{name} ({count})" for name, count in few.items())
    said = f" Too few seeds in common to tell: {names}; expected {ENOUGH} or more." * bool(few)
    return said + f" Not compared, for a loss is not finite: {', '.join(lost)}." * bool(lost)


def _never(run: RunValues) -> bool:
    return run.time_to_target is None or run.diverged_at is not None


def _value(run: RunValues, timed: bool) -> float:
    if timed:
        met = run.time_to_target
        return float(run.settings["until"]) if met is None or _never(run) else met
    loss = run.final["loss"]
    return math.nan if loss is None else loss
