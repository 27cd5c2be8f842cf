"""`offbeat compare --task mnist --case combined`, all of it, over a naive loop that makes as many updates.

    python bench/end_to_end.py --data DIR       (DIR: with MNIST in it)

Every repeat measures, one after the other, the wall-clock time of the command (Python's start, imports, data,
five algorithms, evaluations, table), on all cores or with as many --workers, and the time of an update of
`naive` in simulator.py: an nn.Module, autograd and a torch.optim.SGD for every agent, on one core. The loop
is charged that time for each of the command's updates, whatever the algorithm, and nothing for evaluations.
Printed are medians and, in brackets, the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from simulator import CASES, data, naive, over, prepared, shown

LOOP = 3_000
"""Updates of the naive loop in one measurement."""


def command(folder: Path, until: float, workers: int | None) -> tuple[float, dict[str, int]]:
    """Seconds, and the updates of every algorithm."""
    with TemporaryDirectory() as temporary:
        out = Path(temporary) / "out.json"
        words = f"compare --task mnist --case combined --target 0.89 --until {until} --quiet".split()
        words += ["--data", str(folder), "--json", str(out)]
        words += [] if workers is None else ["--workers", str(workers)]
        began = time.perf_counter()
        command = [sys.executable, "-m", "offbeat", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        return seconds, {run["algorithm"]: run["updates"] for run in json.loads(out.read_text())["runs"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--until", type=float, default=12_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    world = prepared(CASES[0], data(), 0)
    ours, loops = list[float](), list[float]()
    for _ in range(options.repeats):
        seconds, updates = command(options.data.resolve(), options.until, options.workers)
        ours.append(seconds)
        loops.append(sum(updates.values()) / naive(world, LOOP, "adsgd"))
    print(f"updates: {', '.join(f'{name} {count:,}' for name, count in updates.items())}")
    print(
        f"the command: {shown(ours, '.1f')} s; the loop: {shown(loops, '.1f')} s, {LOOP:,} updates of it "
        "measured"
    )
    print(f"faster: {shown(over(loops, ours), '.1f')} times (goal 4)")


if __name__ == "__main__":
    main()
