"""The log of one agent: its part of the trace, on disk, one frame for each handler.

A frame is written by one call, so whatever ends the process, the file holds whole frames and at most one
broken one, at its end. An agent that comes back goes on in the same file. `merged` makes one trace of all.

Each frame has a checksum, and says how many writes and kinds came before it. So damage in the middle costs
the frames that it hit and no others. Writes that are lost get a row at the time of what is known next, so
versions keep their numbers; the trace says that it is `damaged`. So does one of an agent whose machine was
lost with the end of its log: the numbers that it may have used are not used again.
"""

import os
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.core.errors import DiskError
from offbeat.core.system.reading import content, reading
from offbeat.engines.events import TABLES, WRITE
from offbeat.engines.recorder import Recorder, packing
from offbeat.engines.trace import Trace, in_order

MAGIC, EARLIER = b"ofbL", b"lbfo"
SUM = struct.Struct("<4sI")  # magic, CRC-32 of the rest of the frame
FRAME = struct.Struct(
    "<HHHHHHQ"
)  # rows of the tables, bytes of the new kinds' names, kinds and writes before
HEAD = SUM.size + FRAME.size
SEARCHED = 16  # how many times the size of a log may be read in search of the frames after a damaged one


def full(path: Path | None, error: OSError) -> DiskError:
    """What there is to say where a run cannot write this file."""
    do = "Once there is room, the run can go on with --resume, from its last checkpoint."
    return DiskError(f"Cannot write {path}: {error.strerror or error}. {do}")


class Log:
    """The log of an agent, which goes on after what is in the file; None: there is no file.

    Attributes:
        rows: what `flush` writes as one frame; a write is named by its place among this agent's own
        steps: that the agent had made in its earlier lives
    """

    def __init__(self, path: Path | None, written: int = 0) -> None:
        """Count writes from `written` on, if there may have been so many, and the file lacks the last."""
        self.path, self.rows, self.steps, self._handle = path, Recorder(1), 0, -1
        self._flushed = 0, 0  # kinds and writes in the file
        if path is not None:
            before = read(path)
            _cut(path, before)
            self.steps = int(before.writes["step"].max(initial=0))
            self.rows.kinds = {kind: number for number, kind in enumerate(before.kinds)}
            self.rows.written = max(written, len(before.writes))
            self._flushed = len(before.kinds), self.rows.written
            self._handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)

    def flush(self) -> None:
        rows, (kinds, writes) = self.rows, self._flushed
        if self._handle >= 0 and any(map(len, rows.tables)):
            names = "\n".join([*rows.kinds][kinds:]).encode()
            head = FRAME.pack(*map(len, rows.tables), len(names), kinds, writes)
            frame = b"".join([head, *(table.packed for table in rows.tables), names])
            frame = SUM.pack(MAGIC, zlib.crc32(frame)) + frame
            try:
                while frame:
                    frame = frame[os.write(self._handle, frame) :]
            except OSError as error:
                raise full(self.path, error) from error
            self._flushed = len(rows.kinds), rows.written
        rows.clear()

    def close(self) -> None:
        self.flush()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


@dataclass(frozen=True, eq=False)
class Logged:
    """The log of one agent, read back: the tables of a trace."""

    kinds: tuple[str, ...]
    events: np.ndarray
    writes: np.ndarray
    mixed: np.ndarray
    transmissions: np.ndarray
    lost: int = 0  # bytes that are damaged, rather than not written
    end: int = 0  # of the last whole frame
    size: int = 0  # of the file


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
        rows = sum(dtype.itemsize * count for dtype, count in zip(TABLES.values(), self.counts, strict=True))
        return self.start + HEAD + rows + self.names


