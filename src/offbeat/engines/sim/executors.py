"""Executors: when and how gradients are evaluated. The algorithms do not know which one runs.

A gradient is known from the moment it starts: its model is a value, its minibatch comes from the
agent's own stream. So it may be evaluated any time before it is due.
"""

from collections.abc import Iterable

import numpy as np
import torch

from offbeat.core.vector import Parts, Vector
from offbeat.tasks.task import Task

WIDEST = 256
"""Gradients in one call, at most: wider batches leave the caches."""


class EventByEvent:
    """One gradient at a time, when it is due. The oracle: the others must agree with it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.open: dict[int, tuple[Parts, np.ndarray]] = {}

    def request(self, agent: int, x: Vector, sample: np.ndarray) -> None:
        """The agent starts a gradient at x on this minibatch."""
        self.open[agent] = (x.parts, sample)

    def cancel(self, agent: int) -> None:
        """The agent died."""
        self.open.pop(agent, None)

    def resolve(self, agent: int) -> Vector:
        """The agent's gradient is due."""
        return evaluate(self.task, {agent: self.open.pop(agent)})[agent]


class Batched(EventByEvent):
    """When a gradient is due that is not known yet, evaluate all that have been started, in one call."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.known: dict[int, tuple[Parts, int]] = {}

    def cancel(self, agent: int) -> None:
        super().cancel(agent)
        self.known.pop(agent, None)

    def resolve(self, agent: int) -> Vector:
        if agent not in self.known:
            todo = list(self.open)
            for at in range(0, len(todo), WIDEST):
                some = todo[at : at + WIDEST]
                gradients = _gradients(self.task, {i: self.open[i] for i in some})
                self.known |= {i: (gradients, row) for row, i in enumerate(some)}
            self.open.clear()
        gradients, row = self.known.pop(agent)
        # one by one: a thousand at once wake the garbage collector
        return Vector(tuple([g[row] for g in gradients]))


EXECUTORS = {"batched": Batched, "event-by-event": EventByEvent}


def evaluate(task: Task, requests: dict[int, tuple[Parts, np.ndarray]]) -> dict[int, Vector]:
    """The gradients of several agents in one call of the task."""
    gradients = _gradients(task, requests)
    return {agent: Vector(tuple(g[row] for g in gradients)) for row, agent in enumerate(requests)}


def _gradients(task: Task, requests: dict[int, tuple[Parts, np.ndarray]]) -> Parts:
    """[m, P], in the order of the requests."""
    models = stacked(x for x, _ in requests.values())
    return task.gradients(list(requests), [sample for _, sample in requests.values()], models)


def stacked(models: Iterable[Parts]) -> Parts:
    """Models as rows, [m, P]."""
    return tuple(torch.stack(rows) for rows in zip(*models, strict=True))
