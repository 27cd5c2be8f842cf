"""Who is first, and whether seeds could tell: paired by seed, for all algorithms meet the same delays."""

import math
from collections.abc import Sequence

import numpy as np

from offbeat.results.values import ComparisonValues, Group, RunValues, value_text

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


def who_is_first(comparison: ComparisonValues) -> list[str]:
    """A sentence or two for each world where several seeds ran: who is first, and against whom it is sure.

    It goes by the time to the target, in which one that was never met counts as the end of the run; where
    there is no target, or nobody met it, by the final loss. First is the smallest median. Each p is that of
    one pair, by itself: with k others, p times k (Bonferroni) bounds that of all of them.
    """
    worlds: dict[object, dict[Group, list[RunValues]]] = {}
    for key, runs in comparison.groups().items():
        worlds.setdefault(key.world, {})[key] = runs
    if len(worlds) > WORLDS:
        return []
    found = []
    for groups in worlds.values():
        if len(groups) > 1 and any(len(runs) > 1 for runs in groups.values()):
            found += _first(comparison, groups)
    return list(dict.fromkeys(found))


def _first(comparison: ComparisonValues, groups: dict[Group, list[RunValues]]) -> list[str]:
    timed = any(run.time_to_target is not None for runs in groups.values() for run in runs)
    what = "time to the target" if timed else "final loss"
    values = {key: {run.seed: _value(run, timed) for run in runs} for key, runs in groups.items()}
    values = {key: of for key, of in values.items() if all(map(math.isfinite, of.values()))}
    if len(values) < 2:
        return []
    best = min(values, key=lambda key: float(np.median([*values[key].values()])))
    said, few = [], 0
    for key, others in values.items():
        seeds = sorted(others.keys() & values[best].keys())
        if key == best or len(seeds) < 2:
            continue
        if len(seeds) < ENOUGH:
            few = max(few, len(seeds))
            continue
        d = [others[seed] - values[best][seed] for seed in seeds]
        p = paired_p(d)
        sure = "" if p < LEVEL else ", which may be chance"
        name = comparison.label(key, world=False)
        said.append(f"{name} by {np.mean(d):.3g} on average (p = {p:.2g}, {len(seeds)} seeds{sure})")
    if few and not said:
        reach = f"with {few} seeds p is {2 / 2**few:.2g} at least; expected {ENOUGH} or more"
        return [f"Who is first in {what}: too few seeds to tell, paired by seed ({reach})."]
    where = ", ".join(f"{name} {value_text(value)}" for name, value in best.world)
    where = f"Of {where}, " if where else ""
    test = "sign-flip test" if max(map(len, values.values())) <= EXACT else "Wilcoxon's test"
    head = f"{where}{comparison.label(best, world=False)} is first in {what}, paired by seed, {test}: before "
    return [head + "; ".join(said) + "."] if said else []


def _value(run: RunValues, timed: bool) -> float:
    if timed:
        return float(run.settings["until"]) if run.time_to_target is None else run.time_to_target
    loss = run.final["loss"]
    return math.nan if loss is None else loss
