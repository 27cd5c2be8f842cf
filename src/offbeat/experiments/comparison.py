"""Several runs of one experiment, planned: `offbeat.experiments.study` compares them.

Nothing runs before everything has been checked: names, numbers, graph, data, what an algorithm needs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any

from offbeat.algorithms import ALGORITHMS, USUAL, Algorithm, find, told_apart, with_local_steps
from offbeat.core.agent import Agent
from offbeat.core.errors import SettingError, unknown
from offbeat.core.settings import declared, whole
from offbeat.core.system import machine
from offbeat.core.system.named import separated
from offbeat.core.system.own import together
from offbeat.experiments.batches import PlannedRun, seconds
from offbeat.experiments.experiment import Experiment, Selection
from offbeat.experiments.halving import HalvingSearch, Ladder, ladders_of, rates_beside
from offbeat.experiments.keeping import Kept
from offbeat.experiments.making import Making, OnNotice, OnRun
from offbeat.experiments.memory import check_run, held, needed, refuse_too_many
from offbeat.experiments.runs import Job
from offbeat.experiments.scheduler import Batch
from offbeat.experiments.setup import Setup, check_algorithm, checked, prepare, why_not
from offbeat.experiments.space import adjusted, parse_space, spaces_of
from offbeat.experiments.tuning import AWAY, LearningRates, Search, Trial, TuneSettings, tune_settings
from offbeat.experiments.workers import wanted
from offbeat.results.run import Run
from offbeat.results.trials import Halving, Tuning
from offbeat.results.values import Label, Progress

ALL = "all"
TRACES = 0.5  # the share of the free memory that runs may take with traces that nobody asked for

MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Plan:
    """A checked list of runs, made by iterating over `runs`.

    Attributes:
        lrs: the learning rates of each algorithm; None: to be tuned
        ladders: of each algorithm the candidates of several hyperparameters, where these are tuned together
        said: (algorithm, learning rate) -> how it was said, where that depends on the number of agents
        traced: for each algorithm whether the traces of the first seed are held
        code: file -> version of the user's own code, named by its file: all runs are of one version
        left_out: of all algorithms those that cannot run here, and why
    """

    experiment: Experiment
    setups: list[Setup]
    specs: list[Algorithm]
    lrs: list[list[float] | None]
    check: bool = False
    traced: Sequence[bool] = ()
    tune: TuneSettings = field(default_factory=TuneSettings)
    code: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[tuple[str, float], str] = field(default_factory=dict)
    ladders: Sequence[Ladder | None] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many runs there will be, those for tuning included: at most so many."""
        seeds, most = len(self.setups), self._most_tuning
        return sum(
            most(place) + seeds if lrs is None else len(lrs) * seeds for place, lrs in enumerate(self.lrs)
        )

    @property
    def planned(self) -> dict[str, int]:
        """How many runs of each algorithm there will be to compare."""
        seeds = len(self.setups)
        return {spec.name: len(lrs or [1]) * seeds for spec, lrs in zip(self.specs, self.lrs, strict=True)}

    @property
    def memory(self) -> float:
        """Bytes that the largest of the runs need, those beside it included: an estimate."""
        seeds = len(self.setups)
        most = self._most_tuning
        beside = [seeds * len(lrs) if lrs else max(seeds, most(place)) for place, lrs in enumerate(self.lrs)]
        each = [(place, keep) for place, traced in enumerate(self.traced) for keep in {traced, False}]
        return max(self.need(place, [keep] * beside[place]) for place, keep in each)

    @property
    def untraced(self) -> list[str]:
        """The algorithms of which no trace is held: it would take too much memory, or is of no use."""
        return [spec.name for spec, traced in zip(self.specs, self.traced, strict=True) if not traced]

    def without_traces(self) -> "Plan":
        """The same where no timeline is shown: no trace is held, unless all are kept."""
        return replace(self, traced=[False] * len(self.specs))

    def check_traces(self) -> None:
        """Raise SettingError if there is not enough memory to hold the trace of a run."""
        for spec in self.specs:
            check_run(self._job(spec, 1.0, keep_trace=True))

    def runs(
        self,
        on_progress: Progress | None = None,
        keep_traces: bool = False,
        workers: int = 1,
        on_run: OnRun = lambda run: run,
        on_notice: OnNotice = lambda text: None,
        kept: Kept | None = None,
    ) -> Iterator[Run]:
        """Make the runs; they come in the order of the plan.

        Without `keep_traces` only the first seed's have a trace, and only such as take no more than half of
        the memory.

        Args:
            workers: processes that make runs at the same time, this one included. Others are started only
                where they pay and where there is memory for them (`batches.how_many_workers`); and what only
                this process has, objects and devices of its own, it uses alone. No result depends on it
            on_run: given every run as soon as it is there, in any order; what it returns is yielded
            on_notice: told what the user should know: fewer workers than asked for, a worker that was killed
            kept: where runs are kept as soon as they are there; those that are there already are not made

        A KeyboardInterrupt, or an error of a run, is raised again when the runs that are there have been
        yielded. A run that kills its worker, and again when nothing runs beside it, costs no other; that it
        is missing is raised at the end.
        """
        wanted(whole("workers", workers))
        return self.making(on_progress, keep_traces, on_run, on_notice, kept).runs(workers)

    def making(
        self,
        on_progress: Progress | None = None,
        keep_traces: bool = False,
        on_run: OnRun = lambda run: run,
        on_notice: OnNotice = lambda text: None,
        kept: Kept | None = None,
    ) -> Making:
        """The runs on their way, those that are kept taken in and none made yet; the arguments of `runs`."""
        return Making(self, keep_traces, on_progress or (lambda *_: None), on_run, on_notice, kept)

    def told(self, run: Run, tuning: Tuning | Halving | None) -> Run:
        """The run, with how its hyperparameters came about."""
        said = self.said.get((run.algorithm, run.lr))
        return replace(run, tuning=tuning, settings=run.settings | ({"lr_said": said} if said else {}))

    def search(self, place: int) -> Search | HalvingSearch:
        spec, ladder, seeds = self.specs[place], self.ladders[place], self.tuning_seeds()
        if ladder is not None:
            return HalvingSearch(ladder, seeds)
        grid = [spec.default_lr(base, self.setups[0].topology.n) for base in self.tune.grid]
        return Search(self.tune, grid, seeds)

    def _most_tuning(self, place: int) -> int:
        """How many runs the search for this algorithm's hyperparameters makes, at most."""
        ladder = self.ladders[place]
        return self.tune.most if ladder is None else ladder.most

    def tuning_seeds(self) -> list[int]:
        """Of worlds in which nothing is compared."""
        return [self.setups[0].seed + AWAY + k for k in range(self.tune.seeds)]

    def planned_runs(
        self, place: int, trials: Sequence[Trial], tuning: bool, keep_traces: bool
    ) -> list[PlannedRun]:
        """The runs of one algorithm with these hyperparameters."""
        spec, first = self.specs[place], self.setups[0].seed
        seeds = self.tuning_seeds() if tuning else [each.seed for each in self.setups]
        traced = keep_traces and not tuning, (keep_traces or self.traced[place]) and not tuning
        return [
            PlannedRun(spec.name, spec.named or spec, seed, trial, traced[seed == first], (place, k), tuning)
            for k, (trial, seed) in enumerate(product(trials, seeds))
        ]

    def split(self, runs: Sequence[PlannedRun], processes: int) -> Iterator[Batch[PlannedRun]]:
        """Runs of one algorithm in batches for so many processes."""
        if not runs:
            return
        place, setup = runs[0].key[0], self.setups[0]
        spec = self.specs[place]
        beside = self._job(spec, 1.0, keep_trace=False).beside
        size = min(beside, -(-len(runs) // processes)) if processes > 1 else len(runs)
        on_gpu = self.experiment.device != "cpu"
        mine = spec.user_defined and not spec.named
        given = self.experiment.world is not None
        own = bool(setup.settings["own"] or given or mine or on_gpu)
        shortened = setup.shortened(runs[0].trial.until)
        name, each = spec.name + ", tuning" * runs[0].tuning, seconds(shortened, spec)
        for at in range(0, len(runs), size):
            some = tuple(runs[at : at + size])
            which = f"run {at + 1}" if len(some) == 1 else f"runs {at + 1}-{at + len(some)}"
            label = f"{name}, {which} of {len(runs)}" if len(runs) > 1 else name
            yield Batch(some, each * len(some), place, own, Label(label, len(some)))

    def need(self, place: int, traces: Sequence[bool]) -> float:
        """Bytes that runs of an algorithm need beyond the data. traces: of every run, whether it is held."""
        return needed([self._job(self.specs[place], 1.0, keep) for keep in traces])

    def _job(self, spec: Algorithm, lr: float, keep_trace: bool, setup: Setup | None = None) -> Job:
        """A run of the first seed. setup: its world, where it is not as in the plan"""
        return Job(setup or self.setups[0], spec, lr, self.experiment.executor, self.check, keep_trace)


def plan(
    algorithms: Sequence[str | type[Agent] | Agent | Algorithm] | str = USUAL,
    *,
    lr: LearningRates = 0.01,
    seed: int = 0,
    seeds: int = 1,
    local_steps: int | None = None,
    tune_by: str | None = None,
    tune_grid: Sequence[float] | None = None,
    tune_seeds: int | None = None,
    tune: str | Sequence[str] | None = None,
    tune_budget: float | None = None,
    check: bool = False,
    **settings: Any,
) -> Plan:
    """Check everything about a comparison. Raises SettingError or DataError; nothing has run then."""
    local_steps = None if local_steps is None else whole("local_steps", local_steps)
    specs, left_out = _specs(algorithms, local_steps), dict[str, str]()
    seed, seeds = whole("seed", seed), whole("seeds", seeds)
    if not 1 <= seeds <= MOST_SEEDS:
        raise SettingError(f"There must be at least one seed, and at most {MOST_SEEDS}; got {seeds}.")
    known = [f.name for f in fields(Experiment)]
    for name in settings:
        if name not in known:
            raise unknown("setting", name, [*known, *declared(Selection)])
    e = checked(Experiment(**settings))
    setups = [prepare(e, seed)]
    refuse_too_many(setups[0], len(specs) * seeds, seeds)
    if not isinstance(e.task, str):
        e = replace(e, task=setups[0].task)  # moved to the device once, whatever the number of seeds
    setups += [prepare(e, s) for s in range(seed + 1, seed + seeds)]
    if algorithms in (ALL, [ALL]):
        left_out = _not_local(local_steps)
        left_out |= {spec.name: why for spec in specs if (why := why_not(setups[0], spec))}
        specs = [spec for spec in specs if spec.name not in left_out]
    asked = {} if tune is None else parse_space(tune)
    spaces, rates = (
        spaces_of(asked, specs, setups[0].steps),
        rates_beside(asked, lr, specs, setups[0].topology.n),
    )
    lrs = [
        [rate.lr for rate in several] if several and not space else None
        for several, space in zip(rates, spaces, strict=True)
    ]
    taken = [(spec.name, rate) for spec, several in zip(specs, rates, strict=True) for rate in several or []]
    said = {(name, rate.lr): rate.said for name, rate in taken if rate.said}
    how = tune_settings(
        lrs, setups[0].target, e.stop_at, tune_by=tune_by, tune_grid=tune_grid, tune_seeds=tune_seeds
    )
    ladders = ladders_of(how, asked, spaces, tune_budget, tune_grid, rates, specs, setups[0])
    code = together(*(spec.code for spec in specs), *(setup.settings["code"] for setup in setups))
    made = Plan(
        e, setups, specs, lrs, check, tune=how, said=said, code=code, ladders=ladders, left_out=left_out
    )  # fmt: skip
    return _checked(made)


def _checked(made: Plan) -> Plan:
    """The plan, with the traces that there is room for. Raises SettingError for what cannot run."""
    setups = made.setups
    for place, (spec, several) in enumerate(zip(made.specs, made.lrs, strict=True)):
        ladder = made.ladders[place]
        for trial in ladder.candidates if ladder else [Trial(each) for each in several or [1.0]]:
            each, setup = adjusted(spec, setups[0], dict(trial.options))
            check_run(made._job(each, trial.lr, keep_trace=False, setup=setup))
        for setup in setups[1:]:  # of other seeds a random graph may be another
            check_algorithm(setup, spec)
    free, one, before, traced = machine.available(), held(setups[0]), 0.0, list[bool]()
    for place, several in enumerate(made.lrs):  # whether its first seed's traces fit beside those before
        others = (len(several or [1]) - 1) * one
        traced.append(before + others + made.need(place, [True]) <= TRACES * free)
        before += (others + one) * traced[-1]
    return replace(made, traced=traced)


def _not_local(steps: int | None) -> dict[str, str]:
    """Of the whole table, who makes no local steps, and why, if so many are wanted."""
    without = [row for row in ALGORITHMS.values() if row.local not in row.options and steps not in (None, 1)]
    return {row.name: row.makes_none for row in without}


def _specs(
    algorithms: Sequence[str | type[Agent] | Agent | Algorithm] | str, local_steps: int | None
) -> list[Algorithm]:
    """The algorithms, each with a name of its own; 'all' is the whole table."""
    if not isinstance(algorithms, Iterable):
        raise SettingError(f"Expected algorithms, a list or names with commas between; got {algorithms!r}.")
    named = separated(algorithms) if isinstance(algorithms, str) else list(algorithms)
    if named == [ALL]:
        without = _not_local(local_steps)
        named = [name for name in ALGORITHMS if name not in without]
    if any(isinstance(each, str) and each.strip().lower().partition(":")[0] == ALL for each in named):
        raise SettingError(
            f"'{ALL}' is the whole table: it takes no options, and no other name beside it. Expected '{ALL}' "
            "alone, or names, with options behind those that take them, as in 'adsgd:theta=0.5'."
        )
    specs = told_apart([with_local_steps(find(each), local_steps) for each in named])
    if not specs:
        raise SettingError("Name at least one algorithm.")
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise SettingError(f"An algorithm is named twice: {', '.join(names)}.")
    return specs
