"""Runs over several nodes of a Ray cluster on this machine: real gateways, real agents."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from certificates import certificates
from cluster_drill import Drilled, drill, schedule, script, until
from raylets import Raylets, raylets
from warm import Started, needs_shared_memory, start

from offbeat.core.errors import SettingError
from offbeat.core.system.ray_tls import USE
from offbeat.engines.live.cluster.placement import across, place, place_one, said
from offbeat.engines.live.cluster.results import Grown, bring
from offbeat.engines.live.node.checkpoint import agent_folder, latest, newest, path_of
from offbeat.engines.live.node.saving import donor_of
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed
from offbeat.experiments.sweep import running
from offbeat.experiments.sweep.grid import read_grid
from offbeat.world.topology import build

ray: Any = pytest.importorskip("ray")
pytestmark = needs_shared_memory

SCRIPT = script("agent.steps < int(sys.argv[1])", 0.005)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raylets]:
    """They encrypt, where there are certificates."""
    tls: dict[str, str] = {}
    if shutil.which("openssl") is not None:
        tls = certificates(tmp_path_factory.mktemp("tls") / "made", ray.util.get_node_ip_address())
    with raylets(2, tls) as cluster:
        yield cluster


def launch(nodes: Raylets, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    (folder / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "offbeat", "launch", "--ray", nodes.address, *arguments]
    return subprocess.run(command, cwd=folder, env=nodes.env, capture_output=True, text=True, timeout=300)


def warmly(nodes: Raylets, folder: Path, *words: str) -> Started:
    """`offbeat` with these words, at once; all that it says is in `said`."""
    (folder / "stdout").write_text("")  # what one before it said
    setup = f"import os; os.dup2(1, 2); os.environ.clear(); os.environ.update({nodes.env!r})"
    return start(folder, *words, setup=setup)


@pytest.mark.cluster
def test_agents_join_and_leave_a_run_over_machines_and_it_leaves_what_one_on_one_machine_does(
    nodes: Raylets, tmp_path: Path
) -> None:
    """And nothing else: the trace replays to the bit, in which agents mixed models across the machines."""
    (tmp_path / "train.py").write_text(
        f"from pathlib import Path\nassert not Path('offbeat-runs').exists()\n{SCRIPT}"
    )
    said, folder = tmp_path / "said", tmp_path / "offbeat-runs" / "train-1"
    (tmp_path / "offbeat-runs" / "train-0").mkdir(parents=True)  # stays where it is, however large
    (tmp_path / "offbeat-runs" / "train-0" / "model").write_bytes(bytes(1000))
    about: dict[str, Any] = {"cwd": tmp_path, "env": nodes.env, "stderr": subprocess.STDOUT}
    offbeat, placed = [sys.executable, "-m", "offbeat"], ["--place", "spread", "--per-machine", "1"]
    with said.open("w") as out:
        command = [*offbeat, "launch", "--ray", nodes.address, "-n", "2", *placed, "train.py", "1000000"]
        run = subprocess.Popen(command, stdout=out, **about)
    name = until(lambda: re.search(r"this is run (\S+):", said.read_text()))[1]
    there = Drilled(nodes, tmp_path, 2, "adsgd", name)
    until(lambda: min(there.steps.values(), default=0) > 5)
    assert "1 of 1 edges cross machines" in said.read_text()

    def ask(*words: str) -> tuple[int, str]:
        """On a machine of the run, where nobody knows the launcher's folder."""
        done = subprocess.run([*offbeat, *words], cwd="/", env=nodes.env, capture_output=True, text=True)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    code, text = ask("join", name)
    assert code == 2 and "No machine has room for agent 2 (machine 0 (" in text, text
    nodes.do("add")
    until(lambda: re.search(r"Machine 2 \(.*\) has joined the run", said.read_text()))
    code, text = ask("join", name)
    assert code == 0 and re.fullmatch(r"Agent 2 joined after [\d.]+ s, its neighbours are 0, 1\.", text), text
    assert re.search(r"begins on machine 2 \(", said.read_text())
    until(lambda: there.steps.get(2, 0) > 50)
    code, text = ask("leave", str(folder), "--agent", "1")
    assert code == 0 and re.fullmatch(r"Agent 1 left after its step [\d,]+; the others go on\.", text), text
    before = there.steps
    until(lambda: all(there.steps.get(i, 0) > before[i] + 20 for i in (0, 2)))
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=200) == 130, said.read_text()

    trace = Trace.load(folder / "trace.npz")
    assert replayed(trace, folder).same
    assert trace.settings["grown"] == [[[0, 1], [0, 1]]] and trace.settings["left"][0].startswith(
        "agent 1 at "
    )
    sources = {(int(trace.writes["agent"][row["write"]]), int(row["source"])) for row in trace.mixed}
    assert {(0, 1), (1, 0), (0, 2), (2, 0)} <= sources, "the newcomer's model is mixed, as it mixes others'"
    until(lambda: not there.left)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last: dict[int, Any] = {line["agent"]: line for line in lines}
    assert last.keys() == {0, 1, 2} and min(line["step"] for line in last.values()) > 50
    assert any(line["consensus"] is not None for line in lines)


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("RAY_AUTH", "lets in only who has its token. Expected RAY_AUTH_MODE=token"),
        (USE, "answers over TLS alone. Expected RAY_USE_TLS=1"),
    ],
)
def test_strangers_are_told_so_at_once(nodes: Raylets, tmp_path: Path, lacks: str, said: str) -> None:
    """Ray goes on asking for 20 s without its token, and for ever without TLS."""
    env = {name: value for name, value in nodes.env.items() if not name.startswith(lacks)}
    if lacks == USE and USE not in nodes.env:
        pytest.skip("needs the openssl command")
    (tmp_path / "train.py").write_text(SCRIPT)
    launcher = warmly(replace(nodes, env=env), tmp_path, "launch", "--ray", nodes.address, "train.py")
    assert launcher.wait(200.0) == 2
    begins, error = launcher.said.splitlines()
    assert begins == f"Connecting to Ray at {nodes.address}."
    assert said in error


