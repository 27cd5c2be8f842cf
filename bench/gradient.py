"""How fast gradients of softmax regression are, beside what the processor could do: microseconds a gradient.

    python bench/gradient.py

60,000 random images of 784 pixels in 10 classes, minibatches of 32 drawn from all of them, so that the pixels
are in no cache. All contenders take turns in every repeat, each with minibatches of its own. Printed are
medians over the repeats and, in brackets, the quartiles. The last lines are bounds, measured as well: two
products of the same size and shape in floating-point operations at the speed of a large square product, and a
copy of the bytes that have to move.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median, quantiles

import numpy as np
import torch
from torch import Tensor

from offbeat.tasks import Logistic, Minibatches, softmax
from offbeat.tasks.dataset import DataSet

COUNT, FEATURES, CLASSES, BATCH = 60_000, 784, 10, 32
WIDTHS = (1, 9, 256)
Work = Callable[[np.ndarray], object]


def task(x: Tensor, y: Tensor, compiled: bool) -> Logistic:
    shards = np.zeros((1, 1), np.int64)
    return Logistic(
        DataSet("random", x, y, x[:10000], y[:10000], CLASSES), Minibatches(shards, BATCH), 0.001, compiled
    )


def with_numpy(x: Tensor, y: Tensor, pool: Tensor, out: Tensor, m: int) -> Work:
    """The same formula, a model at a time, with numpy's products."""
    pixels, targets = x.numpy(), np.eye(CLASSES, dtype=np.float32)[y.numpy()]

    def work(index: np.ndarray) -> None:
        for r in range(m):
            model, gradient = pool[r].numpy(), out[r].numpy()
            w, a = model[:-CLASSES].reshape(CLASSES, -1), pixels.take(index[r], 0)
            z = a @ w.T + model[-CLASSES:]
            p = np.exp(z - z.max(1, keepdims=True))
            p = (p / p.sum(1, keepdims=True) - targets.take(index[r], 0)) / np.float32(BATCH)
            gradient[:] = np.float32(0.002) * model / np.square(1 + np.square(model))
            gradient[:-CLASSES] += (p.T @ a).ravel()
            gradient[-CLASSES:] += p.sum(0)

    return work


def contenders(m: int) -> dict[str, Work]:
    source = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (COUNT,), generator=source)
    x = torch.randint(256, (COUNT, FEATURES), generator=source).float() / 255
    odd = torch.rand((COUNT, FEATURES), generator=source)
    pool = 0.1 * torch.randn((2 * m, FEATURES * CLASSES + CLASSES), generator=source)
    rows, outs = np.arange(m), np.arange(m, 2 * m)
    in_bytes, in_floats, plain = task(x, y, True), task(odd, y, True), task(x, y, False)
    print(f"m = {m}: {in_bytes.engine}; {in_floats.engine}")
    bytes_, floats = softmax.kept(in_bytes.data, "train"), softmax.kept(in_floats.data, "train")
    assert isinstance(bytes_, softmax.Samples) and isinstance(floats, softmax.Samples), softmax.name()
    return {
        "compiled, bytes": lambda index: bytes_.gradients(pool, rows, pool, outs, index, in_bytes.reg),
        "compiled, floats": lambda index: floats.gradients(pool, rows, pool, outs, index, in_floats.reg),
        "torch": lambda index: plain.gradients(range(m), list(index), (pool[:m],)),
        "numpy": with_numpy(x, y, pool[:m], pool[m:], m),
        "evaluation: loss, bytes": lambda _: in_bytes.losses((pool[:1],)),
        "evaluation: loss, floats": lambda _: in_floats.losses((pool[:1],)),
        "evaluation: loss, torch": lambda _: plain.losses((pool[:1],)),
        "evaluation: accuracy, bytes": lambda _: in_bytes.accuracies((pool[:1],)),
        "evaluation: accuracy, torch": lambda _: plain.accuracies((pool[:1],)),
    }


def seconds(work: Work, batches: list[np.ndarray]) -> float:
    began = time.perf_counter()
    for index in batches:
        work(index)
    return (time.perf_counter() - began) / len(batches)


def show(name: str, values: list[float], unit: str) -> None:
    low, _, high = quantiles(values, n=4)
    print(f"  {name:<30}{median(values):9.2f} {unit} [{low:.2f} {high:.2f}]", flush=True)


def measure(m: int, repeats: int, times: int) -> None:
    rng = np.random.default_rng(0)
    work = contenders(m)
    calls = {name: 1 if name.startswith("evaluation") else max(2, times // m) for name in work}
    if m != WIDTHS[0]:  # an evaluation is of one model, whatever m is
        work = {name: job for name, job in work.items() if not name.startswith("evaluation")}
    measured: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats + 1):  # the first one only warms up
        for name, job in work.items():
            took = seconds(job, [rng.integers(0, COUNT, (m, BATCH)) for _ in range(calls[name])])
            if repeat:
                measured[name].append(took)
    for name, values in measured.items():
        evaluation = name.startswith("evaluation")
        show(name, [v * (1e3 if evaluation else 1e6 / m) for v in values], "ms" if evaluation else "us")


def bounds(repeats: int) -> None:
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    large, there = torch.zeros(COUNT * FEATURES), torch.zeros(COUNT * FEATURES)
    flop, moved = 4 * BATCH * FEATURES * CLASSES, 8 * (FEATURES + 1) * CLASSES
    products, copies = [], []
    for _ in range(repeats):
        products.append(seconds(lambda _: a @ b, [np.empty(0)] * 3) * flop / 2**31)
        copies.append(seconds(lambda _: there.copy_(large), [np.empty(0)] * 2) / (2 * large.nbytes))
    print("bounds")
    show(f"{flop / 1e6:.1f} MFLOP", [1e6 * v for v in products], "us")
    show("memory, bytes", [1e6 * v * (moved + BATCH * FEATURES) for v in copies], "us")
    show("memory, floats", [1e6 * v * (moved + 4 * BATCH * FEATURES) for v in copies], "us")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--times", type=int, default=1000, help="gradients in a measurement, about")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{FEATURES} x {CLASSES}, batch {BATCH}, {softmax.name()}, torch {torch.__version__}, one thread")
    for m in WIDTHS:
        measure(m, options.repeats, options.times)
    bounds(options.repeats)


if __name__ == "__main__":
    main()
