"""From the settings of an experiment to what its runs need: everything is checked and built here."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import networkx as nx
import torch

from offbeat import tasks
from offbeat.algorithms import Algorithm
from offbeat.core.errors import SettingError
from offbeat.core.promises import named
from offbeat.core.rules import SGD
from offbeat.core.settings import Settings, declared
from offbeat.core.system import devices
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Vector
from offbeat.experiments.experiment import AGENTS, EVALUATIONS, Experiment
from offbeat.experiments.limits import refuse_agents, refuse_updates
from offbeat.tasks.task import Task
from offbeat.world.delays import Delay, parse
from offbeat.world.graphs import edges
from offbeat.world.topology import Topology, build
from offbeat.world.world import STRAGGLER_CASES, Crash, World, apply_case, parse_crash

MOST_EVALUATIONS = 1_000_000

OF_WORLD = ("compute", "communication", "loss", "crash")
"""Settings that a world has, where one is given."""

LONG = 1e9
"""Agents times edges from which it takes too long to look for the centre of a graph."""


@dataclass(frozen=True, eq=False)
class Setup:
    """An experiment of one seed, checked and ready: the same for every algorithm."""

    seed: int
    task: Task
    topology: Topology
    world: World
    until: float
    target: float | None
    eval_times: list[float]
    settings: Settings

    @property
    def updates(self) -> float:
        """How many there will be, about, if no agent ever waits."""
        return sum(self.until / self.world.compute_delay(i).expected for i in range(self.topology.n))


def prepare(e: Experiment, seed: int, built: Task | None = None) -> Setup:
    """Check an experiment and build what it needs. Raises SettingError or DataError; nothing has run then.

    Args:
        built: the same task as it was built for another seed; enough to check many seeds quickly, not to run
            them
    """
    e = replace(e, **{name: each.checked(getattr(e, name)) for name, each in declared(Experiment).items()})
    device = devices.find(e.device)
    n = _agents(e)
    world = _world(e, seed)
    _refuse_impossible(e, n, world.compute)
    topology = build(e.topology, n, seed)
    straggler = _straggler(e, n, topology)
    world = apply_case(world, e.case, straggler, e.slowdown)
    if not 0 <= straggler < n:
        raise SettingError(
            f"There is no agent {straggler} to be the straggler: with {n} agents they are 0 to {n - 1}."
        )
    world.check(n)
    task, until, target = _task(e, n, seed, device, built)
    for crash in world.crashes:
        if crash.at >= until:
            raise SettingError(f"The crash '{crash}' would come after the end of the runs, at {until:g}.")
    if target is not None and not (0 <= target <= 1 if task.measure == "accuracy" else 0 < target < math.inf):
        expected = "an accuracy between 0 and 1" if task.measure == "accuracy" else "a finite loss > 0"
        raise SettingError(f"The target must be {expected}; got {target:g}.")
    setup = Setup(seed, task, topology, world, until, target, _eval_times(until, e.eval_every), Settings())
    return replace(setup, settings=_settings(e, setup, straggler))


def _straggler(e: Experiment, n: int, topology: Topology) -> int:
    """The slow agent of the case; 0 where it has none."""
    named = e.case in STRAGGLER_CASES
    if e.straggler is not None and not named:
        raise SettingError(
            f"A straggler was named, but there is none in case '{e.case}'; expected a straggler case."
        )
    if e.dirichlet is not None and e.skew != 1.0:
        raise SettingError(
            f"Expected a label skew or a Dirichlet mixture; got both, {e.skew} and {e.dirichlet}."
        )
    if named and e.straggler is None and n * topology.n * topology.degree > LONG:
        raise SettingError(
            f"Finding the centre of a graph of {n:,} agents would take hours; expected --straggler, the slow "
            "agent."
        )
    return e.straggler if e.straggler is not None else topology.centre if named else 0


def _world(e: Experiment, seed: int) -> World:
    """The world that was given, or the one that the settings describe; before the case."""
    if e.world is not None:
        if not isinstance(e.world, World):
            raise SettingError(f"The world must be an offbeat.World; got {e.world!r}.")
        for name in OF_WORLD:
            if getattr(e, name) != declared(Experiment)[name].default:
                raise SettingError(f"Expected a world or '{name}', which is part of it; got both.")
        return replace(e.world, seed=seed)
    compute = parse(e.compute) if isinstance(e.compute, str) else e.compute
    sending = parse(e.communication) if isinstance(e.communication, str) else e.communication
    given = cast(tuple[str | Crash, ...], e.crash)
    crashes = tuple(parse_crash(each) if isinstance(each, str) else each for each in given)
    return World(seed=seed, compute=compute, communication=sending, loss=e.loss, crashes=crashes)


def _task(
    e: Experiment, n: int, seed: int, device: torch.device, built: Task | None
) -> tuple[Task, float, float | None]:
    if not isinstance(e.task, str):
        if e.until is None:
            raise SettingError("A task of your own needs `until`, the simulated time at which its runs end.")
        return _moved(e.task, device), e.until, e.target
    data = None if e.data is None else Path(e.data)
    task = built or tasks.build(e.task, n, seed, e.batch, e.reg, e.skew, e.dirichlet, data, device)
    usual = tasks.TASKS[e.task]
    until, target = (usual.until if e.until is None else e.until), e.target
    return task, until, usual.target if target is None else target


def _refuse_impossible(e: Experiment, n: int, compute: Delay) -> None:
    """Raise SettingError for sizes that no machine can hold, or no lifetime; nothing has been built then."""
    spec = tasks.TASKS.get(e.task) if isinstance(e.task, str) else None
    until = spec.until if spec is not None and e.until is None else e.until
    if isinstance(e.topology, str):
        draws = spec is not None and spec.name != "quadratic"
        refuse_agents(n, e.topology, edges(e.topology, n), max(0, e.batch) * draws)
    if until is not None:
        _eval_times(until, e.eval_every)
        refuse_updates(n, until, max(compute.expected, 1e-3))


def _moved(task: Task, device: torch.device) -> Task:
    """The task on that device: itself, or moved there. Raises SettingError if it cannot be moved."""
    found = _devices(task)
    if found == {device}:
        return task
    move = getattr(task, "to", None)
    if not callable(move):
        raise SettingError(
            f"Got device '{device}' for the task {task.name}, which lies on "
            f"{' and '.join(sorted(map(str, found)))}; expected that device, or a task with a method `to` "
            "that returns it on another one."
        )
    moved: Task = move(device)
    if not hasattr(moved, "initial") or _devices(moved) != {device}:
        raise SettingError(
            f"The method `to` of the task {task.name} must return the task on {device}; got {moved!r}."
        )
    return moved


def _devices(task: Task) -> set[torch.device]:
    return {part.device for part in task.initial()}


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
    n = next(iter(given.values()), AGENTS)
    if n < 1:
        raise SettingError(f"There must be at least one agent; got {n}.")
    return n


def _eval_times(until: float, every: float | None) -> list[float]:
    if not (math.isfinite(until) and until > 0):
        raise SettingError(f"A run must end at a finite time > 0; got until = {until}.")
    step = until / EVALUATIONS if every is None else every
    if not (math.isfinite(step) and 0 < step <= until):
        raise SettingError(f"The time between evaluations must be in (0, {until:g}]; got {step}.")
    if until / step > MOST_EVALUATIONS:
        raise SettingError(
            f"{until / step:.3g} evaluations are too many: at most {MOST_EVALUATIONS}; raise eval_every."
        )
    count = math.floor(until / step * (1 + 1e-12))
    times = [step * i for i in range(count + 1)]
    return times if times[-1] >= until * (1 - 1e-12) else [*times, until]


def _settings(e: Experiment, setup: Setup, straggler: int) -> Settings:
    """What is needed to run it again; `own` lists what only Python can be given."""
    task, topology, world = setup.task, setup.topology, setup.world
    own = [f"the task {task.name}"] * (not isinstance(e.task, str))
    own += [f"the graph {topology.name}"] * (not isinstance(e.topology, str))
    for name, delay in (("compute", e.compute), ("communication", e.communication)):
        measured = isinstance(delay, Delay) and delay.family == "empirical"
        own += [f"the measured delays of {name}"] * measured
    found = {
        "task": task.name,
        "agents": topology.n,
        "topology": topology.name,
        "straggler": straggler if e.case in STRAGGLER_CASES else None,
        "until": setup.until,
        "target": setup.target,
        "eval_every": setup.eval_times[1],
        "crash": world.crashes,
    }
    if e.world is not None:
        own += ["the world"]
        found |= {name: getattr(e.world, name) for name in ("compute", "communication", "loss")}
    values = {}
    for name, each in declared(Experiment).items():
        value = found[name] if name in found else getattr(e, name)
        values[name] = None if value is None else each.kind.record(value)
    return Settings(values | {"own": own}, (Experiment,))


def check_algorithm(setup: Setup, spec: Algorithm) -> None:
    """Raise SettingError if the algorithm cannot run on this graph."""
    spec.check(setup.topology)
    agent, n = spec.new(), setup.topology.n
    rng = python_stream(setup.seed, Purpose.ALGORITHM, 0)
    with named(agent, "join"):
        agent.join(
            0, n, Vector(setup.task.initial()), setup.topology.view(0, frozenset(range(n))), SGD(1.0), rng
        )
    with named(agent, "check"):
        agent.check()
