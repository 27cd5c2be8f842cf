"""The tasks: what is trained, on which data. One row each in `TASKS`; `task` is what an engine needs of one.

A task of your own has the interface of `offbeat.Task`, or is an `nn.Module` within `offbeat.ModuleTask`.
Imports only `core`: a task knows no algorithm, no graph and no delay.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from offbeat.core.errors import SettingError, unknown
from offbeat.core.system.streams import Purpose, stream
from offbeat.tasks.constants import Constants
from offbeat.tasks.data import DataSet, load
from offbeat.tasks.logistic import Logistic
from offbeat.tasks.minibatches import Minibatches
from offbeat.tasks.module import ModuleTask
from offbeat.tasks.objective import AGENTS, OBJECTIVES
from offbeat.tasks.partition import DEFAULT, PARTITIONS, split
from offbeat.tasks.quadratic import Quadratic, random_quadratic
from offbeat.tasks.task import Task


@dataclass(frozen=True)
class TaskRow:
    """One row of the table: what it is, and what `until` and `target` are when nobody says."""

    name: str
    title: str
    until: float
    target: float


LOGISTIC = "logistic regression on"

TASKS = {
    row.name: row
    for row in (
        TaskRow("digits", f"{LOGISTIC} scikit-learn's 8x8 digits (1,438 + 359 images)", 20000, 0.9),
        TaskRow("mnist", f"{LOGISTIC} MNIST (60,000 + 10,000 images)", 12000, 0.89),
        TaskRow("fashion-mnist", f"{LOGISTIC} Fashion-MNIST (60,000 + 10,000 images)", 12000, 0.80),
        TaskRow("quadratic", "random quadratics, d = 10; the loss is the gap to the optimum", 1000, 0.01),
    )
}


@lru_cache(maxsize=2)
def _loaded(name: str, data: Path | None, device: torch.device) -> DataSet:
    """Every seed of a comparison has the same data, which are moved once; only the split differs."""
    return load(name, data).to(device)


def build(
    name: str,
    agents: int,
    seed: int,
    batch: int = 32,
    reg: float = 0.001,
    partition: str = DEFAULT,
    objective: str = AGENTS,
    data: Path | None = None,
    device: torch.device | str = "cpu",
) -> Task:
    """A task of the table, on that device. The split of the data among the agents is drawn from the seed.

    Raises SettingError for an unknown name or impossible settings, DataError for missing or corrupt files.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if name == "quadratic":
        if objective != AGENTS:
            raise SettingError(f"A quadratic has no samples; expected the objective '{AGENTS}'.")
        return random_quadratic(agents, stream(seed, Purpose.TASK)).to(device)
    data_set = _loaded(name, data, torch.device(device))
    labels, rng = data_set.train_y.cpu().numpy(), stream(seed, Purpose.PARTITION)
    shards = split(partition, labels, len(labels), agents, rng)
    return Logistic(data_set, Minibatches(shards, batch), reg, objective=objective)


__all__ = [
    "PARTITIONS",
    "TASKS",
    "Constants",
    "Logistic",
    "Minibatches",
    "ModuleTask",
    "Quadratic",
    "TaskRow",
    "build",
]
