"""Logistic regression on an agent's share of the data, each step of a given length: with offbeat, or with DDP
and gloo.

Arguments: offbeat or ddp, and a file of settings (JSON; see `Race`). Every process reads `FOLDER/x.RANK.npy`
and `y.RANK.npy`, and writes `models.RANK.npz`: a copy of its model every tenth of a second, and when that
was.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

EVERY = 0.1
"""Seconds between copies of a model."""


@dataclass(frozen=True)
class Race:
    """wait: seconds of a step; agent `slow` needs ten times as long. reg, batch: as in
    `offbeat.tasks.Logistic`.
    """

    folder: str
    world: int
    wait: float
    seconds: float
    slow: int
    lr: float
    batch: int = 32
    reg: float = 0.001


def run(race: Race, rank: int, model: nn.Linear, whole: nn.Module, step: Callable[[], object]) -> None:
    """Train until the time is over."""
    folder = Path(race.folder)
    x, y = (torch.from_numpy(np.load(folder / f"{name}.{rank}.npy", mmap_mode="c")) for name in "xy")
    rng = torch.Generator().manual_seed(rank)
    wait = race.wait * (10 if rank == race.slow else 1)
    began = last = time.monotonic()
    times, models = [began], [flat(model)]
    try:
        while (now := time.monotonic()) < began + race.seconds:
            index = torch.randint(len(x), (race.batch,), generator=rng)
            model.zero_grad()
            logits = whole(x[index])
            time.sleep(max(0.0, now + wait - time.monotonic()))
            penalty = sum((p.square() / (1 + p.square())).sum() for p in model.parameters())
            loss: Tensor = nn.functional.cross_entropy(logits, y[index]) + race.reg * penalty
            loss.backward()  # type: ignore[no-untyped-call]
            step()
            if time.monotonic() > last + EVERY:
                last = time.monotonic()
                times.append(last)
                models.append(flat(model))
    except RuntimeError:  # DDP, when another process has ended
        pass
    np.savez(folder / f"models.{rank}.npz", times=np.array(times), models=np.stack(models))


def flat(model: nn.Linear) -> np.ndarray:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()


def linear() -> nn.Linear:
    model = nn.Linear(784, 10)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def with_offbeat(race: Race) -> None:
    import offbeat

    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=race.lr)
    agent = offbeat.join()
    agent.wrap(model, optimizer)
    run(race, agent.rank, model, model, optimizer.step)


def with_ddp(race: Race) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    rank = int(os.environ["RANK"])
    dist.init_process_group(
        "gloo", init_method=f"file://{race.folder}/store", rank=rank, world_size=race.world
    )
    model = linear()
    whole = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=race.lr)
    run(race, rank, model, whole, optimizer.step)
    os._exit(0)


if __name__ == "__main__":
    how, settings = sys.argv[1:]
    torch.set_num_threads(1)
    {"offbeat": with_offbeat, "ddp": with_ddp}[how](Race(**json.loads(Path(settings).read_text())))
