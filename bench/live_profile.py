"""Where the time goes that ADSGD adds to a step of a live run: two agents, one model of 1 MB each.

    python bench/live_profile.py [--steps 300] [--wait 0.02]

A computation is a wait: the process sleeps, or is busy for as long. First steps are timed, with and without
communication, after either; then they are profiled, after sleeps: which functions take how long of a step.
cProfile makes what is Python look dearer than it is, so trust the order, and the times above it.
"""

import argparse
import cProfile
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "scripts"))
import measuring as m
import torch
from measuring import MEGABYTE
from paced import Wide


def waited(seconds: float, busy: bool) -> None:
    end = time.perf_counter() + seconds
    if not busy:
        time.sleep(seconds)
    while time.perf_counter() < end:
        pass


def timed(step: Callable[[], Any], steps: int, wait: float, busy: bool) -> list[float]:
    """Milliseconds of each step."""
    found = list[float]()
    for _ in range(steps):
        waited(wait, busy)
        began = time.perf_counter()
        step()
        found.append(1e3 * (time.perf_counter() - began))
    return found


def profiled(step: Callable[[], Any], steps: int, wait: float) -> list[tuple[str, float, float]]:
    """Functions by their own time: milliseconds of a step, their own and with what they call."""
    profile = cProfile.Profile()
    for _ in range(steps):
        waited(wait, busy=False)
        profile.enable()
        step()
        profile.disable()
    stats: Any = pstats.Stats(profile)
    rows = [
        (
            name.strip("<>") if path == "~" else f"{Path(path).name}: {name}",
            1e3 * own / steps,
            1e3 * whole / steps,
        )
        for (path, _, name), (_, _, own, whole, _) in stats.stats.items()
    ]
    return sorted(rows, key=lambda row: -row[1])


def agent(folder: Path, steps: int, wait: float) -> None:
    """What each of the two does; the first writes what it has found."""
    import offbeat

    model = Wide(MEGABYTE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    plain = optimizer.step
    model.w.grad = 1e-3 * torch.randn(MEGABYTE)
    joined = offbeat.join()
    joined.wrap(model, optimizer)
    timed(optimizer.step, 50, wait, busy=False)
    found: dict[str, Any] = {
        f"{name}, {'busy' if busy else 'asleep'}": timed(step, steps, wait, busy)
        for busy in (False, True)
        for name, step in (("plain", plain), ("offbeat", optimizer.step))
    }
    found["profile"] = profiled(optimizer.step, steps, wait)
    (folder / f"found.{joined.rank}").write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--wait", type=float, default=0.02, help="seconds of a computation")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "run").mkdir()
        m.launch(folder / "run", Path(__file__), [made, str(asked.steps), str(asked.wait)], 2)
        found = json.loads((folder / "found.0").read_text())
    print("| a step, ms | after a sleep | busy until then |\n|---|---|---|")
    for name in ("plain", "offbeat"):
        row = [median(found[f"{name}, {how}"]) for how in ("asleep", "busy")]
        print(f"| {name} | {row[0]:.3f} | {row[1]:.3f} |")
    print("\n| function, profiled | its own, ms a step | with what it calls |\n|---|---|---|")
    for name, own, whole in found["profile"][:14]:
        print(f"| {name} | {own:.3f} | {whole:.3f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 4 and not sys.argv[1].startswith("-"):
        agent(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
