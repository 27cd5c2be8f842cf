"""Median and range of values some of which may be missing, which counts as infinitely large."""

import math
from collections.abc import Sequence
from statistics import median


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """Median, smallest and largest of times to target; "never" (None) counts as infinitely late."""
    if not values:
        return None, None, None
    times = sorted(math.inf if value is None else value for value in values)
    low, middle, high = times[0], median(times), times[-1]
    return tuple(None if math.isinf(t) else t for t in (middle, low, high))  # type: ignore[return-value]
