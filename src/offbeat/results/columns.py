"""The columns of the table: which there are, what they mean, and what stands in their cells."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from offbeat.core.errors import unknown
from offbeat.results.headline import WORDS
from offbeat.results.ranking import rankings
from offbeat.results.scores import (
    count_text,
    megabytes_text,
    number_text,
    score,
    share_text,
    spread_of,
    times_text,
)
from offbeat.results.values import ComparisonValues, Group, RunValues, value_text
from offbeat.results.wording import lost_again, target_name
from offbeat.tasks.metrics import METRICS

Runs = Sequence[RunValues]

VERSUS, EFFORT = "vs best", "updates"  # the heads of these columns; from `EFFORT` on: what it took
SHORT = {
    "to_optimum": "RMS distance of the agents' models from the optimum",
    "to_limit": "from where their algorithm ends with exact gradients",
}
SHARES = {"accuracy": "accuracy", "accuracy_mean": "mean of agents", "accuracy_worst": "worst"}


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: how it is asked for, and what it is called in a file of CSV
        head: what stands above it
        cell: what stands in it, of a group and its runs
        about: what it is, where the head alone does not say so
        shown: whether it is there where nobody chooses
    """

    name: str
    head: str
    cell: Callable[[Group, Runs], str]
    about: str = ""
    shown: bool = True


def columns(
    comparison: ComparisonValues, band: str = "range", chosen: Sequence[str] | None = None
) -> list[Column]:
    """Those of the table: first what tells its rows apart, the algorithm and every setting that differs; then
    the others that are chosen, in that order, or those that are usual,
    but for such as are empty.

    Raises SettingError for a name that there is not.
    """
    telling, others = [*_telling(comparison)], [*_others(comparison, band)]
    if chosen is None:
        groups = comparison.groups().items()
        there = [each for each in others if each.shown]
        return telling + [each for each in there if any(each.cell(key, runs) for key, runs in groups)]
    known = {each.name: each for each in telling + others}
    for name in chosen:
        if name not in known:
            raise unknown("column", name, known)
    return telling + [known[name] for name in dict.fromkeys(chosen) if known[name] not in telling]


def known_columns(comparison: ComparisonValues) -> list[str]:
    """The names of all columns that there are."""
    return [each.name for each in (*_telling(comparison), *_others(comparison, "range"))]


