"""The trace of a run: what happened when, and who mixed which version of whom.

Tables in the order in which things happened; the digest is over all of them. What a run reports of its trace
(B, D and the digest) is found part by part, so that a trace of which nothing else is wanted need not be held
(`Tally`).

- `events`: every handler call: time, agent, event, source, kind (message type), version (of the model that
  the message carries; of a gradient: the step), start and end of the transmission (of a gradient: of the
  computation). Of a view: source is who was lost (version 0) or is back (1). Of a rejoin: source and version
  say whose model it starts with. Live only: `moved` says that a register's vectors moved on within the next
  handler; `crash` with a source, that a returning agent knows of that loss; the start of a rejoin is how many
  gradients the agent had asked for before; `saved` and `resume` name by its version the state that went into
  a checkpoint and came out of it
- `writes`: every change of an agent's model: time, agent, step (gradients applied so far). `mixed` lists, for
  each, the versions of other agents that entered it: recorded from the linear form that the algorithm built
  in the handler that wrote it; what it had mixed into a field earlier is not seen
- `transmissions`: start, end, agent, kind, bytes

The global iteration k of arXiv:2505.10322 counts instants at which some model was written; writes of the same
instant share one k. The r-th version of a model is the one that its agent's r-th write made; 0 is the initial
one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import arrays, reading, refuse_newer

FORMAT = "trace 1"
MOST_AGENTS, MOST = 1_000_000, 1 << 62
"""What a file may speak of: so many agents, and versions, steps and bytes below that."""

EVENTS = ("start", "rejoin", "gradient", "mail", "register", "alarm", "view", "crash", "moved", "saved", "resume",
          "met")  # fmt: skip
EVENT_CODE = {name: code for code, name in enumerate(EVENTS)}

EVENT = np.dtype(
    [("time", "f8"), ("agent", "i4"), ("event", "i2"), ("source", "i4"), ("kind", "i2"), ("version", "i8"),
     ("start", "f8"), ("end", "f8")]
)  # fmt: skip
WRITE = np.dtype([("time", "f8"), ("agent", "i4"), ("step", "i8")])
MIXED = np.dtype([("write", "i8"), ("source", "i4"), ("version", "i8")])
TRANSMISSION = np.dtype([("start", "f8"), ("end", "f8"), ("agent", "i4"), ("kind", "i2"), ("bytes", "i8")])
TABLES = {"events": EVENT, "writes": WRITE, "mixed": MIXED, "transmissions": TRANSMISSION}
PART = 65_536
"""Writes after which a recorder that keeps nothing gives up its rows."""

CODES = {"f8": "d", "i4": "i", "i2": "h", "i8": "q"}


def packing(dtype: np.dtype[Any]) -> struct.Struct:
    """How a row of such a table lies in memory."""
    return struct.Struct("<" + "".join(CODES[dtype[name].str[1:]] for name in dtype.names or ()))


@dataclass(frozen=True)
class Staleness:
    """The constants of assumption 3.3 of arXiv:2505.10322, measured.

    Attributes:
        B: every agent writes at least once in every window of B iterations.
        D: no mixed model is older than D iterations, k - D <= s_ij^k; None where nothing came from a
            register.
    """

    B: int
    D: int | None


class Rows:
    """A table that grows. Its rows are packed at once: millions of tuples would keep the garbage collector
    busy.
    """

    __slots__ = ("_pack", "_packed", "dtype")

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._pack = packing(dtype).pack
        self._packed = bytearray()

    def append(self, row: tuple[Any, ...]) -> None:
        """One more row, in the order of the columns."""
        self._packed += self._pack(*row)

    def extend(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """More rows."""
        for row in rows:
            self._packed += self._pack(*row)

    def clear(self) -> None:
        """No rows any more."""
        self._packed.clear()

    def __len__(self) -> int:
        return len(self._packed) // self.dtype.itemsize

    def array(self) -> np.ndarray:
        """A copy of what there is so far."""
        return np.frombuffer(bytes(self._packed), self.dtype).copy()


@dataclass
class Recorder:
    """Collects a trace while an engine runs; rows are tuples in the order of the tables' columns.

    Attributes:
        tally: what the rows are given to, part by part, instead of keeping them
    """

    agents: int
    tally: Tally | None = None
    kinds: dict[str, int] = field(default_factory=dict)
    events: Rows = field(default_factory=lambda: Rows(EVENT))
    writes: Rows = field(default_factory=lambda: Rows(WRITE))
    mixed: Rows = field(default_factory=lambda: Rows(MIXED))
    transmissions: Rows = field(default_factory=lambda: Rows(TRANSMISSION))

    def kind(self, message: object) -> int:
        """The number of a message type; new types get the next one."""
        name = type(message).__name__
        if name not in self.kinds:
            self.kinds[name] = len(self.kinds)
        return self.kinds[name]

    def write(self, time: float, agent: int, step: int, mixed: Iterable[tuple[int, int]]) -> None:
        """An agent wrote its model, into which these versions (agent, version) of other models entered."""
        number = len(self.writes) + (0 if self.tally is None else self.tally.writes)
        self.writes.append((time, agent, step))
        self.mixed.extend([(number, *version) for version in mixed])
        if self.tally is not None and len(self.writes) >= PART:
            self.traced()

    def traced(self) -> Trace | Tally:
        """What was collected so far: the trace, or what is left of it."""
        if self.tally is None:
            return self.trace()
        self.tally.add(self.trace())
        for rows in (self.events, self.writes, self.mixed, self.transmissions):
            rows.clear()
        return self.tally

    def trace(self) -> Trace:
        """The rows that there are, as arrays."""
        return Trace(
            self.agents,
            tuple(self.kinds),
            self.events.array(),
            self.writes.array(),
            self.mixed.array(),
            self.transmissions.array(),
        )


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded run; the tables are numpy structured arrays (see the head of this file).

    Attributes:
        settings: what is needed to run it again, JSON-ready; not part of the digest
    """

    agents: int
    kinds: tuple[str, ...]
    events: np.ndarray
    writes: np.ndarray
    mixed: np.ndarray
    transmissions: np.ndarray
    settings: Mapping[str, Any] = field(default_factory=dict)

    def iterations(self) -> np.ndarray:
        """k of every write, from 0: int64 [writes]."""
        return Tally(self.agents).iterations(self.writes["time"])

    def selected(self) -> tuple[np.ndarray, np.ndarray]:
        """For every row of `mixed`: k, and s_ij^k = min(k, k of the write that ended the mixed version)."""
        return Tally(self.agents).selected(self)

    def staleness(self) -> Staleness:
        """B and D, measured over the whole trace, its ends included."""
        return self.tally().staleness()

    def updates(self) -> np.ndarray:
        """Gradients applied by each agent: int64 [agents]."""
        counts = np.zeros(self.agents, dtype=np.int64)
        np.maximum.at(counts, self.writes["agent"], self.writes["step"])
        return counts

    def table(self) -> list[dict[str, Any]]:
        """The writes as rows {"k", "time", "agent", "step", "versions": {neighbour: version}}."""
        rows: list[dict[str, Any]] = [
            {
                "k": int(k),
                "time": float(w["time"]),
                "agent": int(w["agent"]),
                "step": int(w["step"]),
                "versions": {},
            }
            for k, w in zip(self.iterations(), self.writes, strict=True)
        ]
        for write, source, version in self.mixed.tolist():
            rows[write]["versions"][source] = version
        return rows

    def digest(self, *more: bytes) -> str:
        """SHA-256 over the SHA-256 of every table, and over whatever else is given (the final models)."""
        return self.tally().digest(*more)

    def tally(self) -> Tally:
        """What is reported of it."""
        tally = Tally(self.agents)
        tally.add(self)
        return tally

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as .npz (no pickle), whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, format=np.array(FORMAT), agents=np.array(self.agents), kinds=np.array(self.kinds, dtype="U"),
            events=self.events, writes=self.writes, mixed=self.mixed, transmissions=self.transmissions,
            settings=np.array(json.dumps(dict(self.settings))),
        )  # fmt: skip
        write_atomically(Path(path), buffer.getvalue())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Trace:
        """Read a trace back. Raises DataError if the file is none."""
        with reading(path, "a trace, a .npz that offbeat wrote"):
            z = arrays(path)
            refuse_newer(path, str(z.get("format", FORMAT)), FORMAT)
            settings = json.loads(str(z["settings"])) if "settings" in z else {}
            if not isinstance(settings, dict):
                raise ValueError(f"its settings are {type(settings).__name__}")
            tables = {name: _table(name, z[name], dtype) for name, dtype in TABLES.items()}
            trace = Trace(int(z["agents"]), tuple(z["kinds"].tolist()), **tables, settings=settings)
            trace.check()
        return trace

    def check(self) -> None:
        """Raise ValueError unless every number is one that there can be: of an agent, an event, a kind, a
        write.
        """
        kinds, n = len(self.kinds), self.agents
        if not 1 <= n <= MOST_AGENTS:
            raise ValueError(f"it is of {n} agents")
        ranges = [
            (self.events, "agent", 0, n), (self.events, "source", -1, n), (self.events, "event", 0, len(EVENTS)),
            (self.events, "kind", -1, kinds), (self.events, "version", -1, MOST),
            (self.writes, "agent", 0, n), (self.writes, "step", 0, MOST),
            (self.mixed, "write", 0, len(self.writes)), (self.mixed, "source", 0, n), (self.mixed, "version", 0, MOST),
            (self.transmissions, "agent", 0, n), (self.transmissions, "kind", -1, kinds),
            (self.transmissions, "bytes", 0, MOST),
        ]  # fmt: skip
        for table, name, low, high in ranges:
            values = table[name]
            if len(values) and not (low <= values.min() and values.max() < high):
                wrong = values[(values < low) | (values >= high)][0]
                raise ValueError(f"a row has {name} = {wrong}, which is not from {low} to {high - 1}")
        for table in (self.events, self.writes, self.transmissions):
            for name in ("time", "start", "end"):
                if name in (table.dtype.names or ()) and not np.isfinite(table[name]).all():
                    raise ValueError(f"a row has a {name} that is not finite")


