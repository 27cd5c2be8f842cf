"""When and how gradients are evaluated. A gradient is known from the moment it starts: its model is a value,
its minibatch comes from the agent's own stream. So it may be evaluated any time before it is due.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from offbeat.core.system import devices
from offbeat.core.vector import Parts, Scope, Vector
from offbeat.tasks.task import Task

WIDEST = 256
"""Gradients in one call, at most: wider batches leave the caches."""


class Executor:
    """The oracle, with which every other executor must agree: one gradient when it is due, what handlers
    build as soon as they end.

    Attributes:
        scope: of what handlers build
        open: gradients that have been started, by agent; known: those that are there
    """

    def __init__(self, task: Task) -> None:
        self.task, self.scope = task, Scope()
        self.open: dict[int, tuple[Any, np.ndarray]] = {}
        self.known: dict[int, Any] = {}

    def request(self, agent: int, x: Vector, sample: np.ndarray) -> None:
        """The agent starts a gradient at x on this minibatch."""
        self.open[agent] = x.parts, sample

    def cancel(self, agent: int) -> None:
        """The agent died."""
        self.open.pop(agent, None)
        self.known.pop(agent, None)

    def resolve(self, agent: int) -> Vector:
        """The agent's gradient is due."""
        parts, sample = self.open.pop(agent)
        return evaluate(self.task, agent, Vector(parts), sample)

    def stacked(self, models: Iterable[Vector]) -> Parts:
        """Models as rows, [m, P]."""
        return stacked(x.parts for x in models)


def evaluate(task: Task, agent: int, x: Vector, sample: np.ndarray) -> Vector:
    made = task.gradients([agent], [sample], tuple([part[None] for part in x.parts]))
    return Vector(tuple([part[0] for part in made]))


def stacked(models: Iterable[Parts]) -> Parts:
    """Models as rows, [m, P]."""
    return tuple(torch.stack(rows) for rows in zip(*models, strict=True))


def widest(model: Parts, agents: int) -> int:
    """Gradients in one call of torch: a level has one write of an agent, and wide calls fill a GPU."""
    if all(part.device.type == "cpu" for part in model):
        return WIDEST
    return max(1, min(agents, devices.CHUNK // max(1, sum([part.nbytes for part in model]))))
