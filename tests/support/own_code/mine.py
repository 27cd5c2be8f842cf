"""An algorithm of a user's, and what else a comparison can be told to load, for the tests."""

from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
from torch import nn

import offbeat
from offbeat import Agent, Vector, mix


@dataclass(frozen=True)
class Model:
    x: Vector


@dataclass
class Mine(Agent):
    """ADSGD, h times as fast."""

    h: float = 1
    heard: dict[int, Vector] = field(init=False, default_factory=dict)

    def on_message(self, src: int, message: Model) -> None:
        self.heard[src] = message.x

    def on_gradient(self, g: Vector) -> None:
        self.x = mix(self.view.w, self.heard, own=self.x) - self.h * self.rule(g)
        self.publish(self.view.listeners, Model(self.x))
        self.compute(self.x)


def make_task(agents: int, seed: int, batch: int, width: int = 2) -> offbeat.ModuleTask:
    """Two classes of 60 points; the network and the points come from the global stream."""
    x = torch.randn(60, 3)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))
    loss = nn.functional.cross_entropy
    return offbeat.ModuleTask(net, loss, (x, y), (x, y), agents, batch, seed=seed)


class Small(offbeat.Quadratic):
    """A task whose class is its factory."""

    def __init__(self, n: int) -> None:
        super().__init__(torch.arange(2.0 * n, dtype=torch.float64).view(n, 2).numpy(), torch.ones(n).numpy())


fixed = offbeat.Quadratic(torch.eye(5, dtype=torch.float64).numpy(), torch.ones(5).numpy())


def graph(n: int, seed: int, k: int = 2) -> Any:
    return nx.connected_watts_strogatz_graph(n, k, 0.5, seed=seed)


def count(at: Any) -> float:
    return float(at.updates)


def power(k: int) -> Any:
    return lambda at: at.updates**k


def wrong(at: Any) -> float:
    return 1 / 0


petersen = nx.petersen_graph()
