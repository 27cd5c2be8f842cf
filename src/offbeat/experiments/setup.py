"""From the settings of an experiment to what its runs need: everything is checked and built here.

What cannot fit into memory, or a lifetime, is refused by arithmetic before anything is built; `memory`
estimates what a run that is set up will take.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx
import torch

from offbeat import tasks
from offbeat.algorithms import ALGORITHMS, Algorithm, check_codec
from offbeat.core.codecs import Codec, codec_of
from offbeat.core.errors import SettingError
from offbeat.core.optimizers import Steps, called
from offbeat.core.promises import named
from offbeat.core.settings import USUAL_AGENTS, Settings, declared
from offbeat.core.system import devices, machine
from offbeat.core.system.named import Own, unknown_name
from offbeat.core.system.own import pinned, refuse_changed
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Vector
from offbeat.experiments import splits
from offbeat.experiments.ends import eval_times_of, target_of
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.measuring import Asked, asked
from offbeat.experiments.own import OF_NETWORK, files_of, own_metrics, own_task, refuse_ignored
from offbeat.experiments.worlds import (
    check_times,
    recorded,
    stragglers_of,
    with_links,
    wordless,
    world_files,
    world_of,
)
from offbeat.results.differences import TUNED
from offbeat.results.targets import Target
from offbeat.results.world import WorldValues
from offbeat.tasks.task import Task
from offbeat.world.delays import Delay
from offbeat.world.graphs import edges
from offbeat.world.topology import Topology, build, size_of
from offbeat.world.world import World, apply_case

MOST_UPDATES = 1e12  # gradients of one run, at most: months of work

NODE, EDGE = 24_000, 600  # bytes of an agent without model and minibatches, and of an edge, at least
AHEAD = 512  # bytes of the minibatches that an agent has drawn ahead, for each sample of one, at least
PROCESS = 50e6  # bytes of a process that trains, at least


@dataclass(frozen=True, eq=False)
class Setup:
    """An experiment of one seed, checked and ready: the same for every algorithm."""

    seed: int
    task: Task
    topology: Topology
    world: World
    until: float
    target: Target | None
    eval_times: list[float]
    settings: Settings
    asked: Asked = field(default_factory=Asked)
    steps: Steps = field(default_factory=Steps)

    @property
    def ends_at(self) -> Target | None:
        """The target at which a run ends, where it does not go on until `until`."""
        return self.target if self.settings["stop_at"] == "target" else None

    @property
    def codec(self) -> Codec | None:
        """What compresses messages; None: nothing does."""
        return codec_of(self.settings["compress"])

    @property
    def updates(self) -> float:
        """How many there will be, about, if no agent ever waits."""
        return self.until * _rate(self.world, self.topology.n)

    @cached_property
    def world_values(self) -> WorldValues | None:
        """What the results of its runs say of their world."""
        return WorldValues.of(self.world, self.topology.n, self.topology)

    def shortened(self, until: float | None) -> "Setup":
        """The same world until an earlier time, at which it is evaluated too; None: as it is. Its schedule
        stays that of the whole run.
        """
        if until is None:
            return self
        times = [*(time for time in self.eval_times if time < until), until]
        return replace(self, until=until, eval_times=times, settings=self.settings | {"until": until})

    def stepping(self, numbers: Mapping[str, float]) -> "Setup":
        """The same where the optimizer has these numbers, which were tuned."""
        if not numbers:
            return self
        steps, asked = self.steps.having(numbers), self.settings["optimizer"]
        changed = {"optimizer": str(steps.by), TUNED: asked}
        return replace(self, steps=steps, settings=self.settings | changed)


def checked(e: Experiment) -> Experiment:
    """Every setting as its declaration has it, so that experiments by name can be looked up. SettingError."""
    return replace(e, **{name: each.checked(getattr(e, name)) for name, each in declared(Experiment).items()})


def prepare(e: Experiment, seed: int, built: Task | None = None) -> Setup:
    """Check an experiment and build what it needs. Raises SettingError or DataError; nothing has run then.

    `built` is the task as built for another seed: enough to check many seeds quickly, not to run them.
    """
    e = checked(e)
    with pinned(files_of(e)) as code:
        made = _prepared(e, seed, built, code)
        refuse_changed(world_files(e))  # since, while they were read
    return made


def _prepared(e: Experiment, seed: int, built: Task | None, code: Mapping[str, str]) -> Setup:
    device = devices.find(e.device)
    n, until, said = agents_of(e, seed), e.until, e.target
    if isinstance(e.task, str) and Own.parse(e.task) is None:
        if e.task not in tasks.TASKS:
            raise unknown_name("task", e.task, e.task, tasks.TASKS)
        usual = tasks.TASKS[e.task]
        until, said = usual.until if until is None else until, usual.target if said is None else said
    if until is None:
        raise SettingError("A task of your own needs `until`, the simulated time at which its runs end.")
    eval_times = eval_times_of(until, e.eval_every)
    _refuse_impossible(e, n)
    world = world_of(e, n, until, seed)
    _refuse_endless(world, n, until)
    topology = build(e.topology, n, seed, e.weights)
    stragglers = stragglers_of(e, topology)
    world = apply_case(with_links(e, world, topology), e.case, stragglers, e.slowdown)
    world.check(n)
    check_times(world, until)
    task = _task(e, n, seed, device, built)
    measured = asked(own_metrics(e.metrics), e.judge, e.per_agent, task, topology)
    more = [*(each.name for each in measured.metrics), *getattr(task, "metrics", ())]
    target = target_of(said, task, e.stop_at, more)
    steps = Steps.of(e.optimizer, e.schedule, until)
    setup = Setup(seed, task, topology, world, until, target, eval_times, Settings(), measured, steps)
    return replace(setup, settings=_settings(e, setup, stragglers, code))


def check_algorithm(setup: Setup, spec: Algorithm) -> None:
    """Raise SettingError if the algorithm cannot run on this graph, not step so, or nothing of it can be
    compressed.
    """
    spec.check(setup.topology)
    check_codec(spec, setup.codec)
    agent, n = spec.new(), setup.topology.n
    view, rng = setup.topology.view(0, frozenset(range(n))), python_stream(setup.seed, Purpose.ALGORITHM, 0)
    with named(agent, "join"):
        agent.join(0, n, Vector(setup.task.initial()), view, setup.steps.rule(1.0), rng)
    with named(agent, "check"):
        agent.check()
    if setup.steps.schedule.delays and not agent.knows_delay:
        able = ", ".join(name for name, row in ALGORITHMS.items() if row.prototype.knows_delay)
        raise SettingError(
            f"{spec.name} does not know how late a gradient is, by which the schedule "
            f"'{setup.steps.schedule}' goes; expected one of {able}, or another schedule."
        )


def why_not(setup: Setup, spec: Algorithm) -> str:
    """Why the algorithm cannot run on this graph; empty if it can."""
    try:
        check_algorithm(setup, spec)
    except SettingError as error:
        return str(error)
    return ""


def agents_of(e: Experiment, seed: int, usual: int = USUAL_AGENTS) -> int:
    """As many as are said, by the setting, the task or the graph. SettingError if these differ."""
    task, graph = own_task(e, None, seed) if isinstance(e.task, str) else e.task, e.topology
    if isinstance(graph, str):
        nodes = size_of(graph, seed)
    else:
        nodes = len(graph) if isinstance(graph, nx.Graph) else getattr(graph, "n", None)
    said = {"agents": e.agents, "task": None if task is None else task.agents, "topology": nodes}
    given = {key: n for key, n in said.items() if n is not None}
    if len(set(given.values())) > 1:
        each = ", ".join(f"{key} has {n}" for key, n in given.items())
        raise SettingError(f"The numbers of agents differ: {each}.")
    n = next(iter(given.values()), usual)
    if n < 1:
        raise SettingError(f"There must be at least one agent; got {n}.")
    return n


def _task(e: Experiment, n: int, seed: int, device: torch.device, built: Task | None) -> Task:
    """The task on that device: built, or the user's own, moved there if need be."""
    if built is not None and isinstance(e.task, str):
        return built
    own = own_task(e, n, seed) if isinstance(e.task, str) else e.task
    if own is None:
        data, partition = None if e.data is None else Path(e.data), splits.partition_of(e)
        of_network = {name: getattr(e, name) for name in OF_NETWORK}
        return tasks.build(
            str(e.task), n, seed, e.batch, e.reg, partition, e.objective, data, device, **of_network
        )
    if not isinstance(e.task, str):
        refuse_ignored(e, f"the task {own.name}", OF_NETWORK)
    task, found = splits.resplit(e, own, seed), _devices(own)
    if found == {device}:
        return task
    move = getattr(task, "to", None)
    if not callable(move):
        there = f"the task {task.name}, which lies on {' and '.join(sorted(map(str, found)))}"
        advice = "expected that device, or a task with a method `to` that returns it on another one"
        raise SettingError(f"Got device '{device}' for {there}; {advice}.")
    moved: Task = move(device)
    if not hasattr(moved, "initial") or _devices(moved) != {device}:
        raise SettingError(f"`to` of the task {task.name} must return the task on {device}; got {moved!r}.")
    return moved


