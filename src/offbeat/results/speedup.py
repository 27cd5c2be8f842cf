"""Speed-up over the number of agents: the time to the target with the fewest agents, over that with more."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Group as Lines
from rich.text import Text

from offbeat.core.errors import SettingError
from offbeat.results.scores import times_text
from offbeat.results.table import plain_table
from offbeat.results.values import ComparisonValues, Group, value_text
from offbeat.results.wording import target_name

SPEEDUP = "speedup"  # what it is called as a metric of figures
FOLLOW = ("agents", "straggler")  # of what differs, what may differ within a row of a scaling study


@dataclass(frozen=True)
class Speedup:
    """What so many agents gain over the fewest.

    Attributes:
        label: the algorithm, with its learning rate where it has several, and what else differs
        times: to the target, of every seed; None: never
        gains: likewise the speed-up T(fewest) / T(agents), paired by seed: 0 where only the fewest met the
            target; None where there is no seed with which they did
        fewest: how many agents all others are compared to
    """

    label: str
    agents: int
    times: tuple[float | None, ...]
    gains: tuple[float, float, float] | None
    fewest: int

    @property
    def efficiency(self) -> float | None:
        """The speed-up over agents / fewest: 1 where it is linear."""
        return None if self.gains is None else self.gains[0] * self.fewest / self.agents


def speedups(comparison: ComparisonValues) -> list[Speedup]:
    """Of every algorithm in every world a row for each number of agents. Raises SettingError unless the runs
    have several numbers of agents, and a target.
    """
    series = _series(comparison)
    return [
        Speedup(label, n, tuple(times.values()), _gains(by_agents[min(by_agents)], times), min(by_agents))
        for label, by_agents in series.items()
        for n, times in sorted(by_agents.items())
    ]


def gains_of(comparison: ComparisonValues) -> dict[int, float | None]:
    """id(run) -> its speed-up over the run of the fewest agents with the same seed: 0 where it never met the
    target; None where that one did not. Raises SettingError like `speedups`.
    """
    series, found = _series(comparison), dict[int, float | None]()
    for run, label in zip(comparison.runs, _labels(comparison), strict=True):
        by_agents = series[label]
        one = by_agents[min(by_agents)].get(run.seed)
        gain = _gains({run.seed: one}, {run.seed: run.time_to_target})
        found[id(run)] = None if gain is None else gain[0]
    return found


def _series(comparison: ComparisonValues) -> dict[str, dict[int, dict[int, float | None]]]:
    """Label -> agents -> seed -> time to the target."""
    counts = sorted({run.settings["agents"] for run in comparison.runs})
    if len(counts) < 2:
        there = f"got {counts[0]}" if counts else "there are no runs"
        raise SettingError(f"A speed-up needs runs with several numbers of agents; {there}.")
    if len({str(run.target) for run in comparison.runs}) > 1 or comparison.runs[0].target is None:
        raise SettingError("A speed-up is one of times to a target; expected runs with one and the same.")
    series: dict[str, dict[int, dict[int, float | None]]] = {}
    for run, label in zip(comparison.runs, _labels(comparison), strict=True):
        times = series.setdefault(label, {}).setdefault(run.settings["agents"], {})
        if run.seed in times:
            which = f"Runs of {label} with {run.settings['agents']} agents and seed {run.seed}"
            raise SettingError(f"{which} are there several times; expected one of them.")
        times[run.seed] = run.time_to_target
    return series


def _gains(
    first: dict[int, float | None], times: dict[int, float | None]
) -> tuple[float, float, float] | None:
    """Median, smallest and largest over the seeds with which the fewest agents met the target."""
    pairs = [(first[seed], time) for seed, time in times.items() if first.get(seed) is not None]
    found = [0.0 if time is None else _ratio(one, time) for one, time in pairs if one is not None]
    return (median(found), min(found), max(found)) if found else None


def _ratio(one: float, time: float) -> float:
    """Of two times; both may be 0, where the target is met from the start."""
    return one / time if time else 1.0 if not one else float("inf")


def _labels(comparison: ComparisonValues) -> list[str]:
    """Of every run what it is called, whatever the number of its agents."""
    rest = [{k: v for k, v in group.world if k not in FOLLOW} for group in _groups(comparison)]
    rates: dict[Any, set[float]] = {}
    for run, world in zip(comparison.runs, rest, strict=True):
        rates.setdefault((run.algorithm, str(world), run.settings["agents"]), set()).add(run.lr)
    several = {key[:2] for key, found in rates.items() if len(found) > 1}
    named = []
    for run, world in zip(comparison.runs, rest, strict=True):
        rate = run.settings.get("lr_said") or f"{run.lr:g}"
        own = f" lr={rate}" if (run.algorithm, str(world)) in several else ""
        named.append(", ".join([run.algorithm + own, *(f"{k}={value_text(v)}" for k, v in world.items())]))
    return named


def _groups(comparison: ComparisonValues) -> list[Group]:
    """The group of every run."""
    found = {id(run): group for group, runs in comparison.groups().items() for run in runs}
    return [found[id(run)] for run in comparison.runs]


def speedup_cells(comparison: ComparisonValues) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table."""
    found = speedups(comparison)
    heads = ["algorithm", "agents", target_name(comparison.runs[0]), "speed-up", "efficiency"]
    rows = [
        [one.label, str(one.agents), times_text(one.times, "range"), _gain(one), _share(one)] for one in found
    ]
    return heads, rows


def _gain(one: Speedup) -> str:
    if one.gains is None:
        return "-"
    middle, low, high = (f"{gain:.2f}" for gain in one.gains)
    return middle if low == high else f"{middle} [{low} - {high}]"


def _share(one: Speedup) -> str:
    return "-" if one.efficiency is None else f"{100 * one.efficiency:.0f} %"


def speedup_table(comparison: ComparisonValues) -> Lines:
    """The table, with a note that says what is what."""
    heads, rows = speedup_cells(comparison)
    said = (
        "Speed-up: time to the target with the fewest agents over that with so many, median over the seeds "
        "[smallest - largest], paired by seed; efficiency: over how many times as many agents there are."
    )
    return Lines(plain_table([heads, *rows], range(1, 5)), Text(said, style="dim"))