def _table(name: str, found: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """A table with the types of its columns. Raises ValueError if it is none, or has others."""
    if found.ndim != 1 or found.dtype.names != dtype.names:
        raise ValueError(f"its table '{name}' has the columns {found.dtype.names}, expected {dtype.names}")
    return found.astype(dtype)


class Tally:
    """What is left of a trace of which the rows are not kept: B, D and the digest. It is given part after
    part.

    A part has the next rows of every table; rows of `mixed` come with their write. writes: how many there
    were so far
    """

    def __init__(self, agents: int) -> None:
        self.agents, self.kinds, self.writes = agents, tuple[str, ...](), 0
        self._hashes = {name: hashlib.sha256() for name in TABLES}
        self._now, self._k = np.nan, -1  # of the last write
        self._newest = np.full(agents, -1)  # k of every agent's last write
        self._gap, self._age, self._heard = 0, 0, False
        self._ks = [array("q") for _ in range(agents)]  # k of every agent's writes, but for its first ones
        self._forgotten = [0] * agents

    def add(self, part: Trace) -> None:
        """The next part."""
        for name, sha in self._hashes.items():
            sha.update(np.ascontiguousarray(getattr(part, name)).view(np.uint8).data)
        if len(part.kinds) > len(self.kinds):
            self.kinds = part.kinds
        self._heard |= bool((part.events["event"] == EVENT_CODE["register"]).any())
        now, then = self.selected(part)
        self._age = max(self._age, int((now - then).max(initial=0)))

    def forget(self, oldest: Sequence[int] | np.ndarray) -> None:
        """Later parts mix no version of an agent that is older than this: [agents]."""
        for i, version in enumerate(np.asarray(oldest).tolist()):
            del self._ks[i][: version - self._forgotten[i]]
            self._forgotten[i] = version

    def staleness(self) -> Staleness:
        """B and D of all parts so far, the ends included."""
        longest = max(self._gap, int((self._k + 1 - self._newest).max()))
        return Staleness(longest, self._age if self._heard else None)

    def digest(self, *more: bytes) -> str:
        """SHA-256 over the SHA-256 of every table, and over whatever else is given (the final models)."""
        sha = hashlib.sha256(repr((self.agents, self.kinds)).encode())
        for part in (*[each.digest() for each in self._hashes.values()], *more):
            sha.update(part)
        return sha.hexdigest()

    def iterations(self, times: np.ndarray) -> np.ndarray:
        """k of the next writes, which are at these times: int64 [writes]."""
        k = self._k + np.cumsum(np.diff(times, prepend=self._now) != 0)
        if len(k):
            self._now, self._k = times[-1], int(k[-1])
        return k

    def selected(self, part: Trace) -> tuple[np.ndarray, np.ndarray]:
        """For every row of the part's `mixed`: k, and s_ij^k."""
        k, agent = self.iterations(part.writes["time"]), part.writes["agent"]
        order = np.argsort(agent, kind="stable")
        begin = np.searchsorted(agent[order], np.arange(self.agents + 1))
        by_agent, wrote = k[order], np.flatnonzero(np.diff(begin))
        before = np.roll(by_agent, 1)
        before[begin[wrote]] = self._newest[wrote]
        self._gap = max(self._gap, int((by_agent - before).max(initial=0)))
        self._newest[wrote] = by_agent[begin[wrote + 1] - 1]
        for i in wrote.tolist():
            self._ks[i].frombytes(by_agent[begin[i] : begin[i + 1]].tobytes())
        now = k[part.mixed["write"] - self.writes]
        self.writes += len(k)
        then, source = now.copy(), part.mixed["source"]
        order = np.argsort(source, kind="stable")
        begin = np.searchsorted(source[order], np.arange(self.agents + 1))
        for i in np.flatnonzero(np.diff(begin)).tolist():
            rows = order[begin[i] : begin[i + 1]]
            then[rows] = np.minimum(now[rows], self._ended(i, part.mixed["version"][rows]))
        return now, then

    def _ended(self, agent: int, version: np.ndarray) -> np.ndarray:
        """k of the write that ended each of these versions of an agent's model; later than all where none has
        yet.
        """
        ks, place = np.frombuffer(self._ks[agent], dtype=np.int64), version - self._forgotten[agent]
        ended, k = place < len(ks), np.full(len(place), self._k + 1)
        k[ended] = ks[place[ended]]
        return k


def joined(parts: Sequence[Trace]) -> Trace:
    """One trace of consecutive parts."""
    if len(parts) == 1:
        return parts[0]
    events, writes, mixed, sent = (np.concatenate([getattr(part, name) for part in parts]) for name in TABLES)
    return Trace(parts[0].agents, max((part.kinds for part in parts), key=len), events, writes, mixed, sent)


def by_time(table: np.ndarray) -> np.ndarray:
    """The order of a table's rows by time; what is simultaneous by agent, and of one agent as it is."""
    return np.lexsort((table["agent"], table["time"]))
