"""The log of one agent: its part of the trace, on disk, one frame for each handler.

A frame is written by one call, so whatever ends the process, the file holds whole frames and at most one broken one, at
its end. An agent that comes back goes on in the same file. `merged` makes one trace of all logs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.errors import DiskError
from offbeat.trace import EVENT, MIXED, TRANSMISSION, WRITE, Trace, by_time, packing

FRAME = struct.Struct("<IHHHHI")  # magic, rows of the four tables, bytes of the names of new kinds
MAGIC = 0x6F66626C
TABLES = (EVENT, WRITE, MIXED, TRANSMISSION)
ROWS = [packing(dtype) for dtype in TABLES]
"""The same bytes as the tables' dtypes have; for a few rows this is faster than an array."""


@dataclass
class Log:
    """Collects the rows of a handler; `flush` writes them as one frame. Rows are tuples as in `offbeat.trace`.

    In `mixed`, a write is named by its place among this agent's own.
    """

    path: Path | None
    kinds: dict[str, int] = field(default_factory=dict)
    written: int = 0  # writes in all
    events: list[tuple[Any, ...]] = field(default_factory=list)
    writes: list[tuple[Any, ...]] = field(default_factory=list)
    mixed: list[tuple[Any, ...]] = field(default_factory=list)
    transmissions: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._handle = -1
        self._new: list[str] = []
        if self.path is not None:
            _cut(self.path)
            before = read(self.path)
            self.kinds = {kind: number for number, kind in enumerate(before.kinds)}
            self.written = len(before.tables[1])
            self._handle = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)

    def kind(self, message: object) -> int:
        """The number of a message type; new types get the next one."""
        name = type(message).__name__
        if name not in self.kinds:
            self.kinds[name] = len(self.kinds)
            self._new.append(name)
        return self.kinds[name]

    def flush(self) -> None:
        """Write what was collected, as one frame."""
        tables = (self.events, self.writes, self.mixed, self.transmissions)
        if self._handle >= 0 and any(tables):
            names = "\n".join(self._new).encode()
            head = FRAME.pack(MAGIC, *map(len, tables), len(names))
            body = [row.pack(*each) for rows, row in zip(tables, ROWS, strict=True) for each in rows]
            self._write(b"".join([head, *body, names]))
            self._new.clear()
        for table in tables:
            table.clear()

    def _write(self, frame: bytes) -> None:
        try:
            while frame:
                frame = frame[os.write(self._handle, frame) :]
        except OSError as error:
            raise DiskError(
                f"Cannot write {self.path}: {error.strerror or error}. Once there is room, the run can go on with "
                "--resume, from its last checkpoint."
            ) from error

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


@dataclass(frozen=True, eq=False)
class Logged:
    """The log of one agent, read back: the tables of a trace."""

    kinds: tuple[str, ...]
    tables: tuple[np.ndarray[Any, Any], ...]


def read(path: Path) -> Logged:
    """The whole frames of a log; an empty one if there is no file."""
    content = path.read_bytes() if path.exists() else b""
    pieces: list[list[bytes]] = [[] for _ in TABLES]
    kinds: list[str] = []
    for at, counts, names in _frames(content):
        for k, (dtype, count) in enumerate(zip(TABLES, counts, strict=True)):
            pieces[k].append(content[at : at + dtype.itemsize * count])
            at += dtype.itemsize * count
        if names:
            kinds += content[at : at + names].decode().split("\n")
    tables = tuple(np.frombuffer(b"".join(piece), dtype=dtype) for piece, dtype in zip(pieces, TABLES, strict=True))
    return Logged(tuple(dict.fromkeys(kinds)), tables)


def elapsed(paths: Sequence[Path]) -> float:
    """The time of the last event, in units; 0 without any."""
    return max((float(read(path).tables[0]["time"].max(initial=0.0)) for path in paths), default=0.0)


def merged(paths: Sequence[Path], settings: Mapping[str, Any]) -> Trace:
    """One trace of all agents' logs: every table by time, what is simultaneous by agent."""
    logs = [read(path) for path in paths]
    kinds = list(dict.fromkeys(kind for log in logs for kind in log.kinds))
    events, writes, mixed, transmissions = ([log.tables[k].copy() for log in logs] for k in range(len(TABLES)))
    for k, log in enumerate(logs):
        number = np.array([kinds.index(kind) for kind in log.kinds] + [-1], dtype=np.int64)  # -1: none
        for table in (events[k], transmissions[k]):
            table["kind"] = number[table["kind"]]
    first = np.cumsum([0] + [len(table) for table in writes])
    everything = np.concatenate(writes)
    order = by_time(everything)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    for k, table in enumerate(mixed):
        table["write"] = place[first[k] + table["write"]]
    return Trace(
        len(paths), tuple(kinds), (all_events := np.concatenate(events))[by_time(all_events)], everything[order],
        _sorted(np.concatenate(mixed), "write"), _sorted(np.concatenate(transmissions), "start"), dict(settings),
    )  # fmt: skip


def _frames(content: bytes) -> list[tuple[int, tuple[int, ...], int]]:
    """Of every whole frame: where its rows begin, how many there are of each table, bytes of names."""
    frames, at = [], 0
    while at + FRAME.size <= len(content):
        magic, *counts, names = FRAME.unpack_from(content, at)
        size = sum(dtype.itemsize * count for dtype, count in zip(TABLES, counts, strict=True)) + names
        if magic != MAGIC or at + FRAME.size + size > len(content):
            break
        frames.append((at + FRAME.size, tuple(counts), names))
        at += FRAME.size + size
    return frames


def _cut(path: Path) -> None:
    """Remove a broken frame at the end, which a killed process left."""
    if path.exists():
        content = path.read_bytes()
        frames = _frames(content)
        end = 0
        if frames:
            at, counts, names = frames[-1]
            end = at + sum(dtype.itemsize * count for dtype, count in zip(TABLES, counts, strict=True)) + names
        if end < len(content):
            os.truncate(path, end)


def _sorted(table: np.ndarray[Any, Any], by: str) -> np.ndarray[Any, Any]:
    ordered: np.ndarray[Any, Any] = table[np.argsort(table[by], kind="stable")]
    return ordered
