"""Small runs for the tests, always with the contract checked."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from entries import ENTRIES

from offbeat import SGD, Agent, Delay, Quadratic, Vector, World
from offbeat.algorithms import find
from offbeat.core.agent import Effect
from offbeat.core.rules import Rule
from offbeat.core.system.streams import BufferedStream, Purpose
from offbeat.engines.handler_step import Actor, Mixed
from offbeat.engines.sim.checks import Checker
from offbeat.engines.sim.recording import EXECUTORS
from offbeat.engines.sim.simulator import Simulator
from offbeat.tasks.task import Task
from offbeat.world.topology import Topology, build

EVERY = tuple(ENTRIES)
ALL = (
    "adsgd", "adpsgd", "adpsgd:wait", "adpsgd:atomic", "adpsgd:atomic+wait", "rfast", "dsgd", "dsgd:after",
    "allreduce", "adsgd:memory-efficient", "sgp", "apsgd", "rasgp",
)  # fmt: skip
"""Algorithms of every kind, for tests of engines and worlds; tests/algorithms has a test of every row."""

LOCKSTEP = World(compute=Delay("constant"), communication=Delay("constant", mean=0.0))

Observer = Callable[[float, int, Vector], None]
"""Called after every write of a model with (time, agent, model)."""


class Observed(Simulator):
    """Tells whoever wants to know of every write."""

    observers: Sequence[Observer] = ()

    def record(self, actor: Actor, effects: Sequence[Effect], mixed: Mixed, refused: bool) -> None:
        super().record(actor, effects, mixed, refused)
        for observer in self.observers if mixed is not None else ():
            observer(self.heap.now, actor.me, actor.model)


def quadratic(n: int = 9, d: int = 3, seed: int = 0, equal: bool = False, noise: float = 0.0) -> Quadratic:
    """Random quadratics; `equal` gives all of them curvature 1."""
    rng = np.random.default_rng(seed)
    return Quadratic(rng.normal(size=(n, d)), np.ones(n) if equal else rng.uniform(0.5, 2.0, n), noise)


def started(
    algorithm: str | Agent | type[Agent],
    task: Task | None = None,
    world: World | None = None,
    topology: str | Topology = "grid",
    lr: float = 0.05,
    how: str = "event-by-event",
    rule: Callable[[float], Rule] = SGD,
    observers: Sequence[Observer] = (),
    check: bool = True,
    **options: Any,
) -> Simulator:
    """A simulator that has started; `run(until)` it."""
    row = find(algorithm)
    task = task or quadratic()
    sim = Observed(
        row.new,
        lambda: rule(lr),
        build(topology, task.agents),
        task,
        world or World(),
        EXECUTORS[how](task),
        returns="return" in row.tolerates,
        checker=Checker(pickle_every=100) if check else None,
        **options,
    )
    sim.observers = observers
    sim.start()
    return sim


def settled(sim: Simulator, limit: np.ndarray, at: float, near: float) -> np.ndarray:
    """The models once they are so near the limit, at this time at the latest."""
    for time in np.linspace(0, at, 26)[1:]:
        sim.run(time)
        if abs(models(sim) - limit).max() < near:
            break
    return models(sim)


def models(sim: Simulator) -> np.ndarray:
    """[n, P] of the first part."""
    stacked: np.ndarray = sim.stacked()[0].numpy()
    return stacked


def vector(sim: Simulator, i: int, name: str) -> np.ndarray:
    """A field of agent i as an array."""
    value: torch.Tensor = getattr(sim.agents[i], name).parts[0]
    array: np.ndarray = value.numpy()
    return array


def minibatches(task: Task, seed: int, i: int) -> BufferedStream:
    """The minibatches that agent i meets, one at a time."""
    return BufferedStream(partial(task.draw, i), seed, Purpose.DATA, i)
