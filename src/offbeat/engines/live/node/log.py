"""The log of one agent: its part of the trace, on disk, one frame for each handler.

A frame is written by one call, so whatever ends the process, the file holds whole frames and at most one
broken one, at its end. An agent that comes back goes on in the same file. `merged` makes one trace of all
logs.

Each frame has a checksum, and says how many writes and kinds came before it. So damage in the middle costs
the frames
that it hit and no others: the next whole one is found, and what is missing in between is counted. Writes that
    are lost
get a row at the time of what is known next, so that versions keep their numbers; the trace says that it is
`damaged`.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.core.errors import DiskError
from offbeat.core.system.reading import content, reading
from offbeat.engines.trace import EVENT, MIXED, TRANSMISSION, WRITE, Trace, by_time, packing

MAGIC, EARLIER = b"ofbL", b"lbfo"
SUM = struct.Struct("<4sI")  # magic, CRC-32 of the rest of the frame
FRAME = struct.Struct(
    "<HHHHHHQ"
)  # rows of the four tables, bytes of the names of new kinds, kinds and writes before
HEAD = SUM.size + FRAME.size
TABLES = (EVENT, WRITE, MIXED, TRANSMISSION)
EXPECTED = "the log of an agent"
SEARCHED = 16
"""How many times the size of a log may be read in search of the frames after a damaged one."""
ROWS = [packing(dtype) for dtype in TABLES]
"""The same bytes as the tables' dtypes have; for a few rows this is faster than an array."""


@dataclass
class Log:
    """Collects the rows of a handler; `flush` writes them as one frame. Rows are tuples as in
    `offbeat.engines.trace`.

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
        self._flushed = 0  # writes in the file
        if self.path is not None:
            _cut(self.path, read(self.path))
            before = read(self.path)
            self.kinds = {kind: number for number, kind in enumerate(before.kinds)}
            self.written = self._flushed = len(before.tables[1])
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
            kinds = len(self.kinds) - len(self._new)
            head = FRAME.pack(*map(len, tables), len(names), kinds, self._flushed)
            body = [row.pack(*each) for rows, row in zip(tables, ROWS, strict=True) for each in rows]
            frame = b"".join([head, *body, names])
            self._write(SUM.pack(MAGIC, zlib.crc32(frame)) + frame)
            self._flushed += len(self.writes)
            self._new.clear()
        for table in tables:
            table.clear()

    def _write(self, frame: bytes) -> None:
        try:
            while frame:
                frame = frame[os.write(self._handle, frame) :]
        except OSError as error:
            raise DiskError(
                f"Cannot write {self.path}: {error.strerror or error}. Once there is room, the run can go on "
                "with --resume, from its last checkpoint."
            ) from error

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


@dataclass(frozen=True, eq=False)
class Logged:
    """The log of one agent, read back: the tables of a trace.

    Attributes:
        lost: bytes that are damaged, rather than not written
        end: where the last whole frame ends
        size: of the file
    """

    kinds: tuple[str, ...]
    tables: tuple[np.ndarray[Any, Any], ...]
    lost: int = 0
    end: int = 0
    size: int = 0


@dataclass(frozen=True)
class _Frame:
    """Where a frame is, and what its head says."""

    start: int
    counts: tuple[int, ...]
    names: int
    kinds_before: int
    writes_before: int

    @property
    def end(self) -> int:
        rows = sum(dtype.itemsize * count for dtype, count in zip(TABLES, self.counts, strict=True))
        return self.start + HEAD + rows + self.names


def read(path: Path) -> Logged:
    """The whole frames of a log; an empty one if there is no file. Raises DataError if it is something else."""
    with reading(path, EXPECTED):
        whole = content(path) if path.exists() else b""
        if whole.startswith(EARLIER):
            raise ValueError("it is of an earlier version of offbeat; what it holds is in trace.npz")
        pieces: list[list[bytes]] = [[] for _ in TABLES]
        kinds: list[str] = []
        writes = lost = end = 0
        for frame in _frames(whole):
            lost += frame.start - end
            if missing := frame.writes_before - writes:
                pieces[1].append(_unknown(missing, whole, frame, pieces[1]))
            kinds += [f"lost-{k}" for k in range(len(kinds), frame.kinds_before)]
            at, end = frame.start + HEAD, frame.end
            for k, (dtype, count) in enumerate(zip(TABLES, frame.counts, strict=True)):
                pieces[k].append(whole[at : at + dtype.itemsize * count])
                at += dtype.itemsize * count
            kinds += whole[at:end].decode().split("\n") if frame.names else []
            writes = frame.writes_before + frame.counts[1]
        tables = tuple(
            np.frombuffer(b"".join(piece), dtype=dtype) for piece, dtype in zip(pieces, TABLES, strict=True)
        )
        for k, name, low, high in (
            (0, "kind", -1, len(kinds)),
            (3, "kind", -1, len(kinds)),
            (2, "write", 0, writes),
        ):
            found = tables[k][name]
            if len(found) and not low <= found.min() <= found.max() < high:
                raise ValueError(f"a row speaks of a {name} that is not there")
        lost += len(whole) - end if not _torn(whole, end) else 0
    return Logged(tuple(kinds), tables, lost, end, len(whole))


def _unknown(missing: int, whole: bytes, frame: _Frame, before: list[bytes]) -> bytes:
    """Rows for lost writes: at the time of the next event, the steps as before."""
    of = next(
        dtype for dtype, count in zip(TABLES, frame.counts, strict=True) if count and dtype is not MIXED
    )
    first = np.frombuffer(whole, of, 1, frame.start + HEAD)[0]  # rows of `mixed` come with a write
    last = next((np.frombuffer(piece, WRITE)[-1]["step"] for piece in reversed(before) if piece), 0)
    return (
        ROWS[1].pack(
            float(first["time" if of is not TRANSMISSION else "start"]), int(first["agent"]), int(last)
        )
        * missing
    )


def damage(trace: Trace) -> str:
    """What to tell the user of a trace whose logs were damaged; empty if they were not."""
    agents = trace.settings.get("damaged")
    if not agents:
        return ""
    return (
        f"The logs of agents {', '.join(map(str, agents))} were damaged: the trace lacks some of their "
        "events. What is measured in it (staleness, predictions) is nearly right; it cannot be replayed."
    )


def elapsed(paths: Sequence[Path]) -> float:
    """The time of the last event, in units; 0 without any."""
    return max((float(read(path).tables[0]["time"].max(initial=0.0)) for path in paths), default=0.0)


def merged(paths: Sequence[Path], settings: Mapping[str, Any]) -> Trace:
    """One trace of all agents' logs: every table by time, what is simultaneous by agent."""
    logs = [read(path) for path in paths]
    damaged = [agent for agent, log in enumerate(logs) if log.lost]
    kinds = list(dict.fromkeys(kind for log in logs for kind in log.kinds))
    events, writes, mixed, transmissions = (
        [log.tables[k].copy() for log in logs] for k in range(len(TABLES))
    )
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
    trace = Trace(
        len(paths), tuple(kinds), (all_events := np.concatenate(events))[by_time(all_events)], everything[order],
        _sorted(np.concatenate(mixed), "write"), _sorted(np.concatenate(transmissions), "start"),
        {**settings, **({"damaged": damaged} if damaged else {})},
    )  # fmt: skip
    with reading(paths[0], "the logs of a run, of which this is the first"):
        trace.check()
    return trace


