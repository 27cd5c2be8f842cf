"""Runs and their traces: a simulated one as a live run would have written it; the replay of a live one."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from offbeat import simulate
from offbeat.engines.events import Event
from offbeat.engines.recorder import Recorder
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import Outcome, replayed
from offbeat.results.run import Run

SETTINGS: dict[str, Any] = {
    "task": "quadratic", "agents": 4, "topology": "ring", "case": "base", "straggler": None, "slowdown": 10.0,
    "until": 600.0, "eval_every": 5.0, "target": 0.02,
}  # fmt: skip
LR = 0.02


def simulated(algorithm: str, **changes: Any) -> tuple[Run, Trace]:
    """A run of the simulator, and its trace as a live run would have written it."""
    e = SETTINGS | changes
    run = simulate(algorithm, lr=LR, seed=3, **e)
    assert run.trace is not None
    about = {"experiment": e, "algorithm": algorithm, "lr": LR, "seed": 3, "agents": 4, "unit": 0.005}
    return run, replace(run.trace, settings=about)


def table_of(records: Iterable[Event]) -> np.ndarray:
    """The rows of these records."""
    recorder = Recorder(1)
    for record in records:
        recorder.event(record)
    return recorder.trace().events


def exact_replay(folder: Path) -> Outcome:
    """The replay of the run in this folder: the same schedule and the same final models, bit for bit."""
    outcome = replayed(Trace.load(folder / "trace.npz"), folder)
    assert outcome.same, outcome.lines
    assert "4 of 4 equal bit for bit" in " ".join(outcome.lines)
    return outcome
