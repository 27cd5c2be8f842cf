"""Runs over several nodes of a Ray cluster on this machine: real gateways, real agents."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from raylets import Raylets, raylets
from warm import needs_shared_memory

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.engines.live.cluster.gateway import HOSTS
from offbeat.engines.live.cluster.keeper import TOUCHED
from offbeat.engines.live.cluster.placement import across, place, said
from offbeat.engines.live.shm.board import Board, Row
from offbeat.engines.live.shm.run_folder import PLAN, PREFIX, SHARED
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed

pytest.importorskip("ray")
pytestmark = needs_shared_memory

SCRIPT = """
import sys, time, torch, offbeat

agent = offbeat.join()
x = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
model = torch.nn.Module()
model.x = x
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.05))
while agent.steps < int(sys.argv[1]):
    optimizer.zero_grad()
    (x - agent.rank).square().sum().backward()
    optimizer.step()
    time.sleep(0.005)
print("at", x.tolist())
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Raylets]:
    with raylets(2) as cluster:
        yield cluster


def launch(nodes: Raylets, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    (folder / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "offbeat", "launch", "--ray", nodes.address, *arguments]
    return subprocess.run(command, cwd=folder, env=nodes.env, capture_output=True, text=True, timeout=300)


def left(run: str) -> list[Path]:
    """What is there of a run: run folders, and results that nobody fetched."""
    return [*folders(run).values(), *Path(tempfile.gettempdir()).glob(f"offbeat-{os.getuid()}-{run}-*")]


def test_a_run_over_two_machines_leaves_what_one_on_one_machine_does(nodes: Raylets, tmp_path: Path) -> None:
    """And nothing else: the trace replays to the bit, in which agents mixed models across the machines."""
    ended = launch(nodes, tmp_path, "-n", "2", "--place", "spread", "train.py", "200")
    assert ended.returncode == 0, ended.stderr
    assert "1 of 1 edges cross machines" in ended.stderr
    assert ended.stdout.count("at [") == 2
    folder = tmp_path / "offbeat-runs" / "train-0"
    trace = Trace.load(folder / "trace.npz")
    assert replayed(trace, folder).same
    sources = {(int(trace.writes["agent"][row["write"]]), int(row["source"])) for row in trace.mixed}
    assert {(0, 1), (1, 0)} <= sources
    found = re.search(r"this is run (\S+):", ended.stdout)
    assert found is not None
    assert left(found[1]) == []
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last: dict[int, Any] = {line["agent"]: line for line in lines}
    assert {line["step"] for line in last.values()} == {200}
    assert any(line["consensus"] is not None for line in lines)


def test_who_has_no_token_is_told_so_at_once(nodes: Raylets, tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    stranger = Raylets(nodes.address, {k: v for k, v in nodes.env.items() if "AUTH" not in k}, nodes.process)
    ended = launch(stranger, tmp_path, "train.py")
    assert ended.returncode == 2
    begins, error = ended.stderr.splitlines()
    assert begins == f"Connecting to Ray at {nodes.address}."
    assert "lets in only who has its token. Expected RAY_AUTH_MODE=token" in error


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


def folders(run: str) -> dict[int, Path]:
    """The run folders of a run's machines."""
    found: dict[int, Path] = {}
    for path in SHARED.glob(f"{PREFIX}*/{PLAN}"):
        with suppress(OSError):
            plan = json.loads(path.read_text())
            found |= {plan["machine"]: path.parent} if plan["run"] == run else {}
    return found


def steps(run: str) -> list[int]:
    """Of each agent, on the board of its own machine."""
    found: dict[int, int] = {}
    for machine, folder in folders(run).items():
        with suppress(OSError, OffbeatError):
            hosts = json.loads((folder / HOSTS).read_text())["hosts"]
            rows = Board.attach(folder / "board").rows
            found |= {i: int(rows[i, Row.STEPS]) for i, host in enumerate(hosts) if host == machine}
    return [found[i] for i in sorted(found)]


def until(what: Callable[[], Any], seconds: float = 200.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_a_killed_gateway_and_a_killed_launcher_stop_nobody(nodes: Raylets, tmp_path: Path) -> None:
    """A new launcher goes on with the run, and ends it in order; what is left replays to the bit."""
    (tmp_path / "train.py").write_text(SCRIPT)
    offbeat, said = [sys.executable, "-m", "offbeat", "launch", "--ray", nodes.address], tmp_path / "said"
    about: dict[str, Any] = {"cwd": tmp_path, "env": nodes.env, "stderr": subprocess.STDOUT}
    with said.open("w") as out:
        command = [*offbeat, "-n", "2", "--place", "spread", "train.py", "1000000"]
        first = subprocess.Popen(command, stdout=out, **about)
    run = until(lambda: re.search(r"this is run (\S+):", said.read_text()))[1]
    until(lambda: min(steps(run), default=0) > 5)
    gateway = folders(run)[1] / TOUCHED
    pid, before = int(gateway.read_text()), steps(run)
    os.kill(pid, signal.SIGKILL)
    until(lambda: int(gateway.read_text() or pid) != pid)
    assert all(now > then for now, then in zip(steps(run), before, strict=True))
    first.kill()
    first.wait()
    before = steps(run)
    until(lambda: all(now > then for now, then in zip(steps(run), before, strict=True)))
    with said.open("w") as out:
        command = [*offbeat, "--attach", run]
        second = subprocess.Popen(command, stdout=out, **about)
    until(lambda: "2 running" in said.read_text() or second.poll() is not None)
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=200) == 130, said.read_text()
    folder = tmp_path / "offbeat-runs" / "train-0"
    assert replayed(Trace.load(folder / "trace.npz"), folder).same
    assert left(run) == []
