"""How fast the simulator is on a GPU, beside the CPU of the same machine: microseconds an update.

    python bench/gpu.py                       all cases, in about four minutes
    python bench/gpu.py --only convolutions

Logistic regression on random bytes in the shape of MNIST, as in `bench/simulator.py`, and a small network
with convolutions (3x32x32, C and 2C channels with GroupNorm) by `vmap` and agent by agent; minibatches of 32,
a ring. On the CPU one thread; on the GPU, after one run that is not counted. CPU and GPU take turns in every
repeat; printed are medians over the repeats, the smallest and the largest, and the ratio within a repeat.
`--device cpu` takes the CPU in the GPU's place, to try the script where there is none.
"""

import argparse
import time

import torch
from simulator import data, logistic, over, shown
from torch import nn

from offbeat import ModuleTask
from offbeat.algorithms import find
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, engines
from offbeat.experiments.setup import prepare
from offbeat.tasks.dataset import DataSet
from offbeat.tasks.task import Task

LOGISTIC, CONVOLUTIONS = "logistic regression", "convolutions"


def convolutions(channels: int, agents: int, vectorized: bool | None) -> ModuleTask:
    """Two convolutions with GroupNorm and one linear layer, on random images."""
    source, c = torch.Generator().manual_seed(0), channels
    x, y = torch.randn((4096, 3, 32, 32), generator=source), torch.randint(10, (4096,), generator=source)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, c, 3, padding=1), nn.GroupNorm(2, c), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(c, 2 * c, 3, padding=1), nn.GroupNorm(2, 2 * c), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128 * c, 10),
    )  # fmt: skip
    loss = nn.functional.cross_entropy
    return ModuleTask(module, loss, (x, y), agents=agents, batch=32, vectorized=vectorized)


def microseconds(task: Task, device: str, updates: int, algorithm: str) -> float:
    """An update of one agent, everything from the checked settings to the last one included."""
    until = updates / task.agents
    e = Experiment(task=task, topology="ring", until=until, eval_every=until, device=device)
    (engine,) = engines([Job(prepare(e, 0), find(algorithm), 0.01)])
    began = time.perf_counter()
    engine.start()
    engine.run(until)
    if device != "cpu":
        torch.cuda.synchronize()
    return 1e6 * (time.perf_counter() - began) / engine.counts()[0]


def row(name: str, task: Task, counts: tuple[int, int], options: argparse.Namespace, how: str) -> None:
    """counts: updates in one measurement, on the CPU and on the GPU"""
    took: dict[str, list[float]] = {"cpu": [], "gpu": []}
    microseconds(task, options.device, counts[1] // 4, how)
    for _ in range(options.repeats):
        took["cpu"].append(microseconds(task, "cpu", counts[0], how))
        took["gpu"].append(microseconds(task, options.device, counts[1], how))
    times = [shown(took[where], ".1f") for where in ("cpu", "gpu")]
    print(
        f"| {how}, {name} | {' | '.join(times)} | {shown(over(took['cpu'], took['gpu']), '.2f')} |",
        flush=True,
    )


def logistic_rows(options: argparse.Namespace) -> None:
    samples: DataSet = data()
    sizes = {9: (20_000, 10_000), 128: (40_000, 40_000), 1024: (80_000, 160_000)}
    for algorithm in ("adsgd", "rfast"):
        for agents, counts in sizes.items():
            row(f"{LOGISTIC}, {agents:,} agents", logistic(samples, agents, 0), counts, options, algorithm)


def convolution_rows(options: argparse.Namespace) -> None:
    for channels, agents, vectorized, cpu, gpu in (
        (6, 9, None, 200, 2000), (6, 128, None, 256, 8000), (32, 9, None, 60, 1000),
        (32, 128, None, 128, 4000), (32, 128, False, 128, 1000),
    ):  # fmt: skip
        how = "" if vectorized is None else ", agent by agent"
        task = convolutions(channels, agents, vectorized)
        row(f"{channels}-{2 * channels} channels, {agents} agents{how}", task, (cpu, gpu), options, "adsgd")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=[LOGISTIC, CONVOLUTIONS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    what = torch.cuda.get_device_name(options.device) if options.device != "cpu" else "no GPU"
    print(f"torch {torch.__version__}, {what}\n")
    print("| us an update | CPU | GPU | CPU over GPU |\n|---|---|---|---|", flush=True)
    for name, rows in ((LOGISTIC, logistic_rows), (CONVOLUTIONS, convolution_rows)):
        if options.only in (None, name):
            rows(options)


if __name__ == "__main__":
    main()
