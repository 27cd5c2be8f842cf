"""Learning rates: those that are asked for, and the search for an algorithm's own best one.

Every learning rate is tried in the same worlds, of several seeds, none of which is compared afterwards. First
those of a grid, then, `ROUNDS` times, two more around the best so far (`between`): (8 + 2 * 2) * 3 runs if
nothing else is said. One is judged by the median over the seeds of one of `CRITERIA`; where that is never
met, or medians are equal, by the median of the final loss, and then the smaller is better. One that is not
stable (`unstable`) is taken only if none is.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from numbers import Real
from statistics import median
from typing import Any, NamedTuple

from offbeat.algorithms import Algorithm
from offbeat.core.errors import SettingError, unknown
from offbeat.core.rates import EXPECTED, Rate
from offbeat.results.run import Run
from offbeat.results.spread import spread
from offbeat.results.targets import Target
from offbeat.results.trials import Tried, Tuning


class TakenRate(NamedTuple):
    """What a learning rate comes to, and how it was said if that depends on the number of agents."""

    lr: float
    said: str | None


@dataclass(frozen=True)
class Trial:
    """What is tried: a learning rate, other numbers with which the algorithm is made, and how far it runs.

    Attributes:
        options: (name, value) of each of these numbers
        until: the time at which its runs end; None: that of the experiment
    """

    lr: float
    options: tuple[tuple[str, float], ...] = ()
    until: float | None = None

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in (("lr", self.lr), *self.options))


LearningRates = float | str | Sequence[float | str] | Mapping[str, Any]

CRITERIA = {
    "loss": "when the average model's loss has made nine tenths of the way down, from its first value to the "
    "smallest that a stable one of the grid ends with (the median); where the target is a "
    "loss, when that is met",
    "target": "when the target is met",
    "final": "the average model's loss at the end",
}
"""What a learning rate can be judged by: the smaller, the better."""

GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # tried first by default (times n for R-FAST)
SEEDS = 3
ROUNDS = 2
BUDGET = 30.0  # whole runs that several hyperparameters are tuned with, for each algorithm
AWAY = 1_000_003  # from the first seed that is compared to the first one of tuning
DESCENT = 0.9  # the share of the way down in loss after which the clock is stopped
WORST = 0.5  # how many times as accurate as the average model an agent's own is at least in a stable run


@dataclass(frozen=True)
class TuneSettings:
    """How learning rates are tuned: by what, which to begin with, in how many worlds. Raises SettingError."""

    by: str = "loss"
    grid: tuple[float, ...] = GRID
    seeds: int = SEEDS

    def __post_init__(self) -> None:
        if self.by not in CRITERIA:
            raise unknown("criterion of tuning", str(self.by), CRITERIA)
        right = [lr for lr in self.grid if _is_number(lr) and 0 < float(lr) < math.inf]
        if not right or len(set(right)) < len(self.grid):
            raise SettingError(f"Tuning takes one or more different learning rates > 0; got {[*self.grid]}.")
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int) or not 1 <= self.seeds < AWAY:
            raise SettingError(f"Learning rates are tuned over one or more seeds; got {self.seeds!r}.")

    @property
    def most(self) -> int:
        """How many runs the search for one algorithm's learning rate makes, at most."""
        return (len(self.grid) + 2 * ROUNDS * (len(self.grid) > 1)) * self.seeds


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def rates_of(lr: LearningRates, specs: Sequence[Algorithm], n: int) -> list[list[TakenRate] | None]:
    """The learning rates of each algorithm; None where they are to be tuned. A mapping gives them by
    algorithm, and by "" for all that it does not name. n: how many agents.
    """
    own: dict[str, Any] = dict(lr) if isinstance(lr, Mapping) else {}
    base: Any = own.pop("", 0.01) if isinstance(lr, Mapping) else lr
    names = [spec.name for spec in specs]
    said = {each.lower(): spec.name for spec in specs for each in (spec.asked, spec.name)}
    own = {said.get(name.lower(), name): value for name, value in own.items()}
    if others := [name for name in own if name not in names]:
        hint = f" Did you mean '{near[0]}'?" if (near := get_close_matches(others[0], names, n=1)) else ""
        compared = f"which is not compared.{hint} Compared: {', '.join(names)}"
        raise SettingError(f"A learning rate was given for '{others[0]}', {compared}.")
    tuned = isinstance(base, str) and base == "tuned"
    several = [base] if not isinstance(base, Sequence) or isinstance(base, str) else base
    common = [] if tuned else [_rate(value) for value in several]
    if not tuned and (not common or len({rate.at(n) for rate in common}) < len(common)):
        got = [rate.said for rate in common]
        raise SettingError(f"Expected one or more different learning rates; got {got} with {n} agents.")
    single = {name: [taken(_rate(value), None, n)] for name, value in own.items()}
    return [single.get(spec.name) or [taken(rate, spec, n) for rate in common] or None for spec in specs]


