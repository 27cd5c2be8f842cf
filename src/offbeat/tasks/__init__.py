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
from offbeat.tasks.data import images, load
from offbeat.tasks.dataset import DataSet, Images
from offbeat.tasks.logistic import Logistic
from offbeat.tasks.minibatches import Minibatches
from offbeat.tasks.module import ModuleTask
from offbeat.tasks.networks import NETWORKS
from offbeat.tasks.objective import AGENTS, OBJECTIVES
from offbeat.tasks.partition import DEFAULT, PARTITIONS, split
from offbeat.tasks.quadratic import Quadratic, random_quadratic
from offbeat.tasks.task import Task
from offbeat.tasks.text import Text, read_text
from offbeat.tasks.trained import NetworkTask


@dataclass(frozen=True)
class TaskRow:
    """One row of the table: what it is, and what is usual of it when nobody says.

    Attributes:
        model: the network (`offbeat.tasks.networks`); None: a task of its own kind, or logistic regression
        reads: what the data are: "images", "characters"; "": there are none
    """

    name: str
    title: str
    until: float
    target: float
    model: str | None = None
    partition: str = DEFAULT
    reads: str = "images"


LOGISTIC = "logistic regression on"
LINEAR = "linear"
"""Logistic regression, where a model is named."""
REG = 0.001
"""The weight of the regulariser of logistic regression, where nobody says; networks have none."""

TASKS = {
    row.name: row
    for row in (
        TaskRow("digits", f"{LOGISTIC} scikit-learn's 8x8 digits (1,438 + 359 images)", 20000, 0.9),
        TaskRow("mnist", f"{LOGISTIC} MNIST (60,000 + 10,000 images)", 12000, 0.89),
        TaskRow("fashion-mnist", f"{LOGISTIC} Fashion-MNIST (60,000 + 10,000 images)", 12000, 0.80),
        TaskRow("cifar10", "ResNet-20 on CIFAR-10 (50,000 + 10,000 images)", 300, 0.5, "resnet20"),
        TaskRow(
            "shakespeare", "a small transformer on Shakespeare's characters (1.1 million), by speaking role",
            300, 0.4, "transformer", "natural:role", "characters",
        ),
        TaskRow("quadratic", "random quadratics, d = 10; the loss is the gap to the optimum", 1000, 0.01,
                reads=""),
    )
}  # fmt: skip


def model_of(name: str, model: str | None) -> str | None:
    """The network of a task of the table, as it is recorded: None where it is logistic regression by default.

    Raises SettingError for a network that is not known, or where there is none.
    """
    row = TASKS[name]
    if not row.reads and model is not None:
        raise SettingError(f"{name} has no network; expected no model, got '{model}'.")
    if model is not None and model not in MODELS:
        raise unknown("model", model, MODELS)
    return None if model == LINEAR and row.model is None else model or row.model


def reg_of(name: str, model: str | None, reg: float | None) -> float:
    """The weight of the regulariser, where nobody says one."""
    return reg if reg is not None else REG if model_of(name, model) in (None, LINEAR) else 0.0


MODELS = {
    LINEAR: "logistic regression, the usual of digits, mnist and fashion-mnist",
    **{name: f"{row.about}; width {row.width}: {row.widens}; {row.reads}" for name, row in NETWORKS.items()},
}
"""What `--model` names, in words."""


@lru_cache(maxsize=2)
def _loaded(name: str, data: Path | None, device: torch.device) -> DataSet:
    """Every seed of a comparison has the same data, which are moved once; only the split differs."""
    return load(name, data).to(device)


@lru_cache(maxsize=2)
def _bytes(name: str, data: Path | None, device: torch.device) -> Images | Text:
    """The same for networks."""
    return (read_text(data) if TASKS[name].reads == "characters" else images(name, data)).to(device)


def build(
    name: str,
    agents: int,
    seed: int,
    batch: int = 32,
    reg: float | None = None,
    partition: str | None = None,
    objective: str = AGENTS,
    data: Path | None = None,
    device: torch.device | str = "cpu",
    *,
    model: str | None = None,
    width: int | None = None,
    augment: str = "none",
    eval_samples: int | None = None,
) -> Task:
    """A task of the table, on that device. The split of the data among the agents is drawn from the seed, and
    so is where a network starts.

    Raises SettingError for an unknown name or impossible settings, DataError for missing or corrupt files.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    row, model = TASKS[name], model_of(name, model)
    of_network = {
        "width": width,
        "augment": None if augment == "none" else augment,
        "eval_samples": eval_samples,
    }
    if model in (None, LINEAR) and (
        given := [each for each, value in of_network.items() if value is not None]
    ):
        able = ", ".join(NETWORKS)
        raise SettingError(
            f"'{given[0]}' is of networks, and {name} is trained without one here; expected a model "
            f"({able}), or no '{given[0]}'."
        )
    if not row.reads:
        if objective != AGENTS:
            raise SettingError(f"A quadratic has no samples; expected the objective '{AGENTS}'.")
        return random_quadratic(agents, stream(seed, Purpose.TASK)).to(device)
    where, rng = torch.device(device), stream(seed, Purpose.PARTITION)
    partition, reg = partition or row.partition, reg_of(name, model, reg)
    if model in (None, LINEAR):
        if row.reads != "images":
            raise SettingError(f"{name} has no logistic regression; expected the model '{row.model}'.")
        data_set = _loaded(name, data, where)
        labels = data_set.train_y.cpu().numpy()
        shards = split(partition, labels, len(labels), agents, rng)
        return Logistic(data_set, Minibatches(shards, batch), reg, objective=objective)
    samples = _bytes(name, data, where)
    classes = samples.train_y.cpu().numpy() if isinstance(samples, Images) else None
    columns = samples.columns if isinstance(samples, Text) else {}
    shards = split(partition, classes, len(samples.train_y), agents, rng, columns)
    return NetworkTask(samples, str(model), width, shards, seed, batch, reg, objective, augment, eval_samples)


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
