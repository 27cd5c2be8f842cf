"""How fast live runs are: real processes on this machine, each figure from one run, beside its goal.

    make bench-live              all rows, in about twelve minutes on two cores
    python bench/live.py --only straggler --quick

Computation is a wait. What is compared (with communication and without, with a slow agent and without) takes
turns within one run, phase by phase, and all agents change phase together. Printed are medians over the
repeats, over agents and cycles, and, in brackets, the smallest and the largest. `build/bench-live.json` has
all repeats.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "scripts"))
import foretelling
import measuring as m
import racing
from measuring import FORTY, MEGABYTE

from offbeat.core.system import kernel
from offbeat.engines.events import RegisterRead, Rejoined, rows_of
from offbeat.engines.trace import Trace

SLOW = 3


@dataclass
class Line:
    """A row of the table. values: one a repeat; good: whether the goal is met, None where there is none."""

    name: str
    values: list[float]
    unit: str = ""
    goal: str = ""
    good: bool | None = None
    digits: str = ".2f"
    note: str = ""

    @property
    def cells(self) -> list[str]:
        """What is printed."""
        met = {True: "yes", False: "NO", None: ""}[self.good]
        return [
            self.name,
            f"{m.shown(self.values, self.digits)} {self.unit}".strip(),
            self.goal,
            met,
            self.note,
        ]


@dataclass
class Bench:
    """The options, and what several rows share."""

    quick: bool = False
    data: Path | None = None
    lines: list[Line] = field(default_factory=list)


@dataclass
class Ran:
    """A paced run: its cycles of phases, memory and trace."""

    cycles: list[m.Cycle]
    samples: m.Samples
    trace: Trace | None = None


def least(
    name: str, values: Sequence[float], goal: float, unit: str = "", digits: str = ".1f", note: str = ""
) -> Line:
    return Line(name, [*values], unit, f">= {goal:g} {unit}".strip(), median(values) >= goal, digits, note)


def most(
    name: str, values: Sequence[float], goal: float, unit: str = "", digits: str = ".2f", note: str = ""
) -> Line:
    return Line(name, [*values], unit, f"<= {goal:g} {unit}".strip(), median(values) <= goal, digits, note)


@cache
def paced(how: str, numbers: int, wait: float, phases: str, length: float, seconds: float) -> Ran:
    """Four agents in a ring, or four processes without offbeat."""
    m.tell(f"{how}, {4 * numbers / 1e6:.0f} MB, {1e3 * wait:.0f} ms: {seconds:.0f} s")
    samples, trace = m.Samples(), None
    with m.folder() as folder:
        pace = m.write_pace(
            folder,
            numbers=numbers,
            wait=wait,
            phases=phases,
            length=length,
            seconds=seconds,
            slow=SLOW,
            world=4,
        )
        if how == "offbeat":
            trace = m.launch(folder, m.PACED, [how, pace], 4, watch=samples)
        else:
            m.processes(m.PACED, [how, pace], 4, samples.add)
        steps = m.steps_of(folder)
    return Ran(m.phases_of(steps, phases, length, max(0.5, 15 * wait)), samples, trace)


def small(bench: Bench) -> Ran:
    return paced("offbeat", MEGABYTE, 0.02, "mps", 3.0, 20.0 if bench.quick else 62.0)


def large(bench: Bench) -> Ran:
    return paced("offbeat", FORTY, 0.05, "mps", 4.0, 28.0 if bench.quick else 64.0)


def rates(cycle: m.Cycle, phase: str) -> float:
    """Steps per second of a healthy agent, in the mean."""
    return float(np.mean([m.rate(rows) for i, rows in cycle[phase].items() if i != SLOW]))


def ratios(cycles: Sequence[m.Cycle], phase: str, other: str) -> list[float]:
    """In percent, cycle by cycle."""
    return [100 * rates(cycle, phase) / rates(cycle, other) for cycle in cycles]


def added(ran: Ran) -> list[float]:
    """Milliseconds that a step takes beyond the optimizer's own, one value an agent and cycle."""
    inside = [
        {
            phase: [float(np.median(rows["ended"] - rows["began"])) for rows in agents.values()]
            for phase, agents in c.items()
        }
        for c in ran.cycles
    ]
    return [1e3 * (a - b) for c in inside for a, b in zip(c["m"], c["p"], strict=True)]


