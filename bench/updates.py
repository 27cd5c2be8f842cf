"""What an update of each algorithm costs in the simulator, in microseconds of processor time.

    python bench/updates.py                        nine agents on a grid, digits (64 x 10), every algorithm
    python bench/updates.py --agents 256 --only adsgd,swift
    python bench/updates.py --wide                 models of 784 x 10, random numbers in the shape of MNIST

An update is one gradient taken, whether it makes a step of its own or not. Who waits for others takes fewer
in the same time, so runs are as long as --updates of them take: what a run costs whatever its length is
shared by as many. Each run is made by `--executor auto` and by `batched`, all algorithms in turns; of three
runs the last counts. Medians of --repeats.

After both comes the ratio to what R-FAST costs by the same within a repeat [smallest - largest], if that is
among them; then, of the batched runs, how many messages agents hear and send an update, and microseconds for
each message that is heard.
"""

import argparse
import gc
import time
from dataclasses import dataclass
from statistics import median

import torch
from simulator import data, logistic, shown

from offbeat.algorithms import ALGORITHMS, find
from offbeat.core.errors import SettingError
from offbeat.engines.events import GradientDone, MailReceived, RegisterRead, rows_of
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, run_one
from offbeat.experiments.setup import prepare
from offbeat.tasks.task import Task


@dataclass(frozen=True)
class Counts:
    """What happens in a run."""

    gradients: int
    heard: int
    sent: int


@dataclass(frozen=True)
class Bench:
    """What is measured: on which task, with so many agents."""

    task: str | Task
    agents: int

    def job(self, name: str, until: float, how: str, keep: bool) -> Job:
        settings = Experiment(
            task=self.task, topology="grid", agents=self.agents, until=until, eval_every=until
        )
        return Job(prepare(settings, 0), find(name), 0.01, how, keep_trace=keep)

    def counts(self, name: str, until: float, how: str) -> Counts:
        """By then."""
        trace = run_one(self.job(name, until, how, keep=True)).trace
        assert trace is not None
        done, *heard = (
            len(rows_of(trace.events, kind)) for kind in (GradientDone, MailReceived, RegisterRead)
        )
        return Counts(done, sum(heard), len(trace.transmissions))

    def cost(self, name: str, updates: int, how: str) -> tuple[float, Counts]:
        """Microseconds an update, and what happens in all of them."""
        short = updates / self.agents / 4
        until = short * updates / self.counts(name, short, how).gradients
        counts, timed = self.counts(name, until, how), self.job(name, until, how, keep=False)
        gc.collect()  # of the runs before
        began = time.process_time()
        run_one(timed)
        return 1e6 * (time.process_time() - began) / counts.gradients, counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=9, help="how many; default 9")
    parser.add_argument("--updates", type=int, default=1500, help="of all agents, in each run; default 1500")
    parser.add_argument("--repeats", type=int, default=3, help="of everything, in turns; default 3")
    parser.add_argument(
        "--only", default=",".join(ALGORITHMS), help="algorithms, as in 'rfast,a2cid2'; default: all"
    )
    parser.add_argument("--wide", action="store_true", help="models of 784 x 10, in place of 64 x 10")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    names, n = asked.only.split(","), asked.agents
    try:
        for name in names:
            find(name)
    except SettingError as error:
        parser.error(str(error))
    bench = Bench(logistic(data(), n, 0) if asked.wide else "digits", n)
    repeats = [
        {name: [bench.cost(name, asked.updates, how) for how in ("auto", "batched")] for name in names}
        for _ in range(asked.repeats)
    ]
    print("| algorithm | auto | over rfast | batched | over rfast | heard | sent | us a message |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        costs = [[each[name][k][0] for each in repeats] for k in range(2)]
        over = [
            [each[name][k][0] / each["rfast"][k][0] for each in repeats if "rfast" in each] for k in range(2)
        ]
        cells = [x for k in range(2) for x in (f"{median(costs[k]):.0f}", shown(over[k]) if over[k] else "")]
        counts = repeats[0][name][1][1]
        heard, sent = counts.heard / counts.gradients, counts.sent / counts.gradients
        message = f"{median(costs[1]) / heard:.0f}" if heard else ""
        print(f"| {' | '.join([name, *cells, f'{heard:.1f}', f'{sent:.1f}', message])} |")


if __name__ == "__main__":
    main()
