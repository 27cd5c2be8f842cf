"""What comes out of runs, and how it is shown: the table, figures, the page, a timeline for Perfetto.

`run` has runs and comparisons as plain values; a new figure is a function of `figures`, put on the page by
`page`. Imports `core`, `world`, `algorithms` (for what their table says) and the trace.
"""

import re

WIDTH = 118  # columns of text where the output is not a terminal and COLUMNS does not say how many


def unpadded(text: str) -> str:
    """The same lines without the blanks at their ends, which fill tables up to their width."""
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
