"""Several hyperparameters of an algorithm together, by successive halving (arXiv:1502.07943).

The candidates are spread evenly over their ranges: the middle, then a scrambled Halton sequence, which optuna
draws. All run until an early time, in the same worlds of several seeds, none of which is compared; then the
best `1 / ETA` of them are run anew, to `ETA` times that, and so on (a *rung* each), the last ones until the
end. They are judged as learning rates alone are (`offbeat.experiments.tuning`): stable ones first, then by
the median of the criterion and of the loss at the end of the rung, then the one that was drawn first. Half of
those that go on are the best so; the others are the best if nothing is asked of an agent's own model, since
some agents have hardly begun: a candidate may be stable later, or no longer be.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from offbeat.algorithms import Algorithm
from offbeat.core.errors import SettingError
from offbeat.core.settings import finite
from offbeat.core.system.streams import Purpose, stream
from offbeat.experiments.setup import Setup
from offbeat.experiments.space import LR, Space, spelt
from offbeat.experiments.tuning import (
    BUDGET,
    LearningRates,
    TakenRate,
    Trial,
    TuneSettings,
    level,
    order,
    outcome_of,
    rates_of,
)
from offbeat.results.run import Run
from offbeat.results.trials import Candidate, Halving, Tried

ETA = 3  # one of so many goes on from each rung, to so many times its end
RUNGS = 3  # at most
MOST = 100_000  # candidates of an algorithm


@dataclass(frozen=True)
class Ladder:
    """What is tried of one algorithm: the candidates, and how many of them run until when.

    Attributes:
        asked: the ranges that were asked for, for all algorithms
        names: those that this one has
        sizes: how many candidates each rung has
        rungs: the time until which these run
    """

    settings: TuneSettings
    asked: Space
    names: tuple[str, ...]
    budget: float
    candidates: tuple[Trial, ...]
    sizes: tuple[int, ...]
    rungs: tuple[float, ...]

    @property
    def most(self) -> int:
        """How many runs there will be."""
        return sum(self.sizes) * self.settings.seeds

    def __str__(self) -> str:
        steps = zip(self.sizes, self.rungs, strict=True)
        return ", ".join(f"{count} until time {until:.4g}" for count, until in steps)


def rates_beside(
    asked: Space, lr: LearningRates, specs: Sequence[Algorithm], n: int
) -> list[list[TakenRate] | None]:
    """The learning rates of each algorithm, as `rates_of` has them, where others may be tuned; None where
    they are tuned. Raises SettingError for more than one where something else is tuned.
    """
    if LR in asked:
        if lr not in (0.01, {}):
            given = {name or "all": each for name, each in lr.items()} if isinstance(lr, Mapping) else lr
            raise SettingError(
                f"The learning rate is tuned, and given as {given}; expected only one of these."
            )
        return [None for _ in specs]
    rates = rates_of(lr, specs, n)
    if asked and any(several is None or len(several) > 1 for several in rates):
        names = f"{', '.join(asked)} alone {'is' if len(asked) == 1 else 'are'} tuned together"
        raise SettingError(f"{names}, so that one learning rate was expected, or lr=LOW:HIGH:log among them.")
    return rates


def ladders_of(
    settings: TuneSettings, asked: Space, spaces: Sequence[Space], budget: float | None, grid: Any,
    rates: Sequence[list[TakenRate] | None], specs: Sequence[Algorithm], setup: Setup,
) -> list[Ladder | None]:  # fmt: skip
    """What is tried of each algorithm; None of one of which nothing is tuned so. Raises SettingError."""
    if not asked and budget is not None:
        raise SettingError(
            "'tune_budget' says how much is tried of what 'tune' names; expected that with it."
        )
    if asked and grid is not None:
        raise SettingError("'tune_grid' is for lr = 'tuned'; of 'tune' the ranges say what is tried.")
    much = BUDGET if budget is None else finite("tune_budget", budget)
    n, until, made = setup.topology.n, setup.until, list[Ladder | None]()
    for spec, space, several in zip(specs, spaces, rates, strict=True):
        lr = several[0].lr if several else math.nan
        made.append(ladder(spec, asked, space, lr, n, until, setup.seed, much, settings) if space else None)
    return made


def ladder(
    spec: Algorithm, asked: Space, space: Space, lr: float, n: int, until: float, seed: int, budget: float,
    settings: TuneSettings,
) -> Ladder:  # fmt: skip
    """The candidates of this algorithm within the budget. lr: where that is not among what is tuned; n: how
    many agents. Raises SettingError for a budget that is too small, and where optuna is missing.
    """
    rungs = next(
        (k for k in range(RUNGS, 1, -1) if _affordable(budget, k, settings.seeds) >= ETA ** (k - 1)), 0
    )
    if not rungs:
        least = 2 * settings.seeds
        raise SettingError(
            f"A budget of {budget:g} whole runs is too small to tune with {settings.seeds} seeds; expected "
            f"at least {least}, or fewer seeds."
        )
    count = min(_affordable(budget, rungs, settings.seeds), MOST)
    found = dict[Trial, None]()
    for params in drawn(space, count, seed):
        rate = spec.default_lr(params[LR], n) if LR in params else lr
        found[Trial(rate, tuple((name, value) for name, value in params.items() if name != LR))] = None
    sizes = [len(found)]
    while len(sizes) < rungs:
        sizes.append(max(1, sizes[-1] // ETA))
    times = tuple(until / ETA ** (rungs - 1 - k) for k in range(rungs))
    return Ladder(settings, asked, (*space,), budget, (*found,), (*sizes,), times)


def _going_on(found: Mapping[Trial, Tried], early: Mapping[Trial, Tried], count: int) -> set[Trial]:
    """So many of these: half of them the best as at the end, then the best as is asked early in a run."""
    first, second = (sorted(each, key=lambda trial: order(each[trial])) for each in (found, early))
    best = first[: -(-count // 2)]
    return {*best, *[trial for trial in second if trial not in best][: count - len(best)]}


def tuned_how(specs: Sequence[Algorithm], ladders: Sequence[Ladder | None]) -> list[str]:
    """What will be tried, in a sentence for all algorithms of which it is the same."""
    texts: dict[str, list[str]] = {}
    for spec, each in zip(specs, ladders, strict=True):
        if each is not None:
            texts.setdefault(f"{' and '.join(each.names)}, candidates: {each}", []).append(spec.name)
        elif any(ladders):
            texts.setdefault("none of these, so it is not tuned", []).append(spec.name)
    if not (first := next(filter(None, ladders), None)):
        return []
    seeds = f"{first.settings.seeds} other seed{'s' * (first.settings.seeds > 1)}"
    budget = f"a budget of {first.budget:g} whole runs for each, over {seeds}"
    return [
        f"Tuned by successive halving within {budget}. {', '.join(who)}: {t}." for t, who in texts.items()
    ]


def _affordable(budget: float, rungs: int, seeds: int) -> int:
    """How many candidates there can be: those of every rung cost the same, a share of the budget."""
    return int(budget / seeds * ETA ** (rungs - 1) / rungs)


def drawn(space: Space, count: int, seed: int) -> list[dict[str, float]]:
    """So many candidates: name -> value. Raises SettingError where optuna is missing."""
    try:
        import optuna
    except ImportError:
        raise SettingError("--tune needs optuna: pip install 'offbeat[tune]' installs it.") from None
    ranges: dict[str, Any] = {}
    for name, each in space.items():
        if each.whole:
            ends = int(each.low), int(each.high)
            ranges[name] = optuna.distributions.IntDistribution(*ends, log=each.log)
        else:
            ranges[name] = optuna.distributions.FloatDistribution(each.low, each.high, log=each.log)
    first = {name: each.middle for name, each in space.items()}
    number = int(stream(seed, Purpose.TUNING).integers(2**31))
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.QMCSampler(qmc_type="halton", scramble=True, seed=number)
        study, done = optuna.create_study(sampler=sampler), optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(state=done, params=first, distributions=ranges, value=0.0))
        found = [first, *(study.ask(ranges).params for _ in range(count - 1))]
    finally:
        optuna.logging.set_verbosity(said)
    return [{name: each.rounded(params[name]) for name, each in space.items()} for params in found]


@dataclass
class HalvingSearch:
    """The search for one algorithm's hyperparameters: told of every run, it says what is to be tried next.

    Attributes:
        seeds: those of the worlds in which candidates are tried
        rung: the number of that which is being run
    """

    ladder: Ladder
    seeds: Sequence[int]
    rung: int = field(init=False, default=0)
    at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.tried = dict[Trial, tuple[float, Tried]]()  # of each candidate how far it got, and what it gave
        self.runs = self._rung(self.ladder.candidates)

    @property
    def first(self) -> list[Trial]:
        return [*self.runs]

    def add(self, trial: Trial, run: Run) -> list[Trial] | None:
        """What to try next, nothing if the search is over; None while a rung is not complete."""
        self.runs[trial].append(replace(run, models=(), trace=None))
        if any(len(runs) < len(self.seeds) for runs in self.runs.values()):
            return None
        by, known = self.ladder.settings.by, {replace(each, until=None): r for each, r in self.runs.items()}
        self.at = level(known) if by == "loss" else None
        found = {each: outcome_of(runs, by, self.at) for each, runs in known.items()}
        self.tried |= {each: (self.ladder.rungs[self.rung], tried) for each, tried in found.items()}
        self.rung += 1
        if self.rung == len(self.ladder.rungs):
            self.runs = {}
        else:
            early = {each: outcome_of(runs, by, self.at, early=True) for each, runs in known.items()}
            goes_on = _going_on(found, early, self.ladder.sizes[self.rung])
            self.runs = self._rung([each for each in found if each in goes_on])
        return [*self.runs]

    def _rung(self, candidates: Sequence[Trial]) -> dict[Trial, list[Run]]:
        until = None if self.rung == len(self.ladder.rungs) - 1 else self.ladder.rungs[self.rung]
        return {replace(each, until=until): [] for each in candidates}

    @property
    def best(self) -> Trial:
        return min(self.tried, key=lambda each: (-self.tried[each][0], *order(self.tried[each][1])))

    @property
    def found(self) -> Halving:
        ladder = self.ladder
        candidates = tuple(Candidate(self._params(each), *self.tried[each]) for each in ladder.candidates)
        chosen = ladder.candidates.index(self.best)
        asked = spelt(ladder.asked), ladder.budget
        return Halving(
            ladder.settings.by, self.at, *asked, tuple(self.seeds), ladder.rungs, candidates, chosen
        )

    def _params(self, trial: Trial) -> Mapping[str, float]:
        return {name: {LR: trial.lr, **dict(trial.options)}[name] for name in self.ladder.names}
