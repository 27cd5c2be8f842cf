"""How fast runs over several machines are: two nodes of a Ray cluster on this machine, beside the goals.

    make bench-cluster           all rows, in about seven minutes on two cores
    python bench/cluster.py --only large --quick

Each node is in a network namespace of its own, and between the two there is a link (`scripts/namespaces.py`),
where this machine lets us; else both have the loopback interface, which is said.

Four agents in a ring, two on each node. Computation is a wait. As in `bench/live.py`, what is compared takes
turns within one run, phase by phase. Ages are of models read from the other node, less those of models read
from the same one in the same run: what the way across adds. `build/bench-cluster.json` has all values.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "scripts"))
import measuring as m
import namespaces
from live import HEAD, Line, least, most, rates, ratios, tell
from measuring import FORTY, MEGABYTE

from offbeat.engines.events import RegisterRead, rows_of
from offbeat.engines.live.cluster import keeper
from offbeat.engines.live.cluster.starting import Cluster, cluster
from offbeat.engines.live.cluster.wanted import Wanted
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.settings import RunSettings, ScriptProgram
from offbeat.engines.trace import Trace

HOSTS = 0, 0, 1, 1
N, SLOW = len(HOSTS), 3
CUT = 10.0
"""Seconds that the link is down."""
APART = 9.0
"""Seconds from one kill of a gateway to the next."""


@dataclass
class Traffic:
    """What gateways say of themselves every second: called by the launcher.

    said: by machine, (when, what `Exchange.traffic` says); private: each gateway's private memory, in bytes
    """

    said: dict[int, list[tuple[float, Any]]] = field(default_factory=dict)
    private: dict[int, list[int]] = field(default_factory=dict)
    last: float = 0.0

    def __call__(self, launcher: Launcher) -> None:
        """Ask, if it is time."""
        if time.monotonic() - self.last < 1.0:
            return
        import ray

        self.last = time.monotonic()
        for machine, handle in enumerate(launcher.children.fleet.handles):  # type: ignore[attr-defined]
            said = json.loads(ray.get(handle.traffic.remote()))
            self.said.setdefault(machine, []).append((time.monotonic(), said))
            self.private.setdefault(machine, []).append(m.anonymous(said["pid"]))

    def mirrored(self, machine: int) -> float:
        """Megabytes a second that came to this machine, from its second sample on."""
        said = self.said[machine]
        rows = [(at, sum(link["received"] for link in each["links"].values())) for at, each in said]
        (began, first), *_, (ended, last) = [row for row in rows if row[1]]
        return float((last - first) / 1e6 / (ended - began))


@dataclass
class Killer:
    """Kills the gateway of the second machine so many times, and remembers when: called by the launcher."""

    most: int
    at: list[float] = field(default_factory=list)

    def __call__(self, launcher: Launcher) -> None:
        """Kill, if it is time."""
        since = self.at[-1] if self.at else launcher.board.zero / 1e9
        if since and len(self.at) < self.most and time.monotonic() > since + APART:
            place = keeper.find(launcher.children.fleet.run, 1)  # type: ignore[attr-defined]
            assert place is not None
            self.at.append(time.monotonic())
            os.kill(int((place / keeper.TOUCHED).read_text()), signal.SIGKILL)


@dataclass
class Ran:
    """A run: what agents recorded of their steps, the trace, what the gateways said, where agents lived; and
    when a gateway was killed.
    """

    steps: dict[int, m.Steps]
    trace: Trace
    traffic: Traffic
    hosts: list[int]
    letters: str
    length: float
    killed: list[float]

    @property
    def zero(self) -> float:
        """When the run's clock began, in seconds of the monotonic clock."""
        first = self.trace.writes["time"][self.trace.writes["agent"] == 0][0]
        return float(self.steps[0]["ended"][0] - first)

    def cycles(self, guard: float = 0.5) -> list[m.Cycle]:
        """Phases, as `measuring.phases_of` cuts them."""
        return m.phases_of(self.steps, self.letters, self.length, guard)

    def reads(self, across: bool) -> np.ndarray:
        """What was read from the registers of agents of the other node, or of the same one."""
        reads, hosts = rows_of(self.trace.events, RegisterRead), np.array(self.hosts)
        found: np.ndarray = reads[(hosts[reads["agent"]] != hosts[reads["source"]]) == across]
        return found


