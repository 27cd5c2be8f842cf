"""The terminal: a console that outlives its reader, and the progress of runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isfinite

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from offbeat.report.table import WIDTH, target_name
from offbeat.results import Curve, Run
from offbeat.results import Progress as Tell


class Out(Console):
    """A console that takes it calmly when its reader goes away (as `head` does); the results matter more."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr)
        if not self.is_terminal:
            self.width = WIDTH

    def on_broken_pipe(self) -> None:
        """Say no more, and leave nothing to be flushed into the pipe at the end."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def progress_bar() -> Progress:
    """A bar on standard error, gone when it is finished."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Out(stderr=True), transient=True,
    )  # fmt: skip


def told_by(bar: Progress, count: int) -> tuple[Tell, Callable[[Run], None]]:
    """A callback for every evaluation and one for every finished run."""
    now = bar.add_task("", total=100)
    everything = bar.add_task("runs", total=count)

    def evaluated(name: str, time: float, until: float, curve: Curve) -> None:
        score = f"{100 * curve.accuracy[-1]:.1f} %" if curve.accuracy else f"gap {curve.loss[-1]:.3g}"
        said = f"{name}, time {time:,.0f} of {until:,.0f}, {score}"
        bar.update(now, description=said, completed=round(100 * time / until))
        if time >= until or not isfinite(curve.loss[-1]):
            bar.advance(everything)

    def finished(run: Run) -> None:
        if run.diverged_at is not None:
            outcome = f"diverged by time {run.diverged_at:g}"
        else:
            reached = run.time_to_target
            outcome = f"{target_name(run)}: {'never' if reached is None else f'{reached:,.6g}'}"
        bar.console.print(f"{run.algorithm}, seed {run.seed}: {outcome}  ({run.wall_s:.1f} s)", highlight=False)

    return evaluated, finished
