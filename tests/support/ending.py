"""A live run of quadratics that ends once it is where its algorithm ends: `install` before `offbeat live`."""

from collections.abc import Callable

import numpy as np

from offbeat.algorithms import find
from offbeat.engines.live.launcher import launch
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node.transport import model_of
from offbeat.engines.live.settings import ExperimentProgram
from offbeat.engines.live.shm.board import Order, Row
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.limits import limit_of
from offbeat.experiments.setup import prepare
from offbeat.theory.limits import EXPECTED, known


def install(near: float, least: int, moving: int) -> None:
    """Have runs end as soon as every agent has made `least` steps, and all models are so near the limit.

    Args:
        moving: how many are made in all where models go on moving about their limit; then nothing is near
    """
    look, there = Launcher._look, dict[int, Callable[[Launcher], bool]]()

    def enough(self: Launcher) -> None:
        look(self)
        if self.board.order is Order.RUN and self.board.rows[:, Row.STEPS].min() >= least:
            if id(self) not in there:
                there[id(self)] = _there(self, near, moving)
            if there[id(self)](self):
                self._stop()

    vars(launch)["TICK"] = 0.02
    Launcher._look = enough  # type: ignore[method-assign]


def _there(launcher: Launcher, near: float, moving: int) -> Callable[[Launcher], bool]:
    program, spec = launcher.settings.program, find(launcher.settings.algorithm)
    assert isinstance(program, ExperimentProgram)
    setup = prepare(Experiment(**program.experiment), launcher.settings.seed)
    ends = limit_of(setup, spec, program.lr)

    def there(launcher: Launcher) -> bool:
        board = launcher.board
        made = board.rows[:, Row.STEPS]
        if ends is None:
            return True
        if known(spec).how == EXPECTED:
            return bool(made.sum() >= moving)
        found = [model_of(launcher.shared, board, i) for i in range(board.n)]
        models = [each[0].parts[0].numpy() for each in found if each is not None]
        return len(models) == board.n and bool(abs(np.stack(models) - ends(made)).max() <= near)

    return there
