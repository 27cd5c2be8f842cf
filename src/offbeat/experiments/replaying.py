"""Replays the trace of a live run, and says whether everything came out as recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.algorithms import find
from offbeat.core.errors import DataError
from offbeat.core.rules import SGD
from offbeat.core.system import devices
from offbeat.core.system.reading import json_in, reading
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream, stream
from offbeat.core.vector import Vector
from offbeat.engines.live.node.guard import SKIP
from offbeat.engines.live.node.log import damage
from offbeat.engines.live.node.performer import digest
from offbeat.engines.live.settings import ExperimentProgram, RunSettings, ScriptProgram
from offbeat.engines.sim.executors import evaluate
from offbeat.engines.sim.replay import Replay
from offbeat.engines.trace import Trace
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import prepare
from offbeat.tasks.task import Task
from offbeat.world.topology import build


@dataclass(frozen=True)
class Outcome:
    """What a replay gave. `lines` say it in words."""

    trace: Trace
    models: tuple[torch.Tensor, ...]
    same: bool
    lines: list[str]


def replayed(
    trace: Trace, folder: Path | None = None, progress: Callable[[int], None] | None = None
) -> Outcome:
    """Run a trace through fresh agents. `folder`: where the agents of the run left the digests of their final
    models.

    Of a task that the simulator knows the gradients are evaluated; for a user's own script they are zero, and
    what is compared is the schedule: which versions entered which write. Raises DataError if it is no trace
    of a live run.
    """
    if "algorithm" not in trace.settings:
        raise DataError("The trace does not say which algorithm made it; expected the trace of a live run.")
    if why := damage(trace):
        raise DataError(why)
    if not (len(trace.events) and len(trace.writes)):
        raise DataError("The trace is empty: no agent did anything in it, so there is nothing to compare.")
    with devices.one_thread(), reading("The trace", "that of a live run, whole, as it was written"):
        s = RunSettings.of(trace.settings, "The trace")
        if s.agents != trace.agents or len(np.unique(trace.events["agent"])) != trace.agents:
            raise ValueError(
                f"its settings say {s.agents} agents, it is of {trace.agents}, not all of which began"
            )
        program = s.program
        replay = (
            _schedule(trace, s, program.topology)
            if isinstance(program, ScriptProgram)
            else _experiment(trace, s, program)
        )
        again = replay.run(progress)
    lines = [f"{len(trace.events)} events and {len(trace.writes)} writes of {trace.agents} agents replayed."]
    schedule = np.array_equal(again.writes, trace.writes) and np.array_equal(again.mixed, trace.mixed)
    lines.append(f"Schedule and mixed versions: {'the same' if schedule else 'DIFFERENT'}.")
    staleness = again.staleness()
    lines.append(f"Staleness: B = {staleness.B}, D = {staleness.D}.")
    same = schedule
    if isinstance(program, ExperimentProgram) and folder is not None:
        equal = [_equal(folder, i, each.actor.model) for i, each in enumerate(replay.agents)]
        known = [e for e in equal if e is not None]
        lines.append(f"Final models: {sum(known)} of {len(known)} equal bit for bit.")
        same = schedule and all(known)
    return Outcome(again, replay.stacked(), same, lines)


def _equal(folder: Path, i: int, model: Vector) -> bool | None:
    path = folder / f"agent-{i}.json"
    if not path.exists():
        return None
    with reading(path, "what an agent leaves at its end"):
        return bool(json_in(path)["model"] == digest(model))


def _experiment(trace: Trace, s: RunSettings, program: ExperimentProgram) -> Replay:
    p = prepare(Experiment(**program.experiment), s.seed)
    minibatches = _Minibatches(p.task, p.seed)

    def gradient(i: int, k: int, x: Vector) -> Vector:
        return evaluate(p.task, i, x, minibatches(i, k))

    return Replay(
        trace, p.topology, find(s.algorithm).new, lambda: SGD(program.lr),
        lambda i, life: python_stream(p.seed, Purpose.ALGORITHM, i, life), p.task.initial(), gradient,
        s.on_nan == SKIP,
    )  # fmt: skip


def _schedule(trace: Trace, s: RunSettings, topology: str) -> Replay:
    initial = (torch.zeros(s.agents),)  # as many numbers as agents: all-reduce cuts them into so many pieces
    return Replay(
        trace, build(topology, s.agents, s.seed), find(s.algorithm).new, lambda: SGD(1.0),
        lambda i, life: python_stream(s.seed, Purpose.ALGORITHM, i, life), initial,
        lambda i, k, x: Vector(initial),
    )  # fmt: skip


class _Minibatches:
    """Every agent's minibatches by number."""

    def __init__(self, task: Task, seed: int) -> None:
        self.draw = [
            BufferedStream(partial(task.draw, i, stream(seed, Purpose.DATA, i))) for i in range(task.agents)
        ]
        self.drawn: list[list[np.ndarray[Any, Any]]] = [[] for _ in self.draw]

    def __call__(self, i: int, k: int) -> np.ndarray[Any, Any]:
        while len(self.drawn[i]) <= k:
            self.drawn[i].append(self.draw[i]())
        return self.drawn[i][k]
