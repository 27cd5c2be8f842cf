"""Real processes: every algorithm reaches its limit; agents are killed and stopped; scripts go wrong."""

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from difflib import ndiff
from pathlib import Path
from random import Random

import numpy as np
import pytest
from data_files import small_set, write
from typer.testing import CliRunner
from user_scripts import EXAMPLES, UNTIL_BACK
from warm import Started, alive, finished, needs_shared_memory, plant, start, until

from offbeat.cli.commands import app
from offbeat.core.errors import DataError, SettingError
from offbeat.core.system import files
from offbeat.core.system.signals import readable
from offbeat.engines.events import Rejoined, rows_of
from offbeat.engines.live.launcher import children, resuming
from offbeat.engines.live.launcher.outfolder import Present
from offbeat.engines.live.members import Stage
from offbeat.engines.live.node.log import merged
from offbeat.engines.live.shm.run_folder import PREFIX, SHARED
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed
from offbeat.training import child
from offbeat.world.topology import build

pytestmark = needs_shared_memory


DRILLS = int(os.environ.get("OFFBEAT_DRILL", "2"))

QUADRATIC = """
import sys, time
from pathlib import Path
import numpy as np, torch
import offbeat

steps, lr = int(sys.argv[1]), float(sys.argv[2])
agent = offbeat.join()
rng = np.random.default_rng(0)
b, h = rng.normal(size=(agent.world, 3)), rng.uniform(0.5, 2.0, agent.world)
x = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
model = torch.nn.Module()
model.x = x
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=lr))
mine, end, last = torch.from_numpy(b[agent.rank]), time.monotonic() + 60, []


def all_are(what, me):
    if me:
        Path(f"{what}-{agent.rank}").touch()
    return len([*Path().glob(f"{what}-*")]) == agent.world


try:
    while not (last and all_are("done", last)) and time.monotonic() < end:
        optimizer.zero_grad()
        (h[agent.rank] / 2 * (x - mine).square().sum()).backward()
        optimizer.step()
        time.sleep(0.0005 * (1 + agent.rank))
        if not last and agent.steps >= steps and all_are("there", True):
            last = x.tolist()
finally:
    print("limit", agent.rank, *last)
"""
"""Until all have made so many steps; where each is then, it says, and nobody leaves before all have
looked."""


def launch(folder: Path, *arguments: str, script: str = QUADRATIC) -> Started:
    return finished(folder, "launch", "--out", "out", *arguments, script=script)


def limits(n: int, topology: str, lr: float, mixing: bool) -> np.ndarray:
    """Where it ends: x = W x - lr H (x - b) for ADSGD and DSGD, the optimum of the sum for the others."""
    rng = np.random.default_rng(0)
    b, h = rng.normal(size=(n, 3)), rng.uniform(0.5, 2.0, n)
    if not mixing:
        return np.tile(h @ b / h.sum(), (n, 1))
    w = build(topology, n).dense_w()
    fixed: np.ndarray = np.linalg.solve(np.eye(n) - w + lr * np.diag(h), lr * h[:, None] * b)
    return fixed


@pytest.mark.parametrize("algorithm", ["adsgd", "rfast"])
def test_a_users_script_reaches_its_limit_and_its_schedule_can_be_replayed(
    algorithm: str, tmp_path: Path
) -> None:
    """Unequal speeds, no noise."""
    done = launch(tmp_path, "-n", "4", "--algorithm", algorithm, "train.py", "480", "0.1")
    assert done.code == 0, done.said + done.complained
    said = [line.split()[2:] for line in done.said.splitlines() if " limit " in line]
    reached = np.array(
        [list(map(float, words[1:])) for words in sorted(said, key=lambda words: int(words[0]))]
    )
    assert reached.shape == (4, 3)
    expected = limits(4, "ring", 0.1, mixing="sgd" in algorithm)
    np.testing.assert_allclose(reached, expected, atol=1e-4)
    trace = Trace.load(tmp_path / "out" / "trace.npz")
    assert replayed(trace).same
    waited = [
        line
        for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
        if '"waited": 0.0' in line
    ]
    assert waited


