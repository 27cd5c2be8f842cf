"""What a trace foretells of runs that it has not seen: steps, and the time to 90 % on the digits, sorted by
label.

One run of ADSGD is recorded. From its trace alone the same with a straggler, and DSGD, are predicted; then
both are run for real, with another seed. The step is small, so that the curve's noise is small where it meets
the target.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import measuring as m

from offbeat.engines.trace import Trace
from offbeat.experiments.predicting import predict

WORLD = {
    "task": "digits",
    "agents": 4,
    "unit": "8ms",
    "until": 2600,
    "eval-every": 10,
    "target": 0.9,
    "lr": 0.02,
}
GOAL = 8  # percent, at most
UNSEEN: dict[str, dict[str, str]] = {
    "DSGD": {"algorithm": "dsgd"},
    "a straggler": {"algorithm": "adsgd", "case": "comp-straggler"},
}


def lived(folder: Path, seed: int, algorithm: str, case: str = "base") -> tuple[int, float]:
    """Steps, and units until the target, of one real run."""
    settings = {
        **WORLD,
        "algorithms": algorithm,
        "case": case,
        "seed": seed,
        "out": folder,
        "json": folder / "run.json",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "offbeat", "live", *words, "--quiet"], check=True)
    (run,) = json.loads((folder / "run.json").read_text())["runs"]
    return int(run["updates"]), float("inf" if run["time_to_target"] is None else run["time_to_target"])


def rows(quick: bool) -> list[dict[str, Any]]:
    """For the table: sizes of the errors in percent, one value a run that was not seen."""
    steps: list[float] = []
    times: list[float] = []
    seeds = range(1 if quick else 2)
    for seed in seeds:
        with m.folder() as folder:
            m.tell("digits, 4 agents: a run, two predictions of others, and these")
            for name in ("seen", *UNSEEN):
                (folder / name).mkdir()
            lived(folder / "seen", 2 * seed, "adsgd")
            (trace,) = (folder / "seen").glob("*/trace.npz")
            for name, asked in UNSEEN.items():
                foretold = predict(Trace.load(trace), asked["algorithm"], case=asked.get("case")).predicted
                made, time = lived(folder / name, 2 * seed + 1, **asked)
                m.tell(
                    f"{name}: {made} steps, {time:g} units; foretold {sum(foretold.steps)}, "
                    f"{foretold.times[0]}"
                )
                steps.append(100 * abs(sum(foretold.steps) / made - 1))
                times.append(100 * abs((foretold.times[0] or float("inf")) / time - 1))
    note = f"{' and '.join(UNSEEN)}, from a run of ADSGD without; {len(seeds)} of each"
    both = {"steps": steps, "the time to 90 %": times}
    return [
        {"name": f"prediction of {what}: size of the error", "values": values, "unit": "%",
         "goal": f"<= {GOAL} %", "good": median(values) <= GOAL, "digits": ".1f", "note": note}
        for what, values in both.items()
    ]  # fmt: skip
