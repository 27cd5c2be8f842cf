"""The same run on the CPU and elsewhere."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from runs import quadratic
from setups import TABLES
from torch import nn

import offbeat
from offbeat import ModuleTask, tasks
from offbeat.results.run import Run
from offbeat.tasks.task import Task

EVERY = "adsgd,adpsgd,adpsgd:atomic,rfast,dsgd,dsgd:after,allreduce"


def network(convolves: bool = False) -> ModuleTask:
    torch.manual_seed(0)
    x, y = torch.randn(90, 1, 4, 4), torch.randint(3, (90,))
    first = [nn.Conv2d(1, 2, 3), nn.Flatten()] if convolves else [nn.Flatten()]
    net = nn.Sequential(*first, nn.Linear(8 if convolves else 16, 5), nn.Tanh(), nn.Linear(5, 3))
    return ModuleTask(net, nn.functional.cross_entropy, (x, y), (x, y), agents=4, batch=4, reg=0.01)


TASKS: dict[str, Callable[[], Task]] = {
    "logistic": lambda: tasks.build("digits", 4, 0),
    "quadratic": lambda: quadratic(4, noise=0.1),
    "exact quadratic": lambda: quadratic(4),
    "perceptron": network,
    "convolution": lambda: network(convolves=True),
}


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def agree(here: Run, there: Run) -> None:
    """The same trace, models to rounding, and these on the CPU."""
    assert here.trace is not None and there.trace is not None
    for each in TABLES:
        assert getattr(here.trace, each).tobytes() == getattr(there.trace, each).tobytes(), each
    for a, b in zip(here.models, there.models, strict=True):
        assert b.device.type == "cpu"
        assert close(a, b)
    assert there.curve.loss == pytest.approx(here.curve.loss, rel=1e-4, abs=1e-6)
    assert there.curve.consensus == pytest.approx(here.curve.consensus, rel=1e-4, abs=1e-6)


def on_both(name: str, algorithms: str, **settings: Any) -> None:
    settings = {"eval_every": settings["until"] / 3} | settings
    here, there = (offbeat.compare(algorithms, **settings, device=each).runs for each in ("cpu", name))
    for a, b in zip(here, there, strict=True):
        assert (a.settings["device"], b.settings["device"]) == ("cpu", name)
        agree(a, b)
