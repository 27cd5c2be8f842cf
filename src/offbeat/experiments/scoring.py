"""Scores of models: points of a curve, and what stands at the end of a run, simulated or live."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from offbeat.algorithms import Algorithm
from offbeat.core.vector import Parts
from offbeat.engines.trace import TraceSummary
from offbeat.experiments.setup import Setup
from offbeat.results.run import Run
from offbeat.results.values import Curve
from offbeat.tasks.task import Task


def curve_point(task: Task, models: Parts, now: float, updates: int, megabytes: float, curve: Curve) -> None:
    """Evaluate these models [m, P] and add a point to the curve."""
    mean = tuple(part.mean(0) for part in models)
    average = tuple(part[None] for part in mean)
    squares = sum(_distances(part, middle).mean() for part, middle in zip(models, mean, strict=True))
    curve.time.append(now)
    curve.updates.append(updates)
    curve.megabytes.append(megabytes)
    curve.loss.append(float(task.losses(average)[0]))
    if task.measure == "accuracy":
        curve.accuracy.append(float(task.accuracies(average)[0]))
    curve.consensus.append(float(squares) ** 0.5)


def final_scores(task: Task, models: Parts, curve: Curve) -> dict[str, float | None]:
    """The scores at the end: of the average model, from the curve, and of the agents' own."""
    own = task.accuracies(models) if task.measure == "accuracy" else None
    return {
        "loss": curve.loss[-1],
        "accuracy": curve.accuracy[-1] if curve.accuracy else None,
        "consensus": curve.consensus[-1],
        "accuracy_mean": None if own is None else float(own.mean()),
        "accuracy_worst": None if own is None else float(own.min()),
        "loss_worst": float(task.losses(models).max()) if own is None else None,
    }


def run_of(
    setup: Setup, spec: Algorithm, lr: float, curve: Curve, final: dict[str, float | None], models: Parts,
    summary: TraceSummary, counts: tuple[int, int, float], asked: Mapping[str, Any], **rest: Any,
) -> Run:  # fmt: skip
    """What came out of a run, simulated or live.

    Args:
        models: all agents' at the end, on the CPU
        counts: gradients applied, transmissions, and their bytes
        asked: settings beside those of the experiment
        rest: the other fields of `Run`
    """
    updates, messages, sent = counts
    digest = summary.digest(*(part.numpy().tobytes() for part in models))
    named: dict[str, Any] = {"algorithm": spec.name, "lr": lr, "seed": setup.seed}
    return Run(
        **named, settings=setup.settings | named | asked, measure=setup.task.measure, curve=curve,
        final=final, time_to_target=reached(setup, curve), updates=updates, messages=messages,
        megabytes=sent / 1e6, staleness=summary.staleness(), digest=digest,
        topology=setup.topology, models=models, **rest,
    )  # fmt: skip


def reached(setup: Setup, curve: Curve) -> float | None:
    """When the average model first met the target; None if it did not, or there is none."""
    return None if setup.target is None else curve.crossing(setup.task.measure, setup.target)


def _distances(models: Tensor, middle: Tensor) -> Tensor:
    """The squared distance of each of m models from another: [m]; block by block, for there may be many."""
    return torch.cat([(block - middle).double().square().sum(1) for block in torch.split(models, 256)])
