"""Where a run of quadratics will end, from what has happened so far."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from offbeat.algorithms import Algorithm
from offbeat.experiments.setup import Setup
from offbeat.results.limits import why_not
from offbeat.tasks.quadratic import Quadratic
from offbeat.theory.fixed_points import At
from offbeat.theory.limits import EXPECTED, known, settling


def limit_of(
    setup: Setup, spec: Algorithm, lr: float, faults: Sequence[str] = ()
) -> Callable[[np.ndarray], np.ndarray] | None:
    """From the updates that each agent made to where all models end, [n, P]; who made none counts as who made
    one. None where that is not known.
    """
    task, settings = setup.task, setup.settings | {"faults": [*faults]}
    if not isinstance(task, Quadratic) or why_not(settings, spec):
        return None
    how = known(spec).how

    @lru_cache(maxsize=1)  # the same at every evaluation, or another at each
    def at(steps: tuple[int, ...]) -> np.ndarray:
        p = np.asarray(steps, dtype=float)
        try:
            return settling(At(spec, task, setup.topology, lr, p / p.sum()))
        except RuntimeError:  # torch's: at this learning rate no limit can be told in float64
            return np.full_like(task.b, np.nan)

    return lambda steps: at(tuple(np.maximum(steps, 1).tolist()) if how == EXPECTED else (1,) * task.agents)
