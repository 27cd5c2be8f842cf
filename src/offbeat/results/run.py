"""Runs and comparisons that show themselves: as data frames, figures, text, a page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offbeat.core.system.files import write_atomically
from offbeat.results.values import ComparisonValues, RunValues, value_text

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

    from offbeat.results.figure import Figure


@dataclass(frozen=True, eq=False)
class Run(RunValues):
    """One algorithm in one world, from one seed: the values of `RunValues`, with ways to show them."""

    def to_frame(self) -> pandas.DataFrame:
        """The curve as a pandas data frame, one row an evaluation. Needs pandas."""
        import pandas

        columns = {name: values for name, values in self.curve.columns().items() if values}
        return pandas.DataFrame({"algorithm": self.algorithm, "lr": self.lr, "seed": self.seed, **columns})

    def plot(self) -> plotly.graph_objects.Figure:
        """Accuracy (or loss) over simulated time."""
        return Comparison([self]).plot()

    def figure(self, metric: str = "loss", x: str = "time", **how: Any) -> Figure:
        """A metric over time, updates, megabytes or epochs, as `Comparison.figure` has it."""
        return Comparison([self]).figure(metric, x, **how)


@dataclass(frozen=True)
class Comparison(ComparisonValues):
    """Several runs, of one experiment or of several: the values of `ComparisonValues`, with ways to show
    them; `offbeat.load` makes one of files.

    Raises SettingError if a run is there twice.
    """

    runs: Sequence[Run]

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write `record()`, whole or not at all."""
        write_atomically(Path(path), (json.dumps(self.record(), indent=1, allow_nan=False) + "\n").encode())

    def save_report(self, path: str | os.PathLike[str], spread: str = "range") -> None:
        """Write one self-contained HTML page with figures, the table and every setting.

        Args:
            spread: what is shown of several seeds: "range" (median), "std" or "ci" (mean)
        """
        from offbeat.results.page import page

        write_atomically(Path(path), page(self, spread).encode(errors="replace"))

    def to_frame(self) -> pandas.DataFrame:
        """All curves in one pandas data frame, with a column for each setting that differs; one that is
        called as a metric has `setting_` before its name. Needs pandas (`pip install offbeat[frame]`).
        """
        import pandas

        frames, place = [], 3  # after algorithm, lr and seed
        for run, world in zip(self.runs, self._worlds, strict=True):
            frame = run.to_frame()
            for at, (name, value) in enumerate(world):
                column = f"setting_{name}" if name in frame else name
                told = value_text(value) if isinstance(value, tuple) else value
                frame.insert(place + at, column, [told] * len(frame))
            frames.append(frame)
        nothing = pandas.DataFrame(columns=["algorithm", "lr", "seed"])
        return pandas.concat(frames, ignore_index=True) if frames else nothing

    def to_csv(self, spread: str = "range", columns: Sequence[str] | None = None) -> str:
        """The table as CSV, with numbers as they are: a row for each group (`offbeat.results.export`)."""
        from offbeat.results.export import as_csv

        return as_csv(self, spread, columns)

    def to_latex(
        self,
        spread: str = "range",
        columns: Sequence[str] | None = None,
        caption: str | None = None,
        label: str = "tab:offbeat",
    ) -> str:
        """The table as LaTeX, for the package booktabs, with its notes below it.

        Args:
            spread: "range" (median), "std" or "ci" (mean)
            columns: their names, as those of `to_csv` ("time_to_target", "loss"); None: the usual ones
            caption: in LaTeX; None: what was run
            label: what it is referred to by
        """
        from offbeat.results.export import as_latex

        return as_latex(self, spread, columns, caption, label)

    def plot(self) -> plotly.graph_objects.Figure:
        """Accuracy (or loss) over simulated time, for all algorithms, as a plotly figure."""
        return self.main_figure().plotly()

    def main_figure(self, band: str = "range", by: str | None = None) -> Figure:
        """Accuracy, or the loss of a task without, over time; as wide as a page where it has panels."""
        accurate = bool(self.runs) and self.runs[0].measure == "accuracy"
        return self.figure("accuracy" if accurate else "loss", band=band, by=by, width=6.9 if by else 3.3)

    def figure(
        self,
        metric: str = "loss",
        x: str = "time",
        band: str = "range",
        log: str | None = None,
        by: str | Sequence[str] | None = None,
        width: float = 3.3,
        colours: Mapping[str, str] | None = None,
    ) -> Figure:
        """A figure of how the algorithms went, to be looked at, saved as PDF or SVG, or gone on with.

            result.figure("accuracy", band="std", by="topology", width=6.9).save("accuracy.pdf")

        A line is the centre of the seeds of one algorithm (and learning rate, and whatever settings differ),
        as far as all of them got: where the first of them ends, the line ends, with a cross if it diverged
        and a stroke if it ended before the experiment, and the notes below the figure say so. Over time the
        seeds are averaged where they were evaluated; over anything else each is interpolated linearly on a
        common grid, from the largest of their first x to the smallest of their last. On a logarithmic axis
        what is not positive is left out.

            result.figure("time_to_target")                # a bar for each, hatched where it never got there
            result.figure("time_to_target", x="agents")    # points over the values of a setting
            result.figure("speedup", x="agents")           # likewise, paired by seed with the fewest agents

        Args:
            metric: "loss", "accuracy", "consensus", any other that the curves have (`Curve.names`), or
                "time_to_target"
            x: "time", "updates" (gradients applied by all agents), "megabytes" (sent by all), "epochs"
                (updates, in passes over the training data); or a setting ("agents", "topology", "lr"): then
                it is the time to the target, or where the metric ended, at each of its values
            band: what line and band are: "range", the median, the smallest and the largest; "std", the mean
                and the standard deviation of the sample; "ci", the mean and its 95 % confidence interval by
                Student's t
            log: which axes are logarithmic: "", "x", "y" or "xy"; None: y of losses and of norms
            by: a setting: a panel for each of its values ("case", "topology", "lr", "algorithm"); or several,
                "topology,case" or a list of them: a panel for each combination
            width: inches: 3.3 is a column of a page in two columns, 6.9 both
            colours: algorithm -> its colour ("#0072B2"), in place of ours

        Raises SettingError for what is not known, or cannot be drawn; nothing has been drawn then.
        """
        from offbeat.results.asked import figure
        from offbeat.results.figure import Asked

        panels = by if by is None or isinstance(by, str) else ",".join(by)
        return figure(self, Asked(metric, x, band, log, panels, width, colours))

    def __str__(self) -> str:
        from offbeat.results.table import as_text

        return as_text(self)