def read(path: Path) -> Logged:
    """The whole frames of a log; without a file, none. Raises DataError if it is something else."""
    with reading(path, "the log of an agent"):
        whole = content(path) if path.exists() else b""
        if whole.startswith(EARLIER):
            raise ValueError("it is of an earlier version of offbeat; what it holds is in trace.npz")
        packed = {name: bytearray() for name in TABLES}
        kinds: list[str] = []
        writes = lost = end = 0
        for frame in _frames(whole):
            lost += frame.start - end or WRITE.itemsize * max(0, frame.writes_before - writes)
            packed["writes"] += _unknown(frame.writes_before - writes, whole, frame, packed["writes"])
            kinds += [f"lost-{k}" for k in range(len(kinds), frame.kinds_before)]
            at, end = frame.start + HEAD, frame.end
            for (name, dtype), count in zip(TABLES.items(), frame.counts, strict=True):
                packed[name] += whole[at : at + dtype.itemsize * count]
                at += dtype.itemsize * count
            kinds += whole[at:end].decode().split("\n") if frame.names else []
            writes = frame.writes_before + frame.counts[1]
        tables = {name: np.frombuffer(bytes(packed[name]), dtype) for name, dtype in TABLES.items()}
        limits = {"events": (-1, len(kinds)), "transmissions": (-1, len(kinds)), "mixed": (0, writes)}
        for name, (low, high) in limits.items():
            what = "write" if name == "mixed" else "kind"
            found = tables[name][what]
            if len(found) and not low <= found.min() <= found.max() < high:
                raise ValueError(f"a row speaks of a {what} that is not there")
        lost += len(whole) - end if not _torn(whole, end) else 0
    return Logged(tuple(kinds), **tables, lost=lost, end=end, size=len(whole))


def _unknown(missing: int, whole: bytes, frame: _Frame, before: bytearray) -> bytes:
    """Rows for so many lost writes, at the time of the frame's first row, the steps as before."""
    if not missing:
        return b""
    first = next(name for name, count in zip(TABLES, frame.counts, strict=True) if count)
    row = np.frombuffer(whole, TABLES[first], 1, frame.start + HEAD)[0]  # `mixed` comes with a write
    step = np.frombuffer(before, WRITE)["step"][-1:].sum()
    time = row["start" if first == "transmissions" else "time"]
    return packing(WRITE).pack(float(time), int(row["agent"]), int(step)) * missing


def damage(trace: Trace) -> str:
    """What to tell the user of a trace whose logs were damaged; empty if they were not."""
    agents = ", ".join(map(str, trace.settings.get("damaged", [])))
    lacks = f"The logs of agents {agents} were damaged: the trace lacks some of their events."
    right = "What is measured in it (staleness, predictions) is nearly right; it cannot be replayed."
    return f"{lacks} {right}" if agents else ""


def elapsed(paths: Sequence[Path]) -> float:
    return max((float(read(path).events["time"].max(initial=0.0)) for path in paths), default=0.0)


def merged(paths: Sequence[Path], settings: Mapping[str, Any]) -> Trace:
    """One trace of all agents' logs: every table by time, what is simultaneous by agent."""
    logs = [read(path) for path in paths]
    damaged = [agent for agent, log in enumerate(logs) if log.lost]
    kinds = list(dict.fromkeys(kind for log in logs for kind in log.kinds))
    tables = {name: [getattr(log, name).copy() for log in logs] for name in TABLES}
    writes = 0
    for k, log in enumerate(logs):
        number = np.array([kinds.index(kind) for kind in log.kinds] + [-1], dtype=np.int64)  # -1: none
        for table in (tables["events"][k], tables["transmissions"][k]):
            table["kind"] = number[table["kind"]]
        tables["mixed"][k]["write"] += writes
        writes += len(log.writes)
    about = {**settings, **({"damaged": damaged} if damaged else {})}
    trace = in_order(Trace(len(paths), tuple(kinds), *map(np.concatenate, tables.values()), settings=about))
    with reading(paths[0], "the logs of a run, of which this is the first"):
        trace.check()
    return trace


def _frames(whole: bytes) -> Iterator[_Frame]:
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
        cut = f"the last {log.size - log.end} bytes are no whole record; they are moved to {aside.name}."
        print(f"{path}: {cut}", file=sys.stderr)