@contextmanager
def foreign(nodes: Raylets, folder: Path) -> Iterator[None]:
    """Another node, of an environment with Ray, another torch and no offbeat."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "ours.pth").write_text(f"{Path(ray.__file__).parents[1]}\n")
    (packages / "torch-1.0.dist-info").mkdir()
    (packages / "torch-1.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 1.0\n")
    env = {name: value for name, value in nodes.env.items() if name != "PYTHONPATH"}
    start = [
        str(folder / "bin" / "python"),
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--num-cpus",
        "1",
    ]
    about: dict[str, Any] = {
        "cwd": folder,
        "env": env,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
    }
    with subprocess.Popen([*start, "--address", nodes.address], **about, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "Ray runtime started" in line:
                    break
            yield
        finally:
            process.terminate()
            process.stdout.read()


@pytest.mark.cluster
def test_a_machine_with_other_versions_is_named(nodes: Raylets, tmp_path: Path) -> None:
    """By a launch, which is refused, and by the doctor, who looks at all the rest, too."""
    differs = f"(vm) has torch 1.0 (here {version('torch')}), no offbeat".partition(") ")[2]
    with foreign(nodes, tmp_path / "env"):
        ended = launch(nodes, tmp_path, "train.py")
        command = [sys.executable, "-m", "offbeat", "doctor", "--ray", nodes.address, "--json"]
        looked = subprocess.run(command, env=nodes.env, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2
    error = ended.stderr.splitlines()[-1]
    assert re.fullmatch(
        r"Error: Machines differ: machine \d \(\S+\) " + re.escape(differs) + r"\. Expected .*", error
    )
    assert looked.returncode == 1, looked.stderr
    checks = {check["name"]: check for check in json.loads(looked.stdout)["checks"]}
    assert {name for name, check in checks.items() if check["status"] == "FAILED"} == {"versions"}
    assert differs in checks["versions"]["found"]
    assert checks["token"]["found"] == "who has no token is refused"
    assert checks["encryption"]["found"] == (
        "TLS" if USE in nodes.env else "none; all nodes are on one machine"
    )
    assert "8 cores and 0 GPUs" in checks["room"]["found"]
    nodes_there = checks["room"]["found"].count(" cores and ")
    assert len(re.findall(r" s to \d+\.\d+ ms", checks["clocks"]["found"])) == nodes_there >= 3
    assert {"link 0-1", "link 0-2", "link 1-2"} <= checks.keys()
    tested = [check for name, check in checks.items() if name.startswith("self-test")]
    assert all("exchanged models" in check["found"] for check in tested)


WHERE = """
import os

def travelled(evaluation):
    return float("working_dir" in os.getcwd())