@dataclass
class Bench:
    """The cluster, and the runs that several rows share."""

    found: Cluster
    quick: bool
    apart: bool  # whether the nodes are in namespaces of their own
    made: dict[tuple[object, ...], Ran] = field(default_factory=dict)

    def ran(
        self, numbers: int, wait: float, phases: str, length: float, seconds: float, fault: str = "",
        graph: str = "ring", hosts: tuple[int, ...] = HOSTS, kills: int = 0,
    ) -> Ran:  # fmt: skip
        """Agents over two nodes, of which the second may be cut off, or its gateway killed."""
        asked = numbers, wait, phases, length, seconds, fault, graph, hosts, kills
        if asked in self.made:
            return self.made[asked]
        m.tell(f"{4 * numbers / 1e6:.0f} MB, {1e3 * wait:.0f} ms, {graph}: {seconds:.0f} s {fault}")
        faults = (parse_fault(fault, N),) if fault else ()
        traffic, killer, n = Traffic(), Killer(kills), len(hosts)
        with m.folder() as where:
            pace = m.write_pace(
                where, numbers=numbers, wait=wait, phases=phases, length=length, seconds=seconds, slow=SLOW,
                world=n,
            )  # fmt: skip
            program = ScriptProgram(graph, (str(m.PACED), "offbeat", pace))
            settings = RunSettings(agents=n, folder=where, program=program, fault=faults)
            command = ["-m", "offbeat.training.child", *program.command]
            launcher = Launcher(
                settings,
                command,
                processes=lambda launcher, bell, said: self.found.run(launcher, hosts, said),
            )
            launcher.run(lambda agent, line: m.tell(f"[{agent}] {line}"), killer if kills else traffic)
            run = Ran(m.steps_of(where), launcher.trace(), traffic, [*hosts], phases, length, killer.at)
        self.made[asked] = run
        return run


def small(bench: Bench) -> Ran:
    return bench.ran(MEGABYTE, 0.02, "mps", 3.0, 24.0 if bench.quick else 62.0)


def ages(run: Ran) -> list[float]:
    """Milliseconds that models of the other node are older when they are read than those of the same node, by
    reader, in the median of all its reads.
    """
    reads = [run.reads(across) for across in (True, False)]
    found = []
    for i in range(N):
        far, near = (float(np.median((r["time"] - r["end"])[r["agent"] == i])) for r in reads)
        found.append(1e3 * (far - near))
    return found


@cache
def near(quick: bool) -> list[float]:
    """The rate over that without communication, in percent, where all agents are on one machine."""
    m.tell("the same on one machine, without a cluster")
    with m.folder() as where:
        pace = m.write_pace(
            where, numbers=MEGABYTE, wait=0.02, phases="mp", length=3.0, seconds=14.0 if quick else 26.0,
            slow=SLOW, world=N,
        )  # fmt: skip
        m.launch(where, m.PACED, ["offbeat", pace], N)
        cycles = m.phases_of(m.steps_of(where), "mp", 3.0, 0.5)
    return ratios(cycles, "m", "p")


def steady(bench: Bench) -> list[Line]:
    """Rates."""
    run, name = small(bench), "1 MB, 20 ms, ring of 4 over two nodes"
    return [
        least(f"rate over that without communication, {name}", ratios(run.cycles(), "m", "p"), 95, "%"),
        Line("the same on one machine, without a cluster", near(bench.quick), "%", digits=".1f"),
        least("healthy agents' rate with one of 4 ten times slower", ratios(run.cycles(), "s", "m"), 97, "%"),
        most("age of a remote model beyond that of a near one, 1 MB", ages(run), 15, "ms", ".1f"),
    ]


