"""How far runs are, on standard error."""

from math import isfinite
from time import monotonic

from rich import progress
from rich.console import Console
from rich.text import Text

from offbeat.cli.console import Out
from offbeat.experiments.sweep.running import SweepProgress
from offbeat.results.run import Run
from offbeat.results.table import lost_again, target_name
from offbeat.results.values import Curve, time_text

EVERY, LINES = 30.0, 20
"""Where no terminal shows how far it is: seconds between lines that say so; of a sweep, how many lines."""


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
