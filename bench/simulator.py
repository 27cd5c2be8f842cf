"""How fast the simulator is: ADSGD on logistic regression, as ratios within one run.

    make bench

Every repeat measures, one after the other on one thread: the naive loop (an nn.Module, autograd and torch.optim.SGD
for each agent, driven by the same schedule), the event-by-event oracle, the batched executor, and the batched
gradient alone, which is the floor. Printed are medians over the repeats and, in brackets, the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from offbeat import World, tasks
from offbeat.algorithms import find
from offbeat.rules import SGD
from offbeat.sim.executors import executor
from offbeat.sim.simulator import Simulator
from offbeat.streams import Purpose, stream
from offbeat.task import Task
from offbeat.tasks.data import DataSet
from offbeat.topology import build
from offbeat.trace import Trace

CASES = {"digits, grid of 9": (64, 9, "grid"), "784 features, grid of 9": (784, 9, "grid"),
         "784 features, ring of 128": (784, 128, "ring")}  # fmt: skip


def synthetic(features: int, agents: int) -> tasks.Logistic:
    """Random data in the shape of digits (64) or MNIST (784); speed does not depend on what is in it."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((6400, features), dtype=np.float32))
    y = torch.from_numpy(rng.integers(10, size=6400))
    shards = rng.permutation(6400)[: 6400 // agents * agents].reshape(agents, -1)
    return tasks.Logistic(DataSet("synthetic", x, y, x[:10], y[:10], 10), tasks.Minibatches(shards, 32))


def simulated(how: str, task: Task, topology: str, until: float) -> tuple[float, Trace]:
    """Updates per second of one run, and its trace."""
    row = find("adsgd")
    sim = Simulator(row.new, lambda: SGD(0.01), build(topology, task.agents), task, World(), executor(how, task))
    began = time.perf_counter()
    sim.start()
    sim.run(until)
    return sum(sim.steps) / (time.perf_counter() - began), sim.recorder.trace()


def naive(task: tasks.Logistic, topology: str, trace: Trace) -> float:
    """The same updates in the same order, each with a module, autograd and an optimizer of its own."""
    n, w = task.agents, build(topology, task.agents).views()
    features = task.data.train_x.shape[1]
    modules = [nn.Linear(features, 10) for _ in range(n)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in modules]
    heard: list[dict[int, list[torch.Tensor]]] = [{} for _ in range(n)]
    draws = [stream(0, Purpose.DATA, i) for i in range(n)]
    began = time.perf_counter()
    for i in trace.writes["agent"].tolist():
        index = torch.from_numpy(task.draw(i, draws[i], 1)[0])
        optimizers[i].zero_grad()
        loss = nn.functional.cross_entropy(modules[i](task.data.train_x[index]), task.data.train_y[index])
        penalty = sum((p.square() / (1 + p.square())).sum() for p in modules[i].parameters())
        (loss + 0.001 * penalty).backward()
        with torch.no_grad():
            for k, p in enumerate(modules[i].parameters()):
                p.copy_(sum(w_ij * (heard[i][j][k] if j in heard[i] else p) for j, w_ij in w[i].w.items()))
        optimizers[i].step()
        for j in w[i].listeners:
            heard[j][i] = [p.detach().clone() for p in modules[i].parameters()]
    return len(trace.writes) / (time.perf_counter() - began)


def floor(task: Task, gradients: int) -> float:
    """Gradients per second of the batched call alone, all agents at once."""
    n = min(task.agents, 256)
    rng, models = stream(0, Purpose.DATA, 0), torch.randn(n, task.initial()[0].numel())
    samples = [list(task.draw(i, rng, 8)) for i in range(n)]
    calls = max(1, gradients // n)
    began = time.perf_counter()
    for call in range(calls):
        task.gradients(range(n), [samples[i][call % 8] for i in range(n)], (models,))
    return calls * n / (time.perf_counter() - began)


def measured(repeats: int, updates: int) -> dict[str, dict[str, list[float]]]:
    """case -> what -> one value a repeat."""
    results: dict[str, dict[str, list[float]]] = {}
    for name, (features, agents, topology) in CASES.items():
        task, until = synthetic(features, agents), updates / agents
        results[name] = {"naive": [], "event-by-event": [], "batched": [], "floor": []}
        for _ in range(repeats):
            rate, trace = simulated("batched", task, topology, until)
            results[name]["batched"].append(rate)
            results[name]["event-by-event"].append(simulated("event-by-event", task, topology, until)[0])
            results[name]["naive"].append(naive(task, topology, trace))
            results[name]["floor"].append(floor(task, updates))
    return results


def over(a: list[float], b: list[float]) -> list[float]:
    """The ratios, repeat by repeat."""
    return [x / y for x, y in zip(a, b, strict=True)]


def shown(values: list[float], digits: str = ",.0f") -> str:
    """Median [smallest - largest]."""
    return f"{median(values):{digits}} [{min(values):{digits}} - {max(values):{digits}}]"


def main() -> None:
    """Measure, print, write bench.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--updates", type=int, default=4000, help="updates in one measurement")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = measured(options.repeats, options.updates)
    for name, rates in results.items():
        print(f"\n{name}: updates per second, one thread")
        for what, values in rates.items():
            print(f"  {what:16}{shown(values):>32}   {shown(over(values, rates['naive']), '.2f'):>22} x naive")
        print(f"  batched over floor: {shown(over(rates['batched'], rates['floor']), '.2f')}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nWritten: {options.json}")


if __name__ == "__main__":
    main()