def ddp(bench: Bench) -> list[Line]:
    """DDP, over the same link."""
    m.tell("the same with DDP and gloo")
    with m.folder() as where:
        pace = m.write_pace(
            where, numbers=MEGABYTE, wait=0.02, phases="ms", length=4.0,
            seconds=20.0 if bench.quick else 36.0, slow=SLOW, world=N,
        )  # fmt: skip

        def begun(rank: int, command: list[str]) -> list[str]:
            return namespaces.within(HOSTS[rank], command) if bench.apart else command

        m.processes(m.PACED, ["ddp", pace], N, begun=begun, link=namespaces.LINK if bench.apart else "lo")
        cycles = m.phases_of(m.steps_of(where), "ms", 4.0, 0.5)
    alone = median(rates(cycle, "p") for cycle in small(bench).cycles())
    over = "the link of two namespaces" if bench.apart else "the loopback interface"
    return [
        Line(f"DDP and gloo over {over}: its rate over ours without communication",
             [100 * rates(cycle, "m") / alone for cycle in cycles], "%", digits=".1f"),
        Line("DDP: healthy agents' rate with one of 4 ten times slower", ratios(cycles, "s", "m"), "%",
             digits=".1f"),
    ]  # fmt: skip


def cut(bench: Bench) -> list[Line]:
    """A link that is down."""
    start, end = 6.0, 6.0 + CUT
    fault = f"cut machine 1 from {start:g} s to {end:g} s"
    run = bench.ran(MEGABYTE, 0.02, "m", 1.0, end + 6.0, fault)
    shares, back = [], []
    for i, rows in run.steps.items():
        at = rows["ended"] - run.zero
        down = (at > start + 0.5) & (at < end)
        up = ((at > 1.0) & (at < start)) | (at > end + 2.0)
        before, meanwhile = (float(np.median(np.diff(rows["ended"][part]))) for part in (up, down))
        shares.append(100 * before / meanwhile)
        far = run.reads(across=True)
        fresh = far[(far["agent"] == i) & (far["end"] > end)]["time"]
        back.append(float(fresh.min(initial=float("inf"))) - end)
    still = run.reads(across=True)["time"]
    crossed = int(((still > start + 0.5) & (still < end)).sum())
    return [
        least(f"rate while the link is down for {CUT:g} s over that before and after", shares, 97, "%"),
        most("seconds until a model made after its return is mixed", back, 2, "s"),
        most("models of the other node that were read meanwhile", [crossed], 0, digits=".0f"),
    ]


def longest(run: Ran, start: float, end: float) -> float:
    """Of all agents' steps between two times of the monotonic clock, in usual ones of the agent."""
    found = []
    for rows in run.steps.values():
        took, ended = np.diff(rows["ended"]), rows["ended"][1:]
        found.append(float(took[(ended > start) & (ended < end)].max() / np.median(took)))
    return max(found)


def gateway(bench: Bench) -> list[Line]:
    """A gateway that is killed."""
    kills = 1 if bench.quick else 4
    run = bench.ran(MEGABYTE, 0.02, "m", 1.0, APART * (kills + 1) + 2.0, kills=kills)
    far, back = run.reads(across=True), []
    for killed in run.killed:
        at = killed - run.zero
        fresh = [far[(far["agent"] == i) & (far["end"] > at)]["time"] for i in run.steps]
        back.append(max(float(times.min(initial=float("inf"))) for times in fresh) - at)
    width, name = APART - 3.0, "longest step of an agent in"
    calm = [longest(run, killed - width, killed) for killed in run.killed]
    after = [longest(run, killed, killed + width) for killed in run.killed]
    beyond = [a - b for a, b in zip(after, calm, strict=True)]
    return [
        most(f"{name} {width:g} s after the kill of a gateway, less that before, in usual ones", beyond, 1),
        Line(f"{name} {width:g} s before it, in usual ones", calm),
        most("seconds until all mix models across that were made after it", back, 3, "s"),
    ]


