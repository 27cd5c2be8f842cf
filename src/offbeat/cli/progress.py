"""How far runs are, on standard error."""

from math import isfinite
from time import monotonic

from rich import progress
from rich.console import Console, RenderableType
from rich.table import Column
from rich.text import Text

from offbeat.cli.console import Out
from offbeat.experiments.sweep.running import SweepProgress
from offbeat.results.run import Run
from offbeat.results.sparkline import sparkline
from offbeat.results.table import lost_again, measured_more, target_name
from offbeat.results.values import Curve, time_text

EVERY, LINES = 30.0, 20
"""Where no terminal shows how far it is: seconds between lines that say so; of a sweep, how many lines."""

WIDE = 20  # columns of the bar


class Way(progress.ProgressColumn):
    """How far all runs are, as a bar; of one run its curve so far."""

    def __init__(self) -> None:
        self.bar = progress.BarColumn(WIDE)
        super().__init__()

    def render(self, task: progress.Task) -> RenderableType:
        way: str | None = task.fields.get("curve")
        return self.bar.render(task) if way is None else Text(way.ljust(WIDE), style="cyan")


class RunsShown:
    """How far runs are, on standard error: a bar on a terminal, elsewhere a line now and then.

    Of a comparison there is a line below the bar for what each process is making: the curve of its accuracy
    (or loss), where that is, the time that is left. Use it as a context, at whose end all that is gone.
    """

    def __init__(self, total: int, quiet: bool = False, console: Console | None = None) -> None:
        console = console or Out(stderr=True)
        console.quiet = quiet
        label = progress.TextColumn(
            "{task.description}", table_column=Column(overflow="ellipsis", no_wrap=True)
        )
        score = progress.TextColumn(
            "{task.fields[score]}", table_column=Column(justify="right", no_wrap=True)
        )
        left = progress.TimeRemainingColumn(), progress.TextColumn("left")
        self.bar = progress.Progress(
            label, Way(), score, *left, console=console, transient=True, disable=quiet
        )
        self.total, self.everything = total, self.bar.add_task("runs", total=total, score=f"0 of {total:,}")
        self.lines, self.going = dict[str, progress.TaskID](), dict[str, str]()
        self.curves: dict[str, list[float]] = {}
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
            self.bar.update(self.everything, advance=1, score=f"{self.done:,} of {self.total:,}")
            self.going.pop(label, None)
            self.curves.pop(label, None)
            if label in self.lines:
                self.bar.remove_task(self.lines.pop(label))
            return
        values = curve.accuracy or curve.loss
        score = f"{100 * values[-1]:.1f} %" if curve.accuracy else f"loss {values[-1]:.3g}"
        self.going[label] = f"{label}, time {time:,.0f} of {until:,.0f}, {score}"
        if label not in self.lines:
            self.lines[label] = self.bar.add_task(label, total=until, score=score)
        so_far = self.curves.setdefault(label, [])
        so_far.append(values[-1])  # of another process the last one alone is known
        if len(values) > len(so_far):
            so_far[:] = values
        line = sparkline(so_far, WIDE, self.bar.console.encoding)
        self.bar.update(self.lines[label], completed=time, score=score, curve=line)
        if monotonic() - self.shown_at >= EVERY:
            self.shown_at = monotonic()
            self._line(f"{'; '.join(self.going.values())}; {self.done} of {self.total} runs done")

    def on_run(self, run: Run) -> None:
        outcome = []
        if run.diverged_at is None or lost_again(run):
            outcome.append(f"{target_name(run)}: {time_text(run.time_to_target)}")
        if run.diverged_at is not None:
            outcome.append(f"diverged by time {run.diverged_at:g}")
        took = f"{run.wall_s:.1f} s" + f", {run.eval_s:.1f} s of it for evaluations" * measured_more(run)
        self.on_notice(f"{run.algorithm}, seed {run.seed}: {', then '.join(outcome)}  ({took})")

    def on_sweep(self, now: SweepProgress) -> None:
        self.done, ended = now.done, now.done + now.failed
        failed = f", {now.failed:,} failed" if now.failed else ""
        if not now.running:  # what was done before says nothing about the time that remains
            self.bar.reset(self.everything, completed=ended)
        score, running = f"{ended:,} of {self.total:,}", f"{now.running} running{failed}"
        self.bar.update(self.everything, completed=ended, description=running, score=score)
        share = ended * LINES // max(1, self.total)
        if share > self.share:
            self.share = share
            self._line(f"{now.done:,} of {self.total:,} runs done{failed}")

    def _line(self, text: str) -> None:
        if not self.bar.console.is_terminal:
            self.on_notice(text)