@pytest.mark.parametrize("seed", range(DRILLS))
def test_agents_are_killed_at_random_and_nobody_else_is_lost(seed: int, tmp_path: Path) -> None:
    rng = Random(seed)
    algorithm = ("adsgd", "dsgd", "adpsgd", "rfast")[seed % 4]
    victim, step = rng.randrange(4), rng.randrange(1, 200)
    print(f"seed {seed}: {algorithm}, agent {victim} at step {step}")
    fault = f"kill agent {victim} at step {step}"
    done = launch(
        tmp_path, "-n", "4", "--algorithm", algorithm, "--fault", fault, "train.py", script=UNTIL_BACK
    )
    assert done.code == 0, done.said + done.complained
    assert f"[{victim}] died (killed by SIGKILL); restart 1 of 3 in 0 s" in done.said
    trace = Trace.load(tmp_path / "out" / "trace.npz")
    returns = rows_of(trace.events, Rejoined)
    assert returns["agent"].tolist() == [victim]
    back = float(returns["time"][0])
    its = trace.writes[trace.writes["agent"] == victim]["time"]
    assert (its > back).sum() > 10, "it contributes again"
    for i in range(4):
        assert (trace.writes[trace.writes["agent"] == i]["time"] > back).any(), f"agent {i} was lost"
    assert replayed(trace).same


TWO_DEATHS = """
import os, signal, time
from pathlib import Path
import torch
import offbeat

def die(name):
    Path(name).touch()
    os.kill(os.getpid(), signal.SIGKILL)

def until(condition, end=time.monotonic() + 50):
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)

life, me = int(os.environ["OFFBEAT_INCARNATION"]), int(os.environ["OFFBEAT_RANK"])
if life == 2:
    until(Path("two" if me == 1 else "back").exists)
agent = offbeat.join()
model = torch.nn.Linear(3, 3)
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.05))
before, end = agent.steps, time.monotonic() + 60
while not Path("done").exists() and time.monotonic() < end:
    optimizer.zero_grad()
    model(torch.ones(3)).square().sum().backward()
    optimizer.step()
    time.sleep(0.002)
    if life == 1 and me == 1 and agent.steps > 20:
        die("one")
    if life == 1 and me == 2 and Path("one").exists() and 1 not in agent._driver.alive:
        die("two")
    if life == 2:
        Path("back" if me == 1 else "there").touch()
        if me == 2 and agent.steps > before + 50:
            Path("done").touch()
"""
"""Agent 2 dies while agent 1 is dead, and comes back when that one is back."""


@pytest.mark.parametrize("algorithm", ["adpsgd", "rfast"])
def test_who_comes_back_after_two_deaths_meets_who_came_back_before_and_so_does_the_replay(
    algorithm: str, tmp_path: Path
) -> None:
    done = launch(tmp_path, "-n", "3", "--algorithm", algorithm, "train.py", script=TWO_DEATHS)
    assert done.code == 0, done.said + done.complained
    assert (tmp_path / "there").exists()
    assert replayed(Trace.load(tmp_path / "out" / "trace.npz")).same


ALL_DONE = """
import os, signal, time
from pathlib import Path
import torch
import offbeat

life, me = int(os.environ["OFFBEAT_INCARNATION"]), int(os.environ["OFFBEAT_RANK"])
torch.manual_seed(0)
while life == 2 and not Path("done").exists():
    time.sleep(0.01)
agent = offbeat.join()
model = torch.nn.Linear(1, 1, bias=False)
with torch.no_grad():
    model.weight.fill_(100.0)
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
while agent.steps < 60:
    optimizer.zero_grad()
    model(torch.ones(1)).square().sum().backward()
    optimizer.step()
    if life == 2:
        Path("first").write_text(str(abs(model.weight.item())))
        break
    if me == 1 and agent.steps > 5:
        os.kill(os.getpid(), signal.SIGKILL)
Path("done").touch()
"""
"""Agent 1 dies at once, and is back when agent 0 is done."""


