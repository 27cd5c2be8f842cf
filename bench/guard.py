"""What it costs to look whether gradients and models are finite: a step of SGD, looked at and not, taken in
turns.

    python bench/guard.py

One agent of a run, in this process, on one thread; medians in ms, and the middle half of the repeats in
brackets.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from offbeat.engines.live.node.enter import AgentContext
from offbeat.engines.live.node.guard import IGNORE, SKIP
from offbeat.engines.live.settings import RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import LAUNCHER, Bell, Board, Order
from offbeat.training.member import Member

MODELS = ((262_144, 8, 400), (10_000_000, 8, 60), (10_000_000, 160, 60))
"""Numbers (float32), tensors, repeats."""


def wrapped(folder: Path, numbers: int, tensors: int, on_nan: str) -> tuple[Member, Optimizer, list[Bell]]:
    """A model in a run of its own."""
    folder.mkdir()
    bells = [Bell(folder, i) for i in (LAUNCHER, 0)]
    board = Board.create(folder / "board", 1)
    board.change(0, 1)
    board.begin()
    settings = RunSettings(agents=1, folder=folder, program=ScriptProgram("complete"), on_nan=on_nan)
    member = Member(AgentContext(folder, 0, 1, os.pipe()[0], settings))
    model = nn.ParameterList([nn.Parameter(torch.randn(numbers // tensors)) for _ in range(tensors)])
    optimizer = member.wrap(model, SGD(model.parameters(), lr=1e-4))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return member, optimizer, bells


def main() -> None:
    """The table."""
    torch.set_num_threads(1)
    for numbers, tensors, repeats in MODELS:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
            both = {how: wrapped(Path(shared) / how, numbers, tensors, how) for how in (IGNORE, SKIP)}
            took: dict[str, list[float]] = {how: [] for how in both}
            for _ in range(repeats):
                for how, (_, optimizer, _) in both.items():
                    began = time.perf_counter()
                    optimizer.step()
                    took[how].append(1e3 * (time.perf_counter() - began))
            cells = []
            for how, times in took.items():
                low, middle, high = statistics.quantiles(times, n=4)
                cells.append(f"{how} {middle:.2f} [{low:.2f} - {high:.2f}]")
            print(f"{numbers:>10,} numbers in {tensors:>3} tensors: {', '.join(cells)} ms")
            for how, (member, _, _) in both.items():
                Board.attach(Path(shared) / how / "board").order = Order.END
                member._saver = None
                member.leave()


if __name__ == "__main__":
    main()