def _devices(task: Task) -> set[torch.device]:
    return {part.device for part in task.initial()}


def _settings(e: Experiment, setup: Setup, stragglers: tuple[int, ...], code: Mapping[str, str]) -> Settings:
    """What is needed to run it again; `own` lists what only Python can be given, `code` has the versions of
    what is named by its file.
    """
    task, topology, target = setup.task, setup.topology, setup.target
    own = [f"the task {task.name}"] * (not isinstance(e.task, str))
    own += [f"the graph {topology.name}"] * (not isinstance(e.topology, str))
    own += [f"the metric {each.name}" for each in e.metrics if not isinstance(each, str)]
    own += [f"the optimizer {called(e.optimizer)}"] * (not isinstance(e.optimizer, str))
    for name, delay in (("compute", e.compute), ("communication", e.communication)):
        measured = isinstance(delay, Delay) and delay.family == "empirical"
        own += [f"the measured delays of {name}"] * measured
    found = {
        "task": e.task if isinstance(e.task, str) else task.name,
        "agents": topology.n, "topology": topology.name,
        "straggler": stragglers or None,
        "target": target and target.said(task.measure), "until": setup.until,
        "eval_every": setup.eval_times[1], **splits.recorded(e), **_trained(e),
    }  # fmt: skip
    if e.world is not None:
        own += [f"the world's {name}" for name in wordless(e.world, topology.n)]
        found |= recorded(e.world, topology.n)
    values = {}
    for name, each in declared(Experiment).items():
        value = found[name] if name in found else getattr(e, name)
        values[name] = None if value is None else each.kind.record(value)
    return Settings(values | {"own": own, "code": code}, (Experiment,))