def test_who_comes_back_when_the_others_are_done_goes_on_from_their_model(tmp_path: Path) -> None:
    done = launch(tmp_path, "-n", "2", "train.py", script=ALL_DONE)
    assert done.code == 0, done.said + done.complained
    assert float((tmp_path / "first").read_text()) < 20, "it began anew, from 100"
    assert replayed(Trace.load(tmp_path / "out" / "trace.npz")).same


def test_a_survivor_does_not_pause_when_a_neighbour_is_killed_or_stopped(tmp_path: Path) -> None:
    """ADSGD: the others go on while one is stopped for long, however slowly if the machine is busy."""
    faults = ["--fault", "kill agent 0 at step 50", "--fault", "stop agent 2 for 1 s at step 50"]
    done = launch(tmp_path, "-n", "4", *faults, "train.py", script=UNTIL_BACK)
    assert done.code == 0, done.said + done.complained
    trace = Trace.load(tmp_path / "out" / "trace.npz")
    assert rows_of(trace.events, Rejoined)["agent"].tolist() == [0]
    times = {i: trace.writes[trace.writes["agent"] == i]["time"] for i in range(4)}
    longest = int(np.diff(times[2]).argmax())
    began, ended = times[2][longest], times[2][longest + 1]
    assert ended - began > 0.95, "it was stopped"
    for i in (1, 3):
        assert ((began < times[i]) & (times[i] < ended)).sum() > 5, "nobody waited for it"
    assert replayed(trace).same


