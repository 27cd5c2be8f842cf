"""Runs and comparisons that show themselves: as data frames, figures, text, a page."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from offbeat.core.system.files import write_atomically
from offbeat.results.values import ComparisonValues, RunValues

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


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


@dataclass(frozen=True)
class Comparison(ComparisonValues):
    """Several runs of one experiment: the values of `ComparisonValues`, with ways to show them.

    Raises SettingError if the runs differ in more than algorithm, learning rate and seed.
    """

    runs: Sequence[Run]

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write `record()`, whole or not at all."""
        write_atomically(Path(path), (json.dumps(self.record(), indent=1, allow_nan=False) + "\n").encode())

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML page with figures, the table and every setting."""
        from offbeat.results.page import page

        write_atomically(Path(path), page(self).encode(errors="replace"))

    def to_frame(self) -> pandas.DataFrame:
        """All curves in one pandas data frame. Needs pandas (`pip install offbeat[frame]`)."""
        import pandas

        return pandas.concat([run.to_frame() for run in self.runs], ignore_index=True)

    def plot(self) -> plotly.graph_objects.Figure:
        """Accuracy (or loss) over simulated time, for all algorithms, as a plotly figure."""
        from offbeat.results.figures import curves

        accurate = bool(self.runs) and self.runs[0].measure == "accuracy"
        return curves(self, "time", "accuracy" if accurate else "loss")

    def __str__(self) -> str:
        from offbeat.results.table import as_text

        return as_text(self)