def large(bench: Bench) -> list[Line]:
    """Large models: an agent on each node, calm and then as fast as it can."""
    seconds = 20.0 if bench.quick else 40.0
    calm = bench.ran(FORTY, 0.5, "m", 1.0, seconds, hosts=(0, 1))
    fast = bench.ran(FORTY, 0.0, "m", 1.0, seconds, hosts=(0, 1))
    late = [1e3 * each["late"] for rows in calm.traffic.said.values() for _, said in rows[2:]
            for each in said["registers"] if each["versions"] > 1]  # fmt: skip
    own = calm.traffic.private
    grown = [(max(rows) - rows[0]) / (4 * FORTY) for rows in own.values()]
    both = fast.traffic.mirrored(0) + fast.traffic.mirrored(1)
    made = sum(4 * FORTY / 1e6 * m.rate(rows) for rows in fast.steps.values())
    return [
        most("age of a model on arrival, 40 MB", late, 150, "ms", ".0f"),
        least("mirrored, 40 MB, both ways together", [both], 400, "MB/s", ".0f", f"{made:.0f} were made"),
        most("gateway's private memory beyond that at its start, in mirrored models", grown, 2),
    ]  # fmt: skip


def transfers(bench: Bench) -> list[Line]:
    """How often a version crosses that two agents of the other node mix."""
    run = bench.ran(MEGABYTE, 0.05, "m", 1.0, 8.0, graph="complete")
    crossed = np.zeros(N)
    for rows in run.traffic.said.values():
        for each in rows[-1][1]["registers"]:
            crossed[each["agent"]] += each["versions"]
    made = [int((run.trace.writes["agent"] == i).sum()) for i in range(N)]
    times = [float(n) / k for n, k in zip(crossed, made, strict=True)]
    return [most("transfers of a version that two agents of the other node mix", times, 1)]


ROWS: dict[str, Callable[[Bench], list[Line]]] = {
    "steady": steady, "ddp": ddp, "cut": cut, "gateway": gateway, "large": large, "transfers": transfers,
}  # fmt: skip


def apart() -> None:
    """This program again, with a cluster whose nodes are in namespaces of their own, in the first of them."""
    with namespaces.nodes() as (address, env):
        again = [sys.executable, *sys.argv, "--ray", address]
        raise SystemExit(subprocess.run(namespaces.within(0, again), env=env).returncode)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter runs")
    parser.add_argument("--only", choices=ROWS, action="append", help="one row; repeat it for more")
    parser.add_argument("--ray", help=argparse.SUPPRESS)  # the cluster, where this runs in a namespace
    parser.add_argument("--json", type=Path, default=Path("build/bench-cluster.json"))
    options = parser.parse_args()
    if options.ray is None and namespaces.possible():
        apart()
    over = "the loopback interface" if options.ray is None else "a link between two network namespaces"
    about = {"cpus": os.cpu_count(), "torch": torch.__version__, "python": platform.python_version()}
    found: dict[str, Any] = {"machine": about | {"over": over}}
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}; {over}\n")
    print(HEAD, flush=True)
    wanted = Wanted(ray=options.ray or "local:2", place="pack", per_machine=2, no_ship=True)
    with cluster(wanted, N) as nodes:
        bench = Bench(nodes, options.quick, apart=options.ray is not None)
        for name in options.only or ROWS:
            lines = ROWS[name](bench)
            found[name] = {"load": os.getloadavg()[0], "lines": [asdict(line) for line in lines]}
            tell(lines, found, options.json)
    m.tell(f"Written: {options.json}")


if __name__ == "__main__":
    main()
