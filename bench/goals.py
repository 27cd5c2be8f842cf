"""What all else costs than ADSGD and R-FAST alone, beside the goals: ratios within one run, on one thread.

    make bench                               after `simulator.py`
    python bench/goals.py --data DIR         with the commands of the README that need MNIST, too
    python bench/goals.py --only grow        some rows: of costs, variants, grow, whole

Models are 784 x 10 (`simulator.py`), times those of processor and wall alike as far as nothing else runs; for
whole commands, which take all cores, they are seconds on the wall. Medians of --repeats [smallest - largest].
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from simulator import data, logistic, over, shown

from offbeat.algorithms import find
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import AUTO, Job, engines
from offbeat.experiments.setup import prepare
from offbeat.tasks.dataset import DataSet

GRID = Path(__file__).parents[1] / "examples" / "mnist-evaluation.toml"
LONG = 2_000  # gradient times of nine agents
VARIANTS: dict[str, dict[str, Any]] = {
    "losses": {"loss": 0.1},
    "momentum": {"optimizer": "momentum"},
    "crashes": {"crash": ("agent 2 at 200 until 400", "agent 5 at 600 until 700")},
}


def cost(samples: DataSet, name: str, agents: int, until: float, how: str = AUTO, **more: Any) -> float:
    """Microseconds an update."""
    settings = {"topology": "grid" if agents == 9 else "ring", "agents": agents, "until": until} | more
    made = Experiment(task=logistic(samples, agents, 0), eval_every=until, **settings)
    job = Job(prepare(made, 0), find(name), 0.01, how, keep_trace=False)
    gc.collect()
    began = time.process_time()
    (engine,) = engines([job])
    engine.start()
    for k in range(1, 11):  # a ring's hops are recorded at each
        engine.run(until * k / 10)
    return 1e6 * (time.process_time() - began) / engine.counts()[0]


def row(what: str, values: list[float], goal: float, digits: str = ".2f", note: str = "") -> None:
    print(f"| {what} | {shown(values, digits)} | at most {goal:g} | {note} |", flush=True)


def costs(samples: DataSet, times: range) -> None:
    """What waits, over what it takes with the heap: a goal for what it took before handlers were recorded,
    when it was 1.75 (dsgd), 1.89 (adpsgd) and 3.5 times (allreduce) as long as with the heap now.
    """
    for name, before in (("dsgd", 1.75), ("adpsgd", 1.89), ("allreduce", 3.5)):
        found = {how: [cost(samples, name, 9, LONG, how) for _ in times] for how in (AUTO, "batched")}
        ratio = over(found[AUTO], found["batched"])
        note = f"{shown(found[AUTO], '.0f')} us an update; over the heap {shown(ratio)}"
        row(f"{name}, 9 agents, over before", [each / before for each in ratio], 0.4, note=note)
    everybody = [cost(samples, "allreduce", 1024, 30) * 1024 / 1e6 for _ in times]
    row("allreduce, 1,024 agents, an update of everybody, s", everybody, 1.0)


def variants(samples: DataSet, times: range) -> None:
    """ADSGD with something more, over plain ADSGD."""
    for name, more in VARIANTS.items():
        pairs = [(cost(samples, "adsgd", 9, LONG, **more), cost(samples, "adsgd", 9, LONG)) for _ in times]
        row(f"adsgd with {name}, over adsgd", [a / b for a, b in pairs], 1.3)


def grow(samples: DataSet, times: range) -> None:
    """An update of many agents, over one of 128."""
    for name in ("rfast", "dsgd"):
        pairs = [(cost(samples, name, 10_000, 40), cost(samples, name, 128, 300)) for _ in times]
        note = f"{shown([a for a, _ in pairs], '.0f')} us an update"
        row(f"{name}, 10,000 agents, over 128", [a / b for a, b in pairs], 2.0, note=note)


def whole(folder: Path | None, times: range) -> None:
    """Whole commands, on all cores."""
    digits = [command("compare --task digits --case combined --quiet") for _ in times]
    row("five algorithms on digits, s", digits, 6.0, ".1f")
    if folder is not None:
        words = f"compare --task mnist --case combined --target 0.89 --quiet --data {folder}"
        row("the MNIST command, s", [command(words) for _ in times], 8.0, ".1f")
        with tempfile.TemporaryDirectory() as made:
            words = f"sweep {GRID} --out {made}/grid.parquet --quiet"
            row("75 runs on MNIST, once, s", [command(words, OFFBEAT_DATA=str(folder))], 105.0, ".0f")


def command(words: str, **environment: str) -> float:
    """Seconds on the wall."""
    began, told = time.perf_counter(), os.environ | environment
    what = [sys.executable, "-m", "offbeat", *words.split()]
    subprocess.run(what, check=True, stdout=subprocess.DEVNULL, env=told)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", choices=["costs", "variants", "grow", "whole"], action="append")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    samples, times = data(), range(asked.repeats)
    cost(samples, "adsgd", 9, 1.0)  # compiles
    parts: dict[str, Callable[[], None]] = {
        "costs": lambda: costs(samples, times),
        "variants": lambda: variants(samples, times),
        "grow": lambda: grow(samples, times),
        "whole": lambda: whole(asked.data and asked.data.resolve(), times),
    }
    print("| | median [smallest - largest] | goal | |\n|---|---|---|---|", flush=True)
    for name in asked.only or parts:
        parts[name]()


if __name__ == "__main__":
    main()
