"""How learning rates and other hyperparameters were found: what was tried, and what it gave."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offbeat.core.settings import as_word
from offbeat.results.spread import spread


@dataclass(frozen=True)
class Tried:
    """What a learning rate, or a candidate, gave that was tried to find the best one."""

    values: tuple[float | None, ...]  # of the criterion, one for each seed; None: never met, or diverged
    loss: float | None  # the median of the final losses; None: most runs diverged
    unstable: str  # why it is not stable; empty if it is (`offbeat.experiments.tuning.unstable`)

    @property
    def median(self) -> float | None:
        """Of the values; None counts as larger than all numbers."""
        return spread(self.values)[0]

    def record(self) -> dict[str, Any]:
        named = dict(zip(("median", "smallest", "largest"), spread(self.values), strict=True))
        stable = {"stable": not self.unstable, "why_not": self.unstable or None}
        return {**named, "final_loss": self.loss, **stable}


@dataclass(frozen=True)
class Tuning:
    """How the learning rate of an algorithm was found (`offbeat.experiments.tuning`)."""

    by: str  # the criterion: "loss", "target" or "final"
    level: float | None  # the loss that stopped the clock, where the criterion is "loss"
    grid: tuple[float, ...]  # what was asked for; R-FAST tried n times these
    seeds: tuple[int, ...]  # those of the worlds in which they were tried
    steps: dict[float, Tried]  # every learning rate that was tried, and what it gave

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """What says so on the command line, beside --lr tuned."""
        grid = ",".join(map(as_word, self.grid))
        return ("tune-by", self.by), ("tune-grid", grid), ("tune-seeds", str(len(self.seeds)))

    def record(self) -> dict[str, Any]:
        return {**vars(self), "steps": {f"{lr:g}": tried.record() for lr, tried in self.steps.items()}}


@dataclass(frozen=True)
class Candidate:
    """Hyperparameters that were tried together. until: how far they got; tried: what they gave until then"""

    params: Mapping[str, float]
    until: float
    tried: Tried

    def record(self) -> dict[str, Any]:
        return {"params": dict(self.params), "until": self.until, **self.tried.record()}


@dataclass(frozen=True)
class Halving:
    """How hyperparameters of an algorithm were found together (`offbeat.experiments.halving`)."""

    by: str  # the criterion: "loss", "target" or "final"
    level: float | None  # the loss that stopped the clock in the last rung, where the criterion is "loss"
    space: str  # what was asked for: "lr=0.001:1:log,h=1:10:int"; R-FAST tried n times these learning rates
    budget: float  # how many whole runs' worth of time there was
    seeds: tuple[int, ...]  # those of the worlds in which they were tried
    rungs: tuple[float, ...]  # the times until which candidates ran, rising
    candidates: tuple[Candidate, ...]  # in the order in which they were drawn
    chosen: int  # the place of the best one among them

    @property
    def best(self) -> Candidate:
        return self.candidates[self.chosen]

    @property
    def left(self) -> list[int]:
        """How many candidates each rung had."""
        return [sum(each.until >= until for each in self.candidates) for until in self.rungs]

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """What says so on the command line."""
        asked = ("tune", self.space), ("tune-budget", as_word(self.budget))
        return *asked, ("tune-by", self.by), ("tune-seeds", str(len(self.seeds)))

    def record(self) -> dict[str, Any]:
        return {**vars(self), "candidates": [each.record() for each in self.candidates]}


def params_text(params: Mapping[str, float], *leave_out: str) -> str:
    """Hyperparameters in words: "lr 0.05, h 3"."""
    return ", ".join(f"{name} {value:g}" for name, value in params.items() if name not in leave_out)
