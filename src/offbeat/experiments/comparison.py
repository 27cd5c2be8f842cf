"""Several runs of one experiment: `simulate` one algorithm, `compare` several.

Nothing runs before everything has been checked: names, numbers, graph, data, what an algorithm needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from itertools import count as numbered
from numbers import Real
from typing import Any

from offbeat.algorithms import ALGORITHMS, Algorithm, find
from offbeat.core.agent import Agent
from offbeat.core.errors import SettingError, unknown
from offbeat.core.rules import SGD, Rule
from offbeat.core.settings import whole
from offbeat.core.system import machine
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.jobs import Job
from offbeat.experiments.needs import held, needed, refuse_too_many
from offbeat.experiments.portions import Making, Portion, Setting, crew, seconds
from offbeat.experiments.runs import check_run
from offbeat.experiments.setup import Setup, check_algorithm, prepare
from offbeat.experiments.tuning import AWAY, Asked, Search
from offbeat.experiments.workers import wanted
from offbeat.results.run import Comparison, Run
from offbeat.results.values import Progress

TRACES = 0.5
"""The share of the free memory that runs may take with traces that nobody asked for."""

MOST_SEEDS = 10_000

TUNING = ("tune_by", "tune_grid", "tune_seeds")

Steps = float | str | Sequence[float] | Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """A checked list of runs, made by iterating over `runs`."""

    experiment: Experiment
    setups: list[Setup]
    specs: list[Algorithm]
    steps: list[list[float] | None]  # for each row; None: to be tuned
    rule: Callable[[float], Rule] = SGD
    check: bool = False
    traced: Sequence[bool] = ()  # for each row: whether the traces of the first seed are held
    tuned: Asked = field(default_factory=Asked)

    @property
    def count(self) -> int:
        """How many runs there will be, those for tuning included: at most so many."""
        seeds = len(self.setups)
        return sum(self.tuned.most + seeds if steps is None else len(steps) * seeds for steps in self.steps)

    @property
    def planned(self) -> dict[str, int]:
        """How many runs of each algorithm there will be to compare."""
        each = zip(self.specs, self.steps, strict=True)
        return {spec.name: len(steps or [1.0]) * len(self.setups) for spec, steps in each}

    @property
    def memory(self) -> float:
        """Bytes that the largest of the runs need, those beside it included: an estimate."""
        most = 0.0
        for spec, steps, traced in zip(self.specs, self.steps, self.traced, strict=True):
            jobs = [self._job(spec, 1.0, keep) for keep in {traced, False}]
            beside = len(self.setups) * len(steps) if steps else max(len(self.setups), self.tuned.most)
            most = max(most, *(needed([job] * beside) for job in jobs))
        return most

    @property
    def untraced(self) -> list[str]:
        """The algorithms of which no trace is held: it would take too much memory, or is of no use."""
        return [spec.name for spec, traced in zip(self.specs, self.traced, strict=True) if not traced]

    def without_traces(self) -> Plan:
        """The same, for who shows no timeline: no trace is held, unless all are kept."""
        return replace(self, traced=[False] * len(self.specs))

    def check_traces(self) -> None:
        """Raise SettingError if there is not enough memory to hold the trace of a run."""
        for spec in self.specs:
            check_run(self._job(spec, 1.0, keep_trace=True))

    def runs(
        self,
        progress: Progress | None = None,
        keep_traces: bool = False,
        workers: int = 1,
        ended: Callable[[Run], Run] = lambda run: run,
        note: Callable[[str], None] = lambda text: None,
    ) -> Iterator[Run]:
        """Make the runs; they come in the order of the plan.

        Without `keep_traces` only the first seed's have a trace, and of these only such as take no more than
        half of the memory.

        Args:
            workers: processes that make runs at the same time, this one included. Others are started only
                where they pay and where there is memory for them (`portions.crew`); and what only this
                process has, objects and devices of its own, it uses alone. No result depends on it
            ended: given every run as soon as it is there, in any order; what it returns is yielded
            note: told what the user should know: fewer workers than asked for, a worker that was killed

        A KeyboardInterrupt, or an error of a run, is raised again when the runs that are there have been
        yielded. Raises SettingError if `workers` is no number > 0.
        """
        others = 0
        if wanted(whole("workers", workers)) > 1:
            runs = sum(
                len(steps or [1.0]) * traced for steps, traced in zip(self.steps, self.traced, strict=True)
            )
            kept = runs * held(self.setups[0])
            others, said = crew(self._portions(workers, keep_traces), workers - 1, cache(self._need), kept)
            if said:
                note(said)
        return self._made(progress, keep_traces, others, ended, note)

    def _made(
        self, progress: Progress | None, keep_traces: bool, others: int, ended: Callable[[Run], Run],
        note: Callable[[str], None],
    ) -> Iterator[Run]:  # fmt: skip
        done: dict[tuple[int, int], Run] = {}
        searches = [Search(self.tuned, self._grid(spec), self._tuning_seeds()) for spec in self.specs]

        def arrived(portion: Portion, k: int, run: Run) -> None:
            place, search = portion.place, searches[portion.place]
            if not portion.tuning:
                run = replace(run, tuning=search.found if self.steps[place] is None else None)
                done[place, portion.first + k] = run  # before anything can be interrupted
                done[place, portion.first + k] = ended(run)
                return
            more = search.add(run)
            if more is not None:
                steps, tuning = more or [search.best], bool(more)
                making.add(self._split(place, steps, tuning, others + 1, keep_traces, numbers))

        first = self._portions(others + 1, keep_traces)
        numbers = numbered(len(first))
        runs = [(1 if steps is None else len(steps)) * len(self.setups) for steps in self.steps]
        order = iter([(place, k) for place, several in enumerate(runs) for k in range(several)])
        setting = Setting(self.experiment, self.setups, self.rule, self.check, arrived, progress, note)
        making = Making(setting, others, self.count)
        following = next(order)
        with closing(making):
            making.add(first)
            try:
                for _ in making:
                    while following in done:
                        yield done.pop(following)
                        following = next(order, (-1, -1))
            except (KeyboardInterrupt, Exception):
                with suppress(Exception):
                    making.look()
                yield from (done[key] for key in sorted(done))
                raise

    def _portions(self, processes: int, keep_traces: bool) -> list[Portion]:
        """What so many processes can begin with: all runs, but for a step that is to be tuned those that find
        it.
        """
        numbers, first = numbered(), list[Portion]()
        for place, steps in enumerate(self.steps):
            grid = self._grid(self.specs[place])
            first += self._split(place, steps or grid, steps is None, processes, keep_traces, numbers)
        return first

    def _grid(self, spec: Algorithm) -> list[float]:
        return [spec.default_lr(base, self.setups[0].topology.n) for base in self.tuned.grid]

    def _tuning_seeds(self) -> list[int]:
        """Of worlds in which nothing is compared."""
        return [self.setups[0].seed + AWAY + k for k in range(self.tuned.seeds)]

    def _split(
        self,
        place: int,
        steps: list[float],
        tuning: bool,
        processes: int,
        keep_traces: bool,
        numbers: Iterator[int],
    ) -> list[Portion]:
        """The runs of one algorithm with these steps, in portions for so many processes."""
        spec, setup = self.specs[place], self.setups[0]
        seeds = self._tuning_seeds() if tuning else [each.seed for each in self.setups]
        traced = self.traced[place]
        asked = [
            (seed, lr, not tuning and (keep_traces or (traced and seed == setup.seed)))
            for lr in steps
            for seed in seeds
        ]
        beside = self._job(spec, 1.0, keep_trace=False).beside
        size = min(beside, -(-len(asked) // processes)) if processes > 1 else len(asked)
        here = (
            bool(setup.settings["own"])
            or spec.user_defined
            or self.rule is not SGD
            or self.experiment.device != "cpu"
        )
        each, found = seconds(setup, spec), list[Portion]()
        for at in range(0, len(asked), size):
            some = tuple(asked[at : at + size])
            which = f", run {at + 1}" if len(some) == 1 else f", runs {at + 1}-{at + len(some)}"
            label = spec.name + ", tuning" * tuning + (f"{which} of {len(asked)}" if len(asked) > 1 else "")
            found.append(Portion(next(numbers), spec, place, at, some, tuning, each * len(some), here, label))
        return found

    def _job(self, spec: Algorithm, lr: float, keep_trace: bool) -> Job:
        """A run of the first seed."""
        return Job(self.setups[0], spec, lr, self.experiment.executor, self.rule, self.check, keep_trace)

    def _need(self, place: int, kept: Sequence[bool]) -> float:
        """Bytes that runs of an algorithm need beyond the data. kept: of every run, whether its trace is
        held.
        """
        return needed([self._job(self.specs[place], 1.0, keep) for keep in kept])


def plan(
    algorithms: Sequence[str | type[Agent] | Agent | Algorithm] | str = tuple(ALGORITHMS),
    *,
    lr: Steps = 0.01,
    seed: int = 0,
    seeds: int = 1,
    tune_by: str | None = None,
    tune_grid: Sequence[float] | None = None,
    tune_seeds: int | None = None,
    rule: Callable[[float], Rule] = SGD,
    check: bool = False,
    **settings: Any,
) -> Plan:
    """Check everything about a comparison. Raises SettingError or DataError; nothing has run then."""
    if isinstance(algorithms, str):
        algorithms = algorithms.split(",")
    specs = [find(a) for a in algorithms]
    if not specs:
        raise SettingError("Name at least one algorithm.")
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise SettingError(f"An algorithm is named twice: {', '.join(names)}.")
    seed, seeds = whole("seed", seed), whole("seeds", seeds)
    if not 1 <= seeds <= MOST_SEEDS:
        raise SettingError(f"There must be at least one seed, and at most {MOST_SEEDS}; got {seeds}.")
    if not callable(rule) or not callable(rule(1.0)):
        raise SettingError(
            "The rule is called with a step and gives a local rule: pass offbeat.Momentum itself."
        )
    known = [f.name for f in fields(Experiment)]
    for name in settings:
        if name not in known:
            raise unknown("setting", name, [*known, "lr", "seed", "seeds", *TUNING, "rule"])
    e = Experiment(**settings)
    setups = [prepare(e, seed)]
    refuse_too_many(setups[0], len(specs) * seeds, seeds)
    if not isinstance(e.task, str):
        e = replace(e, task=setups[0].task)  # moved to the device once, whatever the number of seeds
    setups += [prepare(e, s) for s in range(seed + 1, seed + seeds)]
    of_each = _steps(lr, specs, setups[0].topology.n)
    tuned = _asked(of_each, setups[0], tune_by=tune_by, tune_grid=tune_grid, tune_seeds=tune_seeds)
    made = Plan(e, setups, specs, of_each, rule, check, tuned=tuned)
    for spec, steps in zip(specs, made.steps, strict=True):
        for step in steps or [1.0]:
            check_run(made._job(spec, step, keep_trace=False))
        for setup in setups[1:]:  # of other seeds a random graph may be another
            check_algorithm(setup, spec)
    return replace(made, traced=_traced(made))


def _traced(made: Plan) -> list[bool]:
    """For each algorithm whether the traces of its first seed fit into a share of the memory, beside those
    before.
    """
    free, before, traced = machine.available(), 0.0, []
    one = held(made.setups[0])
    for spec, steps in zip(made.specs, made.steps, strict=True):
        others = (len(steps or [1.0]) - 1) * one
        needs = needed([made._job(spec, 1.0, keep_trace=True)])
        traced.append(before + others + needs <= TRACES * free)
        before += (others + one) * traced[-1]
    return traced


def _steps(lr: Steps, specs: Sequence[Algorithm], n: int) -> list[list[float] | None]:
    """For every algorithm its list of steps; None where they are to be tuned.

    A mapping gives steps by algorithm, and by "" for all that it does not name.
    """
    own: dict[str, Any] = dict(lr) if isinstance(lr, Mapping) else {}
    base: Any = own.pop("", 0.01) if isinstance(lr, Mapping) else lr
    for name in own:
        if name not in [spec.name for spec in specs]:
            compared = [spec.name for spec in specs]
            hint = f" Did you mean '{near[0]}'?" if (near := get_close_matches(name, compared, n=1)) else ""
            raise SettingError(
                f"A step was given for '{name}', which is not compared.{hint} Compared: "
                f"{', '.join(compared)}."
            )
    several = [base] if isinstance(base, Real) else base
    numbers = [*own.values(), *(several if isinstance(several, Sequence) and base != "tuned" else ())]
    wrong = [step for step in numbers if isinstance(step, bool) or not isinstance(step, Real)]
    if wrong or not isinstance(several, Sequence) or (isinstance(base, str) and base != "tuned"):
        got = wrong[0] if wrong and not isinstance(base, str) else base
        raise SettingError(f"A step is a number, several numbers, or 'tuned'; got {got!r}.")
    common = None if base == "tuned" else [float(step) for step in several]
    if common is not None and len(set(common)) < max(1, len(common)):
        raise SettingError(f"Expected one or more different steps; got {common}.")
    steps: list[list[float] | None] = []
    for spec in specs:
        shared = None if common is None else [spec.default_lr(step, n) for step in common]
        steps.append([float(own[spec.name])] if spec.name in own else shared)
    return steps


def _asked(steps: Sequence[list[float] | None], setup: Setup, **given: Any) -> Asked:
    """How steps are tuned. Raises SettingError for what makes no sense."""
    given = {name: value for name, value in given.items() if value is not None}
    if given and None not in steps:
        raise SettingError(
            f"'{next(iter(given))}' says how steps are tuned, and none is; expected lr = 'tuned' with it."
        )
    grid = given.get("tune_grid", ())
    given |= (
        {"tune_grid": tuple(grid if isinstance(grid, Iterable) else [grid])} if "tune_grid" in given else {}
    )
    asked = Asked(**{name.removeprefix("tune_"): value for name, value in given.items()})
    if asked.by == "target" and setup.target is None:
        raise SettingError(
            "Steps cannot be tuned by the target, for there is none; expected a target, or 'loss'."
        )
    return asked


def compare(
    algorithms: Sequence[str | type[Agent] | Agent | Algorithm] | str = tuple(ALGORITHMS),
    *,
    progress: Progress | None = None,
    workers: int = 1,
    **settings: Any,
) -> Comparison:
    """Run several algorithms in the same worlds.

        result = offbeat.compare(["adsgd", "dsgd"], task="digits", case="combined", seeds=3)
        print(result)

    Args:
        algorithms: names ("adsgd", "dsgd:after"), classes or objects of your own (`offbeat.Agent`)
        settings: those of `Experiment`, and
        lr: a step, several, "tuned" (each algorithm's own best: `offbeat.experiments.tuning`),
            or {algorithm: step, "": step}
        seed, seeds: seeds seed, seed + 1, ... are run; each is the same alone or beside others
        tune_by, tune_grid, tune_seeds: how steps are tuned: by "loss", "target" or "final"; the steps that
            are tried first (`offbeat.experiments.tuning.GRID`); in how many other worlds (3)
        rule: step -> local rule, for example offbeat.Momentum (default: SGD)
        workers: processes that make runs at the same time, this one included; no result depends on it. With
            more than one, keep what a script of yours does under `if __name__ == "__main__":`, for they
            import it. Runs with objects of yours (algorithm, task, graph, rule, measured delays) are made in
            this process alone
    """
    return Comparison(list(plan(algorithms, **settings).runs(progress, workers=workers)))


def simulate(
    algorithm: str | type[Agent] | Agent | Algorithm = "adsgd",
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Run one algorithm once; the settings are those of `compare`."""
    made = plan([algorithm], **settings)
    if made.count != 1:
        raise SettingError("simulate makes one run: give one step and one seed, or use compare.")
    return next(made.runs(progress))
