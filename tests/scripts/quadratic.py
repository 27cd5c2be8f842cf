"""A user's script: quadratics f_i(x) = h_i/2 ||x - b_i||^2 without noise, until a file appears or so many steps are done.

    offbeat launch -n 4 quadratic.py STEP FILE [ALGORITHM [SECONDS]]

SECONDS: how long agent 0 takes for a gradient; agent i takes i + 1 times as long. 0: all as fast as they can.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

import offbeat


def quadratic(n: int) -> tuple[np.ndarray, np.ndarray]:
    """b [n, 3] and h [n]."""
    rng = np.random.default_rng(5)
    return rng.normal(size=(n, 3)), rng.uniform(0.5, 2.0, n)


def train(lr: float, end: Path, seconds: float) -> None:
    agent = offbeat.join()
    b, h = quadratic(agent.world)
    mine, curvature = torch.from_numpy(b[agent.rank]), float(h[agent.rank])
    model = torch.nn.Module()
    model.x = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=lr))
    while not end.exists():
        model.x.grad = curvature * (model.x.detach() - mine)
        optimizer.step()
        if seconds:
            time.sleep(seconds * (agent.rank + 1))
    print("agent", agent.rank, "made", agent.steps, "steps")


if __name__ == "__main__":
    train(float(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
