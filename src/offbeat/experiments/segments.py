"""Where the timetable of a run by levels is cut, so that memory does not grow with its length."""

import math
from collections.abc import Sequence

from offbeat.experiments.setup import Setup

SEGMENT = 1_000_000  # updates, and models that they mix, in a segment of the timetable
EARLY = 8  # segments in place of one where a run ends at its target: what comes after that is for nothing


def segment_of(setup: Setup) -> float:
    """How many updates, and models that they mix, are in a segment of the timetable."""
    return SEGMENT / (1 if setup.ends_at is None else EARLY)


def time_segments(setup: Setup, beside: int, heard: float | None = None) -> Sequence[float]:
    """Where the segments of time end, one timetable each, of so many such runs side by side. heard: of how
    many agents one mixes models; None: of its neighbours.
    """
    heard = setup.topology.degree if heard is None else heard
    count = math.ceil(beside * setup.updates * (1 + heard) / segment_of(setup))
    return [*[setup.until * k / count for k in range(1, count)], setup.until]
