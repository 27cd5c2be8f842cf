"""When a run is evaluated, when it ends, and what it is to reach."""

import math
from collections.abc import Sequence

from offbeat.core.errors import SettingError, unknown
from offbeat.experiments.experiment import EVALUATIONS
from offbeat.results.evaluations import evaluation_times
from offbeat.results.targets import Said, Target
from offbeat.tasks.task import Task

MOST_EVALUATIONS = 1_000_000
STOPS = ("until", "target")


def eval_times_of(until: float, every: float | None) -> list[float]:
    if not (math.isfinite(until) and until > 0):
        raise SettingError(f"A run must end at a finite time > 0; got until = {until}.")
    step = until / EVALUATIONS if every is None else every
    if not (math.isfinite(step) and 0 < step <= until):
        raise SettingError(f"The time between evaluations must be in (0, {until:g}]; got {step}.")
    if until / step > MOST_EVALUATIONS:
        many = f"{until / step:.3g} evaluations are too many: at most {MOST_EVALUATIONS}"
        raise SettingError(f"{many}; raise eval_every.")
    return evaluation_times(until, step)


def target_of(said: Said | None, task: Task, stop_at: str, more: Sequence[str] = ()) -> Target | None:
    """What is to be met, of what is measured, `more` among it. Raises SettingError for what cannot be."""
    if stop_at not in STOPS:
        raise unknown("end of a run, stop_at", stop_at, STOPS)
    if said is None:
        if stop_at == "target":
            raise SettingError("Runs cannot end at their target, for there is none; expected a target too.")
        return None
    target = Target.of(said, task.measure)
    measured = [*["accuracy"] * (task.measure == "accuracy"), "loss", "consensus", *more]
    if target.metric not in measured:
        raise SettingError(
            f"A target of {target.metric} cannot be met, for it is not measured; expected one of "
            f"{', '.join(measured)}, or what else is measured by `metrics` ('offbeat list metrics')."
        )
    right, expected = math.isfinite(target.level), f"a finite {target.metric}"
    if target.metric == "accuracy":
        right, expected = 0 <= target.level <= 1, "an accuracy between 0 and 1"
    elif target.metric == "loss":
        right, expected = right and target.level > 0, "a finite loss > 0"
    if not right:
        raise SettingError(f"The target must be {expected}; got {target.level:g}.")
    return target
