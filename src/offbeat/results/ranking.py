"""Who is first: the one rule of the table's "vs best", the page's first sentence and the note on chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from offbeat.results.differences import World
from offbeat.results.values import ComparisonValues, Group, RunValues
from offbeat.results.wording import lost_again

Groups = Mapping[Group, Sequence[RunValues]]

CENTRES = {"range": "median", "std": "mean", "ci": "mean"}
"""What is compared over the seeds, by what is shown of them (`offbeat.results.summary.BANDS`)."""


@dataclass(frozen=True)
class Ranking:
    """The groups of one world, compared over the seeds that all of them have.

    They are compared by the time to the target; a seed that never met it, or diverged then, is later than
    all. So a median is never where half of the seeds are, and a mean is where one is. Where there is no
    target, or no run met it, they are compared by the final loss.

    Attributes:
        groups: the runs of each group, with all their seeds
        seeds: those that all groups have, in their order; without one nobody is first
        centre: "median" or "mean"
        timed: whether it is by the time to the target
        values: the centre of each group; infinite: never, or not finite
    """

    groups: Groups
    seeds: tuple[int, ...]
    centre: str
    timed: bool
    values: Mapping[Group, float]

    @property
    def order(self) -> list[Group]:
        """Those that have a value, the first of all first."""
        there = [key for key, value in self.values.items() if math.isfinite(value)]
        return sorted(there, key=lambda key: self.values[key])

    @property
    def first(self) -> Group | None:
        return next(iter(self.order), None)

    @property
    def what(self) -> str:
        """By what it goes, in words."""
        means = self.centre + " " if any(len(runs) > 1 for runs in self.groups.values()) else ""
        return means + ("time to the target" if self.timed else "final loss")

    def times_as_long(self, key: Group) -> float | None:
        """Of a group the time as a multiple of the shortest; None where one of them has none, or it is 0."""
        first = self.first
        if not self.timed or first is None or not self.values[first] or math.isinf(self.values[key]):
            return None
        return self.values[key] / self.values[first]


def rankings(comparison: ComparisonValues, band: str = "range") -> dict[World, Ranking]:
    """That of every world, by the settings that tell it from the others."""
    worlds: dict[World, dict[Group, list[RunValues]]] = {}
    for key, runs in comparison.groups().items():
        worlds.setdefault(key.world, {})[key] = runs
    return {world: _ranking(groups, CENTRES[band]) for world, groups in worlds.items()}


def _ranking(groups: Groups, centre: str) -> Ranking:
    seeds = set[int].intersection(*({run.seed for run in runs} for runs in groups.values()))
    timed = any(run.time_to_target is not None for runs in groups.values() for run in runs)
    of = median if centre == "median" else mean
    values = {}
    for key, runs in groups.items():
        found = sorted(_value(run, timed) for run in runs if run.seed in seeds)
        values[key] = float(of(found)) if found else math.inf
    return Ranking(groups, tuple(sorted(seeds)), centre, timed, values)


def _value(run: RunValues, timed: bool) -> float:
    if timed:
        met = run.time_to_target
        return math.inf if met is None or lost_again(run) else met
    loss = run.final["loss"]
    return math.inf if loss is None or not math.isfinite(loss) else loss


def seeds_text(seeds: Sequence[int]) -> str:
    """ "seed 3", "seeds 0 to 4", "seeds 0, 2, 3"; in their order."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) == seeds[-1] - seeds[0] + 1:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"
