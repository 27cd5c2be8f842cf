"""Everything is killed, and the run goes on from its checkpoints: real processes, SIGKILL."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import save
from warm import Started, finished, needs_shared_memory, start, until

from offbeat.core.errors import SettingError
from offbeat.engines.events import Resumed, rows_of
from offbeat.engines.live.launcher.outfolder import begun, refuse_used
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.settings import CheckpointPolicy
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed

pytestmark = needs_shared_memory

EXPERIMENT = {"task": "quadratic", "agents": 3, "topology": "ring", "until": 300, "case": "comp-straggler"}

RUN = """
from pathlib import Path
from offbeat.algorithms import find
from offbeat.engines.live.settings import CheckpointPolicy, ExperimentProgram, RunSettings
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.live.running import LiveRun
from offbeat.experiments.setup import prepare
experiment = {experiment!r}
settings = RunSettings(
    agents=3, folder=Path("."), program=ExperimentProgram(experiment, 0.05), algorithm={algorithm!r},
    unit=0.005,
    checkpoint_every=CheckpointPolicy(10), resume={resume},
)
LiveRun(prepare(Experiment(**experiment), 0), find({algorithm!r}), settings).run()
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
for epoch in agent.epochs(8):
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


STEPS = {
    "dsgd": {"optimizer": "momentum"},
    "adpsgd": {"optimizer": "nesterov", "schedule": "warmup:20+cosine"},
    "rfast": {"optimizer": "adamw", "schedule": "step:30+factor=0.9+by=steps"},
}
"""What a rule keeps is saved and restored too: without it the replay would give other models."""


@pytest.mark.parametrize("algorithm", STEPS)
def test_after_sigkill_of_everything_a_run_goes_on_and_its_replay_is_exact(
    algorithm: str, tmp_path: Path
) -> None:
    about = {"experiment": EXPERIMENT | STEPS[algorithm], "algorithm": algorithm}
    run = start(tmp_path, setup=RUN.format(resume=False, **about))
    until(checkpointed(tmp_path, 3, 10))
    kill_everything(run)
    assert finished(tmp_path, setup=RUN.format(resume=True, **about)).code == 0
    trace = Trace.load(tmp_path / "trace.npz")
    resumed = rows_of(trace.events, Resumed)
    assert sorted(resumed["agent"].tolist()) == [0, 1, 2]
    assert trace.events["time"].max() > resumed["time"].max() + 50, "it went on"
    outcome = replayed(trace, tmp_path)
    assert outcome.same, outcome.lines
    assert "3 of 3 equal bit for bit" in " ".join(outcome.lines)


def test_files_of_the_world_are_found_from_another_folder(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "links.csv").write_text("0,1,0.1\n")
    (here / "rtt.csv").write_text("0,1\n1,0\n")
    (here / "speeds.csv").write_text("speed\n1\n2\n")
    links = ["--bandwidth", "file:links.csv", "--latency", "rtt:rtt.csv mean 0.5"]
    delays = ["--speeds", "file:speeds.csv:speed", "--compute", "file speeds.csv:1"]
    words = "live --out out --task quadratic --agents 2 --unit 2ms --until 10 --json a.json"
    first = finished(here, *words.split(), *links, *delays)
    assert first.code == 0, first.complained
    again = finished(there, "live", "--resume", "--out", "../here/out", "--json", "b.json")
    assert again.code == 0, again.complained
    assert (here / "a.json").read_bytes() == (there / "b.json").read_bytes()
    said = json.loads((there / "b.json").read_bytes())["runs"][0]["settings"]
    assert said["latency"] == f"rtt:{here}/rtt.csv mean 0.5"


WORDS = "live --out out --task quadratic --agents 3 --lr 0.05 --unit 5ms --until 200 --case comp-straggler"
LIVE = WORDS.split()
FIRST, SECOND = "adsgd-lr0.05", "dsgd-lr0.05"


