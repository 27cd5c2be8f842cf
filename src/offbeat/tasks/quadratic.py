"""Quadratics: the task whose answers are known in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from offbeat.core.errors import SettingError
from offbeat.core.vector import Parts
from offbeat.tasks.constants import Constants


@dataclass(frozen=True, eq=False)
class Quadratic:
    """f_i(x) = (h_i / 2) ||x - b_i||^2, with gradients h_i (x - b_i) + noise * N(0, I), in float64.

    Attributes:
        b: [n, d], the minimisers of the f_i
        h: [n], their curvatures
        noise: standard deviation a coordinate.
        device: where models and gradients are.

    The loss is the gap mean_i f_i(x) - min_x mean_i f_i(x); it is evaluated on the CPU.

    Raises SettingError for shapes that do not fit, curvatures <= 0 or negative noise.
    """

    b: np.ndarray
    h: np.ndarray
    noise: float = 0.0
    device: torch.device | str = "cpu"
    name: str = field(default="quadratic", init=False)
    measure: str = field(default="loss", init=False)
    centres: Tensor = field(init=False)
    curvatures: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.b.ndim != 2 or self.h.shape != self.b.shape[:1]:
            got = f"{self.b.shape} and {self.h.shape}"
            raise SettingError(f"Expected b of shape [n, d] and h of shape [n]; got {got}.")
        if not ((self.h > 0).all() and self.noise >= 0 and np.isfinite(self.b).all()):
            raise SettingError("Expected finite b, curvatures h > 0 and noise >= 0.")
        object.__setattr__(self, "centres", torch.from_numpy(self.b).to(self.device))
        object.__setattr__(self, "curvatures", torch.from_numpy(self.h[:, None]).to(self.device))

    @property
    def agents(self) -> int:
        return len(self.h)

    @cached_property
    def optimum(self) -> np.ndarray:
        """The minimiser of sum_i f_i: sum_i h_i b_i / sum_i h_i, [d]."""
        return np.asarray(self.h @ self.b / self.h.sum())

    def initial(self) -> Parts:
        return (torch.zeros(self.b.shape[1], dtype=torch.float64, device=self.device),)

    def to(self, device: torch.device | str) -> Self:
        return replace(self, device=device)

    def draw(self, agent: int, rng: np.random.Generator, count: int) -> np.ndarray:
        """The noise of `count` gradients, [count, d]; nothing at all without noise."""
        if self.noise == 0:
            return np.zeros((count, 0))
        return rng.normal(0.0, self.noise, (count, self.b.shape[1]))

    def gradients(self, agents: Sequence[int], samples: Sequence[np.ndarray], models: Parts) -> Parts:
        """h_i (x - b_i) + noise, row by row."""
        (x,) = models
        rows = torch.tensor([*agents]).to(x.device)
        exact = self.curvatures.index_select(0, rows) * (x - self.centres.index_select(0, rows))
        return (exact + torch.from_numpy(np.stack(samples)).to(x.device) if self.noise else exact,)

    def losses(self, models: Parts) -> np.ndarray:
        def f(x: np.ndarray) -> np.ndarray:
            return np.asarray((self.h / 2 * ((x[:, None, :] - self.b[None]) ** 2).sum(-1)).mean(1))

        with np.errstate(over="ignore", invalid="ignore"):  # a diverging run is reported, not warned about
            return np.asarray(f(models[0].cpu().numpy()) - f(self.optimum[None]))

    def constants(self) -> Constants:
        """Exact: L = max_i h_i, sigma^2 = d noise^2, start = sum_i h_i / 2 ||b_i||^2."""
        start = float((self.h / 2 * (self.b**2).sum(1)).sum())
        return Constants(float(self.h.max()), self.noise * self.b.shape[1] ** 0.5, start, "exact")

    @property
    def least_loss(self) -> float:
        """0: the loss is the gap."""
        return 0.0

    def full_gradients(self, models: Parts) -> Parts:
        """mean_i h_i (x - b_i), [m, d]."""
        (x,) = models
        return (self.curvatures.mean() * x - (self.curvatures * self.centres).mean(0),)

    def accuracies(self, models: Parts) -> np.ndarray:
        raise NotImplementedError("A quadratic has no accuracy.")


def random_quadratic(n: int, rng: np.random.Generator, d: int = 10, noise: float = 0.1) -> Quadratic:
    """b_i standard normal, h_i log-uniform in [1/2, 2]."""
    return Quadratic(rng.normal(size=(n, d)), 2.0 ** rng.uniform(-1, 1, n), noise)
