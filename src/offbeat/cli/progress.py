"""How far runs are, on standard error."""

from collections.abc import Sequence
from math import isfinite, isnan
from time import monotonic

from rich import progress
from rich.console import Console, RenderableType
from rich.table import Column
from rich.text import Text

from offbeat.cli.console import Out
from offbeat.experiments.sweep.running import SweepProgress
from offbeat.results.run import Run
from offbeat.results.sparkline import sparkline
from offbeat.results.values import Curve, time_text, value_text
from offbeat.results.wording import lost_again, measured_more, target_name

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

    def __init__(
        self, total: int, quiet: bool = False, console: Console | None = None, over: Sequence[str] = ()
    ) -> None:
        """Begin.

        Args:
            over: the settings by which worlds differ, which tell a run from another
        """
        self.over = over
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
        self.batches: dict[str, tuple[int, float]] = {}  # runs that have not ended, and how far they are
        self.done, self.shown_at, self.share = 0, monotonic(), -1

    def __enter__(self) -> "RunsShown":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.live.stop()  # `bar.stop` would leave an empty line where no terminal shows the bar

    def on_notice(self, text: str) -> None:
        self.bar.console.print(Text(text))

    def on_progress(self, label: str, time: float, until: float, curve: Curve) -> None:
        left, share = self.batches.get(label, (getattr(label, "runs", 1), 0.0))
        if ended := time >= until or not isfinite(curve.loss[-1]):
            self.done += 1
            self.batches[label] = left - 1, share
        else:
            self.batches[label] = left, time / until
        self._advance()
        if self.batches[label][0] == 0:
            self._forget(label)
        if ended:
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

    def on_there(self, count: int) -> None:
        """So many runs were kept by an earlier command."""
        self.done += count
        self._advance()
        self.on_notice(f"{count:,} {'run is' if count == 1 else 'runs are'} there already.")

    def on_run(self, run: Run) -> None:
        """Say what came out; of a run that was there already it is not news."""
        if isnan(run.wall_s):
            return
        outcome = []
        if run.target is None and run.diverged_at is None:
            outcome.append(f"loss {run.curve.loss[-1]:.4g}")
        elif run.diverged_at is None or lost_again(run):
            outcome.append(f"{target_name(run)}: {time_text(run.time_to_target)}")
        if run.diverged_at is not None:
            outcome.append(f"diverged by time {run.diverged_at:g}")
        took = f"{run.wall_s:.1f} s" + f", {run.eval_s:.1f} s of it for evaluations" * measured_more(run)
        where = "".join(f"{name} {value_text(run.settings[name])}, " for name in self.over)
        self.on_notice(f"{run.algorithm}, {where}seed {run.seed}: {', then '.join(outcome)}  ({took})")

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

    def _advance(self) -> None:
        """Move the bar: a run that is half way through its time counts half."""
        under_way = sum(left * share for left, share in self.batches.values())
        score = f"{self.done:,} of {self.total:,}"
        self.bar.update(self.everything, completed=self.done + under_way, score=score)

    def _forget(self, label: str) -> None:
        """All runs of this name have ended."""
        for kept in (self.going, self.curves, self.batches):
            kept.pop(label, None)
        if label in self.lines:
            self.bar.remove_task(self.lines.pop(label))

    def _line(self, text: str) -> None:
        if not self.bar.console.is_terminal:
            self.on_notice(text)
