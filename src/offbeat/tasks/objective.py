"""Which objective agents of unequal shards minimise together.

Agent i has m_i of the m samples that are held, and f_i is the mean loss on its own (with the regulariser).
Every algorithm minimises the mean of what its agents take gradients of, with the same weight for each agent.

    agents   (default)  f = 1/n sum_i f_i:      all agents count the same; agent i takes gradients of f_i
    samples             f = sum_i (m_i/m) f_i:  all samples count the same; agent i takes gradients of
                                                (n m_i/m) f_i, whose mean over the agents is f

The loss that is judged is that f: a sample of agent i counts 1/(n m_i) with "agents" and 1/m with "samples".
Where all shards have the same size the two are one; then nothing is scaled, and the loss is the mean over all
training data, with the few that were left over when the data were split.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offbeat.core.errors import unknown
from offbeat.core.vector import Parts
from offbeat.tasks.minibatches import Shards

OBJECTIVES = ("agents", "samples")
AGENTS, SAMPLES = OBJECTIVES

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Weights:
    """How agents and samples count; None: all the same."""

    agents: Floats | None  # [n], the factor of each agent's gradient
    samples: Floats | None  # [N], the weight of each sample in the loss; their sum is 1
    shares: Floats | None  # [n], the weight of each f_i in f

    def scaled(self, agents: Sequence[int], gradients: Parts) -> Parts:
        """Gradients [m, P] of these agents' f_i, each with its agent's factor."""
        if self.agents is None:
            return gradients
        factors = torch.from_numpy(self.agents[[*agents]])
        return tuple(part * factors.to(part.device, part.dtype)[:, None] for part in gradients)

    def mean(self, loss: Callable[..., Tensor], out: Tensor, y: Tensor) -> float:
        """One of torch's losses, on all samples [N]: its mean, or the sum with their weights."""
        if self.samples is None:
            return float(loss(out, y))
        each = loss(out, y, reduction="none").double()
        return float(each @ torch.from_numpy(self.samples).to(each.device))


def weights(objective: str, shards: Shards, total: int) -> Weights:
    """Those of an objective, for these shards of `total` samples. Raises SettingError for an unknown one."""
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    sizes = np.array([len(shard) for shard in shards])
    if (sizes == sizes[0]).all():
        return Weights(None, None, None)
    each = np.full(len(sizes), 1 / sizes.sum()) if objective == SAMPLES else 1 / (len(sizes) * sizes)
    samples = np.zeros(total)
    for shard, weight in zip(shards, each, strict=True):
        np.add.at(samples, shard, weight)
    shares = each * sizes
    return Weights(len(sizes) * shares if objective == SAMPLES else None, samples, shares)