def test_a_series_goes_on_where_it_was(tmp_path: Path) -> None:
    """Of three runs one has ended, one is interrupted, one has not begun. Nothing but the folder is named
    again.
    """
    out = tmp_path / "out"
    names = "adsgd,dsgd,rfast"
    run = start(
        tmp_path, *LIVE, "--algorithms", names, "--checkpoint-every", "5", "--fault", "slow agent 1 by 2"
    )
    until(checkpointed(out / SECOND, 3, 10))
    kill_everything(run)
    before, seen = (out / FIRST / "trace.npz").read_bytes(), (out / SECOND / "looks").read_bytes()
    again = finished(tmp_path, *LIVE, "--algorithms", names)
    assert again.code == 2
    assert "out holds a run already: --resume goes on with it" in again.complained
    done = finished(tmp_path, "live", "--resume", "--out", "out", "--json", "a.json")
    assert done.code == 0, done.complained
    assert f"{FIRST} (1 of 3) has ended, and is taken as it is" in done.complained
    assert f"{SECOND} (2 of 3) goes on from its checkpoints" in done.complained
    assert (out / FIRST / "trace.npz").read_bytes() == before
    trace = Trace.load(out / SECOND / "trace.npz")
    resumed = rows_of(trace.events, Resumed)
    assert sorted(resumed["agent"].tolist()) == [0, 1, 2]
    assert trace.settings["faults"] == ["slow agent 1 by 2"]
    assert replayed(trace, out / SECOND).same
    assert not len(rows_of(Trace.load(next(out.glob("rfast-*/trace.npz"))).events, Resumed))
    first, second, third = json.loads((tmp_path / "a.json").read_text())["runs"]
    for each in (first, second, third):
        assert each["curve"]["time"][-1] > 190
        assert each["curve"]["updates"] == sorted(each["curve"]["updates"])
    assert (out / SECOND / "looks").read_bytes().startswith(seen), "the curve before is the one that was seen"
    assert finished(tmp_path, "live", "--resume", "--out", "out", "--json", "b.json").code == 0
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes(), (
        "all are taken as they are"
    )
    (out / FIRST / "looks").write_bytes(b"")
    broken = finished(tmp_path, "live", "--resume", "--out", "out")
    assert broken.code == 2
    assert f"remove {out / FIRST}, and --resume makes it anew" in broken.complained.replace("out/", f"{out}/")


@pytest.mark.parametrize("algorithm", ["adsgd", "allreduce"])
def test_after_ctrl_c_it_says_how_to_go_on_and_does(algorithm: str, tmp_path: Path) -> None:
    """Every agent that does not wait for others saves when it is asked to stop."""
    out = tmp_path / "out"
    run = start(tmp_path, *LIVE, "--algorithms", algorithm, "--checkpoint-every", "4")
    until(lambda: any(out.glob("*-lr*")))
    (where,) = out.glob("*-lr*")
    until(checkpointed(where, 3, 4))
    run.kill(signal.SIGINT)
    assert run.wait() == 128 + signal.SIGINT
    assert "To go on: offbeat live --resume --out out" in run.complained
    stopped = Trace.load(where / "trace.npz")
    done = finished(tmp_path, "live", "--resume", "--out", "out")
    assert done.code == 0, done.complained
    trace = Trace.load(where / "trace.npz")
    assert trace.updates().min() > stopped.updates().min()
    assert sorted(rows_of(trace.events, Resumed)["agent"].tolist()) == [0, 1, 2]
    if algorithm == "adsgd":
        assert trace.writes["step"].tolist().count(1) == 3
        for i in range(3):
            steps = trace.writes[trace.writes["agent"] == i]["step"]
            assert (np.diff(steps) == 1).all(), "no step was lost"
    assert replayed(trace, where).same


def test_what_cannot_go_on_is_refused_with_what_to_do(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = start(tmp_path, *LIVE, "--algorithms", "adsgd")
    until(lambda: begun(out / FIRST))
    run.kill(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    why = f"The run in out/{FIRST} was interrupted without a checkpoint, so it cannot go on."
    assert why in run.complained
    resume = ["live", "--resume", "--out", "out"]
    refused = finished(tmp_path, *resume)
    assert refused.code == 2
    assert f"{why} Remove it, and --resume --checkpoint-every 100 runs it anew." in refused.complained
    save(out / FIRST / "checkpoints" / "agent-0", 4, {}, {})
    assert "interrupted before agent 1 had saved a checkpoint, so" in finished(tmp_path, *resume).complained
    kept = sorted(path.stat().st_mtime_ns for path in out.rglob("*"))
    other = finished(
        tmp_path, *resume, "--topology", "complete", "--algorithms", "dsgd", "--unit", "3ms", "--agents", "3"
    )
    assert other.code == 2
    for said in (
        "topology: saved 'ring', now 'complete'",
        "algorithms: saved ['adsgd'], now ['dsgd']",
        "unit: saved 0.005, now 0.003",
    ):
        assert said in other.complained
    assert "agents" not in other.complained
    assert sorted(path.stat().st_mtime_ns for path in out.rglob("*")) == kept, "nothing was started"
    shutil.rmtree(out / FIRST)
    assert finished(tmp_path, *resume, "--checkpoint-every", "10").code == 0
    assert checkpoint.latest(out / FIRST / "checkpoints" / "agent-0")


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    for command in (["live", "--resume"], ["launch", "--resume", "-m", "train"]):
        assert "name its folder with --out" in finished(tmp_path, *command).complained
    nowhere = finished(tmp_path, "live", "--resume", "--out", "nowhere")
    assert nowhere.code == 2
    assert "nowhere holds no run of offbeat live that could go on" in nowhere.complained
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "live.json").write_text("{}")
    assert "live.json cannot be read" in finished(tmp_path, "live", "--resume", "--out", ".").complained


LATE = """
import os, time
from pathlib import Path
import offbeat.experiments.live.program
from offbeat.engines.live.shm.board import Board, Order

prepare = offbeat.experiments.live.program.prepare

def late(experiment, seed):
    board, end = Board.attach(Path(os.environ["OFFBEAT_RUN"]) / "board"), time.monotonic() + 60
    while board.order < Order.STOP and time.monotonic() < end:
        time.sleep(0.002)
    return prepare(experiment, seed)

offbeat.experiments.live.program.prepare = late
"""
"""Agents get ready only when the run is to end."""


def test_an_interruption_before_the_clock_begins_leaves_nothing_behind(tmp_path: Path) -> None:
    run = start(tmp_path, *LIVE, "--algorithms", "adsgd", setup=LATE)
    until(lambda: len(run.agents) == 3)
    run.kill(signal.SIGINT)
    assert run.wait() == 128 + signal.SIGINT
    assert run.complained.endswith("To go on: offbeat live --resume --out out")
    assert finished(tmp_path, "live", "--resume", "--out", "out").code == 0
    assert not len(rows_of(Trace.load(tmp_path / "out" / FIRST / "trace.npz").events, Resumed))


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
    assert len(rows_of(trace.events, Resumed))


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those that keep output."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log"
    }


