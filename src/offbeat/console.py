"""The terminal: a console that outlives its reader, and the progress of runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isfinite
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from offbeat.report.markup import time_text
from offbeat.report.table import WIDTH, lost_again, target_name
from offbeat.results import Curve, Run
from offbeat.results import Progress as Tell

EVERY = 30.0
"""Seconds between the lines that say how far runs are, where there is no terminal that shows it."""


class Out(Console):
    """A console that takes it calmly when its reader goes away (as `head` does); the results matter more.

    Of standard error, which shows how far the work is, any fault of its file is taken so.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr)
        if not self.is_terminal:
            self.width = WIDTH

    def print(self, *objects: Any, **how: Any) -> None:
        """As of any console. Raises OSError where standard output cannot be written."""
        try:
            super().print(*objects, **how)
        except OSError:
            if not self.stderr:
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Say no more, and leave nothing to be flushed into the pipe at the end."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def complain(text: str) -> None:
    """Say on standard error what the user should know."""
    Out(stderr=True).print(Text(text), soft_wrap=True)


def progress_bar() -> Progress:
    """A bar on standard error, gone when it is finished."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Out(stderr=True), transient=True,
    )  # fmt: skip


def told_by(bar: Progress, count: int) -> tuple[Tell, Callable[[Run], None]]:
    """A callback for every evaluation and one for every finished run.

    A line shows the runs that each process is making, another how many are done. Where there is no terminal, a line is
    printed every `EVERY` seconds.
    """
    everything = bar.add_task("runs", total=count)
    lines, going = dict[str, TaskID](), dict[str, str]()
    done, said = 0, monotonic()

    def evaluated(name: str, time: float, until: float, curve: Curve) -> None:
        nonlocal done, said
        if time >= until or not isfinite(curve.loss[-1]):
            done += 1
            bar.advance(everything)
            going.pop(name, None)
            if name in lines:
                bar.remove_task(lines.pop(name))
            return
        score = f"{100 * curve.accuracy[-1]:.1f} %" if curve.accuracy else f"loss {curve.loss[-1]:.3g}"
        going[name] = f"{name}, time {time:,.0f} of {until:,.0f}, {score}"
        if name not in lines:
            lines[name] = bar.add_task("", total=100)
        bar.update(lines[name], description=going[name], completed=round(100 * time / until))
        if not bar.console.is_terminal and monotonic() - said >= EVERY:
            said = monotonic()
            bar.console.print(f"{'; '.join(going.values())}; {done} of {count} runs done", highlight=False)

    def finished(run: Run) -> None:
        said = [f"{target_name(run)}: {time_text(run.time_to_target)}"] * (run.diverged_at is None or lost_again(run))
        said += [] if run.diverged_at is None else [f"diverged by time {run.diverged_at:g}"]
        outcome = ", then ".join(said)
        bar.console.print(f"{run.algorithm}, seed {run.seed}: {outcome}  ({run.wall_s:.1f} s)", highlight=False)

    return evaluated, finished
