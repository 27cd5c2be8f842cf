"""Tables in text files whose first line may name the columns, in any order."""

from collections.abc import Sequence
from pathlib import Path

from offbeat.world.files import fields_of, is_number, lines_of

Rows = list[tuple[int, list[str]]]  # the number of a line, from 1, and its fields
AGENT = "agent"


def has_names(rows: Rows) -> bool:
    """Whether the first row names columns: all of its fields are words."""
    return bool(rows) and not any(is_number(word) or word in ("", "*") for word in rows[0][1])


def in_order(rows: Rows, names: Sequence[str], optional: str = "", free: str = "") -> Rows:
    """The rows without a head, their fields in the order of these names.

    Args:
        optional: the column that may be missing, or be left out at the end of a line
        free: the column that may go by any name, if the others are there

    Raises ValueError, with the line, for a head of other names, and a row that does not fit its head.
    """
    if not has_names(rows):
        return rows
    at, head = rows[0][0], [word.lower() for word in rows[0][1]]
    others = [word for word in head if word not in names]
    if free and free not in head and len(others) == 1 and len(head) == len(names):
        head[head.index(others[0])] = free
    if len({*head}) < len(head) or not {*names} - {optional} <= {*head} <= {*names}:
        got = f"line {at} names the columns {','.join(rows[0][1]):.60}"
        raise ValueError(f"{got}; expected {','.join(names)}, in any order")
    where, found = [head.index(name) for name in names if name in head], Rows()
    for at, fields in rows[1:]:
        short = len(fields) == len(head) - 1 and head[-1] == optional
        if len(fields) != len(head) and not short:
            raise ValueError(f"line {at} has {len(fields)} values; expected {','.join(head)}")
        padded = [*fields, *[""] * short]
        found.append((at, [padded[k] for k in where]))
    return found


def agents_in(path: Path) -> list[str] | None:
    """What the column 'agent' of a text file has; None if no column has this name."""
    rows = [(at, fields_of(line)) for at, line in lines_of(path)]
    head = [word.lower() for word in rows[0][1]] if has_names(rows) else []
    if head.count(AGENT) != 1:
        return None
    k = head.index(AGENT)
    return [fields[k] if k < len(fields) else "" for _, fields in rows[1:]]
