"""The option of commands that show several seeds: how."""

from offbeat.core.errors import unknown
from offbeat.results.summary import BANDS

SPREAD = "What is shown of several seeds: range (median), std or ci (mean; 95 %, Student's t)."


def check_spread(spread: str) -> None:
    if spread not in BANDS:
        raise unknown("spread", spread, BANDS)