def _frames(whole: bytes) -> Iterator[_Frame]:
    """Every whole frame of a log."""
    at, kinds, writes, budget = 0, 0, 0, SEARCHED * len(whole)
    while at >= 0 and budget >= 0:
        frame = _frame(whole, at)
        fits = frame is not None and frame.end <= len(whole) and frame.kinds_before >= kinds
        if frame is not None and fits and 0 <= frame.writes_before - writes <= at:
            budget -= frame.end - at
            if zlib.crc32(whole[at + SUM.size : frame.end]) == SUM.unpack_from(whole, at)[1]:
                yield frame
                names = whole[frame.end - frame.names : frame.end].count(b"\n") + 1 if frame.names else 0
                at, kinds = frame.end, frame.kinds_before + names
                writes = frame.writes_before + frame.counts[1]
                continue
        at = whole.find(MAGIC, at + 1)


def _frame(whole: bytes, at: int) -> _Frame | None:
    """The frame that begins there, if one does; the file may end within it."""
    if len(whole) - at < HEAD or not whole.startswith(MAGIC, at):
        return None
    *counts, names, kinds, writes = FRAME.unpack_from(whole, at + SUM.size)
    frame = _Frame(at, tuple(counts), names, kinds, writes)
    return frame if counts[0] or counts[1] or counts[3] else None


def _torn(whole: bytes, end: int) -> bool:
    """Whether the last bytes are the beginning of a frame that a killed process did not finish, or none."""
    frame = _frame(whole, end)
    return frame.end > len(whole) if frame is not None else MAGIC.startswith(whole[end : end + len(MAGIC)])


def _cut(path: Path, log: Logged) -> None:
    """Remove what is broken at the end, as a killed process leaves it, and keep it beside the log."""
    if log.lost:
        print(f"{path}: {log.lost} bytes are damaged; what comes after them is kept.", file=sys.stderr)
    if log.end < log.size:
        aside = path.with_suffix(".cut")
        with aside.open("ab") as file:
            file.write(path.read_bytes()[log.end :])
        os.truncate(path, log.end)
        print(
            f"{path}: the last {log.size - log.end} bytes are no whole record; they are moved to "
            f"{aside.name}.",
            file=sys.stderr,
        )


def _sorted(table: np.ndarray[Any, Any], by: str) -> np.ndarray[Any, Any]:
    ordered: np.ndarray[Any, Any] = table[np.argsort(table[by], kind="stable")]
    return ordered
