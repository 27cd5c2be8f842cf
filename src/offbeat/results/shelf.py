"""The figures of the page: numbered, and of several worlds with a panel for each."""

from dataclasses import replace

import plotly.graph_objects as go

from offbeat.results.figure import Asked, Figure
from offbeat.results.grouping import MOST
from offbeat.results.markup import escaped
from offbeat.results.values import ComparisonValues, value_text

PANELS = 12  # of a figure of the page, as long as settings can be left out
WORLDS = 4  # of so many worlds there are figures of agents, of their data and of what else was measured


class Shelf:
    """The figures of a page, numbered in the order in which they were put there.

    Attributes:
        by: the settings by whose values curves and bars have panels, with commas between; None: by none
        band: what is shown of several seeds, see `offbeat.results.summary.BANDS`
    """

    def __init__(self, by: str | None = None, band: str = "range") -> None:
        self.by, self.band = by, band
        self.count = 0
        self.figures: dict[str, go.Figure] = {}

    def asked(self, metric: str = "loss", x: str = "time") -> Asked:
        """A figure as the page has all of them."""
        return Asked(metric, x, self.band, by=self.by)

    def put(self, figure: go.Figure, caption: str) -> str:
        """The HTML of a figure; the caption is HTML."""
        self.count += 1
        return self._captioned(self._place(f"figure-{self.count}", figure), caption)

    def describe(self, figure: Figure, caption: str) -> str:
        """The same of a description, whose notes go into the caption, and panels beside one another."""
        said = " ".join([caption, *map(escaped, figure.notes)])
        alone = [replace(figure, panels=(panel,), notes=()).plotly() for panel in figure.panels]
        if len(alone) == 1:
            return self.put(alone[0], said)
        self.count += 1
        places = ""
        for k, (panel, drawn) in enumerate(zip(figure.panels, alone, strict=True), start=1):
            place = self._place(f"figure-{self.count}-{k}", drawn)
            places += f"<div><h4>{escaped(panel.title)}</h4>{place}</div>"
        columns = 3 if len(alone) not in (2, 4) else 2
        return self._captioned(f'<div class="panels" style="--columns:{columns}">{places}</div>', said)

    def row(self, *figures: str) -> str:
        """Side by side, or below each other on a narrow screen, and where they have panels."""
        if len(figures) < 2 or self.by is not None:
            return "".join(figures)
        return f'<div class="pair">{"".join(figures)}</div>'

    def _place(self, name: str, figure: go.Figure) -> str:
        self.figures[name] = figure
        return f'<div id="{name}" style="height:{figure.layout.height}px"></div>'

    def _captioned(self, figure: str, caption: str) -> str:
        return f"<figure>{figure}<figcaption><b>Figure {self.count}.</b> {caption}</figcaption></figure>"


def first_worlds(comparison: ComparisonValues) -> list[tuple[str, ComparisonValues]]:
    """The first worlds, each with what is said of it before a caption, in HTML: empty where there is one."""
    found = []
    for world, part in list(comparison.split().items())[:WORLDS]:
        where = ", ".join(f"{name} {value_text(value)}" for name, value in world)
        found.append((f"<b>{escaped(where)}:</b> " if world else "", part))
    return found


def panels_of(comparison: ComparisonValues) -> str | None:
    """By which settings the figures of a page have panels: all that differ, a panel for each world.

    Where those are many, what has the fewest values is left out: its values are lines of one panel.
    """
    differing = {name: len(values) for name, values in comparison.differing.items() if name != "code"}
    names = sorted(differing, key=lambda name: -differing[name])
    while len(names) > 1 and _panels(comparison, names) > PANELS:
        names.pop()
    kept = [name for name in differing if name in names]
    return ",".join(kept) if kept and _panels(comparison, kept) <= MOST else None


def _panels(comparison: ComparisonValues, names: list[str]) -> int:
    worlds = [dict(group.world) for group in comparison.groups()]
    return len({tuple(str(world[name]) for name in names) for world in worlds})