def taken(rate: Rate, spec: Algorithm | None, n: int) -> TakenRate:
    """A learning rate with n agents. spec: the algorithm, where it is not its own but one for all."""
    scaled = rate.times_n() if spec is not None and spec.scale_lr_by_n else rate
    return TakenRate(scaled.at(n), str(scaled.said) if rate.coupled else None)


def _rate(value: Any) -> Rate:
    if not isinstance(value, str) and not _is_number(value):
        raise SettingError(f"A learning rate is {EXPECTED}, several of them, or 'tuned'; got {value!r}.")
    return Rate.of(value)


def tune_settings(
    lrs: Sequence[list[float] | None], target: Target | None, stop_at: str, **given: Any
) -> TuneSettings:
    """How learning rates are tuned. Raises SettingError for what makes no sense."""
    given = {name.removeprefix("tune_"): value for name, value in given.items() if value is not None}
    if given and None not in lrs:
        said = f"'tune_{next(iter(given))}' says how learning rates are tuned"
        raise SettingError(f"{said}, and none is; expected lr = 'tuned' with it.")
    if "grid" in given:
        given["grid"] = tuple(given["grid"]) if isinstance(given["grid"], Iterable) else (given["grid"],)
    tune = TuneSettings(**given)
    if None in lrs and stop_at == "target" and tune.by != "target":
        said = f"Learning rates are tuned by '{tune.by}', for which runs have to go on until their end"
        raise SettingError(f"{said}; with stop_at = 'target' expected tune_by = 'target'.")
    if tune.by == "target" and target is None:
        raise SettingError("Nothing is tuned by the target, for there is none; expected a target, or 'loss'.")
    return tune


@dataclass
class Search:
    """The search for one algorithm's learning rate: told of every run, it says what is to be tried next.

    It begins with those of `grid`, as the algorithm takes them, in the worlds of these seeds.
    """

    settings: TuneSettings
    grid: Sequence[float]
    seeds: Sequence[int]
    level: float | None = field(init=False, default=None)
    rounds: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.runs: dict[float, list[Run]] = {lr: [] for lr in self.grid}

    @property
    def first(self) -> list[Trial]:
        return [Trial(lr) for lr in self.grid]

    def add(self, trial: Trial, run: Run) -> list[Trial] | None:
        """What to try next, nothing if the search is over; None while a round is not complete."""
        self.runs[trial.lr].append(replace(run, models=(), trace=None))
        if any(len(runs) < len(self.seeds) for runs in self.runs.values()):
            return None
        if not self.rounds and self.settings.by == "loss":
            self.level = level(self.runs)
        self.rounds += 1
        more = between(self.runs, self.best.lr) if self.rounds <= ROUNDS else []
        self.runs |= {lr: [] for lr in more}
        return [Trial(lr) for lr in more]

    @property
    def best(self) -> Trial:
        return Trial(min(self._tried().items(), key=lambda one: (*order(one[1]), one[0]))[0])

    @property
    def found(self) -> Tuning:
        by, grid = self.settings.by, self.settings.grid
        return Tuning(by, self.level, grid, tuple(self.seeds), self._tried())

    def _tried(self) -> dict[float, Tried]:
        return {lr: outcome_of(runs, self.settings.by, self.level) for lr, runs in sorted(self.runs.items())}


