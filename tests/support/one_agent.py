"""A run of one agent, in the process of the test."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from offbeat.engines.live.node.enter import AgentContext
from offbeat.engines.live.settings import CheckpointPolicy, RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import LAUNCHER, Bell, Board, Order
from offbeat.training import member

Join = Callable[..., member.Member]


@contextmanager
def run_of_one(folder: Path) -> Iterator[Join]:
    """What the fixture `in_a_run` is; whatever it started is ended."""
    settings = RunSettings(
        agents=1, folder=folder, program=ScriptProgram("complete"), checkpoint_every=CheckpointPolicy(1000)
    )
    bells = [Bell(folder, i) for i in (LAUNCHER, 0)]
    lifeline = os.pipe()
    board = Board.create(folder / "board", 1)
    board.change(0, 1)
    board.begin()

    def make(**more: Any) -> member.Member:
        member._joined.append(
            member.Member(AgentContext(folder, 0, 1, lifeline[0], replace(settings, **more)))
        )
        return member._joined[-1]

    yield make
    board.order = Order.END
    for agent in member._joined:
        if (driver := agent._driver) is not None:
            driver.close()
        if agent._bypass is not None:
            agent._bypass.hook.remove()
    for bell in bells:
        bell.close()
    for end in lifeline:
        os.close(end)


def batches(count: int = 12) -> Iterator[tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(5)
    for _ in range(count):
        yield torch.randn(8, 6, generator=rng), torch.randn(8, 6, generator=rng)


def equal(a: nn.Module, b: nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