def overhead(bench: Bench) -> list[Line]:
    """Time in a step."""
    return [most("time added to a step, 1 MB, ring of 4", added(small(bench)), 0.5, "ms", ".3f")]


def straggler(bench: Bench) -> list[Line]:
    """A slow agent and the others."""
    name = "healthy agents' rate with one of 4 ten times slower, 1 MB, 20 ms"
    ddp = paced("ddp", MEGABYTE, 0.02, "ms", 4.0, 20.0 if bench.quick else 28.0)
    return [
        least(name, ratios(small(bench).cycles, "s", "m"), 98, "%"),
        Line("the same with DDP and gloo", ratios(ddp.cycles, "s", "m"), "%", digits=".1f"),
    ]


def one_step(bench: Bench) -> list[Line]:
    """From a gradient to the parameters."""
    m.tell("one step with four neighbours, 40 MB")
    command = [sys.executable, str(m.ONE_STEP), str(FORTY), "8" if bench.quick else "20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = json.loads(done.stdout)
    rule, user = found["rule"], found["user"]
    note = f"copy: {m.shown([*rule['copy_ms'], *user['copy_ms']])} ms"
    return [
        most(
            "flat gradient to parameters, 40 MB, 4 neighbours, in copies: torch", rule["plain"], 7, note=note
        ),
        most(f"the same: {kernel.name()}", rule["kernel"], 4),
        Line("the same in a user's script, SGD's own step included: torch", user["plain"]),
        Line("the same: compiled", user["kernel"]),
        Line("of it, SGD's own step", user["optimizer"]),
    ]


def big(bench: Bench) -> list[Line]:
    """A large model."""
    ran, name = large(bench), "40 MB, ring of 4, 50 ms"
    ddp = paced("ddp", FORTY, 0.05, "ms", 6.0, 24.0 if bench.quick else 36.0)
    alone = [rates(c, "p") for c in ran.cycles]
    share = [100 * rates(c, "m") / median(alone) for c in ddp.cycles]
    return [
        least(f"rate over that without communication, {name}", ratios(ran.cycles, "m", "p"), 85, "%"),
        Line("the same with DDP and gloo", share, "%", digits=".1f"),
        Line("without communication", alone, "steps/s", digits=".1f"),
        Line("time added to a step", added(ran), "ms", digits=".1f"),
        least(
            f"healthy agents' rate with one of 4 ten times slower, {name}",
            ratios(ran.cycles, "s", "m"),
            98,
            "%",
        ),
        Line("the same with DDP and gloo", ratios(ddp.cycles, "s", "m"), "%", digits=".1f"),
    ]


def behind(trace: Trace, slack: float) -> tuple[int, int]:
    """How many versions that were read were older than the newest written `slack` s before; and how many were
    read.

    A version is visible soon after its write is logged, and the read is logged soon after it happened: as
    soon as the machine lets both processes run, hence the slack.
    """
    writes = [trace.writes["time"][trace.writes["agent"] == j] for j in range(trace.agents)]
    reads = rows_of(trace.events, RegisterRead)
    late = 0
    for j in range(trace.agents):
        read = reads[reads["source"] == j]
        late += int((read["version"] < np.searchsorted(writes[j], read["time"] - slack, side="right")).sum())
    return late, len(reads)


def age(bench: Bench) -> list[Line]:
    """What is mixed, and memory over time."""
    ran = small(bench)
    assert ran.trace is not None
    lines = []
    for slack in (0.01, 0.001, 0.0):
        late, total = behind(ran.trace, slack)
        name = f"models read that were older than the newest, written {1e3 * slack:g} ms before"
        line = Line(name, [late], digits=".0f", note=f"of {total:,}")
        lines.append(most(name, [late], 0, digits=".0f", note=line.note) if slack == 0.01 else line)
    table = np.array(ran.samples.total)
    table = table[table[:, 0] > table[0, 0] + (table[-1, 0] - table[0, 0]) / 5]
    slope = float(np.polyfit(table[:, 0] / 60, table[:, 1], 1)[0]) / 1e6
    level = float(np.median(table[:, 1])) / 1e6
    note = f"of {level:.0f} MB private and shared, over {table[-1, 0] - table[0, 0]:.0f} s"
    return [
        *lines,
        most("memory of 4 agents, growth in a minute", [100 * slope / level], 1, "%", ".3f", note),
    ]


def killed(bench: Bench) -> list[Line]:
    """An agent that dies."""
    m.tell("kill -9")
    killer, wait = m.Killer(1 if bench.quick else 3), 0.02
    with m.folder() as folder:
        pace = m.write_pace(
            folder, numbers=MEGABYTE, wait=wait, phases="m", length=1.0, slow=SLOW, world=4,
            seconds=14.0 if bench.quick else 40.0,
        )  # fmt: skip
        trace = m.launch(folder, m.PACED, ["offbeat", pace], 4, watch=killer)
        steps = m.steps_of(folder)
    pauses, calm, again, started = [], [], [], []
    for victim, at in killer.kills:
        others = [rows["ended"] for i, rows in steps.items() if i != victim]
        normal = float(np.median(np.concatenate([np.diff(ended) for ended in others])))
        until = killer.back.get(victim, math.inf)
        longest = [float(np.diff(e[(e > at - 0.5) & (e < until + 0.5)]).max()) for e in others]
        before = [float(np.diff(e[(e > at - 2.5) & (e < at)]).max()) for e in others]
        pauses.append((max(longest) - normal) / normal)
        calm.append((max(before) - normal) / normal)
        again.append(until - at)
        started.append(killer.first[victim])
    crashes = len(rows_of(trace.events, Rejoined))
    return [
        most("longest pause of a survivor after kill -9, in steps", pauses, 1, note=f"{crashes} returned"),
        Line("the same in the 2.5 s before", calm),
        most(
            "killed agent's next step after", again, median(started) + 1, "s", note="goal: first start + 1 s"
        ),
        Line("from exec to the first step, at the first start", started, "s"),
    ]


def memory(bench: Bench) -> list[Line]:
    """What an agent needs beyond what training alone needs."""
    ran = large(bench)
    alone = paced("alone", FORTY, 0.05, "p", 1.0, 5.0)
    base = median(max(rows) for rows in alone.samples.private.values())  # it grows while modules are imported
    private = [(median(rows) - base) / (4 * FORTY) for rows in ran.samples.private.values()]
    largest = [(max(rows) - base) / (4 * FORTY) for rows in ran.samples.private.values()]
    own = [ran.samples.shared[i] / (4 * FORTY) for i in ran.samples.private]
    both = [a + b for a, b in zip(private, own, strict=True)]
    return [
        most("memory beyond training alone, 40 MB, degree 2, in models", both, 4),
        Line("of it private", private),
        Line("of it in shared memory of its own", own, note="and once in a run, where all start from: 3"),
        Line("private at most, while a checkpoint is written", largest),
    ]


ROWS: dict[str, Callable[[Bench], list[Line]]] = {
    "overhead": overhead, "straggler": straggler, "one-step": one_step, "big": big, "age": age,
    "killed": killed, "memory": memory,
    "race": lambda bench: [Line(**row) for row in racing.rows(bench.data, bench.quick)],
    "predict": lambda bench: [Line(**row) for row in foretelling.rows(bench.quick)],
}  # fmt: skip


HEAD = "| | median [smallest - largest] | goal | met | |\n|---|---|---|---|---|"


def tell(lines: Sequence[Line], found: Mapping[str, Any], to: Path) -> None:
    """Print these lines of the table, and write what has been found so far."""
    for line in lines:
        print("| " + " | ".join(line.cells) + " |", flush=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats")
    parser.add_argument("--only", choices=ROWS, action="append", help="one row; repeat it for more")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("OFFBEAT_DATA"), help="folder with MNIST's files"
    )
    parser.add_argument("--json", type=Path, default=Path("build/bench-live.json"))
    options = parser.parse_args()
    bench, began = Bench(options.quick, options.data), time.monotonic()
    torch.set_num_threads(1)
    about = {"cpus": os.cpu_count(), "kernel": kernel.name()}
    about |= {"torch": torch.__version__, "python": platform.python_version()}
    found: dict[str, Any] = {"machine": about}
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {kernel.name()}\n"
    )
    print(HEAD, flush=True)
    for name, row in ROWS.items():
        if options.only and name not in options.only:
            continue
        lines = row(bench)
        found[name] = [asdict(line) for line in lines]
        tell(lines, found, options.json)
    m.tell(f"Written: {options.json}, after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
