"""The trace of a run: what happened when, and who mixed which version of whom.

Three tables, in the order in which things happened; the digest is over all three.

events         every handler call: time, agent, event, source, kind (message type), version (of the model
               that the message carries; of a gradient: the step), start and end of the transmission (of a
               gradient: of the computation). Of a view: source is who was lost (version 0) or is back (1). Of a rejoin:
               source and version say whose model it starts with. Live only: `moved` says that a register's vectors
               moved on within the next handler; `crash` with a source, that a returning agent knows of that loss; the
               start of a rejoin is how many gradients the agent had asked for before; `saved` and `resume` name by its
               version the state that went into a checkpoint and came out of it
writes         every change of an agent's model: time, agent, step (gradients applied so far). `mixed` lists,
               for each, the versions of other agents that entered it: recorded from the linear form that the
               algorithm built in the handler that wrote it; what it had mixed into a field earlier is not seen
transmissions  start, end, agent, kind, bytes

The global iteration k of arXiv:2505.10322 counts instants at which some model was written; writes of the same
instant share one k. The r-th version of a model is the one that its agent's r-th write made; 0 is the initial one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from zipfile import BadZipFile

import numpy as np

from offbeat.errors import DataError

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
CODES = {"f8": "d", "i4": "i", "i2": "h", "i8": "q"}


def packing(dtype: np.dtype[Any]) -> struct.Struct:
    """How a row of such a table lies in memory."""
    return struct.Struct("<" + "".join(CODES[dtype[name].str[1:]] for name in dtype.names or ()))


@dataclass(frozen=True)
class Staleness:
    """The constants of assumption 3.3 of arXiv:2505.10322, measured.

    B: every agent writes at least once in every window of B iterations.
    D: no mixed model is older than D iterations, k - D <= s_ij^k; None where nothing came from a register.
    """

    B: int
    D: int | None


class Rows:
    """A table that grows. Its rows are packed at once: millions of tuples would keep the garbage collector busy."""

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

    def __len__(self) -> int:
        return len(self._packed) // self.dtype.itemsize

    def array(self) -> np.ndarray:
        """A copy of what there is so far."""
        return np.frombuffer(bytes(self._packed), self.dtype).copy()


@dataclass
class Recorder:
    """Collects a trace while an engine runs; rows are tuples in the order of the tables' columns."""

    agents: int
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

    def trace(self) -> Trace:
        """What was collected so far, as arrays."""
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
        times = self.writes["time"]
        return np.concatenate([[0], np.cumsum(np.diff(times) != 0)])[: len(times)].astype(np.int64)

    def selected(self) -> tuple[np.ndarray, np.ndarray]:
        """For every row of `mixed`: k, and s_ij^k = min(k, k of the write that ended the mixed version)."""
        k = self.iterations()
        by_agent = np.argsort(self.writes["agent"], kind="stable")
        first = np.searchsorted(self.writes["agent"][by_agent], np.arange(self.agents + 1))
        source, version = self.mixed["source"], self.mixed["version"]
        position = first[source] + version  # the write after version r is the agent's (r+1)-st, index r
        ended = position < first[source + 1]
        mine = k[self.mixed["write"]]
        if not len(by_agent):
            return mine, mine
        end = k[by_agent[np.where(ended, position, 0)]]
        return mine, np.where(ended, np.minimum(mine, end), mine)

    def staleness(self) -> Staleness:
        """B and D, measured over the whole trace, its ends included."""
        k = self.iterations()
        last = int(k[-1]) if len(k) else -1
        everybody = np.arange(self.agents)
        agent = np.concatenate([everybody, self.writes["agent"], everybody])
        when = np.concatenate([np.full(self.agents, -1), k, np.full(self.agents, last + 1)])
        order = np.lexsort((when, agent))
        gaps = np.diff(when[order])[np.diff(agent[order]) == 0]
        longest = int(gaps.max())
        if not (self.events["event"] == EVENT_CODE["register"]).any():
            return Staleness(longest, None)
        now, then = self.selected()
        return Staleness(longest, int((now - then).max(initial=0)))

    def updates(self) -> np.ndarray:
        """Gradients applied by each agent: int64 [agents]."""
        counts = np.zeros(self.agents, dtype=np.int64)
        np.maximum.at(counts, self.writes["agent"], self.writes["step"])
        return counts

    def table(self) -> list[dict[str, Any]]:
        """The writes as rows {"k", "time", "agent", "step", "versions": {neighbour: version}}."""
        rows: list[dict[str, Any]] = [
            {"k": int(k), "time": float(w["time"]), "agent": int(w["agent"]), "step": int(w["step"]), "versions": {}}
            for k, w in zip(self.iterations(), self.writes, strict=True)
        ]
        for write, source, version in self.mixed.tolist():
            rows[write]["versions"][source] = version
        return rows

    def digest(self, *more: bytes) -> str:
        """SHA-256 over all tables, and over whatever else is given (the final models)."""
        sha = hashlib.sha256(repr((self.agents, self.kinds)).encode())
        for array in (self.events, self.writes, self.mixed, self.transmissions):
            sha.update(array.tobytes())
        for part in more:
            sha.update(part)
        return sha.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as .npz (no pickle), whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, agents=np.array(self.agents), kinds=np.array(self.kinds, dtype="U"), events=self.events,
            writes=self.writes, mixed=self.mixed, transmissions=self.transmissions,
            settings=np.array(json.dumps(dict(self.settings))),
        )  # fmt: skip
        write_atomically(Path(path), buffer.getvalue())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Trace:
        """Read a trace back. Raises DataError if the file is none."""
        try:
            with np.load(path, allow_pickle=False) as z:
                settings = json.loads(str(z["settings"])) if "settings" in z.files else {}
                tables = {name: z[name].astype(dtype) for name, dtype in TABLES.items()}
                return Trace(int(z["agents"]), tuple(z["kinds"].tolist()), **tables, settings=settings)
        except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
            raise DataError(
                f"{path} cannot be read as a trace ({error}); expected a .npz that offbeat wrote."
            ) from error


def by_time(table: np.ndarray) -> np.ndarray:
    """The order of a table's rows by time; what is simultaneous by agent, and of one agent as it is."""
    return np.lexsort((table["agent"], table["time"]))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    path = path.resolve()  # a link stays a link
    with NamedTemporaryFile(dir=path.parent, prefix=".offbeat-", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.close()
            temporary.chmod(path.stat().st_mode if path.exists() else 0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
