"""From settings to results: `simulate` one algorithm, `compare` several.

Nothing runs before everything has been checked: names, numbers, graph, data, what an algorithm needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch

from offbeat import tasks
from offbeat.agent import Agent
from offbeat.algorithms import ALGORITHMS, Algorithm, find
from offbeat.errors import SettingError
from offbeat.results import Comparison, Curve, Run
from offbeat.rules import SGD, Rule
from offbeat.sim.checks import Checker
from offbeat.sim.delays import Delay, parse
from offbeat.sim.executors import executor
from offbeat.sim.simulator import Simulator, final_bytes
from offbeat.sim.world import Crash, World, apply_case, parse_crash
from offbeat.task import Task
from offbeat.topology import Topology, build

TUNING_GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""The steps that `lr="tuned"` tries (times n for R-FAST)."""

TUNING_SEED = 1_000_003
"""Added to the first seed for tuning, so that no step is chosen on a world that it is compared in."""

EVALUATIONS = 200
"""How often a run is evaluated when `eval_every` does not say."""

Progress = Callable[[str, float, float, Curve], None]
"""Told after every evaluation: which run, the time, the end, the curve so far."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything about a run but the algorithm, its step and the seed. See `offbeat compare --help`.

    task:        a name, or an object with the interface of `offbeat.Task`
    topology:    a name ("grid", "random-regular:4"), a networkx graph or an `offbeat.Topology`
    agents:      how many; None: as many as the task or the graph has, or 9
    straggler:   the slow agent of the straggler cases; None: the centre of the graph
    until:       the simulated time at which a run ends; None: the task's own
    target:      accuracy of the average model (for a task without accuracy: its loss); None: the task's own
    eval_every:  simulated time between evaluations; None: 1/200 of `until`
    compute, communication: shapes of the delays, as `offbeat.Delay` or text ("gamma 0.25", "file rtt.csv")
    crash:       "agent 3 at 100 until 200", or `offbeat.Crash`
    executor:    "batched", or "event-by-event", the oracle

    Raises SettingError for anything that makes no sense, when `prepare` is called.
    """

    task: str | Task = "digits"
    agents: int | None = None
    topology: str | nx.Graph | Topology = "grid"
    case: str = "base"
    straggler: int | None = None
    slowdown: float = 10.0
    skew: float = 1.0
    dirichlet: float | None = None
    batch: int = 32
    reg: float = 0.001
    until: float | None = None
    target: float | None = None
    eval_every: float | None = None
    loss: float = 0.0
    crash: tuple[str | Crash, ...] = ()
    compute: str | Delay = Delay("gamma")
    communication: str | Delay = Delay("lognormal")
    data: Path | None = None
    executor: str = "batched"


@dataclass(frozen=True, eq=False)
class Prepared:
    """An experiment of one seed, checked and ready: the same for every algorithm."""

    seed: int
    task: Task
    topology: Topology
    world: World
    until: float
    target: float | None
    eval_times: list[float]
    settings: dict[str, Any]


def prepare(e: Experiment, seed: int) -> Prepared:
    """Check an experiment and build what it needs. Raises SettingError or DataError; nothing has run then."""
    n = _agents(e)
    topology = build(e.topology, n, seed)
    named = "straggler" in e.case or e.case == "combined"
    straggler = e.straggler if e.straggler is not None else topology.centre if named else 0
    world = World(
        seed=seed,
        compute=parse(e.compute) if isinstance(e.compute, str) else e.compute,
        communication=parse(e.communication) if isinstance(e.communication, str) else e.communication,
        loss=e.loss,
        crashes=tuple(parse_crash(c) if isinstance(c, str) else c for c in e.crash),
    )
    world = apply_case(world, e.case, straggler, e.slowdown)
    if not 0 <= straggler < n:
        raise SettingError(f"There is no agent {straggler} to be the straggler: with {n} agents they are 0 to {n - 1}.")
    world.check(n)
    if isinstance(e.task, str):
        task = tasks.build(e.task, n, seed, e.batch, e.reg, e.skew, e.dirichlet, e.data)
        row = tasks.TASKS[e.task]
        until, target = e.until or row.until, row.target if e.target is None else e.target
    else:
        if e.until is None:
            raise SettingError("A task of your own needs `until`, the simulated time at which its runs end.")
        task, until, target = e.task, e.until, e.target
    return Prepared(
        seed, task, topology, world, until, target, _eval_times(until, e.eval_every),
        _settings(e, task, topology, world, straggler, until, target),
    )  # fmt: skip


