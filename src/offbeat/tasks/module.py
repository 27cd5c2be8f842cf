"""Any torch.nn.Module and any loss as a task."""

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from offbeat.core.errors import SettingError
from offbeat.core.settings import USUAL_AGENTS
from offbeat.core.system.streams import Purpose, stream
from offbeat.core.vector import Parts
from offbeat.tasks.minibatches import Indices, Minibatches, Shards, label_counts
from offbeat.tasks.objective import AGENTS, weights
from offbeat.tasks.partition import Columns, split
from offbeat.tasks.task import shipped

Loss = Callable[
    ..., Tensor
]  # of output and target, and of the parameters by name if it takes three arguments

Held = Sequence[tuple[float, Indices | None]]  # parts of the data that make an objective, with their weights

CHUNK = 1024  # samples that are evaluated in one call


class ModuleTask:
    """f_i(x) = mean over i's data of loss(module_x(input), target) + regularisers, which are
    reg * sum_l x_l^2 / (1 + x_l^2) + l2 / 2 * sum_l x_l^2.

        task = ModuleTask(nn.Sequential(...), nn.functional.cross_entropy, (x, y), test=(x, y), agents=9)

    Attributes:
        module: trained from its present weights, which are copied; the module itself stays as it is
        loss: (output, target) -> the mean over a minibatch; or (output, target, parameters), with the
            parameters by name as `module.named_parameters()` has them, for regularisers of your own
        train, test: inputs [N, ...] and targets [N, ...]. Integer targets [N] are classes: with a test set,
            targets of runs are accuracies on it. Of all others (regression) they are training losses
        partition: who gets which samples: 'dirichlet:0.1' (docs/data.md); drawn from `seed`. Default:
            'skew:1' for classes, else 'iid'. `skew` and `alpha` are short for 'skew:S' and 'dirichlet:ALPHA'
        objective: "agents" or "samples", which of them count the same (`offbeat.tasks.objective`)
        columns: name -> [N], what the partition 'natural:NAME' goes by
        shards: the indices of each agent's training data, in place of a partition
        l2: its gradient is l2 * x, what torch's optimizers call weight decay
        metrics: name -> function of all outputs and targets of the test data (of the training data, if there
            are none) that returns a number; measured of the judged model at every evaluation
        vectorized: True: all agents in one call of torch.func.vmap; False: one after the other; None: what is
            faster, which on a CPU is one after the other for a module with convolution layers, and vmap
            elsewhere

    The run is where the module is; `to` gives the task on another device. Parameters are flattened in the
    module's order, one flat tensor a dtype; tied ones appear once.

    `split` gives the same task with another partition; `offbeat.compare(task=..., partition=...)` uses it,
    with the seed of each run.

    Raises SettingError for several partitions, and for modules whose training depends on more than parameters
    and minibatch: running statistics (BatchNorm), dropout.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor] | None = None,
        agents: int = USUAL_AGENTS,
        batch: int = 32,
        reg: float = 0.0,
        skew: float | None = None,
        alpha: float | None = None,
        seed: int = 0,
        shards: Shards | None = None,
        vectorized: bool | None = None,
        name: str | None = None,
        *,
        partition: str | None = None,
        objective: str = AGENTS,
        columns: Columns | None = None,
        l2: float = 0.0,
        metrics: Mapping[str, Callable[[Tensor, Tensor], Any]] | None = None,
    ) -> None:
        _refuse_hidden_state(module)
        x, y = train
        if len(x) != len(y) or len(x) == 0:
            raise SettingError(f"Expected as many targets as inputs, and some; got {len(x)} and {len(y)}.")
        if not (0 <= reg < float("inf") and 0 <= l2 < float("inf")):
            raise SettingError(f"Weights of regularisers are finite numbers >= 0; got reg {reg}, l2 {l2}.")
        self.module, self.loss, self.train, self.test = module, loss, train, test
        self.reg, self.l2, self.metrics, self.columns = reg, l2, dict(metrics or {}), dict(columns or {})
        self.name = name or type(module).__name__.lower()
        self.measure = "accuracy" if test is not None and self._labelled else "loss"
        self._sees_parameters = _takes_three(loss)
        if shards is None:
            shards = self._shards(_only(partition, skew, alpha), agents, seed)
        self._hold(shards, batch, objective)
        self.vectorized = vectorized
        self._by_row = any(isinstance(part, nn.modules.conv._ConvNd) for part in module.modules())
        self.parameters = {key: p.detach().clone() for key, p in module.named_parameters()}
        self.dtypes = list(dict.fromkeys(p.dtype for p in self.parameters.values()))
        for which, data in (("training", train), ("test", test)):
            if data is not None and len(data[0]):
                self._try(which, *data)

    @torch.no_grad()
    def _try(self, which: str, x: Tensor, y: Tensor) -> None:
        """The loss of two samples. Raises SettingError where module, loss and data do not fit together."""
        x, y, out = x[:2], y[:2], None
        shapes = f"inputs {[*x.shape]} {x.dtype}, targets {[*y.shape]} {y.dtype}".replace("torch.", "")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "Using a target size")  # which broadcasts, and is no loss
                out = functional_call(self.module, dict(self.parameters), (x,))
                value = self._loss(self.parameters)(out, y)
        except Exception as error:
            shapes += f", outputs {[*out.shape]}" if isinstance(out, Tensor) else ""
            raise SettingError(
                f"The loss of two samples of the {which} data cannot be computed: {error} With {shapes}. "
                "Expected loss(module(inputs), targets) to work for them."
            ) from error
        if not (isinstance(value, Tensor) and value.numel() == 1):
            got = f"values of shape {[*value.shape]}" if isinstance(value, Tensor) else repr(value)
            raise SettingError(f"Expected a loss that is one number for a minibatch, its mean; got {got}.")

    @property
    def _labelled(self) -> bool:
        """Whether the targets are classes."""
        y = self.train[1]
        return y.ndim == 1 and not y.is_floating_point()

    def _shards(self, partition: str | None, agents: int, seed: int) -> Shards:
        y, rng = self.train[1], stream(seed, Purpose.PARTITION)
        labels = y.cpu().numpy() if self._labelled else None
        text = partition or ("skew:1" if self._labelled else "iid")
        return split(text, labels, len(y), agents, rng, self.columns)

    def _hold(self, shards: Shards, batch: int, objective: str) -> None:
        self.minibatches, self.agents, self.objective = Minibatches(shards, batch), len(shards), objective
        self.weights = weights(objective, shards, len(self.train[0]))

    def split(self, partition: str | None, objective: str, seed: int) -> Self:
        """The same task with another partition (None: the same shards) and objective."""
        again = copy.copy(self)
        same = partition is None
        shards = self.minibatches.shards if same else self._shards(partition, self.agents, seed)
        again._hold(shards, self.minibatches.batch, objective)
        return again

    def like(self, other: object) -> bool:
        """Whether gradients and losses are those of the other task, whatever minibatches it draws: both are
        splits of one.
        """
        if not isinstance(other, ModuleTask) or not (shipped(self) and shipped(other)):
            return False
        if self.weights.agents is not None:
            return False
        return other.parameters is self.parameters and other.weights.agents is None

    @property
    def epoch(self) -> float:
        """Gradients that make one pass over the training data, by all agents together."""
        return self.minibatches.epoch

    def label_counts(self) -> tuple[list[str], np.ndarray]:
        """Of integer targets; see `offbeat.tasks.minibatches.label_counts`."""
        return label_counts(self.minibatches.shards, self.train[1].cpu().numpy() if self._labelled else None)

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
        named = self._named(model)
        value = self._loss(named)(functional_call(self.module, named, (x,)), y)
        if self.reg:
            value = value + self.reg * sum((part.square() / (1 + part.square())).sum() for part in model)
        if self.l2:
            value = value + self.l2 / 2 * sum(part.square().sum() for part in model)
        return value

    def _loss(self, named: Mapping[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """Of outputs and targets, at a model with these parameters."""
        return (lambda out, y: self.loss(out, y, named)) if self._sees_parameters else self.loss

    def gradients(self, agents: Sequence[int], samples: Sequence[np.ndarray], models: Parts) -> Parts:
        """torch.func.grad of the objective, for all rows."""
        device = models[0].device
        index = torch.from_numpy(np.stack(samples)).to(device)
        x, y = self._chosen(index)
        each: Callable[[Parts, Tensor, Tensor], Parts] = grad(self._objective)
        together = not self._by_row or device.type != "cpu"
        if together if self.vectorized is None else self.vectorized:
            return self.weights.scaled(agents, tuple(vmap(each)(models, x, y)))
        rows = [each(tuple(part[r] for part in models), x[r], y[r]) for r in range(len(samples))]
        return self.weights.scaled(agents, tuple(torch.stack(parts) for parts in zip(*rows, strict=True)))

    def _chosen(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of these samples, [m, batch, ...] each."""
        return self.train[0][index], self.train[1][index]

    def _held(self) -> Held:
        """The samples whose mean losses make f: weight and indices of each part; None: all."""
        if self.weights.shares is None:
            return [(1.0, None)]
        return [*zip(self.weights.shares.tolist(), map(np.asarray, self.minibatches.shards), strict=True)]

    def full_gradients(self, models: Parts) -> Parts:
        """The gradients of what `losses` evaluates, [m, P] per part: the mean over chunks of the data."""
        rows = [self._full(model) for model in zip(*models, strict=True)]
        return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))

    def _full(self, model: Parts) -> Parts:
        """The sum over the parts of the data that are judged."""
        x, each, total = self.train[0], grad(self._objective), [torch.zeros_like(part) for part in model]
        for weight, part in self._held():
            indices = torch.arange(len(x)) if part is None else torch.from_numpy(part)
            for some in torch.split(indices.to(x.device), CHUNK):
                gradients = each(model, x[some], self.train[1][some])
                for sum_, g in zip(total, gradients, strict=True):
                    sum_ += g * (weight * len(some) / len(indices))
        return tuple(total)

    @property
    def test_losses(self) -> Callable[[Parts], np.ndarray] | None:
        """The losses on the test data of each of m models, [m], without the regulariser; None without any."""
        return None if self.test is None else self._test_losses

    @torch.no_grad()
    def _test_losses(self, models: Parts) -> np.ndarray:
        assert self.test is not None
        x, y = self.test
        each = [*zip(*models, strict=True)]
        return np.array([self._mean(model, x, y, self._loss(self._named(model))) for model in each])

    @torch.no_grad()
    def losses(self, models: Parts) -> np.ndarray:
        values = []
        for model in zip(*models, strict=True):
            penalty = sum(float((part.square() / (1 + part.square())).sum()) for part in model)
            squares = sum(float(part.square().sum()) for part in model) if self.l2 else 0.0
            values.append(self._all(model) + self.reg * penalty + self.l2 / 2 * squares)
        return np.array(values)

    def _all(self, model: Parts) -> float:
        """The loss without regularisers, of the training data that are judged."""
        (x, y), loss, means = self.train, self._loss(self._named(model)), list[float]()
        weights, parts = zip(*self._held(), strict=True)
        for part in parts:
            some = slice(None) if part is None else torch.from_numpy(part).to(x.device)
            means.append(self._mean(model, x[some], y[some], loss))
        return float(np.array(weights) @ means)

    @torch.no_grad()
    def own_metrics(self, models: Parts) -> dict[str, np.ndarray]:
        """The metrics of each of m models, [m] each, by name."""
        x, y = self.train if self.test is None else self.test
        found: dict[str, list[float]] = {name: [] for name in self.metrics}
        for model in zip(*models, strict=True) if found else ():
            named = self._named(model)
            out = torch.cat([functional_call(self.module, named, (part,)) for part in torch.split(x, CHUNK)])
            for name, metric in self.metrics.items():
                found[name].append(float(metric(out, y)))
        return {name: np.array(values) for name, values in found.items()}

    @torch.no_grad()
    def accuracies(self, models: Parts) -> np.ndarray:
        if self.test is None:
            raise SettingError("There is no accuracy without test data; give the task a `test` set.")
        x, y = self.test
        return np.array([self._mean(model, x, y, _right) for model in zip(*models, strict=True)])

    def _mean(self, model: Parts, x: Tensor, y: Tensor, measure: Loss) -> float:
        """The mean of a mean over chunks of the data, so that activations fit in memory."""
        named, total = self._named(model), 0.0
        for at in range(0, len(x), CHUNK):
            x_part, y_part = x[at : at + CHUNK], y[at : at + CHUNK]
            total += float(measure(functional_call(self.module, named, (x_part,)), y_part)) * len(x_part)
        return total / len(x)


def _only(partition: str | None, skew: float | None, alpha: float | None) -> str | None:
    """The partition, by whichever argument it is given. Raises SettingError for several."""
    given = [text for text in (partition, skew is not None and f"skew:{skew}") if text]
    given += [] if alpha is None else [f"dirichlet:{alpha}"]
    if len(given) > 1:
        raise SettingError(f"Expected one partition of the data; got both {' and '.join(given)}.")
    return given[0] if given else None


def _takes_three(loss: Loss) -> bool:
    """Whether it cannot be called without a third argument, the parameters."""
    try:
        takes = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters.values()
    except (TypeError, ValueError):  # of a function that is not Python's
        return False
    needed = [
        p for p in takes if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(needed) == 3


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
