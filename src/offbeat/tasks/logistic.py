"""Multi-class logistic regression, non-convex regulariser: gradients in closed form, many agents at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from offbeat.core.errors import SettingError
from offbeat.core.system.kernel import Gradient
from offbeat.core.vector import Parts
from offbeat.tasks import softmax
from offbeat.tasks.constants import Constants
from offbeat.tasks.dataset import DataSet
from offbeat.tasks.minibatches import Minibatches, label_counts
from offbeat.tasks.objective import AGENTS, Weights, weights
from offbeat.tasks.task import shipped

BLOCK = 4096  # samples in a product of which a full gradient is the sum


@dataclass(frozen=True, eq=False)
class Logistic:
    """f_i(x) = mean over i's data of -log softmax(W a + c)_label + reg * sum_l x_l^2 / (1 + x_l^2).

    x = (W, c): W [classes, features], c [classes]; a flat model [P] holds W row by row and then c; float32.
    arXiv:2505.10322 names a non-convex regulariser; its form here and reg are our reading of it.
    Loss: the objective f of all agents, which is the same with the mean over all training data where shards
    are equal (see `offbeat.tasks.objective`). Accuracy: on the test data.

    Attributes:
        objective: "agents" or "samples", which of them count the same
        compiled: whether the C functions of `softmax` do the work where they can be had (not on a GPU);
            torch's results differ by rounding. `engine` says what does it

    The data must not change once they have been used. Models lie on the device of the data.
    """

    data: DataSet
    minibatches: Minibatches
    reg: float = 0.001
    compiled: bool = True
    objective: str = AGENTS
    measure: str = field(default="accuracy", init=False)
    targets: Tensor = field(init=False)
    weights: Weights = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.reg < float("inf"):
            raise SettingError(f"The weight of the regulariser must be a finite number >= 0; got {self.reg}.")
        if (batch := self.minibatches.batch) > (count := len(self.data.train_y)):
            raise SettingError(f"A minibatch of {batch} samples is more than there are: {count}.")
        object.__setattr__(self, "targets", one_hot(self.data.train_y, self.data.classes).float())
        object.__setattr__(self, "weights", weights(self.objective, self.minibatches.shards, count))

    @property
    def name(self) -> str:
        return self.data.name

    @property
    def agents(self) -> int:
        return len(self.minibatches.shards)

    @property
    def remark(self) -> str:
        """What somebody should know who reports results on these data; empty: nothing."""
        return self.data.remark

    @property
    def epoch(self) -> float:
        """Gradients that make one pass over the training data, by all agents together."""
        return self.minibatches.epoch

    def initial(self) -> Parts:
        x = self.data.train_x
        return (torch.zeros(self.data.classes * (x.shape[1] + 1), device=x.device),)

    def to(self, device: torch.device | str) -> Self:
        return replace(self, data=self.data.to(device))

    def draw(self, agent: int, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.minibatches.draw(agent, rng, count)

    def constants(self) -> Constants:
        """Bounds from the data, derived here. With a = (features, 1) of the samples of agent i, all of which
        minibatches of B are drawn from,

            L_i <= lambda_max(mean a a^T) / 2 + 2 reg,   sigma_i^2 <= 2 mean ||a||^2 / B,   f_i(0) = log C

        for diag(p) - p p^T is at most 1/2, |d^2/dx^2 x^2 / (1 + x^2)| at most 2, ||p - y||^2 at most 2, and
        inf f_i is not below 0. All but B is scaled with the weight of agent i.
        """
        L, sigma, start = 0.0, 0.0, 0.0
        scales = np.ones(self.agents) if self.weights.agents is None else self.weights.agents
        for scale, shard in zip(scales, self.minibatches.shards, strict=True):
            x = self.data.train_x[torch.from_numpy(np.asarray(shard))].double()
            a = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype, device=x.device)], 1)
            largest = float(torch.linalg.matrix_norm(a, 2)) ** 2 / len(a)
            L = max(L, scale * (largest / 2 + 2 * self.reg))
            squares = float(a.square().sum(1).mean())
            sigma = max(sigma, scale * (2 * squares / self.minibatches.batch) ** 0.5)
            start += scale * math.log(self.data.classes)
        return Constants(float(L), float(sigma), float(start), "bounds from the data")

    def label_counts(self) -> tuple[list[str], np.ndarray]:
        return label_counts(self.minibatches.shards, self.data.train_y.cpu().numpy())

    def _unpacked(self, models: Tensor) -> tuple[Tensor, Tensor]:
        """[m, P] -> W [m, C, D], c [m, C]."""
        classes, features = self.data.classes, self.data.train_x.shape[1]
        return models[:, :-classes].view(-1, classes, features), models[:, -classes:]

    def like(self, other: object) -> bool:
        """Whether gradients and losses are those of the other task, whatever minibatches it draws."""
        if not isinstance(other, Logistic) or not (shipped(self) and shipped(other)):
            return False
        scaled = self.weights.agents is not None or other.weights.agents is not None
        alike = other.data is self.data and (other.reg, other.compiled) == (self.reg, self.compiled)
        return alike and not scaled

    @property
    def engine(self) -> str:
        """What gradients and losses are evaluated with, and why if that is torch."""
        train = self._samples("train")
        return f"{softmax.name()}, {train.kind}" if isinstance(train, softmax.Samples) else train

    def _samples(self, part: Literal["train", "test"]) -> softmax.Samples | str:
        """The training or test data for the compiled functions, or why there are none."""
        return softmax.kept(self.data, part) if self.compiled else "torch (as asked for)"

    def _compiled(self, part: Literal["train", "test"], models: Tensor) -> softmax.Samples | None:
        """The same, if the functions can work on these models [m, P]."""
        found = self._samples(part)
        if isinstance(found, softmax.Samples) and found.readable(models):
            return found
        return None

    def gradients(self, agents: Sequence[int], samples: Sequence[np.ndarray], models: Parts) -> Parts:
        x = models[0]
        index = np.ascontiguousarray(np.stack(samples), np.int64)  # [m, batch]
        if train := self._compiled("train", x):
            rows, out = np.arange(len(x)), torch.empty_like(x)
            train.gradients(x, rows, out, rows, index, self.reg)
        else:
            out = self._with_torch(index, x)
        return self.weights.scaled(agents, (out,))

    def native(self) -> Gradient | None:
        """The same for `offbeat.core.system.kernel.steps`, to the bit; None where torch does it, and where
        the gradients of agents count differently, or a class of the user's own may make others.
        """
        if not shipped(self):
            return None
        train = self._samples("train")
        if isinstance(train, softmax.Samples) and self.weights.agents is None:
            return train.native(self.reg)
        return None

    def _with_torch(self, indices: np.ndarray, x: Tensor) -> Tensor:
        """With p = softmax(logits) - target, row by row: p^T a / batch, mean p, and the regulariser's."""
        m, batch = indices.shape
        index = torch.from_numpy(indices).to(x.device).flatten()
        a = self.data.train_x.index_select(0, index).view(m, batch, -1)  # [m, B, D]
        w, c = self._unpacked(x)
        p = torch.baddbmm(c.unsqueeze(1), a, w.transpose(1, 2)).softmax(-1)  # [m, B, C]
        p = p.sub_(self.targets.index_select(0, index).view(m, batch, -1)).div_(batch)
        gradient = x.square().add_(1).square_().reciprocal_().mul_(x).mul_(2 * self.reg)
        w, c = self._unpacked(gradient)
        w.add_(torch.bmm(p.transpose(1, 2), a))
        c.add_(p.sum(1))
        return gradient

    def losses(self, models: Parts) -> np.ndarray:
        (x,) = models
        if train := self._compiled("train", x):
            entropies = [train.scores(row, self.weights.samples)[0] for row in x]
        else:
            a, y = self.data.train_x, self.data.train_y
            entropies = [self.weights.mean(cross_entropy, self._logits(row, a), y) for row in x]
        penalties = [float((row.square() / (1 + row.square())).sum()) * self.reg for row in x]
        return np.array([a + b for a, b in zip(entropies, penalties, strict=True)])

    def full_gradients(self, models: Parts) -> Parts:
        """The gradients of what `losses` evaluates, [m, P]: with torch, block by block, summed in float64."""
        return (torch.stack([self._full(row) for row in models[0]]),)

    def _full(self, x: Tensor) -> Tensor:
        data, (w, c) = self.data, self._unpacked(torch.zeros_like(x, dtype=torch.float64)[None])
        count, weights = len(data.train_x), self.weights.samples
        each = torch.full((count,), 1 / count) if weights is None else torch.from_numpy(weights).float()
        blocks = [torch.split(part, BLOCK) for part in (data.train_x, self.targets, each.to(x.device))]
        for a, target, weight in zip(*blocks, strict=True):
            p = (self._logits(x, a).softmax(1) - target) * weight[:, None]
            w[0] += p.T @ a
            c[0] += p.sum(0)
        v = x.double()
        return torch.cat([w.flatten(), c.flatten()]) + 2 * self.reg * v / (1 + v.square()).square()

    def test_losses(self, models: Parts) -> np.ndarray:
        """The mean cross entropy on the test data of each of m models, [m]; the regulariser is left out."""
        (x,) = models
        if test := self._compiled("test", x):
            return np.array([test.scores(row)[0] for row in x])
        a, y = self.data.test_x, self.data.test_y
        return np.array([float(cross_entropy(self._logits(row, a), y)) for row in x])

    def accuracies(self, models: Parts) -> np.ndarray:
        (x,) = models
        data = self.data
        if test := self._compiled("test", x):
            return np.array([test.scores(row)[1] for row in x]) / len(data.test_y)
        right = [self._logits(row, data.test_x).argmax(1) == data.test_y for row in x]
        return np.array([float(hits.double().mean()) for hits in right])

    def _logits(self, x: Tensor, a: Tensor) -> Tensor:
        """Of one model on all samples, [N, C]."""
        w, c = self._unpacked(x[None])
        return torch.addmm(c[0], a, w[0].T)