def _agents(e: Experiment) -> int:
    named = {
        "agents": e.agents,
        "task": None if isinstance(e.task, str) else e.task.agents,
        "topology": len(e.topology) if isinstance(e.topology, nx.Graph) else getattr(e.topology, "n", None),
    }
    given = {key: n for key, n in named.items() if n is not None}
    if len(set(given.values())) > 1:
        raise SettingError(
            "The numbers of agents differ: " + ", ".join(f"{key} has {n}" for key, n in given.items()) + "."
        )
    n = next(iter(given.values()), 9)
    if n < 1:
        raise SettingError(f"There must be at least one agent; got {n}.")
    return n


def _eval_times(until: float, every: float | None) -> list[float]:
    if not (math.isfinite(until) and until > 0):
        raise SettingError(f"A run must end at a finite time > 0; got until = {until}.")
    step = until / EVALUATIONS if every is None else every
    if not (math.isfinite(step) and 0 < step <= until):
        raise SettingError(f"The time between evaluations must be in (0, {until:g}]; got {step}.")
    count = math.floor(until / step * (1 + 1e-12))
    times = [step * i for i in range(count + 1)]
    return times if times[-1] >= until * (1 - 1e-12) else [*times, until]


def _settings(
    e: Experiment, task: Task, topology: Topology, world: World, straggler: int, until: float, target: float | None
) -> dict[str, Any]:
    """What is needed to run it again, JSON-ready."""
    given = {f.name: getattr(e, f.name) for f in fields(e)}
    given |= {
        "task": task.name,
        "agents": topology.n,
        "topology": topology.name,
        "straggler": straggler if "straggler" in e.case or e.case == "combined" else None,
        "until": until,
        "target": target,
        "eval_every": _eval_times(until, e.eval_every)[1],
        "crash": [str(crash) for crash in world.crashes],
        "compute": str(world.compute),
        "communication": str(world.communication),
        "data": None if e.data is None else str(e.data),
    }
    return given


# -- one run ---------------------------------------------------------------------------------------


def _simulator(p: Prepared, row: Algorithm, lr: float, how: str, rule: Callable[[float], Rule], check: bool) -> Simulator:
    if not (math.isfinite(lr) and lr > 0):
        raise SettingError(f"A step must be a finite number > 0; got {lr} for {row.name}.")
    return Simulator(
        row.new, lambda: rule(lr), p.topology, p.task, p.world, executor(how, p.task),
        returns="return" in row.tolerates, checker=Checker() if check else None,
    )  # fmt: skip


def run_one(
    p: Prepared, row: Algorithm, lr: float, how: str = "batched", rule: Callable[[float], Rule] = SGD,
    progress: Progress | None = None, check: bool = False, keep_trace: bool = True,
) -> Run:  # fmt: skip
    """One run, from start to end (or until its loss is no longer finite)."""
    began = time.perf_counter()
    with one_thread():
        sim = _simulator(p, row, lr, how, rule, check)
        curve, diverged_at, reached = Curve(), None, None
        sim.start()
        for now in p.eval_times:
            sim.run(now)
            _evaluate(sim, now, curve)
            if reached is None and _met(p, curve):
                reached = now
            if progress is not None:
                progress(row.name, now, p.until, curve)
            if not (math.isfinite(curve.loss[-1]) and math.isfinite(curve.consensus[-1])):
                diverged_at = now
                break
        models, own = sim.stacked(), None
        if p.task.measure == "accuracy":
            own = p.task.scores(models).accuracy
    trace = sim.recorder.trace()
    last = {name: values[-1] if values else None for name, values in vars(curve).items()}
    return Run(
        algorithm=row.name, lr=lr, seed=p.seed, settings={**p.settings, "algorithm": row.name, "lr": lr, "seed": p.seed},
        measure=p.task.measure, curve=curve, time_to_target=None if diverged_at is not None else reached,
        diverged_at=diverged_at,
        final={
            "loss": last["loss"], "accuracy": last["accuracy"], "consensus": last["consensus"],
            "accuracy_mean": None if own is None else float(own.mean()),
            "accuracy_worst": None if own is None else float(own.min()),
        },
        updates=sum(sim.steps), messages=sim.messages, megabytes=sim.bytes_sent / 1e6,
        staleness=trace.staleness(), digest=trace.digest(final_bytes(models)),
        wall_s=time.perf_counter() - began, topology=p.topology, models=models, trace=trace if keep_trace else None,
    )  # fmt: skip


def _evaluate(sim: Simulator, now: float, curve: Curve) -> None:
    models = sim.stacked()
    mean = tuple(part.mean(0) for part in models)
    scores = sim.task.scores(tuple(part[None] for part in mean))
    squares = sum(
        (part - middle).double().square().sum(1).mean() for part, middle in zip(models, mean, strict=True)
    )
    curve.time.append(now)
    curve.updates.append(sum(sim.steps))
    curve.megabytes.append(sim.bytes_sent / 1e6)
    curve.loss.append(float(scores.loss[0]))
    if scores.accuracy is not None:
        curve.accuracy.append(float(scores.accuracy[0]))
    curve.consensus.append(float(squares) ** 0.5)


