"""How fast linear forms over large vectors are: six terms, as ratios to one plain copy of a vector.

    python bench/kernel.py

The terms are those of a step: a model, the models of four neighbours, a gradient. Every repeat measures, one
after the other: the copy, the compiled function, the same in place, and torch's operations. Printed are
medians over the repeats of the ratios within a repeat and, in brackets, the quartiles.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch

from offbeat.core.system import kernel

MEGABYTES = (1, 10, 40)
C = (0.4, 0.15, 0.15, 0.15, 0.15, -0.01)
WORK = 40_000_000
"""Bytes of the result per measurement: short vectors are computed several times."""


def seconds(work: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def contenders(length: int) -> dict[str, Callable[[], object]]:
    """What is measured for vectors of that length; the copy comes first."""
    v = [torch.randn(length) for _ in C]
    out, mine = torch.zeros(length), torch.zeros(length)
    terms = list(zip(C, v, strict=True))
    inside = [(0.4, mine), *terms[1:]]
    return {
        "copy": lambda: out.copy_(v[0]),
        "linear": lambda: kernel.linear(out, terms),
        "linear, in place": lambda: kernel.linear(mine, inside),
        "torch": lambda: kernel._with_torch(out, terms),
    }


def row(megabytes: int, repeats: int) -> list[str]:
    work = contenders(megabytes * 1_000_000 // 4)
    times = max(1, WORK // (megabytes * 1_000_000))
    for job in work.values():
        job()
    measured = [{name: seconds(job, times) for name, job in work.items()} for _ in range(repeats)]
    cells = [f"{1e3 * median(m['copy'] for m in measured):.3f} ms"]
    for name in list(work)[1:]:
        ratios = [m[name] / m["copy"] for m in measured]
        low, middle, high = quantiles(ratios, n=4)
        cells.append(f"{middle:.2f} [{low:.2f} {high:.2f}]")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; the compiled function always has one"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{len(C)} terms of float32, {kernel.name()}, torch {torch.__version__} with {options.threads} "
        "thread(s)"
    )
    print("".join(f"{head:>20}" for head in ("", *contenders(1))))
    for megabytes in MEGABYTES:
        print(
            "".join(f"{cell:>20}" for cell in (f"{megabytes} MB", *row(megabytes, options.repeats))),
            flush=True,
        )


if __name__ == "__main__":
    main()
