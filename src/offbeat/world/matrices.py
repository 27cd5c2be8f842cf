"""Numbers for links from files: lists of links, square matrices, and measured round-trip times.

A matrix has a row for each sender and a column for each receiver; its diagonal is not looked at. What is NaN,
or not listed, has the number of the way back. In a list `*,*,VALUE` is the number of all that are not listed.
"""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np

from offbeat.core.system.reading import reading
from offbeat.core.system.streams import Purpose, stream
from offbeat.world.columns import has_names, in_order
from offbeat.world.files import array_in, fields_of, lines_of, number_at, refuse_half
from offbeat.world.per_link import PerLink

MEDIAN = "median"
EXPECTED = "a number for each link: lines 'from,to,value', or a square matrix (text, .npy, .npz)"
MEASURED = "round-trip times between nodes: a square matrix, or one for each slice (text, .npy, .npz)"
OTHERS = "a line '*,*,NUMBER' gives all other links one"
Links = dict[tuple[int, int], float]
Lines = list[tuple[int, str]]  # of text, with their numbers


def from_file(said: str, n: int, do: str = "") -> PerLink:
    """'PATH' or 'PATH:ARRAY' as numbers for the links of n agents. Raises DataError for anything else, and
    says what to `do`.
    """
    path, chosen = _split(said)
    with reading(path, EXPECTED, do):
        table, usual = _arrays(path, chosen) if _binary(path) else _listed(path, chosen, n)
        if matrix := isinstance(table, np.ndarray):
            if table.shape != (n, n):
                raise ValueError(
                    f"its matrix is {' x '.join(map(str, table.shape))}, and there are {n} agents"
                )
            if n > 2:  # of two agents a half is one number
                refuse_half(table, "the way back is the same")
            table = _links(table)
    own = _both_ways(table) if math.isnan(usual) else table
    return PerLink(usual, own, str(path), "" if matrix else OTHERS)


def from_round_trips(said: str, n: int, seed: int) -> PerLink:
    """Half of the measured round-trip time as the latency of each way, 'PATH[:ARRAY[:SLICE]]'.

    Of more nodes than agents n are drawn, anew for each seed: agent k is the k-th of a permutation of the
    nodes. As many are taken in their order. A triangle of zeros is mirrored.

    Raises DataError unless it is such a matrix, of at least n nodes.
    """
    path, chosen = _split(said)
    with reading(
        path, MEASURED, "Slices are numbered from 1, as in 'rtt:rtt.npz:rtt:1'; or 'rtt:rtt.npz:rtt:median'."
    ):
        stat = path.stat()
        matrix = _measured(path, tuple(chosen), stat.st_mtime_ns, stat.st_size)
        nodes = len(matrix)
        if nodes < n:
            raise ValueError(f"it has {nodes} nodes, and there are {n} agents")
    drawn = nodes > n
    which = stream(seed, Purpose.NODES).permutation(nodes)[:n] if drawn else np.arange(n)
    source = f"{said}, {n} of {nodes} nodes{', drawn for each seed' * drawn}"
    return PerLink(math.nan, _both_ways(_links(matrix[np.ix_(which, which)] / 2)), source, "")


@lru_cache(maxsize=4)
def _measured(path: Path, chosen: tuple[str, ...], changed: int, size: int) -> np.ndarray:
    """The one matrix that is meant, NaN where nothing was measured; float64 [nodes, nodes]."""
    if _binary(path):
        found, part = _named_array(path, [*chosen])
    else:
        found, part = _rows(lines_of(path)), [*chosen]
    if found.ndim not in (2, 3) or found.shape[-1] != found.shape[-2] or len(found) == 0:
        raise ValueError(f"its array has the shape {found.shape}")
    found = found.astype(float)
    if not np.tril(found, -1).any() and np.triu(found, 1).any():
        found = found + np.triu(found, 1).swapaxes(-1, -2)
    if found.ndim == 2:
        if part:
            raise ValueError(f"it has no slices, and '{':'.join(part)}' is asked for")
        return _checked(found)
    if len(part) > 1 and _binary(path):
        raise ValueError(f"it has no array '{part[0]}'")
    if len(part) != 1:
        raise ValueError(f"it has {len(found)} slices; say which, 1 to {len(found)}, or '{MEDIAN}'")
    if part[0] == MEDIAN:
        return _checked(np.nanmedian(found, axis=0))
    if not (part[0].isdecimal() and 1 <= int(part[0]) <= len(found)):
        raise ValueError(f"it has no slice '{part[0]}': they are 1 to {len(found)}, or '{MEDIAN}'")
    return _checked(found[int(part[0]) - 1])