def _trained(e: Experiment) -> dict[str, Any]:
    """The settings of the network and of its regulariser, with what is usual of the task."""
    if not isinstance(e.task, str) or e.task not in tasks.TASKS:
        return {}
    return {"model": tasks.model_of(e.task, e.model), "reg": tasks.reg_of(e.task, e.model, e.reg)}


def _refuse_impossible(e: Experiment, n: int) -> None:
    """Raise SettingError for sizes that cannot be; whatever the algorithm, nothing has been built then."""
    if isinstance(e.topology, str):
        draws = e.task in tasks.TASKS and e.task != "quadratic"
        count, batch = edges(e.topology, n), max(0, e.batch) * draws
        parts = {f"{n:,} agents": float(n) * NODE, f"{count:.3g} edges of '{e.topology}'": count * EDGE}
        parts |= {f"minibatches of {batch} samples": float(n) * batch * AHEAD}
        largest = max(parts, key=lambda name: parts[name])
        advice = f"most of it for {largest}. Expected fewer of them"
        refuse(sum(parts.values()), f"A run with {n:,} agents", advice)


def _rate(world: World, n: int) -> float:
    """How many gradients n agents make in a unit of time, about, if none ever waits."""
    own = [i for i in world.slow_compute.keys() | world.own_compute.keys() if i < n]
    rates = sum(1 / world.compute_delay(i).expected for i in sorted(own))
    return rates + (n - len(own)) / world.compute.expected


def _refuse_endless(world: World, n: int, until: float) -> None:
    rate = _rate(world, n)
    if rate * until > MOST_UPDATES:
        raise SettingError(
            f"About {rate * until:.3g} gradients would be made until time {until:g}; at most "
            f"{MOST_UPDATES:.0e} are. Expected an end at {MOST_UPDATES / rate:.3g} or before."
        )


def refuse_processes(n: int) -> None:
    refuse(n * PROCESS, f"{n:,} processes", "50 MB each. Expected fewer agents")


def refuse(needs: float, what: str, advice: str) -> None:
    """Raise SettingError if so many bytes are not free."""
    free = machine.available()
    if needs > free:
        much = f"{needs / 1e9:,.1f} GB of memory at least, {advice}"
        raise SettingError(f"{what} would need {much}; {free / 1e9:.1f} GB are free.")
