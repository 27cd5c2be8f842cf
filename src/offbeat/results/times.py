"""Times to the target as a figure: a bar for every group, hatched where it never got there."""

import math
from collections.abc import Sequence

from offbeat.core.errors import SettingError
from offbeat.results.axes import time_title
from offbeat.results.drawing import Axis, Bar, Panel
from offbeat.results.figure import Asked, Figure
from offbeat.results.grouping import panels_by
from offbeat.results.looks import Look, looks
from offbeat.results.scores import over_seeds, times_text
from offbeat.results.summary import BANDS, seeds_of
from offbeat.results.values import ComparisonValues, RunValues
from offbeat.results.wording import lost_again, target_name

TIME_TO_TARGET = "time_to_target"


def bars(comparison: ComparisonValues, asked: Asked) -> Figure:
    """Time to target, a bar for each group; the whisker is the band over the seeds.

    A seed that never met the target counts as later than all: the median of most that never did is never. Of
    a mean there is none then. Such a bar is hatched, and goes to the end of the runs.
    """
    panels, band = panels_by(comparison, asked.by), asked.band
    groups = [(label, runs) for each in panels.values() for label, runs in each.items()]
    if all(run.target is None for run in comparison.runs):
        raise SettingError("The runs had no target, so that there is no time to it; expected a 'target'.")
    look = looks(dict(groups), asked.colours)
    made = []
    for title, lines in panels.items():
        runs = [run for each in lines.values() for run in each]
        end = max(float(run.settings["until"]) for run in runs)
        name = f"{target_name(runs[0])}, {time_title(runs)}"
        shown = tuple(_bar(label, look[label], each, band, end) for label, each in lines.items())
        made.append(Panel(Axis(name, limits=(0.0, end * 1.02), said="time {}"), Axis(""), title, bars=shown))
    notes = [seeds_of(groups, BANDS[band])]
    if any(bar.never for panel in made for bar in panel.bars):
        seeds = "half of the seeds or more" if band == "range" else "a seed or more"
        whom = f" by {seeds}" * any(len(runs) > 1 for _, runs in groups)
        notes.append(f"Hatched to the end of the runs: the target was not met{whom}.")
    return Figure(tuple(made), tuple(notes), asked.width, len({panel.x.limits for panel in made}) == 1)


def _bar(label: str, look: Look, runs: Sequence[RunValues], band: str, end: float) -> Bar:
    times = [run.time_to_target for run in runs]
    middle, low, high = over_seeds(times, band)
    then = ", then diverged" * any(map(lost_again, runs))
    text = times_text(times, band)
    length, low, high = (min(value, end) for value in (middle, low, high))
    return Bar(label, look, length, low, high, text + then, never=middle == math.inf)
