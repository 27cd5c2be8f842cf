"""What an update of each algorithm costs in the simulator, in microseconds of processor time, on digits.

    python bench/updates.py                        nine agents on a grid, every algorithm
    python bench/updates.py --agents 256 --only adsgd,swift

An update is one gradient taken, whether it makes a step of its own or not. Who waits for others takes fewer
in the same time, so runs are as long as --updates of them take: what a run costs whatever its length is
shared by as many. Each run is made by `--executor auto` and by `batched`, all algorithms in turns; of three
runs the last counts. Medians of --repeats.
"""

import argparse
import gc
import time
from statistics import median

from offbeat.algorithms import ALGORITHMS, find
from offbeat.engines.events import GradientDone, rows_of
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, run_one
from offbeat.experiments.setup import prepare


def job(name: str, agents: int, until: float, how: str, keep: bool) -> Job:
    settings = Experiment(task="digits", topology="grid", agents=agents, until=until, eval_every=until)
    return Job(prepare(settings, 0), find(name), 0.01, how, keep_trace=keep)


def taken(name: str, agents: int, until: float, how: str) -> int:
    """Gradients by then."""
    trace = run_one(job(name, agents, until, how, keep=True)).trace
    assert trace is not None
    return len(rows_of(trace.events, GradientDone))


def cost(name: str, agents: int, updates: int, how: str) -> float:
    """Microseconds an update."""
    short = updates / agents / 4
    until = short * updates / taken(name, agents, short, how)
    count, timed = taken(name, agents, until, how), job(name, agents, until, how, keep=False)
    gc.collect()  # of the runs before
    began = time.process_time()
    run_one(timed)
    return 1e6 * (time.process_time() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=9)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default=",".join(ALGORITHMS))
    asked = parser.parse_args()
    names, ways = asked.only.split(","), ("auto", "batched")
    took = [
        [[cost(name, asked.agents, asked.updates, how) for how in ways] for name in names]
        for _ in range(asked.repeats)
    ]
    print("| algorithm | auto | batched |\n|---|---|---|")
    for name, *times in zip(names, *took, strict=True):
        auto, batched = map(median, zip(*times, strict=True))
        print(f"| {name} | {auto:.0f} | {batched:.0f} |")


if __name__ == "__main__":
    main()
