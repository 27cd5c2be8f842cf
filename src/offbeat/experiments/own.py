"""Tasks and metrics that are named by their file. A task: a function that makes one, its class, or itself.

Such a function, or class, is called with what it names of `OFFERED`; what it gives is split, if a partition
is asked for, as any task of the user's own (`experiments.splits`). While it is called, the global streams of
torch, NumPy and Python are those of the seed, if it names it, else always the same: a network is initialised
alike in every process.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from offbeat.core.errors import SettingError
from offbeat.core.settings import declared
from offbeat.core.system import own
from offbeat.core.system.named import Own, called
from offbeat.core.system.streams import Purpose, stream
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.measuring import metric_of
from offbeat.experiments.worlds import world_files
from offbeat.tasks import REG
from offbeat.tasks.metrics import Metric
from offbeat.tasks.metrics.evaluation import Evaluation
from offbeat.tasks.task import Task
from offbeat.world.graph_files import file_of

OF_NETWORK = ("model", "width", "augment", "eval_samples")  # settings of the tasks that are networks here
"""One's own function has its own defaults for these: it gets those that are given."""
SAMPLING = ("batch", "reg", "data", *OF_NETWORK)  # settings that would change nothing, unless named
OFFERED = ("n", "agents", "seed", *SAMPLING, "device")
TASK = (
    "a function that returns a task, as offbeat.ModuleTask, of what it names of "
    f"{', '.join(OFFERED)}; or a task, or its class"
)
METRIC = "a function of an offbeat.Evaluation that returns a number"
INTERFACE = ("name", "agents", "measure", "initial", "draw", "gradients", "losses")
KEPT = 2

_built: dict[str, Task] = {}
"""The last few that were made; a function that names no seed makes one for all."""


def files_of(e: Experiment) -> list[str]:
    """The files that this experiment's task, metrics, topology and world are named by."""
    code = [Own.parse(each) for each in (e.task, *e.metrics) if isinstance(each, str)]
    graph = file_of(e.topology) if isinstance(e.topology, str) else None
    return [each.file for each in code if each is not None] + ([graph] if graph else []) + world_files(e)


def own_metrics(metrics: Sequence[str | Metric]) -> list[str | Metric]:
    """The metrics that are asked for; those that are named by their file are loaded."""
    named = [Own.parse(each) if isinstance(each, str) else None for each in metrics]
    return [each if own is None else _metric(own) for each, own in zip(metrics, named, strict=True)]


def _metric(named: Own) -> Metric:
    """A function of an evaluation; with options, what the function that is named gives."""
    given = own.made(named, {}, METRIC) if named.options else own.load(named, METRIC)

    def function(at: Evaluation) -> float:
        with own.blamed(str(named), named.file, METRIC):
            value: float = given(at)
            return value

    short = re.sub(r"\W+", "_", named.name + called(named.options)).strip("_")
    return metric_of(short, function if callable(given) else given)


def own_task(e: Experiment, n: int | None, seed: int) -> Task | None:
    """The task that the setting names; None if that is no file's, or for n = None if it depends on n.

    Raises SettingError for what is no task, for settings that it does not take, and for its own faults.
    """
    named = Own.parse(e.task) if isinstance(e.task, str) else None
    if named is None:
        return None
    value, takes = own.load(named, TASK), dict[str, bool]()
    ready = hasattr(value, "gradients") and not isinstance(value, type)
    if not ready and callable(value):
        takes = own.parameters(value)[0]
    for name in SAMPLING:
        if name not in takes and _given(e, name):
            option = f"--{name.replace('_', '-')}"
            do = f"Expected '{name}' among its parameters, or no {option}"
            raise SettingError(f"{named} does not name '{name}', so {option} would change nothing. {do}.")
    if n is None and {"n", "agents"} & {*takes}:
        return None
    if ready and not named.options:
        return _checked(named, value, n, seed)
    offered: dict[str, Any] = {"n": n, "agents": n, "seed": seed, "device": e.device}
    offered |= {"batch": e.batch, "reg": REG if e.reg is None else e.reg, "data": e.data}
    offered |= {name: getattr(e, name) for name in OF_NETWORK if _given(e, name)}
    given = {name: value for name, value in offered.items() if name in takes}
    key = f"{named} {own.version(named.file)} {given}"
    if key not in _built:
        while len(_built) >= KEPT:
            del _built[next(iter(_built))]
        _built[key] = _checked(named, own.made(named, offered, TASK), n, seed)
    return _built[key]


def _given(e: Experiment, name: str) -> bool:
    return bool(getattr(e, name) != declared(Experiment)[name].default)


def refuse_ignored(e: Experiment, what: str, names: Sequence[str]) -> None:
    """Raise SettingError if one of these settings is given for a task that would not heed it."""
    if given := [name for name in names if _given(e, name)]:
        raise SettingError(f"Got '{given[0]}' for {what}, of which it says nothing; expected none.")


def _checked(named: Own, task: Any, n: int | None, seed: int) -> Task:
    """The task, if it is one: a gradient is tried."""
    needed = [*INTERFACE, *["accuracies"] * (getattr(task, "measure", "") == "accuracy")]
    if missing := [name for name in needed if not hasattr(task, name)]:
        got = f"{named} gives a {type(task).__name__}, which has no '{missing[0]}'"
        raise SettingError(f"{got}; expected {TASK}. offbeat.Task says what a task has.")
    if task.measure not in ("accuracy", "loss"):
        raise SettingError(f"{named} has the measure {task.measure!r}; expected 'accuracy' or 'loss'.")
    if n is not None and task.agents != n:
        raise SettingError(f"{named} gives a task of {task.agents} agents; expected {n}, as there are here.")
    expected = "a task whose gradients can be evaluated"
    with own.blamed(str(named), named.file, expected):
        models = tuple(part[None] for part in task.initial())
        sample = task.draw(0, stream(seed, Purpose.DATA, 0), 1)[0]
        gradients = task.gradients([0], [np.asarray(sample)], models)
        shapes = [tuple(part.shape) for part in gradients]
        if shapes != [tuple(part.shape) for part in models] or not all(map(torch.is_tensor, gradients)):
            wanted = [tuple(part.shape) for part in models]
            raise SettingError(
                f"{named}: a gradient has shape {shapes}, its model {wanted}; expected the same."
            )
    checked: Task = task
    return checked