def outcome_of(runs: Sequence[Run], by: str, at: float | None, early: bool = False) -> Tried:
    """What a learning rate gave, from its runs of all seeds.

    Args:
        at: the level of loss that stops the clock
        early: whether these runs end long before the others (`unstable`), as one that ended at its target
            may have
    """
    ordered = sorted(runs, key=lambda run: run.seed)
    ends = [run.final["loss"] if run.diverged_at is None else None for run in ordered]
    whys = (unstable(run, early or run.stopped_at is not None) for run in ordered)
    why = next(filter(None, whys), "")
    return Tried(tuple(_value(run, by, at) for run in ordered), spread(ends)[0], why)


def _value(run: Run, by: str, at: float | None) -> float | None:
    if run.diverged_at is not None:
        return None
    if by == "final":
        return run.final["loss"]
    if by == "target":
        return run.time_to_target
    return None if at is None else run.curve.crossing("loss", at)


def order(tried: Tried) -> tuple[float, ...]:
    """What sorts outcomes, the best first: stable ones, then by the criterion, then by the final loss."""
    values = (math.inf if value is None else value for value in (tried.median, tried.loss))
    return bool(tried.unstable), *values


def unstable(run: Run, early: bool = False) -> str:
    """Why this run does not count as stable, in few words; empty if it does.

    It does if its loss stayed finite, and ended below its first value, and the worst agent's own model is at
    least half as accurate as the average model or, without an accuracy, has at most twice the first loss.
    Early in a run, where some agents have hardly begun, nothing is asked of the worst one.
    """
    start, final = run.curve.loss[0], run.final
    if run.diverged_at is not None:
        return "diverged"
    if run.error:
        return "stopped before its end"
    if not (final["loss"] or 0.0) < start:
        return "the loss rose"
    if early:
        return ""
    if run.measure == "accuracy":
        worst, average = final["accuracy_worst"] or 0.0, final["accuracy"] or 0.0
        said = f"worst agent {100 * worst:.0f} %, average model {100 * average:.0f} %"
        return said if worst < WORST * average else ""
    own = final["loss_worst"]
    return "an agent's own loss doubled" * (own is None or not own <= start / WORST)


def level(runs: Mapping[Any, Sequence[Run]]) -> float | None:
    """The loss that stops the clock for the criterion "loss"; None if none lowers the loss."""
    first = next(iter(runs.values()))[0]
    if first.target is not None and first.target.is_loss:
        return first.target.level
    start = median(run.curve.loss[0] for each in runs.values() for run in each)
    tried = [outcome_of(each, "final", None) for each in runs.values()]
    ends = [one.loss for one in tried if not one.unstable] or [one.loss for one in tried]
    best = min((end for end in ends if end is not None), default=math.inf)
    return start - DESCENT * (start - best) if best < start else None


def between(tried: Iterable[float], best: float) -> list[float]:
    """Two more learning rates: half-way from the best to its neighbours; at an edge, a third and two thirds
    to its one. Ways are those of logarithms, the results are rounded to three digits.
    """
    lrs = sorted(tried)
    at = lrs.index(best)
    around = [lrs[k] for k in (at - 1, at + 1) if 0 <= k < len(lrs)]
    parts = (1 / 2,) if len(around) == 2 else (1 / 3, 2 / 3)
    shares = [(other, part) for other in around for part in parts]
    found = [float(f"{best * (other / best) ** share:.3g}") for other, share in shares]
    return [lr for lr in dict.fromkeys(found) if lr not in lrs]
