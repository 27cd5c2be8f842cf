"""Multi-class logistic regression with a non-convex regulariser: gradients in closed form, many agents at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from offbeat.errors import SettingError
from offbeat.tasks.data import DataSet
from offbeat.tasks.minibatches import Minibatches
from offbeat.vector import Parts


@dataclass(frozen=True, eq=False)
class Logistic:
    """f_i(x) = mean over i's data of -log softmax(W a + c)_label + reg * sum_l x_l^2 / (1 + x_l^2),  x = (W, c).

    W is [classes, features], c [classes], the flat model [P] holds W row by row and then c; float32.
    arXiv:2505.10322 names a non-convex regulariser; its form here and reg are our reading of it.
    Loss: the same with the mean over all training data. Accuracy: on the test data.
    """

    data: DataSet
    minibatches: Minibatches
    reg: float = 0.001
    measure: str = field(default="accuracy", init=False)
    targets: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.reg < float("inf"):
            raise SettingError(f"The weight of the regulariser must be a finite number >= 0; got {self.reg}.")
        if self.minibatches.batch > len(self.data.train_y):
            raise SettingError(
                f"A minibatch of {self.minibatches.batch} samples is more than there are: {len(self.data.train_y)}."
            )
        object.__setattr__(self, "targets", one_hot(self.data.train_y, self.data.classes).float())

    @property
    def name(self) -> str:
        """The name of the data."""
        return self.data.name

    @property
    def agents(self) -> int:
        """n."""
        return len(self.minibatches.shards)

    def initial(self) -> Parts:
        """Zero."""
        return (torch.zeros(self.data.classes * (self.data.train_x.shape[1] + 1)),)

    def draw(self, agent: int, rng: np.random.Generator, count: int) -> np.ndarray:
        """Indices of minibatches, [count, batch]."""
        return self.minibatches.draw(agent, rng, count)

    def _unpacked(self, models: Tensor) -> tuple[Tensor, Tensor]:
        """[m, P] -> W [m, C, D], c [m, C]."""
        classes, features = self.data.classes, self.data.train_x.shape[1]
        return models[:, :-classes].view(-1, classes, features), models[:, -classes:]

    def gradients(self, agents: Sequence[int], samples: Sequence[np.ndarray], models: Parts) -> Parts:
        """With p = softmax(logits) - target, row by row: p^T a / batch, mean p, and the regulariser's gradient."""
        (x,) = models
        m, batch = len(samples), len(samples[0])
        index = torch.from_numpy(np.concatenate(samples))
        a = self.data.train_x.index_select(0, index).view(m, batch, -1)  # [m, B, D]
        w, c = self._unpacked(x)
        p = torch.baddbmm(c.unsqueeze(1), a, w.transpose(1, 2)).softmax(-1)  # [m, B, C]
        p = p.sub_(self.targets.index_select(0, index).view(m, batch, -1)).div_(batch)
        gradient = x.square().add_(1).square_().reciprocal_().mul_(x).mul_(2 * self.reg)
        w, c = self._unpacked(gradient)
        w.add_(torch.bmm(p.transpose(1, 2), a))
        c.add_(p.sum(1))
        return (gradient,)

    def losses(self, models: Parts) -> np.ndarray:
        """Mean cross entropy on all training data, and the regulariser."""
        data, values = self.data, []
        for x in models[0]:
            w, c = self._unpacked(x[None])
            penalty = (x.square() / (1 + x.square())).sum() * self.reg
            values.append(float(cross_entropy(torch.addmm(c[0], data.train_x, w[0].T), data.train_y) + penalty))
        return np.array(values)

    def accuracies(self, models: Parts) -> np.ndarray:
        """The share of the test data whose largest logit is its label's."""
        data, values = self.data, []
        for x in models[0]:
            w, c = self._unpacked(x[None])
            right = torch.addmm(c[0], data.test_x, w[0].T).argmax(1) == data.test_y
            values.append(float(right.double().mean()))
        return np.array(values)
