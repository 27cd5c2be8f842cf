"""Any torch.nn.Module and any loss as a task."""

import copy
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from offbeat.core.errors import SettingError
from offbeat.core.system.streams import Purpose, stream
from offbeat.core.vector import Parts
from offbeat.tasks.partition import Minibatches, split_among

Loss = Callable[[Tensor, Tensor], Tensor]


class ModuleTask:
    """f_i(x) = mean over i's data of loss(module_x(input), target) + reg * sum_l x_l^2 / (1 + x_l^2).

        task = ModuleTask(nn.Sequential(...), nn.functional.cross_entropy, (x, y), test=(x, y), agents=9)

    Attributes:
        module: trained from its present weights, which are copied; the module itself stays as it is
        train, test: inputs [N, ...] and targets [N, ...]; accuracy needs a test set and integer targets
        shards: [n, s] indices of the training data of each agent; default: by label `skew`, or by a Dirichlet
            mixture with `alpha`, from `seed` (for integer targets; others are split uniformly)
        vectorized: True: all agents in one call of torch.func.vmap; False: one after the other; None: what is
            faster, which on a CPU is one after the other for a module with convolution layers, and vmap
            elsewhere

    The run is where the module is; `to` gives the task on another device. Parameters are flattened in the
    module's order, one flat tensor a dtype; tied ones appear once.

    Raises SettingError for modules whose training depends on more than parameters and minibatch: running
    statistics (BatchNorm), dropout.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor] | None = None,
        agents: int = 9,
        batch: int = 32,
        reg: float = 0.0,
        skew: float = 1.0,
        alpha: float | None = None,
        seed: int = 0,
        shards: np.ndarray | None = None,
        vectorized: bool | None = None,
        name: str | None = None,
    ) -> None:
        _refuse_hidden_state(module)
        x, y = train
        if len(x) != len(y) or len(x) == 0:
            raise SettingError(f"Expected as many targets as inputs, and some; got {len(x)} and {len(y)}.")
        labelled = y.ndim == 1 and not y.is_floating_point()
        if shards is None:
            labels = y.cpu().numpy() if labelled else np.zeros(len(y), dtype=np.int64)
            rng = stream(seed, Purpose.PARTITION)
            shards = split_among(labels, agents, rng, *((skew, alpha) if labelled else (0.0,)))
        self.name = name or type(module).__name__.lower()
        self.agents = len(shards)
        self.measure = "accuracy" if test is not None and labelled else "loss"
        self.module, self.loss, self.train, self.test, self.reg = module, loss, train, test, reg
        self.minibatches = Minibatches(shards, batch)
        self.vectorized = vectorized
        self._convolves = any(isinstance(part, nn.modules.conv._ConvNd) for part in module.modules())
        self.parameters = {key: p.detach().clone() for key, p in module.named_parameters()}
        self.dtypes = list(dict.fromkeys(p.dtype for p in self.parameters.values()))

    def initial(self) -> Parts:
        return tuple(
            torch.cat([p.flatten() for p in self.parameters.values() if p.dtype == dtype])
            for dtype in self.dtypes
        )

    def to(self, device: torch.device | str) -> Self:
        """The same on another device; the module that was given stays where it is."""
        moved = copy.copy(self)
        moved.module = copy.deepcopy(self.module).to(device)
        moved.parameters = {key: p.to(device) for key, p in self.parameters.items()}
        moved.train = (self.train[0].to(device), self.train[1].to(device))
        moved.test = None if self.test is None else (self.test[0].to(device), self.test[1].to(device))
        return moved

    def draw(self, agent: int, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.minibatches.draw(agent, rng, count)

    def _named(self, model: Parts) -> dict[str, Tensor]:
        """One flat model -> the module's parameters by name."""
        flat, at = dict(zip(self.dtypes, model, strict=True)), dict.fromkeys(self.dtypes, 0)
        named = {}
        for key, p in self.parameters.items():
            start, at[p.dtype] = at[p.dtype], at[p.dtype] + p.numel()
            named[key] = flat[p.dtype][start : start + p.numel()].view_as(p)
        return named

    def _objective(self, model: Parts, x: Tensor, y: Tensor) -> Tensor:
        value = self.loss(functional_call(self.module, self._named(model), (x,)), y)
        if self.reg:
            value = value + self.reg * sum((part.square() / (1 + part.square())).sum() for part in model)
        return value

    def gradients(self, agents: Sequence[int], samples: Sequence[np.ndarray], models: Parts) -> Parts:
        """torch.func.grad of the objective, for all rows."""
        device = models[0].device
        index = torch.from_numpy(np.stack(samples)).to(device)
        x, y = self.train[0][index], self.train[1][index]
        each: Callable[[Parts, Tensor, Tensor], Parts] = grad(self._objective)
        by_module = not self._convolves or device.type != "cpu"
        if by_module if self.vectorized is None else self.vectorized:
            return tuple(vmap(each)(models, x, y))
        rows = [each(tuple(part[r] for part in models), x[r], y[r]) for r in range(len(samples))]
        return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))

    @torch.no_grad()
    def losses(self, models: Parts) -> np.ndarray:
        values = []
        for model in zip(*models, strict=True):
            penalty = sum(float((part.square() / (1 + part.square())).sum()) for part in model)
            values.append(self._mean(model, *self.train, self.loss) + self.reg * penalty)
        return np.array(values)

    @torch.no_grad()
    def accuracies(self, models: Parts) -> np.ndarray:
        if self.test is None:
            raise SettingError("There is no accuracy without test data; give the task a `test` set.")
        x, y = self.test
        return np.array([self._mean(model, x, y, _right) for model in zip(*models, strict=True)])

    def _mean(self, model: Parts, x: Tensor, y: Tensor, measure: Loss, chunk: int = 1024) -> float:
        """The mean of a mean over chunks of the data, so that activations fit in memory."""
        named, total = self._named(model), 0.0
        for at in range(0, len(x), chunk):
            x_part, y_part = x[at : at + chunk], y[at : at + chunk]
            total += float(measure(functional_call(self.module, named, (x_part,)), y_part)) * len(x_part)
        return total / len(x)


def _right(out: Tensor, y: Tensor) -> Tensor:
    return (out.argmax(-1) == y).double().mean()


def _refuse_hidden_state(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if getattr(part, "track_running_stats", False):
            raise SettingError(
                f"The module's part '{name}' ({type(part).__name__}) keeps running statistics, which are not "
                "parameters and would not be mixed. Use GroupNorm or LayerNorm, or track_running_stats=False."
            )
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 and part.training:
            raise SettingError(
                f"The module's part '{name}' ({type(part).__name__}) draws from torch's global random "
                "stream, so the run could not be repeated. Remove it, or call module.eval() first."
            )
