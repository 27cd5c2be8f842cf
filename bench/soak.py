"""Sixteen agents on one machine, flat out: do memory and open files grow after the first minute?

    python bench/soak.py [--agents 16] [--seconds 300] [--algorithm adsgd]

Samples every agent's resident memory and open files, and the run's shared memory, every five seconds; fits a
line to the samples after the first minute (or the first fifth of a shorter run), and prints its slope and
what it comes to in an hour. Exit code 1 if an agent's memory grows by more than 1 % a minute, or its files by
more than one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.settings import CheckpointPolicy, RunSettings, ScriptProgram

SCRIPT = Path(__file__).parent / "scripts" / "flat_out.py"
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Samples:
    """Time, memory in MB and open files of everything that is watched, by name."""

    began: float = field(default_factory=time.monotonic)
    last: float = 0.0
    rows: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, launcher: Launcher) -> None:
        """Take a sample, if it is time."""
        now = time.monotonic() - self.began
        if now - self.last < 5:
            return
        self.last = now
        sys.stderr.write(f"\r{now:4.0f} s, {int(launcher.board.rows[:, 3].sum()):,} steps ")
        pids = {f"agent {i}": child.pid for i, child in launcher.children.running.items()}
        for name, pid in {**pids, "launcher": os.getpid()}.items():
            with suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                self.rows[name].append((now, pages * PAGE / 1e6, files))
        shared = [path.stat().st_size for path in launcher.shared.iterdir() if path.is_file()]
        self.rows["shared memory"].append((now, sum(shared) / 1e6, len(shared)))


def lines(samples: Samples, seconds: float) -> Iterator[tuple[str, bool]]:
    """What each came to, and whether it is as it should be."""
    after = min(60.0, seconds / 5)
    for name, rows in samples.rows.items():
        table = np.array([row for row in rows if row[0] >= after])
        if len(table) < 3:
            continue
        minutes = table[:, 0] / 60
        memory, files = (float(np.polyfit(minutes, table[:, k], 1)[0]) for k in (1, 2))
        level = float(np.median(table[:, 1]))
        good = memory <= 0.01 * level and abs(files) < 1
        yield (
            f"{name:14} {level:8.1f} MB {memory:+8.3f} MB/min {table[-1, 2]:5.0f} files {files:+6.2f}/min",
            good,
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--algorithm", default="adsgd")
    args = parser.parse_args()
    samples = Samples()
    with tempfile.TemporaryDirectory() as folder:
        program = ScriptProgram("ring", (str(SCRIPT), str(args.seconds)))
        settings = RunSettings(
            agents=args.agents, folder=Path(folder), program=program, algorithm=args.algorithm,
            checkpoint_every=CheckpointPolicy(seconds=20.0),
        )  # fmt: skip
        launcher = Launcher(settings, ["-m", "offbeat.training.child", *program.command])
        launcher.run(lambda agent, line: print(f"[{agent}] {line}"), samples)
        logs = sum(path.stat().st_size for path in Path(folder).glob("*.trace")) / 1e6
    sys.stderr.write("\n")
    results = list(lines(samples, args.seconds))
    for text, good in results:
        print(text + ("" if good else "   GROWS"))
    print(f"traces on disk: {logs:.1f} MB")
    if not results or not all(good for _, good in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
