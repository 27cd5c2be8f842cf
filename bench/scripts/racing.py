"""Time to 89 % on MNIST, sorted by label, one agent ten times slower: ADSGD against DDP with gloo.

The agents hear all others. Once with one step size for both, 0.1; and once with a good one for each: 0.3 for
ADSGD, whose agents have the data of one or two labels, 0.6 for DDP. What is looked at is the mean of the
agents' models, every tenth of a second of the run, afterwards.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import measuring as m
import numpy as np
import torch

from offbeat.results.values import Curve
from offbeat.tasks.data import load
from offbeat.tasks.dataset import DataSet
from offbeat.tasks.partition import split

WAIT, TARGET, EVERY = 0.015, 0.89, 0.1
DDP, ADSGD = "ddp", "offbeat"
SECONDS = {
    (8, DDP, 0.1): 46.0, (8, ADSGD, 0.1): 14.0, (8, DDP, 0.6): 14.0, (8, ADSGD, 0.3): 9.0,
    (4, DDP, 0.1): 48.0, (4, ADSGD, 0.1): 16.0,
}  # fmt: skip
"""How long a run is at most: (agents, how, step) -> seconds."""


def accuracy(data: DataSet, models: np.ndarray) -> float:
    """Of the mean of models, each [7850]."""
    x = torch.from_numpy(models.mean(0))
    logits = torch.addmm(x[7840:], data.test_x, x[:7840].view(10, 784).T)
    return float((logits.argmax(1) == data.test_y).double().mean())


def reached(folder: Path, data: DataSet, n: int) -> tuple[float, float, float]:
    """Seconds until the target, infinity if it was not met; the best accuracy until then; the last time."""
    found = [np.load(folder / f"models.{i}.npz") for i in range(n)]
    times, models = [f["times"] for f in found], [f["models"] for f in found]
    zero, end = max(t[0] for t in times), max(t[-1] for t in times)
    curve = Curve()
    for at in np.arange(zero + EVERY, end, EVERY):
        now = [models[i][np.searchsorted(times[i], at, side="right") - 1] for i in range(n)]
        curve.time.append(float(at - zero))
        curve.accuracy.append(accuracy(data, np.stack(now)))
        if curve.accuracy[-1] >= TARGET:
            break
    met = curve.crossing("accuracy", TARGET)
    return math.inf if met is None else met, max(curve.accuracy), float(end - zero)


def raced(data: DataSet, n: int, how: str, lr: float) -> float:
    """Seconds that one run needs."""
    seconds = SECONDS[n, how, lr]
    m.tell(f"MNIST, {n} agents, {how}, step {lr:g}: {seconds:.0f} s")
    shards = split("skew:1", data.train_y.numpy(), len(data.train_y), n, np.random.default_rng(0))
    with m.folder() as folder:
        for i, shard in enumerate(shards):
            np.save(folder / f"x.{i}.npy", data.train_x[torch.from_numpy(shard)].numpy())
            np.save(folder / f"y.{i}.npy", data.train_y[torch.from_numpy(shard)].numpy())
        path = folder / "race.json"
        path.write_text(
            json.dumps(
                {"folder": str(folder), "world": n, "wait": WAIT, "seconds": seconds, "slow": 0, "lr": lr}
            )
        )
        if how == ADSGD:
            trace = m.launch(folder, m.RACE, [how, str(path)], n, "complete")
            m.tell(
                f"steps of each agent: {trace.updates().tolist()}, {int(trace.updates()[1]) / seconds:.1f} a "
                "second"
            )
        else:
            m.processes(m.RACE, [how, str(path)], n)
        at, best, end = reached(folder, data, n)
    m.tell(f"{at:.1f} s; best {100 * best:.2f} % in {end:.1f} s")
    return at


def rows(where: Path | None, quick: bool) -> list[dict[str, Any]]:
    """The rows of the table; none without data."""
    if where is None:
        m.tell("no MNIST: name its folder with --data or OFFBEAT_DATA; skipped")
        return []
    data = load("mnist", Path(where))
    lines = []
    for n, goal, steps in ((8, 4, ((0.1, 0.1), (0.6, 0.3))), (4, 3, ((0.1, 0.1),))):
        for ddp, adsgd in steps:
            if quick and (n == 4 or ddp == adsgd):
                continue
            a, b = raced(data, n, DDP, ddp), raced(data, n, ADSGD, adsgd)
            ratio = a / b if math.isfinite(b) else 0.0
            which = (
                f"step {ddp:g} for both" if ddp == adsgd else f"each at its best step, {ddp:g} and {adsgd:g}"
            )
            lines.append({
                "name": f"time to 89 % on MNIST, {n} agents, DDP over ADSGD, {which}", "values": [ratio],
                "unit": "", "goal": f">= {goal}", "good": ratio >= goal, "note": f"{a:.1f} s and {b:.1f} s",
            })  # fmt: skip
    return lines
