"""What runs say to the claims of arXiv:2505.10322 (ADSGD)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from statistics import median

import numpy as np

from offbeat.algorithms import find
from offbeat.experiments.reproduction.evidence import Evidence, by_rate, opposite, others, sooner, verdict
from offbeat.results.looks import base
from offbeat.results.reproduction import ELSEWHERE, Finding
from offbeat.results.run import Comparison
from offbeat.results.speedup import speedups
from offbeat.theory.measured import Counted
from offbeat.theory.table2 import GRAPHS, row

CASES = {
    "base": "base", "slow-comm": "slow sending", "comp-straggler": "computing straggler",
    "comm-straggler": "sending straggler", "combined": "both",
}  # fmt: skip
RFAST = (
    "R-FAST's learning rate: the paper has another for it, to match the others' step, and does not say it. "
    "Shown are n times theirs, 0.09, and one of the same effect with models one round old (rfast:matched)"
)
FORM = "the form of DSGD: it sends its model while it computes (ours)"

COMPARED = ("adsgd", "adpsgd", "rfast", "dsgd", "allreduce")
STRAGGLERS = ("comp-straggler", "comm-straggler", "combined")


def sorted_data(evidence: Evidence) -> Evidence:
    """The runs with all data sorted by label, which the claims of the main text are about."""
    return evidence.where(partition="skew:1")


def savings(evidence: Evidence, rivals: Sequence[str], low: float, high: float = 1.0) -> Finding:
    """Whether ADSGD saves that share of the time of each of these in each case."""
    pairs = {
        (case, rival): [evidence.where(case=case, algorithm=name) for name in ("adsgd", rival)]
        for case in evidence.values("case")
        for rival in rivals
    }
    found = {key: one.saved_over(other) for key, (one, other) in pairs.items() if one.runs and other.runs}
    words = "; ".join(f"{CASES[case]}, over {rival}: {saving}" for (case, rival), saving in found.items())
    return Finding(verdict(saving.within(low, high) for saving in found.values()), words)


def over_asynchronous(evidence: Evidence, low: float, high: float = 1.0) -> list[Finding]:
    """The same of the asynchronous ones, for each form of R-FAST."""

    def found(some: Evidence, reading: str) -> Finding:
        return replace(savings(some, others(some), low, high), reading=reading)

    return by_rate(evidence, "rfast", found)


def sooner_than_asynchronous(evidence: Evidence) -> list[Finding]:
    return over_asynchronous(sorted_data(evidence), 0.5)


def sending_straggler(evidence: Evidence) -> list[Finding]:
    def found(some: Evidence, reading: str) -> Finding:
        one, other = (some.where(case="comm-straggler", algorithm=name) for name in ("adsgd", "rfast"))
        saving = one.saved_over(other)
        words = f"saves {saving}: adsgd {one}, rfast {other}"
        return Finding(verdict([saving.within(0.86)] * bool(other.runs)), words, reading)

    return by_rate(sorted_data(evidence), "rfast", found)


def slow_sending(evidence: Evidence) -> list[Finding]:
    def found(some: Evidence, reading: str) -> Finding:
        slow = some.where(case="slow-comm", algorithm="rfast")
        diverged = sum(run.diverged_at is not None for run in slow.runs)
        ours = some.where(case="slow-comm", algorithm="adsgd")
        known = slow.never < len(slow.runs) or diverged or ours.never < len(ours.runs)
        holds = [slow.never == len(slow.runs) and not diverged if known else None] * bool(slow.runs)
        return Finding(
            verdict(holds), f"{slow}; {diverged} of {len(slow.runs)} diverged; adsgd {ours}", reading
        )

    return by_rate(sorted_data(evidence), "rfast", found)


def sooner_than_synchronous(evidence: Evidence) -> list[Finding]:
    return [savings(sorted_data(evidence), ["dsgd"], 0.28, 0.75)]


def biased(evidence: Evidence) -> list[Finding]:
    runs = {case: sorted_data(evidence).where(case=case, algorithm="adpsgd") for case in STRAGGLERS}
    some = {case: each for case, each in runs.items() if each.runs}
    words = "; ".join(f"{CASES[case]}: {each}" for case, each in some.items())
    return [Finding(verdict(each.never == len(each.runs) for each in some.values()), words)]


def only_adsgd_beats_the_baselines(evidence: Evidence) -> list[Finding]:
    def found(some: Evidence, reading: str) -> Finding:
        holds, words = list[bool | None](), list[str]()
        for case in (case for case in ("base", "slow-comm") if case in some.values("case")):
            here = {name: some.where(case=case, algorithm=name) for name in COMPARED}
            baselines = [here[name] for name in ("dsgd", "allreduce") if here[name].runs]
            baseline = min(baselines, key=lambda each: each.middle, default=Evidence([]))
            holds.append(sooner(here["adsgd"], baseline))
            holds += [opposite(sooner(here[name], baseline)) for name in others(some)]
            words.append(f"{CASES[case]}: " + ", ".join(f"{name} {each}" for name, each in here.items()))
        return Finding(verdict(holds), "; ".join(words), reading)

    return by_rate(sorted_data(evidence), "rfast", found)


def stragglers(evidence: Evidence) -> list[Finding]:
    def found(some: Evidence, reading: str) -> Finding:
        sending = {name: some.where(case="comm-straggler", algorithm=name) for name in COMPARED}
        computing = {name: some.where(case="comp-straggler", algorithm=name) for name in COMPARED}
        holds = [sooner(sending["dsgd"], sending[name]) for name in others(some)]
        holds += [sooner(computing[name], computing["dsgd"]) for name in ["adsgd", *others(some)]]
        words = (
            f"{CASES[case]}: " + ", ".join(f"{name} {each}" for name, each in here.items())
            for case, here in (("comm-straggler", sending), ("comp-straggler", computing))
        )
        return Finding(verdict(holds), "; ".join(words), reading)

    return by_rate(sorted_data(evidence), "rfast", found)


def larger_where_more_alike(evidence: Evidence) -> list[Finding]:
    """What ADSGD saves over each other one, the more uniform the data: never less, and at the end more."""
    made = []
    skews = sorted(evidence.values("partition"), key=lambda text: float(text.partition(":")[2]))
    for rival in dict.fromkeys(map(base, evidence.values("algorithm"))):
        if rival == "adsgd":
            continue

        def found(some: Evidence, reading: str, rival: str = rival) -> Finding:
            holds, words = list[bool | None](), list[str]()
            for case in some.values("case"):
                here = [some.where(case=case, partition=skew) for skew in skews]
                pairs = [(each.where(algorithm="adsgd"), each.where(algorithm=rival)) for each in here]
                savings = [one.saved_over(other) for one, other in pairs]
                known = all(saving.values and not saving.least for saving in savings)
                middles = [round(saving.middle, 2) for saving in savings]
                larger = middles == sorted(middles, reverse=True) and middles[0] > middles[-1]
                holds.append(larger if known else None)
                words.append(f"{CASES[case]}: {', '.join(map(str, savings))}")
            said = f"at {', '.join(skews)}: {'; '.join(words)}"
            return Finding(verdict(holds if len(skews) > 1 else []), said, f"over {reading}")

        made += by_rate(evidence, rival, found)
    return made


# -- counted ---------------------------------------------------------------------------------------


@cache
def _counted(name: str, d: int) -> Counted | None:
    """Of an algorithm with so many neighbours, on a short run."""
    return row(find(name), d).counted


def _saved_of(what: str, one: str, other: str) -> tuple[list[float], str]:
    """The share that one saves of what another has, with 2, 4 and 8 neighbours, and the numbers in words."""
    shares, words = list[float](), list[str]()
    for d in GRAPHS:
        mine, its = (_counted(name, d) for name in (one, other))
        if mine is not None and its is not None:
            a, b = getattr(mine, what), getattr(its, what)
            shares.append(1 - a / b)
            words.append(f"d = {d}: {a:g} and {b:g}, saves {100 * (1 - a / b):.0f} %")
    return shares, "; ".join(words)


def less_traffic(evidence: Evidence) -> list[Finding]:
    shares, words = _saved_of("carried", "adsgd", "rfast")
    said = f"models an update over all links, of adsgd and rfast: {words}"
    return [Finding(verdict(abs(share - 0.5) < 0.005 for share in shares), said, "over all links")]


def less_memory(evidence: Evidence) -> list[Finding]:
    made = []
    for form in ("adsgd", "adsgd:memory-efficient"):
        shares, words = _saved_of("keeps", form, "rfast")
        tens = ", ".join(f"{round(10 * share)}0" for share in shares)
        said = f"models kept: {words}; in tens of per cent {tens}"
        made.append(Finding(verdict(share >= 0.65 for share in shares), said, form))
    return made


def four_models(evidence: Evidence) -> list[Finding]:
    counts = {d: _counted("adsgd:memory-efficient", d) for d in GRAPHS}
    kept = {d: each.keeps for d, each in counts.items() if each is not None}
    words = ", ".join(f"d = {d}: {value:g}" for d, value in kept.items())
    return [Finding(verdict(value == 4 for value in kept.values()), f"models kept: {words}")]


def elsewhere(part: str) -> Sequence[Finding]:
    return [Finding(ELSEWHERE, f"offbeat reproduce adsgd --part {part}")]


def speed_up(evidence: Evidence) -> list[Finding]:
    """Of ADSGD, for each way to choose the learning rate, and each partition: near-linear is half of it."""
    made, adsgd = [], evidence.where(algorithm="adsgd")
    for partition in adsgd.values("partition"):
        for said in adsgd.values("lr_said"):
            runs = adsgd.where(partition=partition, lr_said=said).runs
            if len(Evidence(runs).values("agents")) < 2:
                continue
            fewest = min(Evidence(runs).values("agents"))
            rows = [each for each in speedups(Comparison(runs)) if each.gains and each.agents > fewest]
            words = ", ".join(f"{each.agents}: {_gain(each.gains)}" for each in rows if each.gains)
            one = Evidence(runs).where(agents=fewest)
            words = f"speed-up with {words}" if words else f"with {fewest}: {one}"
            reading = f"{partition}, learning rate {said or f'{one.runs[0].lr:g} for all n'}"
            made.append(Finding(verdict((each.efficiency or 0.0) >= 0.5 for each in rows), words, reading))
    return made


def _gain(gains: tuple[float, float, float]) -> str:
    """A speed-up in words: the median over the seeds, the smallest and the largest."""
    middle, low, high = (f"{gain:.2g}x" if gain else "never" for gain in gains)
    return middle if low == high else f"{middle} [{low} to {high}]"


def falling(evidence: Evidence) -> list[Finding]:
    """How the mean squared gradient norm over a run falls with its number of updates K, log-log, for each
    seed: a bound of O(K^-p) holds where it falls with p or faster.
    """
    made = []
    for name, power in (("asbcd", 1 / 2), ("adsgd", 1 / 3)):
        lines = [_falls(evidence.where(algorithm=name, seed=seed)) for seed in evidence.values("seed")]
        if not lines or min(map(len, lines)) < 2:
            continue
        slopes = [float(np.polyfit(np.log(line)[:, 0], np.log(line)[:, 1], 1)[0]) for line in lines]
        steep, (least, *_, most) = median(slopes), [*sorted(slopes), max(slopes)]
        some = f" [{least:.2f} to {most:.2f}]" * (len(slopes) > 1)
        middle = np.median(lines, axis=0).tolist()
        words = f"falls with K^{steep:.2f}{some}: {', '.join(f'K = {k:,.0f}: {g:.3g}' for k, g in middle)}"
        made.append(Finding(verdict([round(steep, 2) <= -power]), words, f"{name}, power {power:.2f}"))
    return made


def _falls(evidence: Evidence) -> list[tuple[int, float]]:
    """Of runs, from the shortest on: updates, mean squared gradient norm."""
    return sorted((run.updates, float(np.mean(run.curve.of("gradient_norm")[1:]))) for run in evidence.runs)