def test_when_the_launcher_is_killed_the_agents_end_and_the_next_launch_sweeps(tmp_path: Path) -> None:
    """One of them is stopped, so it could not notice by itself. Nothing ever runs what lies in the current
    folder.
    """
    witness = plant(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.py").write_text(f"import sibling\n{QUADRATIC}")
    (tmp_path / "own" / "sibling.py").touch()
    command = [
        sys.executable,
        "-m",
        "offbeat",
        "launch",
        "-n",
        "2",
        "--out",
        "out",
        "own/train.py",
        "1000000",
        "0.05",
    ]
    launcher = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "out" / "agent-1.trace"
    until(lambda: log.exists() and log.stat().st_size > 1000)
    agents = list(map(int, Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()))
    os.kill(agents[1], signal.SIGSTOP)
    launcher.kill()
    launcher.wait()
    until(lambda: not any(map(alive, agents)), what="the agents go on for ever")
    assert not witness.exists(), witness.read_text()
    left = list(SHARED.glob(f"{PREFIX}{launcher.pid}-*"))
    assert len(left) == 1
    (tmp_path / "next").mkdir()
    assert launch(tmp_path / "next", "-n", "1", "train.py", "100", "0.05").code == 0
    assert not left[0].exists()


def test_a_script_finds_what_it_would_find_without_a_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own folder, or of a module the current one, comes first, unless Python has been told otherwise."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "script.py").write_text(
        "import sys, pathlib; pathlib.Path('seen').write_text(sys.path[0])"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    before, arguments = [*sys.path], [*sys.argv]
    for command, safe, first in (
        (["own/script.py"], "", tmp_path / "own"),
        (["-m", "script"], "", tmp_path),
        (["own/script.py"], "1", Path(before[0])),
    ):
        monkeypatch.setenv("PYTHONSAFEPATH", safe)
        monkeypatch.setattr(sys, "path", [*before, *[str(tmp_path / "own")] * ("-m" in command)])
        assert child._run(command) == 0
        assert (tmp_path / "seen").read_text() == str(first), command
    sys.argv[:] = arguments


@pytest.mark.parametrize("refused", [AttributeError, PermissionError])
def test_the_end_of_an_agent_is_noticed_where_the_kernel_does_not_report_it(
    refused: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pidfd_open(pid: int) -> int:
        raise refused

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    reading, writing = os.pipe()
    said: list[str] = []
    started = children.Children(reading, lambda agent, line: said.append(line))
    try:
        for i in range(2):
            started.start(
                i, 1, ["-S", "-c", f"import sys; print({i}); sys.exit({i + 3})"], {}, tmp_path / f"{i}.log"
            )
        codes: list[int] = []
        until(lambda: len(codes.extend(each.process.returncode for each in started.wait(9.0)) or codes) == 2)  # type: ignore[func-returns-value]
        assert sorted(codes) == [3, 4] and sorted(said) == ["0", "1"] and not started.running
    finally:
        started.close()
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("what", ["results", "shared memory"])
def test_a_folder_that_is_removed_while_a_run_goes_on_is_an_error(what: str, tmp_path: Path) -> None:
    """What could be saved is, and where is said; there is no empty trace."""
    run = start(tmp_path, "launch", "-n", "2", "--out", "out", "train.py", script=UNTIL_BACK)
    log = tmp_path / "out" / "agent-1.trace"
    until(lambda: log.exists() and log.stat().st_size > 1000)
    (shared,) = run.shared
    shutil.rmtree(tmp_path / "out" if what == "results" else shared)
    assert run.wait() == 1
    gone = tmp_path / "out" if what == "results" else shared
    assert f"Error: {gone}" in run.complained and "was removed" in run.complained, run.complained
    assert "Traceback" not in run.complained
    assert ("Written" in run.said) == (what == "shared memory")
    assert [*(tmp_path / "out" / "checkpoints").glob("agent-[01]/step-*")], "the agents have saved"
    trace = tmp_path / "out" / "trace.npz"
    assert not trace.exists() if what == "results" else replayed(Trace.load(trace)).same
    assert not run.shared


def test_a_live_run_without_its_shared_memory_has_a_trace_and_no_curve_that_stands_still(
    tmp_path: Path,
) -> None:
    options = (
        "--task",
        "quadratic",
        "--agents",
        "2",
        "--until",
        "50000",
        "--unit",
        "5ms",
        "--json",
        "out.json",
    )
    run = start(tmp_path, "live", "--out", "out", *options)
    log = tmp_path / "out" / "adsgd-lr0.01" / "agent-1.trace"
    until(lambda: log.exists() and log.stat().st_size > 1000)
    shutil.rmtree(run.shared[0])
    assert run.wait() == 1
    assert "was removed" in run.complained and "Traceback" not in run.complained
    assert replayed(Trace.load(log.with_name("trace.npz"))).same
    assert not (tmp_path / "out.json").exists()


def test_what_a_run_needs_is_there_or_it_is_noticed(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "folder" / "file"
    folder.mkdir()
    for remove in (lambda: shutil.rmtree(folder), lambda: folder.rename(tmp_path / "moved"), file.unlink):
        with closing(Present([folder], [file])) as present:
            assert present.gone() is None
            file.touch()
            assert present.gone() is None
            remove()
            assert present.gone() == (file if folder.exists() else folder)
            folder.mkdir(exist_ok=True)
            assert present.gone() == (file if remove == file.unlink else folder), (
                "another folder of that name"
            )


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize(
    "command", [["launch", "train.py"], ["live", "--task", "quadratic"]], ids=lambda c: c[0]
)
def test_a_folder_in_which_a_run_is_at_work_is_refused_to_another(
    command: list[str], resume: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").touch()
    asked = {"task": "quadratic", "agents": 4, "unit": 0.02, "until": 10.0, "seed": 0}
    asked |= {"algorithms": ["adsgd"], "lr": {}}
    how = {"max_restarts": 3, "on_death": "stop", "checkpoint_every": 5, "fault": []}
    Path("out").mkdir()
    Path("out/live.json").write_text(json.dumps({"asked": asked, "how": how}))
    monkeypatch.setattr(resuming, "stages_before", lambda folder: (Stage(4, "ring"),))
    monkeypatch.setattr(resuming, "refuse_unresumable", lambda *_, **how: None)
    lock = files.take(tmp_path / "out")
    assert lock is not None
    before = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    refused = CliRunner().invoke(app, [command[0], "--out", "out", *resume, *command[1:]])
    assert isinstance(refused.exception, SettingError)
    assert "Another run is writing" in str(refused.exception)
    assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == before
    lock.release()


@pytest.mark.parametrize("number", [7, 1500])
def test_files_are_waited_for_however_many_are_open(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard <= 2000:
        pytest.skip("no process may have so many files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    reading, writing = os.pipe()
    high = fcntl.fcntl(reading, fcntl.F_DUPFD, number)
    try:
        assert readable([high], 0.0) == []
        os.write(writing, b"x")
        assert readable([high], None) == [high]
    finally:
        for file in (reading, writing, high):
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_empty_trace_is_equal_to_nothing(tmp_path: Path) -> None:
    trace = merged([tmp_path / "none"], {"algorithm": "adsgd", "topology": "ring", "agents": 1, "seed": 0})
    with pytest.raises(DataError, match="nothing to compare"):
        replayed(trace)


START = "import offbeat, torch\nagent = offbeat.join()\n"
WRAP = """
model = torch.nn.Linear(2, 2)
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
"""
STEPS = """
for k in range(20):
    optimizer.zero_grad()
    model(torch.ones(2)).sum().backward()
    optimizer.step()
"""
LATE = START + WRAP + STEPS + "if agent.rank:\n    raise "
UNEQUAL_MODELS = (
    "Agent 1 has joined with something else than agent 0; expected the same of all. They differ in "
    "model.weight: agent 0 'torch.float32 [2, 2]', agent 1 'torch.float32 [3, 2]'"
)
UNEQUAL_ALGORITHMS = "algorithm: agent 0 'adsgd', agent 1 'dsgd'"
BY_RANK = (
    "import os, offbeat, torch\nagent = offbeat.join(['adsgd', 'dsgd'][int(os.environ['OFFBEAT_RANK'])])\n"
)
AT_ONCE, STEP_20 = "failed before its first step", "with an exit code, 1, at step 20"
VANISHED = f"import os\n{START}{WRAP}{STEPS}if agent.rank:\n    os._exit(0)"
WRONG = {
    "raises at once": ("raise ValueError('no such thing')", 1, AT_ONCE, "no such thing"),
    "never wraps": (
        "import offbeat; offbeat.join()",
        1,
        "never wrapped a model",
        "agent.wrap(model, optimizer)",
    ),
    "never joins": ("print('hello')", 1, "ended at step 0 without having left", "hello"),
    "another model in one agent": (
        START + WRAP.replace("2, 2", "2, 2 + agent.rank") + STEPS,
        1,
        AT_ONCE,
        UNEQUAL_MODELS,
    ),
    "another algorithm in one agent": (BY_RANK + WRAP, 1, AT_ONCE, UNEQUAL_ALGORITHMS),
    "raises later": (LATE + "KeyError('late')", 1, "as it had failed before", "KeyError: 'late'"),
    "exits with a code": (LATE + "SystemExit(7)", 7, "ended the script with an exit code, 7, at step 20", ""),
    "exits with a message": (LATE + "SystemExit('no more')", 1, STEP_20, "no more"),
    "ends without leaving": (VANISHED, 1, "without having left the run", "or calls leave()"),
    "unknown algorithm": (START.replace("join()", "join('adsdg')"), 1, "Unknown algorithm", "adsgd"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_script_that_goes_wrong_gets_one_clear_paragraph(what: str, tmp_path: Path) -> None:
    script, code, said, quoted = WRONG[what]
    done = launch(tmp_path, "-n", "2", "--max-restarts", "1", "train.py", script=script)
    assert done.code == code, done.said + done.complained
    error = done.complained
    assert error.count("Error: Agent") == 1
    assert said in error
    assert quoted in error


DYING = """
import os, signal
from offbeat.training.member import Member

leave = Member.leave

def dying(self):
    if os.environ["OFFBEAT_INCARNATION"] == "1" and self.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    leave(self)

Member.leave = dying
"""
"""Agent 1 dies once, after its training."""


def test_the_example_survives_kills_within_an_epoch_and_after_the_last_one(tmp_path: Path) -> None:
    """Two steps an epoch. What agent 0 had made since its checkpoint it makes again; agent 1 has nothing left
    to do.
    """
    write(tmp_path / "data", small_set(train=128, test=8))
    options = ["-n", "2", "--out", "out", "--checkpoint-every", "2", "--fault", "kill agent 0 at step 3"]
    script = [str(EXAMPLES / "mnist.py"), "--data", "data", "--epochs", "3"]
    done = finished(tmp_path, "launch", *options, *script, setup=DYING)
    assert done.code == 0, done.said + done.complained
    assert [done.said.count(f"[{i}] died (killed by SIGKILL); restart 1") for i in (0, 1)] == [1, 1]
    for i in (0, 1):
        assert re.findall(rf"\[{i}\] epoch (\d)", done.said) == ["0", "1", "2"]
    assert Trace.load(tmp_path / "out" / "trace.npz").updates().tolist() == [7, 6]


def test_the_example_differs_from_its_plain_twin_in_five_marked_lines() -> None:
    ours, plain = ((EXAMPLES / name).read_text().splitlines()[4:] for name in ("mnist.py", "mnist_plain.py"))
    changed = [line[2:] for line in ndiff(plain, ours) if line.startswith("+ ")]
    assert [re.findall(r"# (\d)", line) for line in changed] == [["1"], ["2"], ["3"], ["4"], ["5"]]


def test_an_early_exit_without_an_error_is_a_leaver(tmp_path: Path) -> None:
    script = START + WRAP + STEPS.replace("range(20)", "range(20 * (1 + agent.rank))")
    done = launch(tmp_path, "-n", "3", "--algorithm", "dsgd", "train.py", script=script)
    assert done.code == 0, done.said + done.complained
    assert Trace.load(tmp_path / "out" / "trace.npz").updates().tolist() == [20, 40, 60]
    assert re.search(r"^3 agents made 120 steps in [\d.]+ s, [\d,.]+ a second\.$", done.complained, re.M)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-n", "2", "nowhere.py"], "There is no script nowhere.py"),
        (["-n", "2", "."], ". is a folder; expected a script"),
        (["-n", "0", "train.py"], "Cannot read --agents"),
        (["-n", "9" * 20, "train.py"], "Cannot read --agents"),
        (["--seed", "-1", "train.py"], "Cannot read --seed -1"),
        (["--checkpoint-every", "infs", "train.py"], "expected more than 0, and less than for ever"),
        (["-n", "2", "--algorithm", "sgd", "train.py"], "Unknown algorithm"),
        (["-n", "2", "--fault", "kill agent 5 at step 1", "train.py"], "there is no agent 5"),
        (["-n", "2", "--checkpoint-every", "often", "train.py"], "Cannot read 'often'"),
        (["-n", "2", "--max-restarts", "-1", "train.py"], "Expected --max-restarts of 0 or more; got -1"),
        (["-n", "4", "--topology", "moebius", "train.py"], "Unknown topology"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = launch(tmp_path, *arguments, script="raise AssertionError('something ran')")
    assert done.code == 2
    assert said in done.complained
    assert "something ran" not in done.said


def test_a_full_disk_ends_the_run_with_one_paragraph(tmp_path: Path) -> None:
    """The kernel refuses what goes beyond a limit of a file's size, as a full disk would."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    limit += "; import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    script = START + limit + "\n" + WRAP + STEPS.replace("range(20)", "range(5000)")
    done = launch(tmp_path, "-n", "2", "train.py", script=script)
    assert done.code == 1
    assert done.complained.count("Error: Agent") == 1
    assert "cannot write its results" in done.complained
    assert "Cannot write" in done.complained
    assert "File too large" in done.complained
    assert "restart" not in done.said
    assert replayed(Trace.load(tmp_path / "out" / "trace.npz")).same, "what was written before is whole"
