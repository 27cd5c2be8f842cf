"""Several runs of one experiment: `simulate` one algorithm, `compare` several.

Nothing runs before everything has been checked: names, numbers, graph, data, what an algorithm needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Real
from typing import Any

from offbeat.agent import Agent
from offbeat.algorithms import ALGORITHMS, Algorithm, find
from offbeat.errors import SettingError, unknown
from offbeat.experiment import Experiment, Prepared, check_algorithm, prepare, whole
from offbeat.memory import available, held
from offbeat.results import Comparison, Progress, Run
from offbeat.rules import SGD, Rule
from offbeat.runs import Job, check_run, needed, run_many

TUNING_GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""The steps that `lr="tuned"` tries (times n for R-FAST)."""

MOST_SEEDS = 10_000

TUNING_SEED = 1_000_003
"""Added to the first seed for tuning, so that no step is chosen on a world that it is compared in."""

Steps = float | str | Sequence[float] | Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """A checked list of runs, made one at a time by iterating over `runs`."""

    experiment: Experiment
    prepared: list[Prepared]
    rows: list[Algorithm]
    steps: list[list[float] | None]  # for each row; None: to be tuned
    rule: Callable[[float], Rule] = SGD
    check: bool = False
    traced: Sequence[bool] = ()  # for each row: whether the traces of the first seed are held

    @property
    def count(self) -> int:
        """How many runs there will be, those for tuning included."""
        seeds = len(self.prepared)
        return sum(len(TUNING_GRID) + seeds if steps is None else len(steps) * seeds for steps in self.steps)

    @property
    def memory(self) -> float:
        """Bytes that the largest of the runs need, those beside it included: an estimate."""
        most = 0.0
        for row, steps, traced in zip(self.rows, self.steps, self.traced, strict=True):
            jobs = [Job(self.prepared[0], row, 1.0, keep) for keep in {traced, False}]
            beside = len(self.prepared) * len(steps or TUNING_GRID)
            most = max(most, *(needed([job] * beside, self.experiment.executor, self.rule) for job in jobs))
        return most

    @property
    def untraced(self) -> list[str]:
        """The algorithms of which no trace is held, because it would not fit into memory."""
        return [row.name for row, traced in zip(self.rows, self.traced, strict=True) if not traced]

    def check_traces(self) -> None:
        """Raise SettingError if there is not enough memory to hold the trace of a run."""
        for row in self.rows:
            check_run(self.prepared[0], row, 1.0, self.experiment.executor, self.rule, keep_trace=True)

    def runs(self, progress: Progress | None = None, keep_traces: bool = False) -> Iterator[Run]:
        """Make the runs; each is finished when it is yielded.

        Without `keep_traces` only the first seed's have one, and of these only such as fit into memory.
        """
        for row, steps, traced in zip(self.rows, self.steps, self.traced, strict=True):
            tuning, jobs = None, list[Job]()
            if steps is None:
                steps, tuning = self._tuned(row, progress)
            for lr in steps:
                jobs += [
                    Job(p, row, lr, keep_traces or (traced and index == 0)) for index, p in enumerate(self.prepared)
                ]
            for run in run_many(jobs, self.experiment.executor, self.rule, progress, self.check):
                yield replace(run, tuning=tuning)

    def _tuned(
        self, row: Algorithm, progress: Progress | None
    ) -> tuple[list[float], dict[float, dict[str, float | None]]]:
        """The step of the grid with the shortest time to target, then the smallest final loss, in a world apart.

        An algorithm that diverges with every step gets the smallest, and is then reported as diverged.
        """
        p = prepare(self.experiment, self.prepared[0].seed + TUNING_SEED)
        outcomes: dict[float, dict[str, float | None]] = {}
        best: tuple[float, float, float] = (math.inf, math.inf, math.inf)
        grid = [row.default_lr(base, p.topology.n) for base in TUNING_GRID]
        jobs = [Job(p, row, lr, keep_trace=False) for lr in grid]
        for lr, run in zip(grid, run_many(jobs, self.experiment.executor, self.rule, progress), strict=True):
            loss = run.final["loss"] if run.diverged_at is None else None
            outcomes[lr] = {"time_to_target": run.time_to_target, "loss": loss}
            time_to_target = math.inf if run.time_to_target is None else run.time_to_target
            best = min(best, (time_to_target, math.inf if loss is None else loss, lr))
        return [best[2]], outcomes


