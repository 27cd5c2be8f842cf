"""Gradients of `ModuleTask`, agent by agent in a loop or all in one vmap: milliseconds a gradient, on the
CPU.

    python bench/convolution.py

Each agent has a model of its own and a minibatch of 32 random images. Loop and vmap take turns in every
repeat; one thread. Printed are medians over the repeats, the smallest and the largest, and the same of the
ratios within a repeat.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import torch
from torch import nn

from offbeat import ModuleTask

BATCH, COUNT = 32, 512
AGENTS = (1, 9, 64)


def lenet(channels: int, side: int) -> nn.Module:
    inner = (side // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * inner * inner, 120), nn.ReLU(), nn.Linear(120, 84),
        nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def wider(channels: int, side: int) -> nn.Module:
    inner = side // 4
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * inner * inner, 10),
    )  # fmt: skip


def perceptron(channels: int, side: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, 100), nn.ReLU(), nn.Linear(100, 10))


MODULES = {
    "LeNet, 1x28x28": (lenet, 1, 28),
    "LeNet, 3x32x32": (lenet, 3, 32),
    "32-64 channels, 3x32x32": (wider, 3, 32),
    "784-100-10 perceptron": (perceptron, 1, 28),
}


def tasks(name: str) -> dict[str, ModuleTask]:
    """The same module and data, evaluated in either way."""
    make, channels, side = MODULES[name]
    source = torch.Generator().manual_seed(0)
    x = torch.randn((COUNT, channels, side, side), generator=source)
    y = torch.randint(10, (COUNT,), generator=source)
    torch.manual_seed(0)
    module = make(channels, side)
    loss, shards = nn.functional.cross_entropy, np.zeros((1, 1), np.int64)
    return {
        way: ModuleTask(module, loss, (x, y), batch=BATCH, shards=shards, vectorized=way == "vmap")
        for way in ("loop", "vmap")
    }


def shown(values: list[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f} - {max(values):.2f}]"


def measure(name: str, m: int, repeats: int) -> None:
    both = tasks(name)
    rng = np.random.default_rng(0)
    (start,) = both["loop"].initial()
    models = start.repeat(m, 1)
    took: dict[str, list[float]] = {way: [] for way in both}
    calls = max(1, 9 // m)
    for repeat in range(repeats + 1):  # the first one only warms up
        for way, task in both.items():
            began = time.perf_counter()
            for _ in range(calls):
                task.gradients(range(m), list(rng.integers(0, COUNT, (m, BATCH))), (models,))
            if repeat:
                took[way].append(1000 * (time.perf_counter() - began) / (m * calls))
    ratios = [a / b for a, b in zip(took["vmap"], took["loop"], strict=True)]
    print(f"| {name} | {m} | {shown(took['loop'])} | {shown(took['vmap'])} | {shown(ratios)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    repeats: int = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(
        "| module | agents | loop, ms a gradient | vmap, ms a gradient | vmap over loop "
        "|\n|---|---|---|---|---|"
    )
    for name in MODULES:
        for m in AGENTS:
            measure(name, m, repeats)


if __name__ == "__main__":
    main()
