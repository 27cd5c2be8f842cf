"""Every agent's own share of the data, and minibatches from it."""

from dataclasses import dataclass

import numpy as np

from offbeat.core.errors import SettingError
from offbeat.tasks.partition import by_label, dirichlet


@dataclass(frozen=True, eq=False)
class Minibatches:
    """Which samples a minibatch has: `batch` of the agent's own, drawn with replacement.

    Attributes:
        shards: [n, s] indices into the training data
    """

    shards: np.ndarray
    batch: int

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise SettingError(f"A minibatch needs at least one sample; got {self.batch}.")

    def draw(self, agent: int, rng: np.random.Generator, count: int) -> np.ndarray:
        """The agent's next `count` minibatches as indices, int64 [count, batch]."""
        shard = self.shards[agent]
        return np.asarray(shard[rng.integers(len(shard), size=(count, self.batch))])


def split_among(
    labels: np.ndarray, n: int, rng: np.random.Generator, skew: float = 1.0, alpha: float | None = None
) -> np.ndarray:
    """n shards of equal size, [n, s]: by label skew, or by a Dirichlet mixture where `alpha` is given."""
    return by_label(labels, n, skew, rng) if alpha is None else dirichlet(labels, n, alpha, rng)
