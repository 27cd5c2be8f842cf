"""What is measured of a run when it is asked for: one row each in `METRICS`, with its formula.

`evaluation` is a run at one instant. Imports only `core` and the interface of tasks: a metric knows no
algorithm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.vector import Parts
from offbeat.tasks.metrics.evaluation import Evaluation


@dataclass(frozen=True)
class Metric:
    """A number for every evaluation.

    Attributes:
        name: as it is asked for, and as it is called in files
        title: of the axis of its figure
        about: its formula, in words
        cost: of an evaluation, in words
        measure: from an evaluation to the number
        needs: the attribute that the task must have for it; see `offbeat.Task`
        log: whether its figure has a logarithmic axis
        usual: whether it is measured unasked, of tasks that have what it needs
        own: whether it is the user's
    """

    name: str
    title: str
    about: str
    cost: str
    measure: Callable[[Evaluation], float]
    needs: str = ""
    log: bool = True
    usual: bool = False
    own: bool = False

    def __call__(self, at: Evaluation) -> float:
        """Raises SettingError where a metric of the user's own gives no number."""
        if not self.own:
            return float(self.measure(at))
        try:
            value = self.measure(at)
        except OffbeatError:
            raise
        except Exception as error:
            said = f"raised {type(error).__name__}: {error}".removesuffix(".")
            raise SettingError(f"The metric '{self.name}' {said}.") from error
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):  # of a tensor with several values
            what = f"must return a number; got {value!r:.80}"
            raise SettingError(f"The metric '{self.name}' {what}.") from None


def gradient_norm(at: Evaluation) -> float:
    """||grad f(x)||^2, x the average model."""
    task: Any = at.task
    gradients: Parts = task.full_gradients(tuple(part[None] for part in at.average))
    return math.fsum(float(part.double().square().sum()) for part in gradients)


def test_loss(at: Evaluation) -> float:
    """Of the model that is judged."""
    task: Any = at.task
    return at.judged(task.test_losses)


def gap(at: Evaluation) -> float:
    """f(x) - f*, x the model that is judged."""
    task: Any = at.task
    return at.loss - float(task.least_loss)


def disagreement(at: Evaluation) -> float:
    """max_i ||x_i - x||, x the average model."""
    return math.sqrt(float(torch.stack(at.distances).sum(0).max()))


def to_optimum(at: Evaluation) -> float:
    """(1/m sum_i ||x_i - x*||^2)^(1/2)."""
    task: Any = at.task
    return at.distance_from(task.optimum)


def to_limit(at: Evaluation) -> float:
    """(1/m sum_i ||x_i - x_i^lim||^2)^(1/2); nan where the limit is not known."""
    return math.nan if at.limit is None else at.distance_from(at.limit)


METRICS = {
    row.name: row
    for row in (
        Metric(
            "gradient_norm", "squared gradient norm of the average model",
            "the squared norm of the gradient at the average model x, on all training data: ||grad f(x)||^2",
            "a gradient of every sample",
            gradient_norm, "full_gradients",
        ),
        Metric(
            "test_loss", "test loss",
            "the loss on the test data, without the regulariser, of the model that is judged",
            "as an accuracy", test_loss, "test_losses",
        ),
        Metric(
            "gap", "gap to the optimum",
            "f(x) - min f of the model that is judged, where the minimum is known, as of quadratics",
            "none", gap, "least_loss",
        ),
        Metric(
            "disagreement", "largest distance from the average",
            "how far the model of the agent that is farthest is from the average model x: max_i ||x_i - x||",
            "none", disagreement, log=False,
        ),
        Metric(
            "to_optimum", "distance to the optimum",
            "RMS distance of the agents' models from the minimiser of the objective, as of quadratics",
            "none", to_optimum, "optimum", usual=True,
        ),
        Metric(
            "to_limit", "distance to the own limit",
            "RMS distance of the agents' models from where their algorithm ends with exact gradients, each "
            "from its own; of quadratics",
            "a linear system of n equations, where the limit depends on who made how many updates", to_limit,
            "curvatures", usual=True,
        ),
    )
}  # fmt: skip


OF_RUN = {
    "ages": "how old what was mixed was, k - s_ij^k in iterations of the whole run: a histogram",
    "shares": "of each agent's time: computing, waiting, down; and sending, besides",
    "traffic": "bytes by agent, and by link",
}
"""What may be asked for beside `METRICS`: not of models at evaluations, but of what happened in the run."""


def offers(task: object, name: str) -> bool:
    """Whether a task has this of what a task may have beside the interface."""
    return getattr(task, name, None) is not None
