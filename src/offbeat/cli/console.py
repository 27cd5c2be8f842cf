"""The terminal: a console that outlives its reader, and the progress of runs."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from math import isfinite
from time import monotonic

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from offbeat.results.markup import time_text
from offbeat.results.run import Run
from offbeat.results.table import WIDTH, lost_again, target_name
from offbeat.results.values import Curve
from offbeat.results.values import Progress as Tell

EVERY = 30.0
"""Seconds between the lines that say how far runs are, where there is no terminal that shows it."""


CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a terminal would obey or cannot show: control characters but for tabs and newlines; bytes that are no
text."""


def plain(text: str) -> str:
    """The text as a terminal may be given it: what it would obey is shown instead, as `\\x1b`."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


class Out(Console):
    """A console that takes it calmly when its reader goes away, as `head` or a terminal does; the results
    matter more.

    Of standard error, which shows how far the work is, any fault of its file is taken so. All that names,
    scripts and
    files bring is shown as text: nothing of it reaches the terminal as a command.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr)
        if not self.is_terminal:
            self.width = WIDTH

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As of any console, with all text `plain`."""
        for segment in super().render(renderable, options):
            harmless = segment.control or not CONTROLS.search(segment.text)
            yield segment if harmless else Segment(plain(segment.text), segment.style)

    def _check_buffer(self) -> None:
        """Write what is to be shown. Raises OSError where standard output cannot be written."""
        try:
            super()._check_buffer()
        except OSError as error:
            if not self.stderr and error.errno != errno.EIO:  # a terminal that is gone
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

    A line shows the runs that each process is making, another how many are done. Where there is no terminal,
    a line is printed every `EVERY` seconds.
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
        said = [f"{target_name(run)}: {time_text(run.time_to_target)}"] * (
            run.diverged_at is None or lost_again(run)
        )
        said += [] if run.diverged_at is None else [f"diverged by time {run.diverged_at:g}"]
        outcome = ", then ".join(said)
        bar.console.print(
            f"{run.algorithm}, seed {run.seed}: {outcome}  ({run.wall_s:.1f} s)", highlight=False
        )

    return evaluated, finished
