"""Delays that were measured, from a file: one number a line, or an array of one dimension. What has more is
refused unless it is said which part is meant, so that no column of times or of names is taken for delays.

    PATH          text with one number a line; .npy, or .npz with one array, of one dimension
    PATH:COLUMN   this column: its number, from 1, or its name in the first line; of an .npz the name of an
    array PATH:all      all numbers of a matrix; NaN stands for what was not measured
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from offbeat.core.system.reading import LARGEST_JSON, array, arrays, content, reading

EXPECTED = "measured delays, one number a line or an array of one dimension"
ALL = "all"
COMMAS = re.compile(r"\s*[+-]?\d+,\d+(\s*;\s*[+-]?\d+,\d+)*\s*")
SHOWN = 60
"""Characters of a line that are shown."""


def split(text: str) -> tuple[Path, str | None]:
    """'PATH:COLUMN' as the two; a path that exists may have a colon in it."""
    head, colon, column = text.strip().rpartition(":")
    return (
        (Path(head), column.strip())
        if colon and head and not Path(text.strip()).exists()
        else (Path(text.strip()), None)
    )


def read_values(path: Path, column: str | None = None) -> np.ndarray:
    """The numbers in a file, all finite and >= 0: float64 [count]. Raises DataError for anything else."""
    do = f"To choose a column: 'file {path}:2', or its name; all of a matrix: 'file {path}:{ALL}'."
    with reading(path, EXPECTED, do):
        found = _array(path, column) if path.suffix in (".npy", ".npz") else _text(path, column)
        if column == ALL:
            _refuse_triangle(found)
            found = found[~np.isnan(found)]
        values = found.astype(float).ravel()
        if not len(values):
            raise ValueError("it holds no number")
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            raise ValueError(
                f"number {wrong[0] + 1} of {len(values):,} is {values[wrong[0]]}; delays are finite and >= 0"
            )
        if not values.any():
            raise ValueError(f"all of its {len(values):,} numbers are 0")
    return values


def described(values: np.ndarray) -> str:
    zeros = int((values == 0).sum())
    some = f", {zeros:,} of them 0" if zeros else ""
    low, high, mean = values.min(), values.max(), values.mean()
    return f"{len(values):,} numbers{some} from {low:.4g} to {high:.4g}, mean {mean:.4g}"


def _array(path: Path, column: str | None) -> np.ndarray:
    """The array in .npy or .npz that is meant, of real numbers."""
    if path.suffix == ".npz":
        found = arrays(path)
        if column in found:
            chosen, column = found[column], None
        elif len(found) == 1:
            (chosen,) = found.values()
        else:
            raise ValueError(
                f"it holds the arrays {', '.join(found) or 'none'}; name one of them as the column"
            )
    else:
        chosen = array(path)
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
    lines = list(_lines(content(path, LARGEST_JSON).decode("utf-8-sig")))
    if not lines:
        return np.empty(0)
    if all(COMMAS.fullmatch(line) for _, line in lines[:SHOWN]) and column is None:
        raise ValueError(
            f"its line {lines[0][0]} is "
            f"'{lines[0][1]:.{SHOWN}}': are these decimal commas? Write 0.5, not 0,5"
        )
    rows = [(at, _fields(line)) for at, line in lines]
    names = [] if column in (None, ALL) or all(map(_is_number, rows[0][1])) else rows.pop(0)[1]
    if column == ALL:
        return np.array([[_float(at, field) for field in fields] for at, fields in rows])
    if column is None:
        for at, fields in rows:
            if len(fields) != 1:
                raise ValueError(f"line {at} has {len(fields)} values: '{' '.join(fields):.{SHOWN}}'")
        k = 0
    else:
        k = _number(column, len(rows[0][1]) if rows else len(names), names)
    for at, fields in rows:
        if k >= len(fields):
            raise ValueError(f"line {at} has {len(fields)} values, and column {k + 1} is asked for")
    return np.array([_float(at, fields[k]) for at, fields in rows])


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without comments and empty ones."""
    for at, line in enumerate(text.splitlines(), 1):
        if plain := line.partition("#")[0].strip():
            yield at, plain


def _fields(line: str) -> list[str]:
    mark = next((mark for mark in (";", "\t", ",") if mark in line), None)
    return [field.strip().strip('"') for field in line.split(mark)]


def _number(column: str, count: int, names: list[str]) -> int:
    """The place of a column, from 0."""
    if column in names:
        return names.index(column)
    if column.isdecimal() and 1 <= int(column) <= count:
        return int(column) - 1
    named = f", named {', '.join(names):.{SHOWN}}" if names else ""
    raise ValueError(f"it has no column '{column}': there are {count}{named}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _float(at: int, text: str) -> float:
    if not _is_number(text):
        raise ValueError(f"line {at} has '{text:.{SHOWN}}', which is no number")
    return float(text)


def _refuse_triangle(matrix: np.ndarray) -> None:
    """The zeros of half a matrix are no delays."""
    if matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 1:
        for half, other in ((np.tril, np.triu), (np.triu, np.tril)):
            if not half(matrix, -1 if half is np.tril else 1).any() and other(matrix).any():
                raise ValueError("one half of its matrix is all zeros; put NaN where nothing was measured")
