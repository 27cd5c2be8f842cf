"""A figure of a comparison: described once, drawn by plotly or by matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offbeat.core.errors import SettingError
from offbeat.core.system.files import write_atomically
from offbeat.results.drawing import Drawing

if TYPE_CHECKING:
    import plotly.graph_objects
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Printed

PRINTED = (".pdf", ".svg", ".png")  # matplotlib's; a page is plotly's
ENDINGS = (*PRINTED, ".html")


def check_saved_as(path: str | os.PathLike[str]) -> str:
    """The ending of a file that a figure is to be saved in, before there is one.

    Raises SettingError for an ending that is none of `ENDINGS`, and where matplotlib is missing.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise SettingError(
            f"A figure is saved as {', '.join(ENDINGS)}; got '{os.fspath(path)}'. Expected one of "
            "these endings."
        )
    if ending in PRINTED:
        _refuse_without_matplotlib()
    return ending


def _refuse_without_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise SettingError(
            "PDF, SVG and PNG are drawn by matplotlib, which is not installed: "
            "pip install 'offbeat[figures]' installs it. A file that ends in .html needs nothing more."
        )


@dataclass(frozen=True)
class Asked:
    """Which figure of a comparison is asked for, by the arguments of `Comparison.figure`."""

    metric: str = "loss"
    x: str = "time"
    band: str = "range"
    log: str | None = None
    by: str | None = None
    width: float = 3.3
    colours: Mapping[str, str] | None = None

    @property
    def log_x(self) -> bool:
        return "x" in (self.log or "")

    @property
    def log_y(self) -> bool:
        return "y" in (self.log or "")


@dataclass(frozen=True)
class Figure(Drawing):
    """A figure: what is in it (`offbeat.results.drawing.Drawing`), with ways to draw and save it.

        figure = result.figure("accuracy", band="std")
        figure.save("accuracy.pdf")
        drawn = figure.matplotlib()                 # to go on with: drawn.axes[0].set_title(...)
        figure.save("accuracy.pdf", drawn)

    It is a frozen dataclass: `dataclasses.replace(figure, notes=())` is the same without the notes.
    """

    def plotly(self) -> plotly.graph_objects.Figure:
        """Drawn by plotly, to be looked at and pointed at."""
        from offbeat.results.by_plotly import drawn

        return drawn(self)

    def matplotlib(self, axes: Sequence[Axes] | None = None) -> Printed:
        """Drawn by matplotlib, for print: a figure of its own, or in these axes of yours, one a panel.

        Raises SettingError where matplotlib is missing, or there are more or fewer axes than panels.
        """
        _refuse_without_matplotlib()
        from offbeat.results.by_matplotlib import drawn, drawn_in

        return drawn(self) if axes is None else drawn_in(self, axes)

    def save(self, path: str | os.PathLike[str], drawn: Printed | None = None) -> None:
        """Write the figure, whole or not at all: as PDF, SVG or PNG (300 dots an inch), or as a page of HTML.

        Fonts are embedded in a PDF as they are (TrueType), and are curves in an SVG. The same figure gives
        the same bytes, whenever it is saved.

        Args:
            path: its ending says what it is: one of `.pdf`, `.svg`, `.png`, `.html`
            drawn: what `matplotlib()` returned, with what you added to it

        Raises SettingError for another ending, and where matplotlib is missing; OSError where the file cannot
        be written.
        """
        ending = check_saved_as(path)
        if ending == ".html":
            from offbeat.results.by_plotly import page

            write_atomically(Path(path), page(self).encode())
            return
        from offbeat.results.by_matplotlib import saved

        write_atomically(Path(path), saved(drawn or self.matplotlib(), ending[1:]))

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> Any:
        """In a notebook."""
        return self.plotly()._repr_mimebundle_(*args, **kwargs)
