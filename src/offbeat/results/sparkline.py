"""A curve in a line of text."""

import math
from collections.abc import Sequence

BARS, PLAIN = " ▁▂▃▄▅▆▇█", " .,:-=+*#"
"""Nothing, and eight heights; for terminals whose characters are not Unicode."""


def sparkline(values: Sequence[float], width: int = 20, encoding: str = "utf-8") -> str:
    """Values over equal steps of time as one line: the smallest is lowest; what is not finite is left out.

    More values than `width` are averaged, step by step; fewer take one character each.
    """
    try:
        BARS.encode(encoding)
        bars = BARS
    except (UnicodeEncodeError, LookupError):
        bars = PLAIN
    count, n = min(width, len(values)), len(values)
    groups = [values[n * k // count : n * (k + 1) // count] for k in range(count)]
    finite = [[value for value in group if math.isfinite(value)] for group in groups]
    means = [sum(value / len(group) for value in group) if group else None for group in finite]
    known = [mean for mean in means if mean is not None]
    low, high = min(known, default=0.0) / 2, max(known, default=0.0) / 2  # halves have finite differences
    span = high - low or 1.0
    return "".join(bars[0 if mean is None else 1 + round((mean / 2 - low) / span * 7)] for mean in means)
