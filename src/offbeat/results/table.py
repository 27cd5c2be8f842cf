"""The comparison as a table of text, with notes; and the table of all learning rates that were tried."""

import io
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from offbeat.results import WIDTH, unpadded
from offbeat.results.columns import EFFORT, cells
from offbeat.results.headline import headline
from offbeat.results.notes import notes
from offbeat.results.tuned import STABLE, tried
from offbeat.results.values import ComparisonValues


def as_text(comparison: ComparisonValues) -> str:
    """The table as plain text, in characters that standard output has."""
    file = io.TextIOWrapper(io.BytesIO(), getattr(sys.stdout, "encoding", None) or "utf-8", "replace")
    Console(file=file, width=WIDTH).print(as_table(comparison))
    file.seek(0)
    return unpadded(file.read()).rstrip()


def as_table(
    comparison: ComparisonValues, width: int = WIDTH, band: str = "range", chosen: Sequence[str] | None = None
) -> Group:
    """The table, with a line that says what was run and notes on what needs saying.

    Where it is wider than `width`, it is several tables below one another: how far everybody got, and what it
    took, if each of these fits.

    Args:
        band: what is shown of seeds, see `offbeat.results.summary.BANDS`
        chosen: the columns, see `offbeat.results.columns.columns`
    """
    if not comparison.runs:
        return Group(Text("No run was finished."))
    heads, rows = cells(comparison, band, chosen)
    lines, first = [heads, *rows], 1 + len(comparison.differing)
    middle = heads.index(EFFORT) if EFFORT in heads else first
    fitting = _fitting(lines, width, first, middle)
    parts = [[[row[index] for index in columns] for row in lines] for columns in fitting]
    tables = [plain_table(part, range(first, len(part[0]))) for part in parts]
    said = (Text(note, style="dim") for note in notes(comparison, band, chosen))
    return Group(Text(headline(comparison), style="bold"), *tables, *said)


def tuning_table(comparison: ComparisonValues) -> Table:
    heads, rows = tried(comparison)
    at = heads.index(STABLE)
    return plain_table([heads, *rows], range(1, at), at)


def plain_table(rows: Sequence[Sequence[str]], right: Iterable[int], breaks: int | None = None) -> Table:
    """Of the head and the rows.

    Args:
        right: the columns that are aligned on the right
        breaks: a column whose text goes on in the next line where there is no room
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for index, head in enumerate(rows[0]):
        side: Literal["left", "right"] = "right" if index in right else "left"
        table.add_column(Text(head), justify=side, no_wrap=index != breaks)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table


def _fitting(rows: Sequence[Sequence[str]], width: int, first: int, middle: int) -> list[list[int]]:
    """The columns in groups that are no wider than `width`, each with so many of the first columns.

    In two before and from `middle`, where that is enough; else about as wide as one another: no column
    stands alone.
    """
    widths = [max(len(row[index]) for row in rows) + 2 for index in range(len(rows[0]))]
    whole = _filled(widths, width, first)
    if len(whole) == 1:
        return whole
    halves = [[*range(middle)], [*range(first), *range(middle, len(widths))]]
    if len(whole) == 2 and middle > first and all(sum(widths[k] for k in half) < width for half in halves):
        return halves
    found = [_filled(widths, least, first) for least in range(1, width + 1)]
    return next(groups for groups in found if len(groups) == len(whole))


def _filled(widths: Sequence[int], width: int, first: int) -> list[list[int]]:
    """As many columns as fit in each group, one after another."""
    groups = [[*range(first)]]
    for index in range(first, len(widths)):
        if len(groups[-1]) > first and sum(widths[k] for k in groups[-1]) + widths[index] >= width:
            groups.append([*range(first)])
        groups[-1].append(index)
    return groups
