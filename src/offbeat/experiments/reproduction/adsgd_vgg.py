"""The networks of the evaluation of arXiv:2505.10322: VGG-11 on CIFAR-10, and what is claimed of it."""

import math

from offbeat.experiments.reproduction.adsgd_claims import (
    CASES,
    FORM,
    RFAST,
    STRAGGLERS,
    larger_where_more_alike,
    over_asynchronous,
    savings,
    sorted_data,
)
from offbeat.experiments.reproduction.evidence import Evidence, by_rate, others, sooner, verdict
from offbeat.experiments.reproduction.part import Claim, Part, Picture
from offbeat.results.reproduction import Finding

ALIKE, WITHOUT = 0.2, ("base", "slow-comm")


def sooner_than_asynchronous(evidence: Evidence) -> list[Finding]:
    return over_asynchronous(sorted_data(evidence), 0.15, 0.7)


def sooner_than_synchronous(evidence: Evidence) -> list[Finding]:
    return [savings(sorted_data(evidence), ["dsgd"], 0.3, 0.85)]


def sooner_than_parallel(evidence: Evidence) -> list[Finding]:
    some = sorted_data(evidence)
    runs = [run for case in STRAGGLERS for run in some.where(case=case).runs]
    return [savings(Evidence(runs), ["allreduce"], 0.35, 0.58)]


def next_to_parallel(evidence: Evidence) -> list[Finding]:
    """All-reduce first, then ADSGD, before all others."""

    def found(some: Evidence, reading: str) -> Finding:
        holds, words = list[bool | None](), list[str]()
        for case in (case for case in WITHOUT if case in some.values("case")):
            here = {name: some.where(case=case, algorithm=name) for name in some.values("algorithm")}
            first, second, rest = here.get("allreduce"), here.get("adsgd"), {*here} - {"allreduce", "adsgd"}
            if first is not None and second is not None:
                holds += [sooner(first, second), *(sooner(second, here[name]) for name in sorted(rest))]
            words.append(f"{CASES[case]}: " + ", ".join(f"{name} {each}" for name, each in here.items()))
        return Finding(verdict(holds), "; ".join(words), reading)

    return by_rate(sorted_data(evidence), "rfast", found)


def tracking_diverges(evidence: Evidence) -> list[Finding]:
    def found(some: Evidence, reading: str) -> Finding:
        holds, words = list[bool | None](), list[str]()
        for case in ("slow-comm", *STRAGGLERS):
            if runs := some.where(case=case, algorithm="rfast").runs:
                diverged = sum(run.diverged_at is not None for run in runs)
                holds.append(diverged == len(runs))
                words.append(f"{CASES[case]}: {diverged} of {len(runs)} diverged, {Evidence(runs)}")
        return Finding(verdict(holds), "; ".join(words), reading)

    return by_rate(sorted_data(evidence), "rfast", found)


def comparable(evidence: Evidence) -> list[Finding]:
    """Medians within a fifth of ADSGD's; undecided where neither met the target."""

    def near(one: float, other: float) -> bool | None:
        both = math.isfinite(one) and math.isfinite(other)
        return abs(one / other - 1) <= ALIKE if both else None if one == other else False

    def found(some: Evidence, reading: str) -> Finding:
        here = some.where(case="comp-straggler")
        ours, theirs = here.where(algorithm="adsgd"), [here.where(algorithm=name) for name in others(here)]
        holds = [near(each.middle, ours.middle) for each in theirs] if ours.runs else []
        words = [f"adsgd {ours}", *(f"{each.runs[0].algorithm} {each}" for each in theirs)]
        return Finding(verdict(holds), ", ".join(words), reading)

    return by_rate(sorted_data(evidence), "rfast", found)


FIXED = {
    "task": "cifar10", "model": "vgg11", "agents": 9, "topology": "grid", "target": 0.85, "lr": 0.01,
    "batch": 8, "until": 60000, "eval_every": 1000, "eval_samples": 10000, "stop_at": "target",
}  # fmt: skip
GRID = {
    "skew": [1.0, 0.5, 0.0], "case": [case for case in CASES if case != "slow-comm"],
    "algorithm": ["adsgd", "adpsgd", "rfast", "rfast:matched", "dsgd", "allreduce"], "seed": [0, 1, 2],
}  # fmt: skip

VGG = Part(
    "vgg", "ADSGD, arXiv:2505.10322: VGG-11 on CIFAR-10",
    (
        "VGG-11 on CIFAR-10, nine agents in a 3x3 grid, five cases, as in arXiv:2505.10322; learning rate "
        "0.01, minibatches of 8, no momentum; where all send slowly it is 2 times, in the other cases 10. "
        "Times are until the average model has 85 % test accuracy; a run ends there.",
        "Open in the paper, and ours: how its VGG-11 is modified (here VGG-A's convolutions, GroupNorm in 2 "
        "groups, one linear layer), no augmentation, and what is open in part 'lr'.",
    ),
    [
        {"fixed": FIXED, "grid": GRID},
        {"fixed": {**FIXED, "case": "slow-comm", "slowdown": 2}, "grid": {**GRID, "case": None}},
    ],
    {"fixed": {"task": "digits", "model": "resnet20", "width": 2, "until": 6, "eval_every": 2,
               "eval_samples": 50, "seed": 0, "skew": 1.0, "target": 0.2},
     "grid": {"case": ["comp-straggler"], "algorithm": ["adsgd", "rfast", "dsgd", "allreduce"]}},
    (
        Claim("A11", "VGG-11 gets to 85 % 15 % to 70 % sooner than with the other asynchronous ones",
              sooner_than_asynchronous, RFAST),
        Claim("A12", "it saves 30 % to 85 % of DSGD's time", sooner_than_synchronous, FORM),
        Claim("A13", "with a straggler it saves 35 % to 58 % of parallel SGD's", sooner_than_parallel),
        Claim("A14", "without stragglers parallel SGD is the fastest, ADSGD next", next_to_parallel, RFAST),
        Claim("A15", "R-FAST diverges where all send 2 times slower, and with a straggler", tracking_diverges,
              RFAST),
        Claim("A16", "with a computing straggler the asynchronous ones are comparable", comparable,
              f"comparable is read as within {100 * ALIKE:.0f} %; {RFAST}"),
        Claim("A18", "the more uniform the data, the larger is what ADSGD gains", larger_where_more_alike,
              "over whom: the paper does not say; each is shown"),
    ),
    (
        Picture("accuracy", "Test accuracy of the average model in each case, all data sorted by label.",
                "accuracy", by="case", only={"partition": "skew:1"}),
        Picture("loss", "Training loss of the average model in each case, all data sorted by label.", "loss",
                by="case", only={"partition": "skew:1"}),
    ),
)  # fmt: skip
