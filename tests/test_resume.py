"""Everything is killed, and the run goes on from its checkpoints: real processes, SIGKILL."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from offbeat.algorithms import find
from offbeat.errors import SettingError
from offbeat.experiment import Experiment, prepare
from offbeat.live import checkpoint
from offbeat.live.saver import Every
from offbeat.liverun import run_live
from offbeat.replaying import replayed
from offbeat.trace import EVENT_CODE, Trace

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not Path("/dev/shm").is_dir(),
    reason="needs x86-64 and /dev/shm",
)

EXPERIMENT = {"task": "quadratic", "agents": 3, "topology": "ring", "until": 500, "case": "comp-straggler"}

FIRST = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_resume import live
live({algorithm!r}, Path({folder!r}), resume=False)
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


def live(algorithm: str, folder: Path, resume: bool) -> Trace:
    prepared = prepare(Experiment(**EXPERIMENT), 0)  # type: ignore[arg-type]
    run, _ = run_live(
        prepared, EXPERIMENT, find(algorithm), 0.05, folder, 0.005, checkpoint_every=10, resume=resume
    )  # fmt: skip
    assert run.trace is not None
    return run.trace


def until(done: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)  # a poll


def kill_everything(process: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in [*map(int, children), process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def checkpointed(folder: Path, agents: int, steps: int) -> Callable[[], bool]:
    def done() -> bool:
        newest = [checkpoint.latest(folder / "checkpoints" / f"agent-{i}") for i in range(agents)]
        return all(found and found[0] >= steps for found in newest)

    return done


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd", "adpsgd", "rfast", "allreduce"])
def test_after_sigkill_of_everything_a_run_goes_on_and_its_replay_is_exact(algorithm: str, tmp_path: Path) -> None:
    code = FIRST.format(tests=str(Path(__file__).parent), algorithm=algorithm, folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code])
    until(checkpointed(tmp_path, 3, 10), process)
    kill_everything(process)
    trace = live(algorithm, tmp_path, resume=True)
    resumed = trace.events[trace.events["event"] == EVENT_CODE["resume"]]
    assert sorted(resumed["agent"].tolist()) == [0, 1, 2]
    assert trace.events["time"].max() > resumed["time"].max() + 50, "it went on"
    outcome = replayed(trace, tmp_path)
    assert outcome.same, outcome.lines
    assert "3 of 3 equal bit for bit" in " ".join(outcome.lines)


def test_a_users_script_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "offbeat", "launch", "-n", "3", "--out", "out", "--checkpoint-every", "10", "train.py",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    until(checkpointed(out, 3, 30), process)
    kill_everything(process)
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2
    assert "--resume goes on with it" in again.stderr.replace("\n", " ")
    done = subprocess.run([*command[:-1], "--resume", "train.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for i in range(3):
        assert f"agent {i}: epoch 8 at step 80" in done.stdout, "10 batches an epoch, none twice, none left out"
    trace = Trace.load(out / "trace.npz")
    assert (trace.updates() == 80).all()
    assert replayed(trace, out).same
    assert np.isin(EVENT_CODE["resume"], trace.events["event"])


def test_a_checkpoint_of_another_model_is_refused_with_the_difference(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT.replace("range(8)", "range(1)"))
    command = [sys.executable, "-m", "offbeat", "launch", "-n", "2", "--out", "out", "train.py"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    (tmp_path / "train.py").write_text(SCRIPT.replace("range(8)", "range(1)").replace("8", "9"))
    other = subprocess.run([*command[:-1], "--resume", "train.py"], cwd=tmp_path, capture_output=True, text=True)
    assert other.returncode == 1
    said = other.stdout + other.stderr
    assert "checkpoint is of another run" in said
    assert "saved" in said
    assert "Traceback" not in said


def test_how_often_is_read_before_anything_starts(tmp_path: Path) -> None:
    assert (Every.parse("500"), Every.parse("60s")) == (Every(steps=500), Every(seconds=60.0))
    for text in ("often", "0", "-1s", ""):
        with pytest.raises(SettingError, match=r"expected|Cannot read"):
            Every.parse(text)
