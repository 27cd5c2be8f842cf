"""How fast the simulator is: ADSGD and R-FAST on logistic regression, as ratios within one run on one thread.

    make bench                                  all cases, in a few minutes
    python bench/simulator.py --only "9 agents"

784 features, 10 classes, minibatches of 32 out of 60,000 samples of random bytes; gamma and lognormal delays
of mean 1. Every repeat measures, one after the other:

    naive     an nn.Module and autograd for every agent, and a heap of events; the algorithm by hand
    offbeat   everything from the checked settings to the last update: timetable, forms, pool, arithmetic
    floor     the gradients alone, in calls as wide as the runs' own; no mixing, no time, nothing drawn
    timing    of offbeat, what is not arithmetic: the timetable

Printed are medians over the repeats and, in brackets, the smallest and the largest; build/bench.json has all
values. Peak memory is that of a process of its own that makes one run, the data and torch itself included.
"""

from __future__ import annotations

import argparse
import heapq
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from offbeat import SGD, Quadratic, View, tasks
from offbeat.algorithms import find
from offbeat.core.system.streams import Purpose, stream
from offbeat.engines.sim.ahead.rhythm import readings
from offbeat.engines.sim.ahead.schedule import Schedule
from offbeat.engines.sim.executors import WIDEST
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, engines, simulator
from offbeat.experiments.setup import Setup, prepare
from offbeat.tasks import softmax
from offbeat.tasks.dataset import DataSet
from offbeat.tasks.task import Task

FEATURES, CLASSES, SAMPLES, BATCH, REG = 784, 10, 60_000, 32, 0.001


@dataclass(frozen=True)
class Case:
    """updates: of offbeat in one measurement, all replicas together; naive: of the naive loop; goals: over
    both, if there is one.
    """

    name: str
    agents: int
    topology: str
    updates: int
    naive: int
    goals: tuple[float, float]
    replicas: int = 1
    algorithm: str = "adsgd"


CASES = (
    Case("9 agents", 9, "grid", 30_000, 3_000, (5, 0.7)),
    Case("9 agents, 8 replicas", 9, "grid", 80_000, 3_000, (10, 0.6), 8),
    Case("128 agents", 128, "ring", 40_000, 3_000, (10, 0.65)),
    Case("1,024 agents", 1024, "ring", 80_000, 4_000, (10, 0.6)),
    Case("10,000 agents", 10_000, "ring", 200_000, 12_000, (5, 0.5)),
    Case("rfast, 9 agents", 9, "grid", 20_000, 2_000, (12, 0.0), 1, "rfast"),
    Case("rfast, 128 agents", 128, "ring", 20_000, 2_000, (10, 0.0), 1, "rfast"),
    Case("rfast, 1,024 agents", 1024, "ring", 40_000, 3_000, (10, 0.0), 1, "rfast"),
    Case("rfast, 10,000 agents", 10_000, "ring", 100_000, 12_000, (10, 0.0), 1, "rfast"),
)
GENERIC = {"adsgd": 1024, "rfast": 1024, "adpsgd": 1024, "dsgd": 1024, "allreduce": 9}
"""Of the simulator with its heap: how many agents."""


