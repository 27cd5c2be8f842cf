"""What claims are asked of: runs, picked by their settings, and times paired by seed."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from offbeat.results.looks import base
from offbeat.results.reproduction import CONFIRMED, NOT, UNDECIDED, UNTESTABLE, Finding
from offbeat.results.run import Run
from offbeat.results.values import time_text

Times = Mapping[int, float]  # seed -> time to the target; infinite: never


@dataclass(frozen=True)
class Saving:
    """By how much sooner one is there than another, as shares of the other's time, paired by seed.

    Attributes:
        values: 1 - T(one) / T(other) of each seed. Where the other never met the target it is at least that
            with the end of the run as its time; where only the other did, minus infinity
        least: whether some are only at least that
        why: why there are no values
    """

    values: Sequence[float]
    least: bool
    why: str = ""

    @property
    def middle(self) -> float:
        return median(self.values) if self.values else math.nan

    def within(self, low: float, high: float = 1.0) -> bool | None:
        """Whether the median, in whole per cent, is in there; None where the runs end too early to tell."""
        middle = round(self.middle, 2) if self.values else -math.inf
        if not self.values or (self.least and (middle < low or low <= middle <= high < 1)):
            return None
        return low <= middle <= high

    def __str__(self) -> str:
        if not self.values:
            return self.why
        some = f" [{_percent(min(self.values))} to {_percent(max(self.values))}]" * (len(self.values) > 1)
        return f"{'at least ' * self.least}{_percent(self.middle)} %{some}"


def _percent(share: float) -> str:
    return f"{round(100 * share)}" if math.isfinite(share) else "-inf"


@dataclass(frozen=True)
class Evidence:
    """Runs of a part."""

    runs: Sequence[Run]

    def where(self, **settings: Any) -> "Evidence":
        """Those with these settings: `algorithm` and `lr` among them."""
        return Evidence([run for run in self.runs if all(_is(run, *each) for each in settings.items())])

    def values(self, name: str) -> list[Any]:
        """The values of a setting, in the order of the runs."""
        return list(dict.fromkeys(_value(run, name) for run in self.runs))

    @property
    def times(self) -> Times:
        """Time to the target, by seed."""
        return {run.seed: math.inf if run.time_to_target is None else run.time_to_target for run in self.runs}

    @property
    def never(self) -> int:
        """How many never met the target."""
        return sum(math.isinf(time) for time in self.times.values())

    @property
    def middle(self) -> float:
        """The median time to the target; never counts as later than all."""
        return median(self.times.values()) if self.runs else math.nan

    def saved_over(self, other: "Evidence") -> Saving:
        """By how much these are sooner there than those others, seed by seed."""
        ends = {run.seed: float(run.settings["until"]) for run in other.runs}
        values, least, theirs = list[float](), False, other.times
        for seed, time in self.times.items():
            if seed not in theirs or (math.isinf(time) and math.isinf(theirs[seed])):
                continue
            least |= math.isinf(theirs[seed])
            values.append(1 - time / (ends[seed] if math.isinf(theirs[seed]) else theirs[seed]))
        return Saving(values, least, "" if values else self._why_not_over(other))

    def _why_not_over(self, other: "Evidence") -> str:
        """Why it cannot be said by how much sooner these are there."""
        mine, theirs = self.times.keys(), other.times.keys()
        if not (mine and theirs):
            return "only one of the two was run" if mine or theirs else "not run"
        if not mine & theirs:
            return "no seed was run of both"
        return "neither met the target" + " with a seed that was run of both" * (mine != theirs)

    def __str__(self) -> str:
        """The times to the target, in words: median, smallest and largest."""
        if not self.runs:
            return "not run"
        times, count = sorted(self.times.values()), len(self.runs)
        if self.never == count:
            return f"never by {time_text(float(self.runs[0].settings['until']))}"
        words = [time_text(None if math.isinf(t) else t) for t in (median(times), times[0], times[-1])]
        return words[0] if count == 1 else f"{words[0]} [{words[1]} - {words[2]}]"


def _value(run: Run, name: str) -> Any:
    return {"algorithm": run.algorithm, "lr": run.lr}.get(name, run.settings.get(name))


def _is(run: Run, name: str, value: Any) -> bool:
    found = _value(run, name)
    if isinstance(value, float) and isinstance(found, int | float):
        return math.isclose(found, value, rel_tol=1e-9)
    return bool(found == value)


def others(evidence: Evidence) -> list[str]:
    """The asynchronous algorithms of these runs that ADSGD is compared with."""
    return [name for name in evidence.values("algorithm") if name in ("adpsgd", "rfast")]


def sooner(one: Evidence, other: Evidence) -> bool | None:
    """Whether these are at the target sooner, in the median; None: neither is, or one has no runs."""
    if not (one.runs and other.runs) or (math.isinf(one.middle) and math.isinf(other.middle)):
        return None
    return one.middle < other.middle


def opposite(holds: bool | None) -> bool | None:
    return None if holds is None else not holds


def verdict(holds: Iterable[bool | None]) -> str:
    """Confirmed where all of it holds, not where some does not; undecided where that is not known (None) of
    some; not testable where there is nothing.
    """
    every = [*holds]
    if not every or False in every:
        return NOT if every else UNTESTABLE
    return UNDECIDED if None in every else CONFIRMED


def by_rate(evidence: Evidence, algorithm: str, found: Callable[[Evidence, str], Finding]) -> list[Finding]:
    """A finding for each form and learning rate of an algorithm, with the others as they are.

    Args:
        found: from these runs, in which that form has the algorithm's name, and what it is called
    """
    others = [run for run in evidence.runs if base(run.algorithm) != algorithm]
    mine = [run for run in evidence.runs if base(run.algorithm) == algorithm]
    findings = []
    for name, lr in dict.fromkeys((run.algorithm, run.lr) for run in mine):
        runs = [replace(run, algorithm=algorithm) for run in Evidence(mine).where(algorithm=name, lr=lr).runs]
        findings.append(found(Evidence([*others, *runs]), f"{name} at {lr:g}"))
    return findings
