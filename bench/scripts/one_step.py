"""One agent's step with four neighbours, from the gradient to the parameters, in plain copies of its model.

Arguments: numbers of the model, repeats. The neighbours are four registers to which this process writes
between the steps, so that nobody shares the memory's bandwidth. Prints JSON: for each way the medians and
extremes of the ratios.

    rule    the gradient is a flat tensor and the rule a linear form, as in `offbeat live`
    user    the gradient lies in the parameters and the rule is torch's SGD, as in a user's script
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from paced import Wide

from offbeat.algorithms.adsgd import ADSGD, Model
from offbeat.core.rules import SGD
from offbeat.core.sums import plain
from offbeat.core.system import kernel
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.core.vector import Linear, Scope, Stamp, Vector
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.log import Log
from offbeat.engines.live.node.performer import Clock, Performer
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.shm.board import Board, Row
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.run_folder import make_run_folder
from offbeat.engines.live.shm.wire import layout_of
from offbeat.training.flat import FlatParameters
from offbeat.training.step import OptimizerRule
from offbeat.world.topology import build

NEIGHBOURS = 4
EVERYBODY = frozenset(range(NEIGHBOURS + 1))
ENGINES: dict[str, Linear] = {"plain": plain, "kernel": kernel.linear}


class Alone:
    """Agent 0 of five, and the registers of the others."""

    def __init__(self, shared: Path, numbers: int, user: bool) -> None:
        board = Board.create(shared / "board", len(EVERYBODY))
        self.model = Wide(numbers)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.flat = FlatParameters(self.model, self.optimizer)
        self.g = 1e-3 * torch.randn(numbers)
        self.model.w.grad = self.g
        x = Vector(tuple(part.clone() for part in self.flat.parts))
        self.local = OptimizerRule(self.flat, self.optimizer)
        agent, topology = ADSGD(), build("complete", len(EVERYBODY), 0)
        rule = self.local if user else SGD(0.01)
        agent.join(
            0, len(EVERYBODY), x, topology.view(0, EVERYBODY), rule, python_stream(0, Purpose.ALGORITHM, 0)
        )
        self.others = [
            Register.create(shared / f"register.{j}.1.0", layout_of(Model(x)), (0,)) for j in range(1, 5)
        ]
        board.rows[1:, Row.REGISTERS] = board.rows[1:, Row.INCARNATION] = 1
        for i in EVERYBODY:
            board.change(i, 1)
        board.begin()
        transport = Transport(shared, board, 0, 1, x.nbytes)
        self.driver = Driver(Performer(agent, transport, Log(shared / "log"), Clock()), topology)
        self.user = user
        self.driver.join()
        self.local.driver = self.driver
        self.flat.write(self.driver.start().parts)

    def publish(self, version: int) -> None:
        """Every neighbour has something new."""
        for j, register in enumerate(self.others, 1):
            with Scope():
                (placed,) = register.begin([Vector((self.g,))])
            placed.stamp = Stamp(j, version)
            now = self.driver.clock.now()
            register.finish(
                Model(placed),
                Tag(0, self.driver.transport.membership if self.driver.transport else 0, now, now),
            )

    def step(self) -> None:
        """What happens between the gradient and the next forward pass."""
        x = self.driver.step(self.local.gradient() if self.user else Vector((self.g,)))
        self.flat.write(x.parts)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(numbers: int, repeats: int, user: bool) -> dict[str, list[float]]:
    """engine -> ratio to a copy, one a repeat."""
    room = make_run_folder({})
    try:
        agent = Alone(room.path, numbers, user)
        a, b = torch.randn(numbers), torch.zeros(numbers)
        found: dict[str, list[float]] = {name: [] for name in [*ENGINES, "optimizer", "copy_ms"]}
        for k in range(-4, repeats):
            times = {}
            for name, linear in ENGINES.items():
                agent.publish(2 * k + 10 + (name == "plain"))
                agent.driver.performer.scope.linear = linear
                times[name] = seconds(agent.step)
            copy = min(seconds(lambda: b.copy_(a)) for _ in range(3))
            times["optimizer"] = seconds(agent.local._steps[0])
            if k >= 0:
                for name, value in times.items():
                    found[name].append(value / copy)
                found["copy_ms"].append(1e3 * copy)
        return found
    finally:
        room.remove()


if __name__ == "__main__":
    torch.set_num_threads(1)
    kernel.name()
    length, times = int(sys.argv[1]), int(sys.argv[2])
    print(json.dumps({way: measured(length, times, way == "user") for way in ("rule", "user")}))