def cells(
    comparison: ComparisonValues, band: str = "range", chosen: Sequence[str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Head and rows, one for each group."""
    there = columns(comparison, band, chosen)
    rows = [[each.cell(key, runs) for each in there] for key, runs in comparison.groups().items()]
    return [each.head for each in there], rows


def setting_name(comparison: ComparisonValues, name: str) -> str:
    """What the column of a setting that differs is called: `setting_NAME` if a result has its name."""
    results = ("accuracy", "loss", "consensus", *further(comparison))
    return f"setting_{name}" if name in results else name


def further(comparison: ComparisonValues) -> list[str]:
    """The metrics that were asked for beside those that are always measured."""
    return list(dict.fromkeys(name for run in comparison.runs for name in run.curve.more))


def _telling(comparison: ComparisonValues) -> Iterator[Column]:
    yield Column("algorithm", "algorithm", lambda key, runs: comparison.label(key, world=False))
    for name in comparison.differing:
        head = (WORDS.get(name, name) or name).rstrip(":")
        yield Column(setting_name(comparison, name), head, partial(_setting, name))


def _setting(name: str, key: Group, runs: Runs) -> str:
    return value_text(dict(key.world)[name])


def _others(comparison: ComparisonValues, band: str) -> Iterator[Column]:
    groups = comparison.groups().values()
    uneven = len({tuple(sorted(run.seed for run in runs)) for runs in groups}) > 1
    yield Column("lr", "lr", lambda key, runs: f"{key.lr:g}", shown=False)
    yield Column("seeds", "seeds", lambda key, runs: str(len(runs)), shown=uneven)
    if any(run.target is not None for run in comparison.runs):
        yield from _of_target(comparison, band)
    yield from _scores(comparison, band)
    yield Column("updates", EFFORT, partial(_count, "updates", band), "gradients applied")
    yield Column("messages", "messages", partial(_count, "messages", band))

    def megabytes(key: Group, runs: Runs) -> str:
        return megabytes_text(*spread_of([run.megabytes for run in runs], band))

    yield Column("megabytes", "MB", megabytes, "10^6 bytes sent")
    about = "RMS distance of the agents' models from their average"
    yield Column("consensus", "consensus", partial(_number, "consensus", band, 3), about)
    about = "every agent writes within B iterations"
    yield Column("staleness_B", "B", lambda key, runs: str(max(run.staleness.B for run in runs)), about)
    yield Column("staleness_D", "D", _oldest, "no model that is mixed is older than D (arXiv:2505.10322)")
    lost = Column("diverged", "diverged", lambda key, runs: str(sum(map(_diverged, runs))), shown=False)
    yield lost
    yield Column("stopped", "stopped", lambda key, runs: str(sum(map(_stopped, runs))), shown=False)


def _of_target(comparison: ComparisonValues, band: str) -> Iterator[Column]:
    ranked = rankings(comparison, band)

    def time(key: Group, runs: Runs) -> str:
        if all(run.target is None for run in runs):
            return "-"
        then = ", then diverged" * any(map(lost_again, runs))
        return times_text([run.time_to_target for run in runs], band) + then

    def versus(key: Group, runs: Runs) -> str:
        times = ranked[key.world].times_as_long(key)
        return "" if times is None else f"{times:.2f}x"

    def met(key: Group, runs: Runs) -> str:
        return str(sum(run.time_to_target is not None for run in runs))

    yield Column("seeds_met", "seeds that met it", met, shown=False)
    yield Column("time_to_target", target_name(*comparison.runs), time)
    yield Column("vs_best", VERSUS, versus, "the time, as a multiple of the shortest")


def _scores(comparison: ComparisonValues, band: str) -> Iterator[Column]:
    if any(run.measure == "accuracy" for run in comparison.runs):
        for name, head in SHARES.items():
            yield Column(name, head, partial(_share, name, band), shown=name != "accuracy_mean")

    def loss(key: Group, runs: Runs) -> str:
        if lost := sum(map(_diverged, runs)):
            return "diverged" + f" in {lost} of {len(runs)}" * (lost < len(runs))
        stopped = " (stopped)" * any(run.error is not None for run in runs)
        return number_text(*score(runs, "loss", band)) + stopped

    yield Column("loss", "loss", loss)
    yield Column("loss_worst", "worst loss", partial(_number, "loss_worst", band, 4), shown=False)
    for name in further(comparison):
        ours = METRICS.get(name)
        head, usual = name if ours is None else name.replace("_", " "), ours is not None and ours.usual
        yield Column(name, head, partial(_measured, name, band, 3 if usual else 4), SHORT.get(name, ""))


def _share(name: str, band: str, key: Group, runs: Runs) -> str:
    return share_text(*score(runs, name, band))


def _number(name: str, band: str, digits: int, key: Group, runs: Runs) -> str:
    return number_text(*score(runs, name, band), digits)


def _measured(name: str, band: str, digits: int, key: Group, runs: Runs) -> str:
    """A metric that was asked for: of how many seeds it was measured, if not of all."""
    count = sum(run.final.get(name) is not None for run in runs)
    some = f" (of {count} of {len(runs)} seeds)" * (0 < count < len(runs))
    return _number(name, band, digits, key, runs) + some


def _count(name: str, band: str, key: Group, runs: Runs) -> str:
    return count_text(*spread_of([getattr(run, name) for run in runs], band))


def _stopped(run: RunValues) -> bool:
    return run.error is not None


def _diverged(run: RunValues) -> bool:
    return run.diverged_at is not None


def _oldest(key: Group, runs: Runs) -> str:
    return str(max((run.staleness.D for run in runs if run.staleness.D is not None), default="-"))