def data() -> DataSet:
    """Random bytes in the shape of MNIST; speed does not depend on what is in it."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(256, size=(SAMPLES, FEATURES), dtype=np.uint8)).float() / 255
    y = torch.from_numpy(rng.integers(CLASSES, size=SAMPLES))
    return DataSet("synthetic", x, y, x[:10], y[:10], CLASSES)


def logistic(samples: DataSet, agents: int, seed: int) -> tasks.Logistic:
    shards = np.random.default_rng(seed).permutation(SAMPLES)[: SAMPLES // agents * agents]
    return tasks.Logistic(samples, tasks.Minibatches(shards.reshape(agents, -1), BATCH), REG)


def prepared(case: Case, samples: DataSet, seed: int) -> Setup:
    """The experiment of one replica."""
    task, until = logistic(samples, case.agents, seed), case.updates / case.agents / case.replicas
    return prepare(Experiment(task=task, topology=case.topology, until=until, eval_every=until), seed)


def ours(worlds: Sequence[Setup], algorithm: str) -> float:
    """Updates per second."""
    began = time.perf_counter()
    made = engines([Job(p, find(algorithm), 0.01) for p in worlds])
    for each in made:
        each.start()
        each.run(worlds[0].until)
    seconds = time.perf_counter() - began
    assert len(made) == len(worlds)
    return sum(each.counts()[0] for each in made) / seconds


def schedule(p: Setup, algorithm: str) -> Schedule:
    """What is known of a run before any arithmetic."""
    (model,) = p.task.initial()
    return Schedule(readings(find(algorithm).new, lambda: SGD(0.01), p.topology.views(), model), p.world)


def timing(worlds: Sequence[Setup], algorithm: str) -> float:
    """Updates per second of the timetable alone."""
    began = time.perf_counter()
    made = [schedule(p, algorithm).segment(p.until, more=False) for p in worlds]
    return sum(len(table.time) for table in made) / (time.perf_counter() - began)


def floor(task: tasks.Logistic, agents: int, replicas: int, gradients: int) -> float:
    """Gradients per second, on as many models as the run has."""
    models, wide = agents * replicas, min(agents * replicas, WIDEST)
    pool = torch.randn(models + wide, CLASSES * (FEATURES + 1))
    rng, out = stream(0, Purpose.DATA, 0), np.arange(models, models + wide)
    index = rng.integers(SAMPLES, size=(64, wide, BATCH))
    calls, samples = max(1, gradients // wide), softmax.kept(task.data, "train")
    began = time.perf_counter()
    for call in range(calls):
        rows = np.arange(call * wide, (call + 1) * wide) % models
        if isinstance(samples, softmax.Samples):
            samples.gradients(pool, rows, pool, out, index[call % 64], REG)
        else:
            task.gradients(range(wide), list(index[call % 64]), (pool[torch.from_numpy(rows)],))
    return calls * wide / (time.perf_counter() - began)


Models = list[torch.Tensor]


class NaiveADSGD:
    """As one writes it first, on the parameters of a module."""

    def __init__(self, module: nn.Module, view: View, lr: float) -> None:
        self.parameters, self.view = [*module.parameters()], view
        self.optimizer, self.heard = torch.optim.SGD(self.parameters, lr), dict[int, Models]()

    def hear(self, source: int, message: Models) -> None:
        self.heard[source] = message

    def step(self) -> list[tuple[Sequence[int], Models]]:
        """Mix and step; what is sent to whom."""
        heard, mine = self.heard, self.parameters
        for k, q in enumerate(mine):
            mixed = [w * (heard[j][k] if j in heard else q) for j, w in self.view.w.items()]
            q.copy_(sum(mixed, start=torch.zeros(())))
        self.optimizer.step()
        return [(self.view.listeners, [q.clone() for q in mine])]


class NaiveRFAST:
    """R-FAST likewise: running sums to each neighbour by itself, and the model to all."""

    def __init__(self, module: nn.Module, view: View, lr: float) -> None:
        self.parameters, self.view, self.lr = [*module.parameters()], view, lr
        (self.me,) = set(view.w) - set(view.peers)
        self.z, self.g, self.heard = self.zero(), self.zero(), dict[int, Models]()
        self.given, self.got, self.used = ({j: self.zero() for j in view.peers} for _ in range(3))

    def zero(self) -> Models:
        return [torch.zeros_like(q) for q in self.parameters]

    def hear(self, source: int, message: Models) -> None:
        if len(message) > len(self.parameters):
            self.heard[source] = message[:-1]
        else:
            self.got[source] = message

    def step(self) -> list[tuple[Sequence[int], Models]]:
        """One iteration; what is sent to whom. The model is told from a sum by its mark at the end."""
        view, sent = self.view, list[tuple[Sequence[int], Models]]()
        fresh: Models = [q.grad.clone() for q in self.parameters if q.grad is not None]
        half = [z - old + new for z, old, new in zip(self.z, self.g, fresh, strict=True)]
        for j, rho in self.got.items():
            half = [h + r - u for h, r, u in zip(half, rho, self.used[j], strict=True)]
            self.used[j] = rho
        self.g = fresh
        for j, a in view.a.items():
            if j != self.me:
                self.given[j] = [r + a * h for r, h in zip(self.given[j], half, strict=True)]
                sent.append(((j,), self.given[j]))
        self.z = [view.a[self.me] * h for h in half]
        v = [q - self.lr * z for q, z in zip(self.parameters, self.z, strict=True)]
        for k, q in enumerate(self.parameters):
            mixed = [w * (self.heard[j][k] if j in self.heard else v[k]) for j, w in view.w.items()]
            q.copy_(sum(mixed, start=torch.zeros(())))
        return [*sent, (view.listeners, [*v, torch.zeros(0)])]


NAIVE: dict[str, type[NaiveADSGD] | type[NaiveRFAST]] = {"adsgd": NaiveADSGD, "rfast": NaiveRFAST}


def naive(p: Setup, updates: int, algorithm: str) -> float:
    """Updates per second of a loop such as one writes first."""
    assert isinstance(p.task, tasks.Logistic)
    samples, shards, n = p.task.data, p.task.minibatches.shards, p.topology.n
    rng, modules = np.random.default_rng(0), [nn.Linear(FEATURES, CLASSES) for _ in range(n)]
    agents = [NAIVE[algorithm](m, view, 0.01) for m, view in zip(modules, p.topology.views(), strict=True)]
    events: list[tuple[float, int, int, Any]] = []  # with a message: it arrives at its receivers
    waiting: list[list[tuple[Sequence[int], Models]]] = [[] for _ in agents]  # to be sent, one at a time
    for i in range(n):
        heapq.heappush(events, (rng.gamma(16, 1 / 16), len(events), i, None))
    done, number = 0, n
    began = time.perf_counter()
    while done < updates:
        now, _, i, message = heapq.heappop(events)
        if message is not None:
            for j in message[0]:
                agents[j].hear(i, message[1])
            waiting[i].pop(0)
        else:
            index = torch.from_numpy(shards[i][rng.integers(len(shards[i]), size=BATCH)])
            modules[i].zero_grad()
            loss = nn.functional.cross_entropy(modules[i](samples.train_x[index]), samples.train_y[index])
            penalty = sum((q.square() / (1 + q.square())).sum() for q in modules[i].parameters())
            torch.autograd.backward(loss + REG * penalty)
            with torch.no_grad():
                sent = agents[i].step()
            idle, waiting[i] = not waiting[i], [*waiting[i][:1], *sent]
            heapq.heappush(events, (now + rng.gamma(16, 1 / 16), number, i, None))
            done, number = done + 1, number + 1
            if not idle:
                continue
        if waiting[i]:
            heapq.heappush(events, (now + rng.lognormal(-0.35, 0.83), number, i, waiting[i][0]))
            number += 1
    return done / (time.perf_counter() - began)


def generic(name: str, n: int) -> float:
    """Events per second of the simulator with its heap, on models of one number: handlers and arrivals."""
    task: Task = Quadratic(np.zeros((n, 1)), np.ones(n))
    p = prepare(Experiment(task=task, topology="ring", until=20_000 / n, eval_every=20_000 / n), 0)
    sim = simulator(Job(p, find(name), 0.01))
    began = time.perf_counter()
    sim.start()
    sim.run(p.until)
    return (len(sim.recorder.events) + len(sim.recorder.transmissions)) / (time.perf_counter() - began)


def scheduled(case: Case, samples: DataSet) -> float:
    """Events per second of the timetable."""
    p = prepared(case, samples, 0)
    began = time.perf_counter()
    table = schedule(p, "adsgd").segment(p.until, more=False)
    seconds = time.perf_counter() - began
    return (p.topology.n + len(table.time) + len(table.heard[0]) + len(table.sent[0])) / seconds


def measured(case: Case, samples: DataSet, repeats: int) -> dict[str, list[float]]:
    """What -> one value a repeat."""
    worlds = [prepared(case, samples, seed) for seed in range(case.replicas)]
    task = worlds[0].task
    assert isinstance(task, tasks.Logistic)
    floor(task, 1, 1, 1)  # compiles
    found: dict[str, list[float]] = {name: [] for name in ("naive", "offbeat", "floor", "timing")}
    for _ in range(repeats):
        found["offbeat"].append(ours(worlds, case.algorithm))
        found["floor"].append(floor(task, case.agents, case.replicas, case.updates // 2))
        found["naive"].append(naive(worlds[0], case.naive, case.algorithm))
        found["timing"].append(timing(worlds, case.algorithm))
    return found


def over(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """The ratios, repeat by repeat."""
    return [x / y for x, y in zip(a, b, strict=True)]


def shown(values: Sequence[float], digits: str = ".2f") -> str:
    """Median [smallest - largest]."""
    return f"{median(values):{digits}} [{min(values):{digits}} - {max(values):{digits}}]"


def peak(case: Case) -> float:
    """Gigabytes of a process that makes this run."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", case.name], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def told(case: Case, found: dict[str, list[float]], gigabytes: float) -> str:
    """A row of the table."""
    speed, share = over(found["offbeat"], found["naive"]), over(found["offbeat"], found["floor"])
    return " | ".join([
        f"| {case.name}, {case.topology}", shown([1e6 / x for x in found["naive"]], ".0f"),
        shown([1e6 / x for x in found["offbeat"]], ".1f"), shown([1e6 / x for x in found["floor"]], ".1f"),
        *[
            f"**{shown(values, digits)}**" + (f" (goal {goal:g})" if goal else "")
            for values, digits, goal in zip((speed, share), (".1f", ".2f"), case.goals, strict=True)
        ],
        f"{100 * median(over(found['offbeat'], found['timing'])):.0f} %", f"{gigabytes:.2f} |",
    ])  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--only", choices=[case.name for case in CASES], action="append", help="one case; or more"
    )
    parser.add_argument("--peak", choices=[case.name for case in CASES], help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = data()
    if options.peak:
        (case,) = [case for case in CASES if case.name == options.peak]
        ours([prepared(case, samples, seed) for seed in range(case.replicas)], case.algorithm)
        (line,) = [s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM")]
        print(int(line.split()[1]) / 1e6)  # the kernel hands ru_maxrss down from parent to child
        return
    results: dict[str, Any] = {}
    print("| 784 x 10 | naive, us an update | offbeat | floor | over naive | over the floor | timing | GB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for case in CASES:
        if not options.only or case.name in options.only:
            results[case.name] = measured(case, samples, options.repeats)
            gigabytes = peak(case)
            print(told(case, results[case.name], gigabytes), flush=True)
            results[case.name]["peak_gb"] = [gigabytes]
    if not options.only:
        print(
            "\nEvents (handlers called and arrivals), thousands a second; arithmetic on one number where "
            "there is any"
        )
        times = range(options.repeats)
        results["generic"] = {name: [generic(name, n) for _ in times] for name, n in GENERIC.items()}
        for name, values in results["generic"].items():
            said = shown([x / 1e3 for x in values], ".0f")
            print(f"  the simulator with its heap, {name}, {GENERIC[name]} agents: {said}")
        results["timetable"] = [scheduled(CASES[3], samples) for _ in times]
        print(
            f"  the timetable, adsgd, {CASES[3].name}: "
            f"{shown([x / 1e3 for x in results['timetable']], '.0f')}"
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nWritten: {options.json}")


if __name__ == "__main__":
    main()
