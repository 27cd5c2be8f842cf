"""Which figure is asked for: curves, bars, or points over a setting; what makes no sense is refused here."""

from offbeat.core.errors import SettingError, unknown
from offbeat.core.settings import finite
from offbeat.results.axes import OVER
from offbeat.results.curves import curves
from offbeat.results.figure import Asked, Figure
from offbeat.results.grouping import settings_of
from offbeat.results.over_setting import over_setting
from offbeat.results.speedup import SPEEDUP
from offbeat.results.summary import BANDS
from offbeat.results.times import TIME_TO_TARGET, bars
from offbeat.results.values import ComparisonValues


def figure(comparison: ComparisonValues, asked: Asked) -> Figure:
    """The figure that `Comparison.figure` describes. Raises SettingError; nothing has been drawn then."""
    if not comparison.runs:
        raise SettingError("There is nothing to draw: no run was finished.")
    settings, x, by, width = settings_of(comparison.runs), asked.x, asked.by, asked.width
    if x not in OVER and x not in settings:
        raise unknown("x", x, [*OVER, *settings])
    if by is not None and (strange := [name for name in by.split(",") if name not in settings]):
        raise unknown("setting", strange[0], settings)
    if asked.band not in BANDS:
        raise unknown("band", asked.band, BANDS)
    if asked.log is not None and {*asked.log} - {*"xy"}:
        raise SettingError(f"Which axes are logarithmic is said by 'x', 'y' or 'xy'; got '{asked.log}'.")
    if not 1 <= finite("width", width) <= 40:
        raise SettingError(f"The width of a figure is 1 to 40 inches; got {width:g}.")
    if asked.metric == SPEEDUP and x != "agents":
        raise SettingError(f"A speed-up is one over the number of agents; expected x = 'agents', got '{x}'.")
    if x not in OVER:
        return over_setting(comparison, asked)
    return bars(comparison, asked) if asked.metric == TIME_TO_TARGET else curves(comparison, asked)
