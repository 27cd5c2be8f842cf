"""What an agent learns from: its shard of the samples, and the minibatches that are drawn from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offbeat.core.errors import SettingError

Indices = npt.NDArray[np.int64]

Shards = Sequence[Indices] | Indices
"""Entry i: the indices of agent i's samples, [m_i]; of equal shards also a matrix, [n, m]."""


@dataclass(frozen=True, eq=False)
class Minibatches:
    """Which samples a minibatch has: `batch` of the agent's own, drawn with replacement.

    Attributes:
        views: in how many ways a sample can be shown; of several each is drawn too, all alike

    Raises SettingError for an empty shard and for a batch without samples.
    """

    shards: Shards
    batch: int
    views: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise SettingError(f"A minibatch needs at least one sample; got {self.batch}.")
        for agent, shard in enumerate(self.shards):
            if not len(shard):
                raise SettingError(f"Agent {agent} has no sample; expected one or more for each agent.")

    @property
    def epoch(self) -> float:
        """Minibatches that are one pass over the samples, of all agents together."""
        return sum(map(len, self.shards)) / self.batch

    def draw(self, agent: int, rng: np.random.Generator, count: int) -> Indices:
        """The agent's next `count` minibatches as indices, [count, batch]; with views times their number,
        plus which.
        """
        shard = np.asarray(self.shards[agent])
        drawn = rng.integers(len(shard) * self.views, size=(count, self.batch))
        if self.views == 1:
            return np.asarray(shard[drawn])
        return np.asarray(shard[drawn // self.views] * self.views + drawn % self.views)


MOST_CLASSES = 1000  # more are not counted


def label_counts(shards: Shards, labels: npt.NDArray[np.integer] | None) -> tuple[list[str], Indices]:
    """The names of the classes, and how many of each every agent has, [n, C]; where there are no classes or
    too many, no names and how many samples every agent has, [n, 1].
    """
    names, which = (None, None) if labels is None else np.unique(labels, return_inverse=True)
    if names is None or which is None or len(names) > MOST_CLASSES:
        return [], np.array([[len(shard)] for shard in shards])
    counts = [np.bincount(which[shard], minlength=len(names)) for shard in shards]
    return [str(name) for name in names.tolist()], np.stack(counts)
