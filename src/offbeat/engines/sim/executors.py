"""When and how gradients are evaluated. A gradient is known from the moment it starts: its model is a value,
its minibatch comes from the agent's own stream. So it may be evaluated any time before it is due.
"""

from collections.abc import Iterable

import numpy as np
import torch

from offbeat.core.vector import Parts, Vector
from offbeat.tasks.task import Task

WIDEST = 256
"""Gradients in one call, at most: wider batches leave the caches."""


EXECUTORS = {"batched": True, "event-by-event": False}
"""Whether gradients are evaluated together."""


class Executor:
    """When a gradient is due that is not known yet, evaluates all that have been started, in one call; or
    only that one, if they are not evaluated together: this is the oracle, with which the other must agree.
    """

    def __init__(self, task: Task, together: bool) -> None:
        self.task, self.together = task, together
        self.open: dict[int, tuple[Parts, np.ndarray]] = {}
        self.known: dict[int, tuple[Parts, int]] = {}

    def request(self, agent: int, x: Vector, sample: np.ndarray) -> None:
        """The agent starts a gradient at x on this minibatch."""
        self.open[agent] = (x.parts, sample)

    def cancel(self, agent: int) -> None:
        """The agent died."""
        self.open.pop(agent, None)
        self.known.pop(agent, None)

    def resolve(self, agent: int) -> Vector:
        """The agent's gradient is due."""
        if agent not in self.known:
            due = list(self.open) if self.together else [agent]
            for at in range(0, len(due), WIDEST):
                some = {i: self.open.pop(i) for i in due[at : at + WIDEST]}
                gradients = _gradients(self.task, some)
                self.known |= {i: (gradients, row) for row, i in enumerate(some)}
        gradients, row = self.known.pop(agent)
        # one by one: a thousand at once wake the garbage collector
        return Vector(tuple([g[row] for g in gradients]))


def evaluate(task: Task, agent: int, x: Vector, sample: np.ndarray) -> Vector:
    return Vector(tuple(g[0] for g in _gradients(task, {agent: (x.parts, sample)})))


def _gradients(task: Task, requests: dict[int, tuple[Parts, np.ndarray]]) -> Parts:
    """[m, P], in the order of the requests."""
    models = stacked(x for x, _ in requests.values())
    return task.gradients(list(requests), [sample for _, sample in requests.values()], models)


def stacked(models: Iterable[Parts]) -> Parts:
    """Models as rows, [m, P]."""
    return tuple(torch.stack(rows) for rows in zip(*models, strict=True))
