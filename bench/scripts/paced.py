"""A training loop of emulated computation: with offbeat, with torch's DDP and gloo, or without communication.

Arguments: offbeat, ddp or alone; and a file of settings (JSON; see `Pace`). Every process appends to
`FOLDER/steps.RANK.LIFE` for each step when `optimizer.step` began and ended, by the system's monotonic clock,
and the letter of the phase:

    m   with communication
    p   the optimizer's own step alone
    s   with communication, while one agent takes ten times as long

All processes go by the same clock, so they change phase together. The gradient is there when the wait is
over: it costs nothing, but that DDP needs a backward pass to hook its all-reduce to.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

STEP = np.dtype([("began", "f8"), ("ended", "f8"), ("phase", "i8")])


@dataclass(frozen=True)
class Pace:
    """numbers: of the model; wait: seconds of a computation; phases: their letters, each `length` seconds
    long.
    """

    folder: str
    numbers: int
    wait: float
    phases: str
    length: float
    seconds: float
    slow: int
    world: int


class Wide(nn.Module):
    """A model that is nothing but numbers; its gradient is given."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(numbers, generator=torch.Generator().manual_seed(0)))

    def forward(self, g: Tensor) -> Tensor:
        """A number whose gradient is g."""
        given: Tensor = Given.apply(self.w, g)  # type: ignore[no-untyped-call]
        return given


class Given(torch.autograd.Function):
    """0, with a gradient that is given."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, g: Tensor) -> Tensor:
        """0."""
        ctx.g = g
        return w.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        """As it was given, without a copy."""
        g: Tensor = ctx.g
        return g, None


def run(pace: Pace, rank: int, name: str, steps: dict[str, Callable[[], Any]]) -> None:
    """Step until the time is over: `steps` says what a step is in each phase."""
    with (Path(pace.folder) / f"steps.{rank}.{name}").open("wb", buffering=0) as file:
        end = time.monotonic() + pace.seconds
        while time.monotonic() < end:
            phase = pace.phases[int(time.monotonic() / pace.length) % len(pace.phases)]
            time.sleep(pace.wait * (10 if phase == "s" and rank == pace.slow else 1))
            began = time.monotonic()
            steps[phase]()
            file.write(np.array((began, time.monotonic(), ord(phase)), dtype=STEP).tobytes())


def with_offbeat(pace: Pace) -> None:
    import offbeat

    model = Wide(pace.numbers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    plain = optimizer.step
    model.w.grad = 1e-3 * torch.randn(pace.numbers)
    agent = offbeat.join()
    agent.wrap(model, optimizer)
    life = os.environ.get("OFFBEAT_INCARNATION", "1")
    run(pace, agent.rank, life, {"m": optimizer.step, "s": optimizer.step, "p": plain})


def with_ddp(pace: Pace) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    rank = int(os.environ["RANK"])
    dist.init_process_group(
        "gloo", init_method=f"file://{pace.folder}/store", rank=rank, world_size=pace.world
    )
    model = Wide(pace.numbers)
    whole = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    g = 1e-3 * torch.randn(pace.numbers)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        whole(g).backward()
        optimizer.step()

    with suppress(RuntimeError):  # another process has ended
        run(pace, rank, "1", {"m": step, "s": step})
    os._exit(0)


def alone(pace: Pace) -> None:
    import offbeat  # noqa: F401  (its modules take memory too, whatever the size of the model)

    rank = int(os.environ["RANK"])
    model = Wide(pace.numbers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.w.grad = 1e-3 * torch.randn(pace.numbers)
    (Path(pace.folder) / f"ready.{rank}").touch()
    while len(list(Path(pace.folder).glob("ready.*"))) < pace.world:
        time.sleep(0.01)
    run(pace, rank, "1", dict.fromkeys(pace.phases, optimizer.step))


if __name__ == "__main__":
    how, settings = sys.argv[1:]
    torch.set_num_threads(1)
    {"offbeat": with_offbeat, "ddp": with_ddp, "alone": alone}[how](
        Pace(**json.loads(Path(settings).read_text()))
    )