def plan(
    algorithms: Sequence[str | type[Agent] | Agent | Algorithm] | str = tuple(ALGORITHMS),
    *,
    lr: Steps = 0.01,
    seed: int = 0,
    seeds: int = 1,
    rule: Callable[[float], Rule] = SGD,
    check: bool = False,
    **settings: Any,
) -> Plan:
    """Check everything about a comparison. Raises SettingError or DataError; nothing has run then."""
    if isinstance(algorithms, str):
        algorithms = algorithms.split(",")
    rows = [find(a) for a in algorithms]
    if not rows:
        raise SettingError("Name at least one algorithm.")
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        raise SettingError(f"An algorithm is named twice: {', '.join(names)}.")
    seed, seeds = whole("seed", seed), whole("seeds", seeds)
    if not 1 <= seeds <= MOST_SEEDS:
        raise SettingError(f"There must be at least one seed, and at most {MOST_SEEDS}; got {seeds}.")
    if not callable(rule) or not callable(rule(1.0)):
        raise SettingError("The rule is called with a step and gives a local rule: pass offbeat.Momentum itself.")
    known = [f.name for f in fields(Experiment)]
    for name in settings:
        if name not in known:
            raise unknown("setting", name, [*known, "lr", "seed", "seeds", "rule"])
    e = Experiment(**settings)
    prepared = [prepare(e, seed)]
    if not isinstance(e.task, str):
        e = replace(e, task=prepared[0].task)  # moved to the device once, whatever the number of seeds
    prepared += [prepare(e, s) for s in range(seed + 1, seed + seeds)]
    made = Plan(e, prepared, rows, _steps(lr, rows, prepared[0].topology.n), rule, check)
    for row, steps in zip(rows, made.steps, strict=True):
        for step in steps or [1.0]:
            check_run(prepared[0], row, step, e.executor, rule)
        for p in prepared[1:]:  # of other seeds a random graph may be another
            check_algorithm(p, row)
    return replace(made, traced=_traced(made))


def _traced(made: Plan) -> list[bool]:
    """For each algorithm whether the traces of its first seed fit into memory, beside those before."""
    free, before, traced = available(), 0.0, []
    one = held(made.prepared[0])
    for row, steps in zip(made.rows, made.steps, strict=True):
        others = (len(steps or [1.0]) - 1) * one
        needs = needed([Job(made.prepared[0], row, 1.0)], made.experiment.executor, made.rule)
        traced.append(free is None or before + others + needs <= free)
        before += (others + one) * traced[-1]
    return traced


def _steps(lr: Steps, rows: Sequence[Algorithm], n: int) -> list[list[float] | None]:
    """For every algorithm its list of steps; None where they are to be tuned.

    A mapping gives steps by algorithm, and by "" for all that it does not name.
    """
    own: dict[str, Any] = dict(lr) if isinstance(lr, Mapping) else {}
    base: Any = own.pop("", 0.01) if isinstance(lr, Mapping) else lr
    for name in own:
        if name not in [row.name for row in rows]:
            compared = [row.name for row in rows]
            hint = f" Did you mean '{near[0]}'?" if (near := get_close_matches(name, compared, n=1)) else ""
            raise SettingError(
                f"A step was given for '{name}', which is not compared.{hint} Compared: {', '.join(compared)}."
            )
    several = [base] if isinstance(base, Real) else base
    numbers = [*own.values(), *(several if isinstance(several, Sequence) and base != "tuned" else ())]
    wrong = [step for step in numbers if isinstance(step, bool) or not isinstance(step, Real)]
    if wrong or not isinstance(several, Sequence) or (isinstance(base, str) and base != "tuned"):
        raise SettingError(f"A step is a number, several numbers, or 'tuned'; got {wrong[0] if wrong else base!r}.")
    common = None if base == "tuned" else [float(step) for step in several]
    if common is not None and len(set(common)) < max(1, len(common)):
        raise SettingError(f"Expected one or more different steps; got {common}.")
    steps: list[list[float] | None] = []
    for row in rows:
        shared = None if common is None else [row.default_lr(step, n) for step in common]
        steps.append([float(own[row.name])] if row.name in own else shared)
    return steps


def compare(
    algorithms: Sequence[str | type[Agent] | Agent | Algorithm] | str = tuple(ALGORITHMS),
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Comparison:
    """Run several algorithms in the same worlds.

    algorithms: names ("adsgd", "dsgd:overlap"), classes or objects of your own (`offbeat.Agent`)
    settings:   those of `Experiment`, and
    lr:         a step, several, "tuned" (each algorithm's own best of `TUNING_GRID`), or {algorithm: step, "": step}
    seed, seeds: seeds seed, seed + 1, ... are run; each is the same alone or beside others
    rule:       step -> local rule, for example offbeat.Momentum (default: SGD)

        result = offbeat.compare(["adsgd", "dsgd"], task="digits", case="combined", seeds=3)
        print(result)
    """
    return Comparison(list(plan(algorithms, **settings).runs(progress)))


def simulate(
    algorithm: str | type[Agent] | Agent | Algorithm = "adsgd", *, progress: Progress | None = None, **settings: Any
) -> Run:
    """Run one algorithm once; the settings are those of `compare`."""
    made = plan([algorithm], **settings)
    if made.count != 1:
        raise SettingError("simulate makes one run: give one step and one seed, or use compare.")
    return next(made.runs(progress))