def _split(said: str) -> tuple[Path, list[str]]:
    """'PATH:ARRAY:SLICE' as the path and what follows; a path that exists may have colons in it."""
    parts = said.split(":")
    ends = (k for k in range(len(parts), 0, -1) if Path(":".join(parts[:k])).exists())
    end = next(ends, 1)
    return Path(":".join(parts[:end])), [part.strip() for part in parts[end:]]


def _binary(path: Path) -> bool:
    return path.suffix in (".npy", ".npz")


def _named_array(path: Path, chosen: list[str]) -> tuple[np.ndarray, list[str]]:
    """The array that is named, or the only one; and what of it is chosen."""
    found, named = array_in(path, chosen[0] if chosen else None, "name one of them")
    if found.dtype.kind not in "iuf":
        raise ValueError(f"it holds {found.dtype}, not real numbers")
    return found, chosen[named:]


def _arrays(path: Path, chosen: list[str]) -> tuple[np.ndarray, float]:
    found, rest = _named_array(path, chosen)
    if rest:
        raise ValueError(f"it has no array '{rest[0]}'")
    return _checked(found.astype(float)) if found.ndim == 2 else found, math.nan


def _rows(lines: Lines) -> np.ndarray:
    rows = [[number_at(at, word) for word in fields_of(line)] for at, line in lines]
    for (at, _), row in zip(lines, rows, strict=True):
        if len(row) != len(rows[0]):
            raise ValueError(f"line {at} has {len(row)} values, and the first has {len(rows[0])}")
    return np.array(rows)


def _listed(path: Path, chosen: list[str], n: int) -> tuple[np.ndarray | Links, float]:
    """A matrix, or lines 'from,to,value' and the number of all others."""
    if chosen:
        raise ValueError(f"it is text, and its array '{chosen[0]}' is asked for")
    lines = lines_of(path)
    rows = [(at, fields_of(line)) for at, line in lines]
    if not rows:
        raise ValueError("it holds no number")
    named = has_names(rows)
    if len(rows) == n == len(rows[0][1]) == 3 and not named:
        raise ValueError(
            "of 3 agents it may be a matrix or a list; put 'from,to,value' in its first line, or use .npy"
        )
    if not named and len(rows[0][1]) != 3:
        return _checked(_rows(lines)), math.nan
    found, usual = Links(), math.nan
    for at, fields in in_order(rows, ("from", "to", "value"), free="value"):
        if len(fields) != 3:
            raise ValueError(f"line {at} has {len(fields)} values; expected from,to,value")
        value = number_at(at, fields[2])
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"line {at} has {fields[2]}; expected a finite number >= 0")
        if fields[:2] == ["*", "*"]:
            usual = value
            continue
        link = _agent(at, fields[0], n), _agent(at, fields[1], n)
        if link[0] == link[1] or link in found:
            wrong = "is from an agent to itself" if link[0] == link[1] else "says again what was said"
            raise ValueError(f"line {at} {wrong}: '{','.join(fields)}'")
        found[link] = value
    return found, usual


def _agent(at: int, word: str, n: int) -> int:
    if not (word.isdecimal() and int(word) < n):
        raise ValueError(f"line {at} has the agent '{word}'; expected 0 to {n - 1}")
    return int(word)


def _checked(matrix: np.ndarray) -> np.ndarray:
    """A matrix, once no number off its diagonal is negative or infinite; NaN stands for what is not there."""
    wrong = np.argwhere((matrix < 0) | np.isinf(matrix))
    for row, column in wrong[wrong[:, 0] != wrong[:, 1]][:1]:
        got = matrix[row, column]
        raise ValueError(
            f"row {row + 1}, column {column + 1} is {got}; expected a finite number >= 0, or NaN"
        )
    return matrix


def _links(matrix: np.ndarray) -> Links:
    """What is measured of a square matrix, off the diagonal."""
    there = ~np.isnan(matrix)
    np.fill_diagonal(there, False)
    pairs = np.argwhere(there).tolist()
    return {(i, j): float(matrix[i, j]) for i, j in pairs}


def _both_ways(links: Links) -> Links:
    """With the way back, where only one way is there."""
    return {(j, i): value for (i, j), value in links.items()} | links