def test_a_resumption_of_another_model_or_world_is_refused_with_the_difference_and_changes_nothing(
    tmp_path: Path,
) -> None:
    short = SCRIPT.replace("epochs(8)", "epochs(1)")
    command = ["launch", "-n", "2", "--out", "out"]
    first = finished(tmp_path, *command, "train.py", script=short)
    assert first.code == 0, first.said + first.complained
    before = contents(tmp_path / "out")
    other = finished(tmp_path, *command, "--resume", "train.py", script=short.replace("8", "9"))
    assert other.code == 1
    assert "checkpoint is of another run" in other.complained
    assert "model.0.weight: saved 'torch.float32 [8, 4]', now 'torch.float32 [9, 4]'" in other.complained
    words = ["launch", "-n", "3", "--out", "out", "--algorithm", "allreduce", "--resume"]
    more = finished(tmp_path, *words, "train.py", script=short)
    assert more.code == 2
    assert "allreduce cannot go on without any one" in more.complained
    nowhere = finished(tmp_path, *command[:-1], "uot", "--resume", "train.py")
    assert nowhere.code == 2
    assert "uot holds no run of offbeat launch that could go on" in nowhere.complained
    assert not (tmp_path / "uot").exists()
    assert contents(tmp_path / "out") == before
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "agent-1")
    cannot = finished(tmp_path, *command, "--resume", "train.py")
    assert cannot.code == 2
    assert "before agent 1 had saved a checkpoint, so it cannot go on. Start a new one" in cannot.complained


REFUSED = (
    "from offbeat.experiments.live import program\nprogram.agent_context = lambda: program.find('nothing')"
)


@pytest.mark.parametrize(
    "command",
    [
        "launch -n 2 train.py",
        "launch -n 2 --out a/b train.py",
        "launch -n 2 --out there --tensorboard train.py/board train.py",
        "launch -n 2 --out there train.py",
        "live --task quadratic --agents 2 --out a/b",
        "live --task quadratic --agents 2",
    ],
)
def test_a_run_that_makes_no_step_leaves_nothing_behind(command: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "agent-0.log").write_text("something else")
    script = "import offbeat\nagent = offbeat.join()\nraise ValueError('no')"
    done = finished(tmp_path, *command.split(), script=script, setup=REFUSED)
    assert done.code in (1, 2)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"train.py", "stdout", "stderr", "there", "there/agent-0.log"}, done.complained


def test_how_often_is_read_before_anything_starts(tmp_path: Path) -> None:
    assert (CheckpointPolicy.parse("500"), CheckpointPolicy.parse("60s")) == (
        CheckpointPolicy(steps=500),
        CheckpointPolicy(seconds=60.0),
    )
    for text in ("often", "-1", "-1s", "0s", ""):
        with pytest.raises(SettingError, match=r"expected|Cannot read"):
            CheckpointPolicy.parse(text)


def test_no_run_lies_in_another(tmp_path: Path) -> None:
    run, free = tmp_path / "run", tmp_path / "free"
    saved = run / "checkpoints" / "agent-0" / "step-000000004.safetensors"
    for path in (
        saved,
        run / "agent-0.trace",
        free / "tb" / "events",
        free / "agent-0" / "mine",
        free / "log",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for inner in ("checkpoints", "checkpoints/agent-0", "agent-1", "a/new/one"):
        with pytest.raises(SettingError, match=f"lies in {run}, the folder of a run"):
            refuse_used(run / inner)
    refuse_used(free)
    saved.parent.rename(free / "moved")
    with pytest.raises(SettingError, match=r"another run \(moved/step-000000004\.saf"):
        refuse_used(free)