"""
GRID = """
[fixed]
task = "quadratic"
agents = 4
until = 20
metrics = "mine.py:travelled"
lr = 0.05
[grid]
algorithm = ["adsgd", "dsgd"]
seed = [0, 1]
"""


@pytest.mark.cluster
def test_a_sweep_gives_the_same_results_and_its_folder_travels(
    nodes: Raylets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(WHERE)
    (tmp_path / "grid.toml").write_text(GRID)
    sweep = [sys.executable, "-m", "offbeat", "sweep", "grid.toml", "--ray", nodes.address, "--workers", "2"]
    ended = subprocess.run(sweep, env=nodes.env, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert running.sweep(read_grid(Path("grid.toml")), Path("here.parquet"), workers=1) == []
    there, here = (pandas.read_parquet(name) for name in ("grid.parquet", "here.parquet"))
    own = [name for name in there.columns if "travelled" in name and name != "metrics"]
    assert [*there["final_travelled"]] == [1.0] * 4
    assert [*here["final_travelled"]] == [0.0] * 4
    assert there.drop(columns=own).equals(here.drop(columns=own))


def test_neighbours_live_together_and_what_crosses_is_said() -> None:
    ring, grid = nx.cycle_graph(8), nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 4))
    assert len(across(ring, place("graph", ring, [4, 4], strict=False))) == 2
    assert len(across(ring, place("spread", ring, [4, 4], strict=False))) == 8
    assert place("pack", ring, [6, 6], strict=False) == [0] * 6 + [1] * 2
    hosts = place("graph", grid, [8, 8], strict=True)
    assert (hosts.count(0), len(across(grid, hosts))) == (8, 4)
    shuffled = nx.relabel_nodes(ring, dict(enumerate([3, 6, 0, 5, 1, 7, 2, 4])))
    assert len(across(shuffled, place("graph", shuffled, [4, 4], strict=False))) == 2
    assert said(ring, [0, 0, 0, 0, 1, 1, 1, 1], ["A", "B"]) == [
        "A: agents 0-3", "B: agents 4-7", "2 of 8 edges cross machines: 0-7, 3-4",
    ]  # fmt: skip
    with pytest.raises(SettingError, match="room for 6"):
        place("graph", ring, [3, 3], strict=True)
    assert sorted(place("graph", ring, [1, 1], strict=False)) == [0] * 4 + [1] * 4, "else nothing is counted"


def test_who_comes_later_is_placed_by_the_same_rules() -> None:
    there, room = {0: 0, 1: 0, 2: 1, 3: 1}, {0: 4, 1: 4}
    assert [place_one("graph", around, there, room) for around in ({0, 1}, {2, 3}, {0, 2})] == [0, 1, 0]
    assert place_one("graph", {2, 3}, there | {4: 1}, room) == 0, "as many to each"
    assert place_one("spread", {0, 1}, there, {**room, 2: 1}) == 2
    assert place_one("pack", {2, 3}, there, room) == 0 and place_one("pack", {0}, there, {0: 2, 1: 4}) == 1
    assert place_one("graph", {0}, there, {0: 2, 1: 2, 3: 1}) == 3, "machine 2 is lost"
    assert place_one("graph", {0}, there | {4: 0}, {0: 1, 1: 2}) == 1, "all are full: in proportion"


def test_an_agent_finds_on_any_machine_what_it_goes_on_with(tmp_path: Path) -> None:
    """Its own checkpoints, or that of the agent with which a new one starts, and who has saved what."""
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    for agent, step in [(0, 10), (0, 20), (1, 10), (2, 30)]:
        path = path_of(agent_folder(here, agent), step)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{agent} at {step}")
    (here / "agent-1.trace").write_text("its log")

    async def ask(what: str, *args: Any) -> Any:
        name, at, content = args or ("", 0, b"")
        if what == "files":
            return []
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        assert what == "write" and at == ((there / name).stat().st_size if at else 0)
        with (there / name).open("ab" if at else "wb") as file:
            return file.write(content)

    asyncio.run(bring(ask, here, Grown(1, here), -1, 3))
    assert (there / "agent-1.trace").read_text() == "its log"
    found = [latest(agent_folder(there, i)) for i in range(4)]
    assert found == [[], [10], [], []] and newest(agent_folder(there, 1), 2, together=True) == 10
    assert newest(agent_folder(there, 1), 3, together=True) is None, "agent 2 has another step, elsewhere"
    asyncio.run(bring(ask, here, Grown(3, here), donor := donor_of(here, 3, build("ring", 4)), 3))
    assert donor == donor_of(there, 3, build("ring", 4)) == 2
    assert path_of(agent_folder(there, 2), 30).read_text() == "2 at 30"


def test_after_each_of_three_kills_the_run_goes_on_and_nothing_is_left_of_it(
    nodes: Raylets, tmp_path: Path
) -> None:
    """A gateway, a launcher, a machine: of the twenty that `make drill-cluster` has."""
    _, kills = schedule(0)[0]
    some = [each for each in kills if each.what != "agent"]
    drill(nodes, tmp_path, "adsgd", some, agents=2, start=warmly)
