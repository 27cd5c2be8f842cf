"""What a figure shows, as plain values: panels with lines, bars and their axes. Renderers draw it.

A description holds no style but how groups are told apart (`looks`); sizes, fonts and the words of plotly or
matplotlib are the renderers'.
"""

import math
from dataclasses import dataclass

from offbeat.results.looks import Look

WIDTHS = 3.3, 6.9  # inches: one column of a page in two columns, and its whole width
NARROW = 2.0  # inches, of a panel with its axis
LETTER = 0.052  # inches, of a letter of what a bar is called
Floats = tuple[float, ...]


@dataclass(frozen=True)
class Axis:
    """An axis of a panel.

    Attributes:
        log: whether it is logarithmic
        percent: whether values are shares, shown in percent
        limits: the smallest and largest value that are shown; None: as far as there are data
        ticks: where marks are; empty: as the renderer has it
        names: what is written at the marks, if not their values
        said: how a value of it is said: "time {}"
    """

    title: str
    log: bool = False
    percent: bool = False
    limits: tuple[float, float] | None = None
    ticks: Floats = ()
    names: tuple[str, ...] = ()
    said: str = "{}"


@dataclass(frozen=True)
class Line:
    """A group of runs as a line, with a band around it.

    Attributes:
        value: y before it was cut at the borders, for who points at it
        low, high: the band; empty where there is none
        end: why it ends before the others: "diverged" or "ended early"; empty: it does not
        points: whether each point has a marker, and the band is shown as bars at them
        joined: whether its points are joined to a line
        never: where, over x, it has no value, for what was asked for was never reached
    """

    label: str
    look: Look
    x: Floats
    y: Floats
    value: Floats
    low: Floats = ()
    high: Floats = ()
    end: str = ""
    points: bool = False
    joined: bool = True
    never: Floats = ()


@dataclass(frozen=True)
class Bar:
    """A group of runs as a bar from 0. never: whether it did not get there: hatched to the end."""

    label: str
    look: Look
    length: float
    low: float
    high: float
    text: str
    never: bool = False

    @property
    def name(self) -> str:
        """What stands above it."""
        return f"{self.label}: {self.text}"


@dataclass(frozen=True)
class Panel:
    """One pair of axes. level: a value of y, and its name, that is dashed from left to right."""

    x: Axis
    y: Axis
    title: str = ""
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    level: tuple[float, str] | None = None

    @property
    def end(self) -> float:
        """The largest x of its lines."""
        return max((line.x[-1] for line in self.lines if line.x), default=0.0)


@dataclass(frozen=True)
class Drawing:
    """A figure, whoever draws it.

    Attributes:
        notes: sentences below it: what line and band are, and what ended early
        width: inches, in print
        shared: whether all panels have the same limits
    """

    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()
    width: float = WIDTHS[0]
    shared: bool = True

    @property
    def labels(self) -> dict[str, Look]:
        """What the legend has, in the order in which groups first appear."""
        found: dict[str, Look] = {}
        for panel in self.panels:
            for line in panel.lines:
                found.setdefault(line.label, line.look)
        return found

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of panels: none narrower than two inches, or than what its bars are called."""
        names = max((len(bar.name) for panel in self.panels for bar in panel.bars), default=0)
        most = max(1, int(self.width / max(NARROW, LETTER * names)))
        rows = math.ceil(len(self.panels) / most)
        return rows, math.ceil(len(self.panels) / rows)
