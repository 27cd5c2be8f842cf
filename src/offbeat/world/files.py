"""Numbers in files, as they are given for delays and speeds: one number a line, or an array of one dimension.

What has more is refused unless it is said which part is meant, lest times or names are taken for delays:

    PATH          text with one number a line; .npy, or .npz with one array, of one dimension
    PATH:COLUMN   this column: its number, from 1, or its name in the first line; an array of an .npz
    PATH:all      all numbers of a matrix; NaN stands for what was not measured
"""

import re
from pathlib import Path

import numpy as np

from offbeat.core.system.reading import LARGEST_JSON, array, arrays, content, reading

ALL = "all"
COMMAS = re.compile(r"\s*[+-]?\d+,\d+(\s*;\s*[+-]?\d+,\d+)*\s*")
SHOWN = 60  # characters of a line that are shown


def absolute(said: object) -> object:
    """'file:PATH', 'rtt:PATH' or 'file PATH', whatever follows, with the path as another folder finds it."""
    found = re.fullmatch(r"\s*(file:|rtt:|file\s)\s*(\S.*)", said) if isinstance(said, str) else None
    return said if found is None else f"{found[1]}{Path(found[2]).resolve()}"


def file_said(said: object) -> str | None:
    """The file that 'file:PATH', 'rtt:PATH' or 'file PATH' names, whatever follows; None if none is there."""
    found = (
        re.fullmatch(r"\s*(file:|rtt:|(?:file|empirical)\s)\s*(\S.*)", said)
        if isinstance(said, str)
        else None
    )
    if found is None:
        return None
    head, _, mean = found[2].rpartition(" mean ")
    parts = (head if head and is_number(mean) else found[2]).strip().split(":")
    ends = (":".join(parts[:k]) for k in range(len(parts), 0, -1))
    return next((path for path in ends if Path(path).is_file()), None)


def split_column(text: str) -> tuple[Path, str | None]:
    """'PATH:COLUMN' as the two; a path that exists may have a colon in it."""
    head, _, column = text.strip().rpartition(":")
    whole = not head or Path(text.strip()).exists()
    return (Path(text.strip()), None) if whole else (Path(head), column.strip())


def read_values(
    path: Path, column: str | None = None, what: str = "measured delays", word: str = "file "
) -> np.ndarray:
    """The numbers in a file, all finite and >= 0: float64 [count]. Raises DataError for anything else, with
    the advice as the setting spells it: `word` before the path.
    """
    expected = f"{what}, one number a line or an array of one dimension"
    do = f"To choose a column: '{word}{path}:2', or its name; all of a matrix: '{word}{path}:{ALL}'."
    with reading(path, expected, do):
        found = _array(path, column) if path.suffix in (".npy", ".npz") else _text(path, column)
        if column == ALL:
            if found.ndim == 2 and found.shape[0] == found.shape[1]:
                refuse_half(found, "nothing was measured")
            found = found[~np.isnan(found)]
        values = found.astype(float).ravel()
        if not len(values):
            raise ValueError("it holds no number")
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            which = f"number {wrong[0] + 1} of {len(values):,} is {values[wrong[0]]}"
            raise ValueError(f"{which}; {what.split()[-1]} are finite and >= 0")
        if not values.any():
            raise ValueError(f"all of its {len(values):,} numbers are 0")
    return values


def refuse_half(matrix: np.ndarray, empty: str) -> None:
    """Raise ValueError if one half of a square matrix is all zeros, and the other is not."""
    if np.tril(matrix, -1).any() != np.triu(matrix, 1).any():
        raise ValueError(f"one half of its matrix is all zeros; put NaN where {empty}")


def array_in(path: Path, name: str | None, do: str) -> tuple[np.ndarray, bool]:
    """The array of an .npy; of an .npz that of this name, or the only one. And whether it goes by that name.

    Raises ValueError where several are there, with what to do.
    """
    if path.suffix == ".npy":
        return array(path), False
    found = arrays(path)
    if name is not None and name in found:
        return found[name], True
    if len(found) != 1:
        raise ValueError(f"it holds the arrays {', '.join(found) or 'none'}; {do}")
    (only,) = found.values()
    return only, False


def _array(path: Path, column: str | None) -> np.ndarray:
    chosen, named = array_in(path, column, "name one of them as the column")
    column = None if named else column
    if chosen.dtype.names and column in chosen.dtype.names:
        chosen, column = chosen[column], None
    if chosen.dtype.kind not in "iuf":
        raise ValueError(f"it holds {chosen.dtype}, not real numbers")
    if column is None and chosen.ndim != 1:
        raise ValueError(f"its array has the shape {chosen.shape}")
    if column in (None, ALL):
        return chosen
    table = chosen if chosen.ndim == 2 else chosen.reshape(-1, 1)
    return np.asarray(table[:, _number(column or "", table.shape[1], [])])


def _text(path: Path, column: str | None) -> np.ndarray:
    lines = lines_of(path)
    if not lines:
        return np.empty(0)
    if all(COMMAS.fullmatch(line) for _, line in lines[:SHOWN]) and column is None:
        first = f"its line {lines[0][0]} is '{lines[0][1]:.{SHOWN}}'"
        raise ValueError(f"{first}: are these decimal commas? Write 0.5, not 0,5")
    rows = [(at, fields_of(line)) for at, line in lines]
    names = [] if column in (None, ALL) or all(map(is_number, rows[0][1])) else rows.pop(0)[1]
    if column == ALL:
        return np.array([[number_at(at, word) for word in words] for at, words in rows])
    k = 0 if column is None else _number(column, len(rows[0][1]) if rows else len(names), names)
    for at, fields in rows:
        if column is None and len(fields) != 1:
            raise ValueError(f"line {at} has {len(fields)} values: '{' '.join(fields):.{SHOWN}}'")
        if k >= len(fields):
            raise ValueError(f"line {at} has {len(fields)} values, and column {k + 1} is asked for")
    return np.array([number_at(at, fields[k]) for at, fields in rows])


def lines_of(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file, with their numbers from 1; without comments and what is blank."""
    plain = content(path, LARGEST_JSON).decode("utf-8-sig").splitlines()
    without_comments = ((at, line.partition("#")[0].strip()) for at, line in enumerate(plain, 1))
    return [(at, line) for at, line in without_comments if line]


def fields_of(line: str) -> list[str]:
    """What stands between semicolons, tabs, commas or blanks."""
    mark = next((mark for mark in (";", "\t", ",") if mark in line), None)
    return [word.strip().strip('"') for word in line.split(mark)]


def _number(column: str, count: int, names: list[str]) -> int:
    if column in names:
        return names.index(column)
    if column.isdecimal() and 1 <= int(column) <= count:
        return int(column) - 1
    named = f", named {', '.join(names):.{SHOWN}}" if names else ""
    raise ValueError(f"it has no column '{column}': there are {count}{named}")


def is_number(text: str) -> bool:
    """Whether it is spelt as a number in the usual way."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def number_at(at: int, text: str) -> float:
    """The number in a field of line `at`. Raises ValueError if it is none."""
    if not is_number(text):
        raise ValueError(f"line {at} has '{text:.{SHOWN}}', which is no number")
    return float(text)
