"""One experiment: its settings, and what is built from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

import networkx as nx
import torch

from offbeat import tasks
from offbeat.algorithms import Algorithm
from offbeat.core.errors import SettingError
from offbeat.core.promises import named
from offbeat.core.rules import SGD
from offbeat.core.system import devices
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Vector
from offbeat.experiments.memory import refuse_agents, refuse_updates
from offbeat.tasks.task import Task
from offbeat.world.delays import Delay, parse
from offbeat.world.graphs import edges
from offbeat.world.topology import Topology, build
from offbeat.world.world import STRAGGLER_CASES, Crash, World, apply_case, parse_crash

EVALUATIONS = 200
"""How often a run is evaluated when `eval_every` does not say."""

MOST_EVALUATIONS = 1_000_000

LONG = 1e9
"""Agents times edges from which it takes too long to look for the centre of a graph."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything about a run but the algorithm, its step and the seed. See `offbeat compare --help`.

    Attributes:
        task: a name, or an object with the interface of `offbeat.Task`
        topology: a name ("grid", "random-regular:4"), a networkx graph or an `offbeat.Topology`
        agents: how many; None: as many as the task or the graph has, or 9
        straggler: the slow agent of the straggler cases; None: the centre of the graph
        until: the simulated time at which a run ends; None: the task's own
        target: accuracy of the average model (for a task without accuracy: its loss); None: the task's own
        eval_every: simulated time between evaluations; None: 1/200 of `until`
        compute, communication: shapes of the delays, as `offbeat.Delay` or text ("gamma 0.25", "file
            rtt.csv")
        crash: "agent 3 at 100 until 200", or `offbeat.Crash`
        executor: how gradients and models are evaluated: "auto", "levels", "batched", or "event-by-event",
            the oracle
        device: where models and data lie and the arithmetic is done: "cpu", or "cuda" or "cuda:1" for a GPU;
            a task that lies elsewhere is moved there

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
    crash: str | Crash | tuple[str | Crash, ...] = ()
    compute: str | Delay = Delay("gamma")
    communication: str | Delay = Delay("lognormal")
    data: str | Path | None = None
    executor: str = "auto"
    device: str = "cpu"


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
    settings: dict[str, Any]

    @property
    def updates(self) -> float:
        """How many there will be, about, if no agent ever waits."""
        return sum(self.until / self.world.compute_delay(i).mean for i in range(self.topology.n))


WHOLE = ("agents", "straggler", "batch")
REAL = ("slowdown", "skew", "dirichlet", "reg", "until", "target", "eval_every", "loss")


def whole(name: str, value: object) -> int:
    """The value as an int. Raises SettingError unless it is a whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise SettingError(f"'{name}' must be a whole number; got {value!r}.")
    return int(value)


def real(name: str, value: object) -> float:
    """The value as a float. Raises SettingError unless it is a number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SettingError(f"'{name}' must be a number; got {value!r}.")
    return float(value)


def _typed(e: Experiment) -> Experiment:
    """The experiment with plain numbers. Raises SettingError where something is of the wrong type."""
    numbers: dict[str, Any] = {}
    for name in (*WHOLE, *REAL):
        value = getattr(e, name)
        if value is not None:
            numbers[name] = whole(name, value) if name in WHOLE else real(name, value)
    for name in ("case", "executor", "device"):
        if not isinstance(getattr(e, name), str):
            raise SettingError(f"The {name} must be a name; got {getattr(e, name)!r}.")
    if not isinstance(e.task, str) and not hasattr(e.task, "gradients"):
        raise SettingError(
            f"The task must be a name or an object with the interface of offbeat.Task; got {e.task!r}."
        )
    crashes = tuple(e.crash) if isinstance(e.crash, Sequence) and not isinstance(e.crash, str) else (e.crash,)
    for crash in crashes:
        if not isinstance(crash, str | Crash):
            raise SettingError(f"A crash is text like 'agent 3 at 100' or an offbeat.Crash; got {crash!r}.")
    for name in ("compute", "communication"):
        if not isinstance(getattr(e, name), str | Delay):
            raise SettingError(
                f"'{name}' must be text like 'gamma 0.25' or an offbeat.Delay; got {getattr(e, name)!r}."
            )
    return replace(e, crash=crashes, **numbers)


def prepare(e: Experiment, seed: int, built: Task | None = None) -> Setup:
    """Check an experiment and build what it needs. Raises SettingError or DataError; nothing has run then.

    Args:
        built: the same task as it was built for another seed; enough to check many seeds quickly, not to run
            them
    """
    e = _typed(e)
    device = devices.find(e.device)
    n = _agents(e)
    compute = parse(e.compute) if isinstance(e.compute, str) else e.compute
    _refuse_impossible(e, n, compute)
    topology = build(e.topology, n, seed)
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
    straggler = e.straggler if e.straggler is not None else topology.centre if named else 0
    world = World(
        seed=seed,
        compute=compute,
        communication=parse(e.communication) if isinstance(e.communication, str) else e.communication,
        loss=e.loss,
        crashes=tuple(
            parse_crash(c) if isinstance(c, str) else c for c in cast(tuple[str | Crash, ...], e.crash)
        ),
    )
    world = apply_case(world, e.case, straggler, e.slowdown)
    if not 0 <= straggler < n:
        raise SettingError(
            f"There is no agent {straggler} to be the straggler: with {n} agents they are 0 to {n - 1}."
        )
    world.check(n)
    data = None if e.data is None else Path(e.data)
    until: float
    if isinstance(e.task, str):
        task: Task = built or tasks.build(e.task, n, seed, e.batch, e.reg, e.skew, e.dirichlet, data, device)
        spec = tasks.TASKS[e.task]
        until = spec.until if e.until is None else e.until
        target: float | None = spec.target if e.target is None else e.target
    else:
        if e.until is None:
            raise SettingError("A task of your own needs `until`, the simulated time at which its runs end.")
        task, until, target = _moved(e.task, device), e.until, e.target
    for crash in world.crashes:
        if crash.at >= until:
            raise SettingError(f"The crash '{crash}' would come after the end of the runs, at {until:g}.")
    if target is not None and not (0 <= target <= 1 if task.measure == "accuracy" else 0 < target < math.inf):
        expected = "an accuracy between 0 and 1" if task.measure == "accuracy" else "a finite loss > 0"
        raise SettingError(f"The target must be {expected}; got {target:g}.")
    return Setup(
        seed, task, topology, world, until, target, _eval_times(until, e.eval_every),
        _settings(e, task, topology, world, straggler, until, target),
    )  # fmt: skip


def _refuse_impossible(e: Experiment, n: int, compute: Delay) -> None:
    """Raise SettingError for sizes that no machine can hold, or no lifetime; nothing has been built then."""
    spec = tasks.TASKS.get(e.task) if isinstance(e.task, str) else None
    until = spec.until if spec is not None and e.until is None else e.until
    if isinstance(e.topology, str):
        draws = spec is not None and spec.name != "quadratic"
        refuse_agents(n, e.topology, edges(e.topology, n), max(0, e.batch) * draws)
    if until is not None:
        _eval_times(until, e.eval_every)
        refuse_updates(n, until, max(compute.mean, 1e-3))


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
    if until / step > MOST_EVALUATIONS:
        raise SettingError(
            f"{until / step:.3g} evaluations are too many: at most {MOST_EVALUATIONS}; raise eval_every."
        )
    count = math.floor(until / step * (1 + 1e-12))
    times = [step * i for i in range(count + 1)]
    return times if times[-1] >= until * (1 - 1e-12) else [*times, until]


def _settings(
    e: Experiment,
    task: Task,
    topology: Topology,
    world: World,
    straggler: int,
    until: float,
    target: float | None,
) -> dict[str, Any]:
    """What is needed to run it again, JSON-ready; `own` lists what only Python can be given."""
    given = {f.name: getattr(e, f.name) for f in fields(e)}
    own = [f"the task {task.name}"] * (not isinstance(e.task, str))
    own += [f"the graph {topology.name}"] * (not isinstance(e.topology, str))
    for name in ("compute", "communication"):
        measured = isinstance(given[name], Delay) and given[name].family == "empirical"
        own += [f"the measured delays of {name}"] * measured
    given |= {
        "task": task.name,
        "agents": topology.n,
        "topology": topology.name,
        "straggler": straggler if e.case in STRAGGLER_CASES else None,
        "until": until,
        "target": target,
        "eval_every": _eval_times(until, e.eval_every)[1],
        "crash": [str(crash) for crash in world.crashes],
        "compute": str(e.compute),
        "communication": str(e.communication),
        "own": own,
        "data": None if e.data is None else str(e.data),
    }
    return given


def departures(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What in the settings of a run is not as it is by default, in their order; not its algorithm, step and
    seed.

    How many agents, which straggler, until when and to which target are always there: their defaults depend
    on others.
    """
    default: dict[str, Any] = {f.name: f.default for f in fields(Experiment)}
    shapes = {name: _shape(settings[name]) for name in ("compute", "communication")}
    default |= {name: settings[name] for name, shape in shapes.items() if shape == str(default[name])}
    default |= {"crash": [], "eval_every": settings["until"] / EVALUATIONS, "rule": "SGD", "faults": []}
    own = ("algorithm", "lr", "seed", "own")
    return {name: value for name, value in settings.items() if name not in own and value != default.get(name)}


def _shape(delay: str) -> str:
    """A distribution by its full name; measured delays by their file."""
    return delay if delay.split()[0] in ("file", "empirical") else str(parse(delay))


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
