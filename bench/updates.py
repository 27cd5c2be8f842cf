"""What an update of each algorithm costs in the simulator, in microseconds of processor time, on digits.

    python bench/updates.py                        nine agents on a grid, every algorithm
    python bench/updates.py --agents 256 --only adsgd,swift

An update is one gradient taken, whether it makes a step of its own or not. Each run is made by
`--executor auto` and by `batched`; the second run of two counts. Medians of --repeats in turns.
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


def cost(name: str, agents: int, updates: int, how: str) -> float:
    """Microseconds an update."""
    until = updates / agents
    settings = Experiment(task="digits", topology="grid", agents=agents, until=until, eval_every=until)
    setup, row = prepare(settings, 0), find(name)
    trace = run_one(Job(setup, row, 0.01, how)).trace
    assert trace is not None
    gc.collect()  # of the run before
    began = time.process_time()
    run_one(Job(setup, row, 0.01, how, keep_trace=False))
    return 1e6 * (time.process_time() - began) / len(rows_of(trace.events, GradientDone))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=9)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default=",".join(ALGORITHMS))
    asked = parser.parse_args()
    print("| algorithm | auto | batched |\n|---|---|---|")
    for name in asked.only.split(","):
        took = [
            [cost(name, asked.agents, asked.updates, how) for how in ("auto", "batched")]
            for _ in range(asked.repeats)
        ]
        auto, batched = map(median, zip(*took, strict=True))
        print(f"| {name} | {auto:.0f} | {batched:.0f} |", flush=True)


if __name__ == "__main__":
    main()
