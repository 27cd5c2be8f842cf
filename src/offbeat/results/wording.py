"""How a run, its target, its rate and its end are said, wherever they are."""

from dataclasses import replace

from offbeat.results.values import RunValues
from offbeat.tasks.metrics.evaluation import AVERAGE, JUDGED


def gap_known(run: RunValues) -> bool:
    """Whether the loss is the distance from the optimum: the built-in quadratics know theirs."""
    return bool(run.settings["task"] == "quadratic" and "the task quadratic" not in run.settings["own"])


def judged_model(run: RunValues) -> str:
    """Which model loss, accuracy and target are of, in words."""
    return JUDGED[run.settings.get("judge", AVERAGE)]


def measured_more(run: RunValues) -> bool:
    """Whether more was asked for than is always measured."""
    s = run.settings
    return bool(s.get("metrics") or s.get("per_agent") or s.get("judge", AVERAGE) != AVERAGE)


def target_name(run: RunValues, *others: RunValues) -> str:
    """What the time to the target of this run is called; of several, what all have in common."""
    target = run.target
    if target is None or any(target_name(other) != target_name(run) for other in others):
        return "time to target"
    gap = target.metric == "loss" and gap_known(run)
    return f"time to {replace(target, metric='gap') if gap else target}"


def rate_text(run: RunValues) -> str:
    """The learning rate, and how it was said where that depends on the number of agents."""
    said = run.settings.get("lr_said")
    return f"{run.lr:g} ({said})" if said else f"{run.lr:g}"


def lost_again(run: RunValues) -> bool:
    return run.time_to_target is not None and run.diverged_at is not None


def error_of(run: RunValues) -> str:
    return f"Error of {run.algorithm} with lr {run.lr:g}, seed {run.seed}: {run.error}."
