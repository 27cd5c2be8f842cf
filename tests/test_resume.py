"""Everything is killed, and the run goes on from its checkpoints: real processes, SIGKILL."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from warm import Started, finished, needs_shared_memory, start, until

from offbeat.errors import SettingError
from offbeat.live import checkpoint
from offbeat.live.saver import Every
from offbeat.replaying import replayed
from offbeat.trace import EVENT_CODE, Trace

pytestmark = needs_shared_memory

EXPERIMENT = {"task": "quadratic", "agents": 3, "topology": "ring", "until": 500, "case": "comp-straggler"}

RUN = """
from pathlib import Path
from offbeat.algorithms import find
from offbeat.experiment import Experiment, prepare
from offbeat.liverun import run_live
experiment = {experiment!r}
prepared = prepare(Experiment(**experiment), 0)
run_live(prepared, experiment, find({algorithm!r}), 0.05, Path("."), 0.005, checkpoint_every=10, resume={resume})
raise SystemExit(0)
"""

SCRIPT = """
import sys
import time
import torch
import offbeat

torch.manual_seed(3)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
agent = offbeat.join()
optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
data = torch.utils.data.TensorDataset(torch.randn(120, 4), torch.randn(120, 2))
loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
for epoch in range(8):
    for x, y in agent.shard(loader):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        time.sleep(0.02)
    print(f"agent {agent.rank}: epoch {agent.shard(loader).epoch} at step {agent.steps}")
"""


def kill_everything(run: Started) -> None:
    for pid in [*run.agents, run.pid]:
        os.kill(pid, signal.SIGKILL)
    run.wait()


def checkpointed(folder: Path, agents: int, steps: int) -> Callable[[], bool]:
    def done() -> bool:
        newest = [checkpoint.latest(folder / "checkpoints" / f"agent-{i}") for i in range(agents)]
        return all(found and found[0] >= steps for found in newest)

    return done


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd", "adpsgd", "rfast", "allreduce"])
def test_after_sigkill_of_everything_a_run_goes_on_and_its_replay_is_exact(algorithm: str, tmp_path: Path) -> None:
    about = {"experiment": EXPERIMENT, "algorithm": algorithm}
    run = start(tmp_path, setup=RUN.format(resume=False, **about))
    until(checkpointed(tmp_path, 3, 10))
    kill_everything(run)
    assert finished(tmp_path, setup=RUN.format(resume=True, **about)).code == 0
    trace = Trace.load(tmp_path / "trace.npz")
    resumed = trace.events[trace.events["event"] == EVENT_CODE["resume"]]
    assert sorted(resumed["agent"].tolist()) == [0, 1, 2]
    assert trace.events["time"].max() > resumed["time"].max() + 50, "it went on"
    outcome = replayed(trace, tmp_path)
    assert outcome.same, outcome.lines
    assert "3 of 3 equal bit for bit" in " ".join(outcome.lines)


def test_a_users_script_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["launch", "-n", "3", "--out", "out", "--checkpoint-every", "10"]
    run = start(tmp_path, *command, "train.py", script=SCRIPT)
    until(checkpointed(out, 3, 30))
    kill_everything(run)
    again = finished(tmp_path, *command, "train.py")
    assert again.code == 2
    assert "--resume goes on with it" in again.complained
    done = finished(tmp_path, *command, "--resume", "train.py")
    assert done.code == 0, done.said + done.complained
    for i in range(3):
        assert f"agent {i}: epoch 8 at step 80" in done.said, "10 batches an epoch, none twice, none left out"
    trace = Trace.load(out / "trace.npz")
    assert (trace.updates() == 80).all()
    assert replayed(trace, out).same
    assert np.isin(EVENT_CODE["resume"], trace.events["event"])


def test_a_checkpoint_of_another_model_or_world_is_refused_with_the_difference(tmp_path: Path) -> None:
    short = SCRIPT.replace("range(8)", "range(1)")
    command = ["launch", "-n", "2", "--out", "out"]
    first = finished(tmp_path, *command, "train.py", script=short)
    assert first.code == 0, first.said + first.complained
    other = finished(tmp_path, *command, "--resume", "train.py", script=short.replace("8", "9"))
    assert other.code == 1
    assert "checkpoint is of another run" in other.said + other.complained
    assert "saved" in other.said + other.complained
    more = ["launch", "-n", "3", "--out", "out", "--resume", "train.py"]
    other = finished(tmp_path, *more, script=short)
    assert other.code == 1
    assert "agents: saved 2, now 3" in other.said + other.complained


def test_how_often_is_read_before_anything_starts(tmp_path: Path) -> None:
    assert (Every.parse("500"), Every.parse("60s")) == (Every(steps=500), Every(seconds=60.0))
    for text in ("often", "0", "-1s", ""):
        with pytest.raises(SettingError, match=r"expected|Cannot read"):
            Every.parse(text)
