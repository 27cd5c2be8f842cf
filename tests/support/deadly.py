"""Workers in which seed 1 of ADSGD is a run that the system kills, whatever lies beside it.

Always, or only the first time, where `OFFBEAT_TEST_ONCE` names a file that is made then.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from offbeat.experiments import batches
from offbeat.experiments.batches import PlannedRun, Sent
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.scheduler import Batch
from offbeat.experiments.sweep.grid import Point
from offbeat.experiments.sweep.running import Outcome, run_batch


def deadly_comparison(
    e: Experiment, check: bool, code: Mapping[str, str], batch: Batch[PlannedRun], number: int
) -> list[Sent]:
    _kill_for([(run.name, run.seed) for run in batch.runs])
    return batches.make_batch(e, check, code, batch, number)


def deadly_sweep(batch: Batch[Point], number: int) -> list[Outcome]:
    _kill_for([(point.algorithm, point.seed) for point in batch.runs])
    return run_batch(batch, number)


def _kill_for(runs: Sequence[tuple[str, int]]) -> None:
    once = os.getenv("OFFBEAT_TEST_ONCE")
    if ("adsgd", 1) in runs and not (once and Path(once).exists()):
        if once:
            Path(once).touch()
        os.kill(os.getpid(), signal.SIGKILL)