def _met(p: Prepared, curve: Curve) -> bool:
    if p.target is None:
        return False
    return curve.accuracy[-1] >= p.target if p.task.measure == "accuracy" else curve.loss[-1] <= p.target


@contextmanager
def one_thread() -> Iterator[None]:
    """One OpenMP thread: faster for models of this size, and the bits do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -- several runs ----------------------------------------------------------------------------------

Steps = float | str | Sequence[float] | Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """A checked list of runs, made one at a time by iterating over `runs`."""

    experiment: Experiment
    prepared: list[Prepared]
    rows: list[Algorithm]
    steps: list[list[float] | None]  # for each row; None: to be tuned
    rule: Callable[[float], Rule] = SGD
    check: bool = False

    @property
    def count(self) -> int:
        """How many runs there will be, those for tuning included."""
        each = sum(len(TUNING_GRID) + len(self.prepared) if s is None else len(s) * len(self.prepared) for s in self.steps)
        return each

    def runs(self, progress: Progress | None = None) -> Iterator[Run]:
        """Make the runs; each is finished when it is yielded. The trace is kept for the first seed only."""
        for row, steps in zip(self.rows, self.steps, strict=True):
            tuning = None
            if steps is None:
                steps, tuning = self._tuned(row, progress)
            for lr in steps:
                for index, p in enumerate(self.prepared):
                    run = run_one(
                        p, row, lr, self.experiment.executor, self.rule, progress, self.check, keep_trace=index == 0
                    )
                    yield replace(run, tuning=tuning)

    def _tuned(
        self, row: Algorithm, progress: Progress | None
    ) -> tuple[list[float], dict[float, dict[str, float | None]]]:
        """The step of the grid with the shortest time to target, then the smallest final loss, in a world apart."""
        p = prepare(self.experiment, self.prepared[0].seed + TUNING_SEED)
        outcomes: dict[float, dict[str, float | None]] = {}
        best: tuple[float, float, float] = (math.inf, math.inf, math.inf)
        for base in TUNING_GRID:
            lr = row.default_lr(base, p.topology.n)
            run = run_one(p, row, lr, self.experiment.executor, self.rule, progress, keep_trace=False)
            loss = run.final["loss"] if run.diverged_at is None else None
            outcomes[lr] = {"time_to_target": run.time_to_target, "loss": loss}
            time_to_target = math.inf if run.time_to_target is None else run.time_to_target
            best = min(best, (time_to_target, math.inf if loss is None else loss, lr))
        if math.isinf(best[2]) or math.isinf(best[1]):
            raise SettingError(f"{row.name} diverged with every step of the grid {', '.join(f'{lr:g}' for lr in outcomes)}.")
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
    if seeds < 1:
        raise SettingError(f"There must be at least one seed; got {seeds}.")
    known = [f.name for f in fields(Experiment)]
    for name in settings:
        if name not in known:
            from offbeat.errors import unknown

            raise unknown("setting", name, [*known, "lr", "seed", "seeds", "rule"])
    e = Experiment(**settings)
    prepared = [prepare(e, s) for s in range(seed, seed + seeds)]
    made = Plan(e, prepared, rows, _steps(lr, rows, prepared[0].topology.n), rule, check)
    for row, steps in zip(rows, made.steps, strict=True):
        for step in steps or [1.0]:
            _simulator(prepared[0], row, step, e.executor, rule, check=False)
    return made


def _steps(lr: Steps, rows: Sequence[Algorithm], n: int) -> list[list[float] | None]:
    """For every algorithm its list of steps; None where they are to be tuned.

    A mapping gives steps by algorithm, and by "" for all that it does not name.
    """
    own = dict(lr) if isinstance(lr, Mapping) else {}
    base = own.pop("", 0.01) if isinstance(lr, Mapping) else lr
    for name in own:
        if name not in [row.name for row in rows]:
            raise SettingError(f"A step was given for '{name}', which is not compared. Compared: {', '.join(r.name for r in rows)}.")
    if isinstance(base, str) and base != "tuned":
        raise SettingError(f"A step is a number, several numbers, or 'tuned'; got '{base}'.")
    common = None if base == "tuned" else [base] if isinstance(base, int | float) else list(base)
    if common is not None and len(set(common)) < max(1, len(common)):
        raise SettingError(f"Expected one or more different steps; got {common}.")
    return [
        [own[row.name]] if row.name in own else None if common is None else [row.default_lr(s, n) for s in common]
        for row in rows
    ]


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


__all__ = ["EVALUATIONS", "TUNING_GRID", "Experiment", "Plan", "compare", "np", "plan", "prepare", "run_one", "simulate"]
