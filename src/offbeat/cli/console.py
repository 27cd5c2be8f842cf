"""The terminal: a console that outlives its reader, and the progress of runs."""

import errno
import os
import re
from collections.abc import Iterator
from math import isfinite
from time import monotonic

from rich import progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from offbeat.experiments.sweep.running import SweepProgress
from offbeat.results.run import Run
from offbeat.results.table import WIDTH, lost_again, target_name
from offbeat.results.values import Curve, time_text

EVERY, LINES = 30.0, 20
"""Where no terminal shows how far it is: seconds between lines that say so; of a sweep, how many lines."""

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a terminal would obey or cannot show: controls but for tab and newline; bytes that are no text."""


class Out(Console):
    """A console that takes it calmly when its reader goes away, as `head` does; the results matter more.

    Of standard error, which shows how far the work is, any fault of its file is taken so. All that names,
    scripts and files bring is shown as text: nothing of it reaches the terminal as a command.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr)
        if not self.is_terminal:
            self.width = WIDTH

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As of any console; what a terminal would obey is shown instead, as `\\x1b`."""
        for segment in super().render(renderable, options):
            if not segment.control:
                text = CONTROLS.sub(lambda found: ascii(found[0])[1:-1], segment.text)
                segment = Segment(text, segment.style)
            yield segment

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


def say(text: str | Text, stderr: bool = False) -> None:
    """Print a line as long as it is."""
    Out(stderr).print(Text(text) if isinstance(text, str) else text, soft_wrap=True)


def complain(text: str | Text) -> None:
    """Say on standard error what the user should know."""
    say(text, stderr=True)


class RunsShown:
    """How far runs are, on standard error: a bar on a terminal, elsewhere a line now and then.

    Of a comparison a line below the bar shows what each process is making. Use it as a context, at whose end
    the bar is gone.
    """

    def __init__(self, total: int, quiet: bool = False, console: Console | None = None) -> None:
        console = console or Out(stderr=True)
        console.quiet = quiet
        text, bar = progress.TextColumn("{task.description}"), progress.BarColumn()
        counts = progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), progress.TimeRemainingColumn()
        self.bar = progress.Progress(text, bar, *counts, console=console, transient=True, disable=quiet)
        self.total, self.everything = total, self.bar.add_task("runs", total=total)
        self.lines, self.going = dict[str, progress.TaskID](), dict[str, str]()
        self.done, self.shown_at, self.share = 0, monotonic(), -1

    def __enter__(self) -> "RunsShown":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def on_notice(self, text: str) -> None:
        self.bar.console.print(Text(text))

    def on_progress(self, label: str, time: float, until: float, curve: Curve) -> None:
        if time >= until or not isfinite(curve.loss[-1]):
            self.done += 1
            self.bar.advance(self.everything)
            self.going.pop(label, None)
            if label in self.lines:
                self.bar.remove_task(self.lines.pop(label))
            return
        score = f"{100 * curve.accuracy[-1]:.1f} %" if curve.accuracy else f"loss {curve.loss[-1]:.3g}"
        self.going[label] = f"{label}, time {time:,.0f} of {until:,.0f}, {score}"
        if label not in self.lines:
            self.lines[label] = self.bar.add_task("", total=100)
        self.bar.update(self.lines[label], description=self.going[label], completed=round(100 * time / until))
        if monotonic() - self.shown_at >= EVERY:
            self.shown_at = monotonic()
            self._line(f"{'; '.join(self.going.values())}; {self.done} of {self.total} runs done")

    def on_run(self, run: Run) -> None:
        outcome = []
        if run.diverged_at is None or lost_again(run):
            outcome.append(f"{target_name(run)}: {time_text(run.time_to_target)}")
        if run.diverged_at is not None:
            outcome.append(f"diverged by time {run.diverged_at:g}")
        self.on_notice(f"{run.algorithm}, seed {run.seed}: {', then '.join(outcome)}  ({run.wall_s:.1f} s)")

    def on_sweep(self, now: SweepProgress) -> None:
        self.done, ended = now.done, now.done + now.failed
        failed = f", {now.failed:,} failed" if now.failed else ""
        if not now.running:  # what was done before says nothing about the time that remains
            self.bar.reset(self.everything, completed=ended)
        self.bar.update(self.everything, completed=ended, description=f"{now.running} running{failed}")
        share = ended * LINES // max(1, self.total)
        if share > self.share:
            self.share = share
            self._line(f"{now.done:,} of {self.total:,} runs done{failed}")

    def _line(self, text: str) -> None:
        if not self.bar.console.is_terminal:
            self.on_notice(text)
