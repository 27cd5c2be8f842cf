"""What is trained: the interface between a task and the engines.

A task knows all agents' data. Models travel as *parts*: one tensor per (dtype, device), in a batch of m
models with a leading dimension, [m, P]. A run is made on the device of its task's `initial()`. A task that
can be moved has a method `to(device)`, which returns the same task there. Samples are drawn on the CPU,
wherever it is.

A task may have more, which is found by name and asked for only where it is needed:

- `epoch`: how many gradients make one pass over the training data, by all agents together, which is
  samples / minibatch: for figures over epochs
- `full_gradients(models)`: [m, P] per part, the gradients of what `losses` evaluates: metric gradient_norm
- `test_losses(models)`: [m], the losses on the test data: metric test_loss
- `least_loss`: a number, the smallest that `losses` can be: metric gap
- `own_metrics(models)`: name -> [m], measured at every evaluation; with `metrics`, their names
- `split(partition, objective, seed)`: the same task with its data split in another way (partition None: as
  they are), for the settings of these names
- `remark`: what somebody should know who reports results on its data
- `label_counts()`: names of classes and how many samples of each every agent has, [n, C], or no names and
  [n, 1]: who holds what, in the results
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from offbeat.core.vector import Parts


class Task(Protocol):
    """An objective sum_i f_i, where agent i can evaluate stochastic gradients of its own f_i."""

    @property
    def name(self) -> str:
        """As in a table."""

    @property
    def agents(self) -> int:
        """How many f_i there are."""

    @property
    def measure(self) -> str:
        """Either "accuracy", or "loss" for a task without test data: what a target is measured in."""

    def initial(self) -> Parts:
        """x^0, the model that all agents start from: flat tensors [P]."""

    def draw(self, agent: int, rng: np.random.Generator, count: int) -> np.ndarray:
        """The agent's next `count` minibatches, [count, ...]; row s is whatever `gradients` needs for one."""

    def gradients(self, agents: Sequence[int], samples: Sequence[np.ndarray], models: Parts) -> Parts:
        """[m, P]; row r: the gradient of f_{agents[r]} on samples[r] at models[r], whatever the others."""

    def losses(self, models: Parts) -> np.ndarray:
        """The loss of each of m models on all training data, [m]."""

    def accuracies(self, models: Parts) -> np.ndarray:
        """The accuracy of each of m models on the test data, [m]. Never called where `measure` is "loss"."""


def shipped(task: Task) -> bool:
    """Whether all that it does is this package's: a class of the user's own may do something else."""
    return type(task).__module__.split(".")[0] == __name__.split(".")[0]
