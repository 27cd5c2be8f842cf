"""What the settings of the data mean: which partition, and what of it is recorded."""

from typing import Any

from offbeat.core.errors import SettingError
from offbeat.experiments.experiment import Experiment
from offbeat.tasks import TASKS
from offbeat.tasks.objective import AGENTS
from offbeat.tasks.partition import parsed, spelt
from offbeat.tasks.task import Task

UNSPLIT = "quadratic"  # a task without samples


def partition_of(e: Experiment) -> str | None:
    """The partition that is asked for, by its own setting or a shorthand; None if none is.

    A skew of 1 is the default, and counts as not said beside others. Raises SettingError for several.
    """
    given = [] if e.partition is None else [str(e.partition)]
    given += [] if e.dirichlet is None else [spelt(f"dirichlet:{e.dirichlet}")]
    given += [] if e.skew == 1.0 else [spelt(f"skew:{e.skew}")]
    if len(given) > 1:
        raise SettingError(f"Expected one partition of the data; got both {' and '.join(given)}.")
    return given[0] if given else None


def resplit(e: Experiment, task: Task, seed: int) -> Task:
    """A task of the user's own, split as the settings ask for, or as it is if they do not."""
    partition = partition_of(e)
    if partition is None and e.objective == AGENTS:
        return task
    split = getattr(task, "split", None)
    if not callable(split):
        asked = f"the partition '{partition}'" if partition is not None else f"the objective '{e.objective}'"
        raise SettingError(
            f"Got {asked} for the task {task.name}, which has no method `split` (offbeat.ModuleTask has). "
            "Expected none, or such a method: split(partition, objective, seed) -> task."
        )
    again: Task = split(partition, e.objective, seed)
    return again


def recorded(e: Experiment) -> dict[str, Any]:
    """The settings that say how the data were split; None: they were not, or as the user's own task does it.

    The shorthands are there where they mean something.
    """
    task = e.task if isinstance(e.task, str) else None  # a task of the user's need not be hashable
    asked = partition_of(e)
    if task == UNSPLIT or (asked is None and task not in TASKS):
        return {"partition": asked, "skew": e.skew if task == UNSPLIT else None, "dirichlet": e.dirichlet}
    asked = asked or TASKS[str(task)].partition
    name, parameter = parsed(asked)
    shorthands = {short: parameter if name == short else None for short in ("skew", "dirichlet")}
    return {"partition": asked, **shorthands}
