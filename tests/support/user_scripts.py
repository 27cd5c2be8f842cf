"""Scripts as users write them: those of examples/, and one that goes on until a killed agent is back."""

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file
from warm import finished

EXAMPLES = Path(__file__).parents[2] / "examples"

UNTIL_BACK = """
import os, time
from pathlib import Path
import torch
import offbeat

agent = offbeat.join()
model = torch.nn.Linear(3, 3)
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.05))
before, done, end = agent.steps, Path("done"), time.monotonic() + 60
while not done.exists() and time.monotonic() < end:
    optimizer.zero_grad()
    model(torch.ones(3)).square().sum().backward()
    optimizer.step()
    time.sleep(0.004)
    if os.environ["OFFBEAT_INCARNATION"] == "2" and agent.steps > before + 50:
        done.touch()
"""
"""Until the agent that was killed has made fifty steps in its second life."""

ENOUGH = """
from offbeat.engines.live.launcher import launch
from offbeat.engines.live.shm.board import Order, Row

look = launch.Launcher._look

def enough(self):
    look(self)
    made = self.board.rows[:, Row.STEPS] - self.steps_before
    killed = {{each.agent for each in self.settings.fault if each.kind == "kill"}}
    back = all(self.restarts[i] for i in killed) and not self.again
    if back and self.board.order is Order.RUN and (made >= {steps}).all():
        self._stop()

launch.Launcher._look, launch.TICK = enough, 0.01
"""
"""A setup with which a run ends as soon as all, those that were killed too, have made so many steps in their
newest life: however busy the machine is, they are back, and nobody waits for a time to be over.
"""

COUNTED = """
import time
import torch
import offbeat

torch.manual_seed(0)
agent = offbeat.join()
model = torch.nn.Linear(3, 3)
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.05))
for _ in range(12):
    optimizer.zero_grad()
    (model(torch.ones(3)) - agent.rank).square().sum().backward()
    optimizer.step()
    time.sleep(0.003 * (agent.world - agent.rank))
"""
"""Twelve steps; agent 0 is the slowest."""


def example(name: str) -> ModuleType:
    return loaded(EXAMPLES / f"{name}.py")


def gives_a_better_model(folder: Path, script: Path) -> None:
    """The export of the run in `folder`/out has at most nine tenths of the loss at the start."""
    exported = finished(folder, "export", "out")
    assert exported.code == 0, exported.complained
    names: dict[str, Any] = runpy.run_path(str(script))
    model = names["build"]()
    before = names["held_out_loss"](model)
    model.load_state_dict(load_file(folder / "out" / "model.safetensors"))
    after = names["held_out_loss"](model)
    print(script.stem, before, after)
    assert after < 0.9 * before


def loaded(file: Path) -> ModuleType:
    """The module in this file."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module
