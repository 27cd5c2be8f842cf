"""A run at one instant: the agents' models, and what can be said of them. Nothing is evaluated before it is
asked for, and nothing twice; the models of all agents go into one call of the task.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from offbeat.core.vector import Parts
from offbeat.tasks.task import Task

AVERAGE, SERVER, WORST, EACH = "average", "server", "worst", "each"

JUDGED = {
    AVERAGE: "the average of all agents' models",
    SERVER: "the model of the server, the graph's hub",
    WORST: "the worst of the agents' own models",
    EACH: "the mean over the agents' own models",
}
"""What `--judge` may name: of which model loss, accuracy, test loss and gap are."""

Values = Callable[[Parts], np.ndarray]  # of each of m models [m, P], [m]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A run at one instant; what a metric of one's own is a function of.

    Attributes:
        task: what is trained
        models: the agents' own models, [n, P] per part; of an agent that is down, its last
        living: the agents that are up; all, if none is
        time: simulated; of a live run, in units
        updates: gradients applied by then, by all
        megabytes: sent by then
        judge: one of `JUDGED`
        server: the agent at the hub of the graph
        limit: where the algorithm ends, [n, P]; None: not known
    """

    task: Task
    models: Parts
    living: Sequence[int]
    time: float = 0.0
    updates: int = 0
    megabytes: float = 0.0
    judge: str = AVERAGE
    server: int = 0
    limit: np.ndarray | None = None

    @cached_property
    def average(self) -> Parts:
        """The average of the living agents' models, [P] per part."""
        return tuple(part.mean(0) for part in self._alive)

    @cached_property
    def distances(self) -> tuple[Tensor, ...]:
        """The squared distance of each living agent's model from their average, [m], part by part."""
        return tuple(_distances(part, mean) for part, mean in zip(self._alive, self.average, strict=True))

    @cached_property
    def loss(self) -> float:
        """Of the model that is judged."""
        return self.judged(self.task.losses, np.max, self.losses)

    @cached_property
    def accuracy(self) -> float:
        """Of the model that is judged."""
        return self.judged(self.task.accuracies, np.min, self.accuracies)

    def distance_from(self, points: np.ndarray) -> float:
        """Root mean square over the living agents of the distance from a point, [P], or each from its own,
        [n, P]. A model is all its parts, one after another.
        """
        if points.ndim > 1 and len(self.living) < len(points):
            points = points[[*self.living]]
        with np.errstate(over="ignore", invalid="ignore"):  # of a run that diverges
            apart = self._rows - points
            return math.sqrt(float(np.vdot(apart, apart)) / len(apart))

    def losses(self) -> np.ndarray:
        """Of every agent's own model, [n]."""
        return self._losses

    def accuracies(self) -> np.ndarray:
        """Of every agent's own model, [n]."""
        return self._accuracies

    def judged(
        self,
        values: Values,
        worst: Callable[[np.ndarray], float] = np.max,
        everybody: Callable[[], np.ndarray] | None = None,
    ) -> float:
        """The value of the model that is judged, as `judge` says.

        Args:
            values: of each of m models [m, P], [m]
            worst: which of several is the worst
            everybody: the values of all agents' models, where they are wanted elsewhere too
        """
        if self.judge == AVERAGE:
            return float(values(tuple(part[None] for part in self.average))[0])
        if self.judge == SERVER:
            return float(values(tuple(part[self.server][None] for part in self.models))[0])
        own = np.asarray(everybody() if everybody is not None else values(self.models))[self.living]
        return float(worst(own) if self.judge == WORST else own.mean())

    @cached_property
    def _rows(self) -> np.ndarray:
        """The models of the living, [m, P], in double precision."""
        parts = [part.cpu().double().numpy() for part in self._alive]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    @cached_property
    def _alive(self) -> Parts:
        if len(self.living) == len(self.models[0]):
            return self.models
        return tuple(torch.stack([part[i] for i in self.living]) for part in self.models)

    @cached_property
    def _losses(self) -> np.ndarray:
        return self.task.losses(self.models)

    @cached_property
    def _accuracies(self) -> np.ndarray:
        return self.task.accuracies(self.models)


def _distances(models: Tensor, middle: Tensor) -> Tensor:
    """Block by block, for there may be many."""
    return torch.cat([(block - middle).double().square().sum(1) for block in torch.split(models, 256)])
