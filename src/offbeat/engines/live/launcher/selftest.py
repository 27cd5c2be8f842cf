"""Two processes, started as agents are, read each other's registers while these are written."""

import os
import sys
import time
from contextlib import closing
from pathlib import Path

import torch

from offbeat.core.system.signals import end_with_parent
from offbeat.core.vector import Scope, Vector
from offbeat.engines.live.launcher.children import Children
from offbeat.engines.live.node.performer import Snapshot
from offbeat.engines.live.shm.board import LAUNCHER, Bell
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.run_folder import make_run_folder
from offbeat.engines.live.shm.wire import layout_of

READS, LENGTH, PATIENCE = 300, 10_000, 60.0  # reads of each process, numbers in a model, seconds at most


def run() -> str:
    """What went wrong; empty if nothing did. Raises SharedMemoryError or OSError where there is none."""
    room, said = make_run_folder({}), list[str]()
    end, succeeded = time.monotonic() + PATIENCE, 0

    def tell(agent: int, line: str) -> None:
        said.append(f"[{agent}] {line}")

    try:
        with closing(Bell(room.path, LAUNCHER)) as bell, closing(Children(bell.handle, tell)) as children:
            for i in (0, 1):
                environment = {"OFFBEAT_RUN": str(room.path), "OFFBEAT_RANK": str(i), "OMP_NUM_THREADS": "1"}
                children.start(i, 1, ["-m", __name__], environment, room.path / f"agent-{i}.log")
            while children.running and time.monotonic() < end:
                succeeded += sum(child.process.returncode == 0 for child in children.wait(0.25))
    except OSError as error:
        said.append(f"{type(error).__name__}: {error}")
    finally:
        room.remove()
    return "" if succeeded == 2 else "; ".join(said[-4:]) or f"no exchange within {PATIENCE:g} s"


def exchange() -> None:
    """What each of the two does: write models of equal numbers, and read whole ones of the other."""
    folder, me = Path(os.environ["OFFBEAT_RUN"]), int(os.environ["OFFBEAT_RANK"])
    sample = Snapshot(Vector((torch.zeros(LENGTH),)))
    mine, theirs = Register.create(folder / f"register.{me}", layout_of(sample)), None
    seen, version, end = 0, 0, time.monotonic() + PATIENCE
    while seen < READS or version < 4 * READS:
        if time.monotonic() > end:
            sys.exit(f"read {seen} models of the other process, expected {READS}")
        version += 1
        with Scope():
            (placed,) = mine.begin([Vector((torch.full((LENGTH,), float(version)),))])
        mine.finish(Snapshot(placed), Tag(round=version))
        other = folder / f"register.{1 - me}"
        if theirs is None and other.exists():
            theirs = Register.attach(other)
        if theirs is not None and (found := theirs.newest) > 0:
            _, (x,), _ = theirs.copy()
            low, high = map(float, x.parts[0].aminmax())
            if not found <= low == high:
                sys.exit(f"read a torn or stale model: {low:g} to {high:g}, not {found}")
            seen += 1


if __name__ == "__main__":
    end_with_parent(int(os.environ["OFFBEAT_LIFELINE"]))
    exchange()
