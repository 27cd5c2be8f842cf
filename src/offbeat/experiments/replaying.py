"""Replays the trace of a live run, and says whether everything came out as recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from offbeat.algorithms import find
from offbeat.core.errors import DataError
from offbeat.core.rules import SGD
from offbeat.core.system import devices
from offbeat.core.system.own import pinned
from offbeat.core.system.reading import json_in, reading
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream
from offbeat.core.vector import Vector
from offbeat.engines.live.node.guard import SKIP
from offbeat.engines.live.node.log import damage
from offbeat.engines.live.node.performer import digest
from offbeat.engines.live.settings import ExperimentProgram, RunSettings, ScriptProgram
from offbeat.engines.sim.executors import evaluate
from offbeat.engines.sim.replay import Gradient, Graphs, Replay
from offbeat.engines.trace import Trace
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import prepare
from offbeat.tasks.task import Task


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
    """Run a trace through fresh agents. `folder`: where the agents left the digests of their final models.

    Of a known task the gradients are evaluated; for a user's own script they are zero, and what is compared
    is the schedule: which versions entered which write. Raises DataError if it is no trace of a live run.
    """
    if "algorithm" not in trace.settings:
        raise DataError("The trace does not say which algorithm made it; expected the trace of a live run.")
    if why := damage(trace):
        raise DataError(why)
    if not (len(trace.events) and len(trace.writes)):
        raise DataError("The trace is empty: no agent did anything in it, so there is nothing to compare.")
    with devices.one_thread(), reading("The trace", "that of a live run, whole, as it was written"):
        s = RunSettings.of(trace.settings, "The trace")
        began = np.unique(trace.events["agent"])
        if max(stage.count for stage in s.stages) != trace.agents or (began < s.agents).sum() != s.agents:
            raise ValueError(f"it is of {trace.agents} agents, not all of which began; it says {s.count}")
        with pinned(s.code, s.code):
            replay = _replay(trace, s)
        again = replay.run(progress)
    lines = [f"{len(trace.events)} events and {len(trace.writes)} writes of {trace.agents} agents replayed."]
    same = np.array_equal(again.writes, trace.writes) and np.array_equal(again.mixed, trace.mixed)
    lines.append(f"Schedule and mixed versions: {'the same' if same else 'DIFFERENT'}.")
    staleness = again.staleness()
    lines.append(f"Staleness: B = {staleness.B}, D = {staleness.D}.")
    if isinstance(s.program, ExperimentProgram) and folder is not None:
        equal = []
        for i, path in enumerate(folder / f"agent-{i}.json" for i in range(s.agents)):
            if path.exists():
                with reading(path, "what an agent leaves at its end"):
                    equal.append(bool(json_in(path)["model"] == digest(replay.agents[i].actor.model)))
        lines.append(f"Final models: {sum(equal)} of {len(equal)} equal bit for bit.")
        same = same and all(equal)
    return Outcome(again, replay.stacked(), same, lines)


def _replay(trace: Trace, s: RunSettings) -> Replay:
    new, rng = find(s.algorithm).new, partial(python_stream, s.seed, Purpose.ALGORITHM)
    if isinstance(s.program, ScriptProgram):
        initial = (torch.zeros(s.count),)  # one for each agent: all-reduce cuts them into so many pieces
        stages = [_graphs(s, k) for k in range(len(s.stages))]
        return Replay(
            trace, stages[0].first, new, lambda: SGD(1.0), rng, initial, lambda i, k, x: Vector(initial),
            codec=s.program.codec, stages=stages,
        )  # fmt: skip
    setup = prepare(Experiment(**s.program.experiment), s.seed)
    rule = partial(setup.steps.rule, s.program.lr)
    start, gradient = setup.task.initial(), _gradients(setup.task, s.seed)
    skips, codec = s.on_nan == SKIP, setup.codec
    return Replay(trace, setup.topology, new, rule, rng, start, gradient, skips, codec)


def _graphs(s: RunSettings, k: int) -> Graphs:
    """Those of a stage."""
    stage, growing = s.stages[k], s.growing(k)
    return Graphs(growing.first, lambda n: growing.after(stage.grown[: n - stage.agents]), stage.until)


def _gradients(task: Task, seed: int) -> Gradient:
    """(agent, number of the minibatch, model) -> gradient."""
    draw = [BufferedStream(partial(task.draw, i), seed, Purpose.DATA, i) for i in range(task.agents)]
    drawn: list[list[np.ndarray]] = [[] for _ in draw]

    def gradient(i: int, k: int, x: Vector) -> Vector:
        while len(drawn[i]) <= k:
            drawn[i].append(draw[i]())
        return evaluate(task, i, x, drawn[i][k])

    return gradient
