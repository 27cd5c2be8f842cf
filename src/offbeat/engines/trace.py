"""The trace of a run, and its file: what happened when, and who mixed which version of whom.

Tables in the order in which things happened; the digest is over all of them.

- `events`: what happened to agents, handler calls above all: `offbeat.engines.events` has the kinds
- `writes`: every change of an agent's model: time, agent, step (gradients applied so far). `mixed`: which
  versions of other agents entered each, read off the linear form that the handler built; what it had mixed
  into a field earlier is not seen
- `transmissions`: start, end, agent, kind (the number of the message type), bytes

The global iteration k of arXiv:2505.10322 counts instants at which some model was written; writes of the same
instant share one k. The r-th version of a model is that of its agent's r-th write, 0 the initial one; s_ij^k
is the smaller of k and the k of the write that ended the version that is used at k: the one that is mixed
then, or, of a run by blocks, the newest one that was read by when the gradient began that is applied at k.
"""

import hashlib
import io
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import arrays, reading, refuse_newer
from offbeat.engines.activity import Activity
from offbeat.engines.events import MIXED, NAMES, TABLES, RegisterRead, Rejoined, rows_of

FORMAT = "trace 1"
MOST_AGENTS, MOST = 1_000_000, 1 << 62
"""What a file may speak of: so many agents, and versions, steps and bytes below that."""


@dataclass(frozen=True)
class Staleness:
    """The constants of assumption 3.3 of arXiv:2505.10322, measured.

    Attributes:
        B: every agent writes at least once in every window of B iterations.
        D: no model that is used is older than D iterations, k - D <= s_ij^k; None where nothing came from a
            register. By blocks the time of computing a gradient is in it.
    """

    B: int
    D: int | None


class TraceSummary:
    """What is reported of a trace, found part by part: they need not be held. They have so many `writes`.

    Args:
        blocks: see `Trace`
    """

    def __init__(self, agents: int, blocks: bool = False) -> None:
        self.agents, self.kinds, self.writes = agents, tuple[str, ...](), 0
        self._held = np.zeros((agents, agents), dtype=np.int64) if blocks else None
        self._hashes = {name: hashlib.sha256() for name in TABLES}
        self._now, self._k = np.nan, -1  # of the last write
        self._newest = np.full(agents, -1)  # k of every agent's last write
        self._gap, self._age, self._heard = 0, 0, False
        self._ks = [array("q") for _ in range(agents)]  # k of every agent's writes, but for its first ones
        self._forgotten = [0] * agents
        self.activity = Activity(agents)

    def add(self, part: "Trace") -> None:
        """The next part, with all kinds of messages so far."""
        for name, sha in self._hashes.items():
            sha.update(np.ascontiguousarray(part.tables[name]).view(np.uint8).data)
        self.kinds = max(self.kinds, part.kinds, key=len)
        self._heard |= len(rows_of(part.events, RegisterRead)) > 0
        now, then = self.selected(part)
        self._age = max(self._age, int((now - then).max(initial=0)))
        self.activity.add(part.events, part.transmissions, now - then)

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

    def used(self, part: "Trace") -> np.ndarray:
        """Rows as of `mixed` for every version of another agent's model that is used in the next part: what
        is mixed; by blocks all that the agent has when the gradient begins.
        """
        if self._held is None:
            return part.mixed
        held, n = self._held, self.agents
        returned = rows_of(part.events, Rejoined)[["time", "agent", "donor"]].tolist()
        donors = {(time, agent): donor for time, agent, donor in returned}
        writes, mixed = part.writes[["time", "agent"]].tolist(), part.mixed
        source, version = mixed["source"].astype(np.int64), mixed["version"]
        first = np.searchsorted(mixed["write"] - self.writes, np.arange(len(writes) + 1)).tolist()
        seen, uses = np.empty((len(writes), n), dtype=np.int64), np.arange(n) != part.writes["agent"][:, None]
        for write, (time, i) in enumerate(writes):
            if (donor := donors.pop((time, i), None)) is not None:
                held[i], uses[write] = held[donor], False
            seen[write] = held[i]
            new = slice(first[write], first[write + 1])
            held[i][source[new]] = version[new]
        rows = np.empty(int(uses.sum()), MIXED)
        reader, rows["source"] = np.nonzero(uses)
        rows["write"], rows["version"] = self.writes + reader, seen[uses]
        return rows

    def selected(self, part: "Trace") -> tuple[np.ndarray, np.ndarray]:
        """For every row of what is `used` in the next part: k, and s_ij^k."""
        mixed, writes = self.used(part), part.writes
        k, agent = self.iterations(writes["time"]), writes["agent"]
        order, begin = _by_agent(agent, self.agents)
        of_agent, wrote = k[order], np.flatnonzero(np.diff(begin))
        before = np.roll(of_agent, 1)
        before[begin[wrote]] = self._newest[wrote]
        self._gap = max(self._gap, int((of_agent - before).max(initial=0)))
        self._newest[wrote] = of_agent[begin[wrote + 1] - 1]
        for i in wrote.tolist():
            self._ks[i].frombytes(of_agent[begin[i] : begin[i + 1]].tobytes())
        now = k[mixed["write"] - self.writes]
        self.writes += len(k)
        then = now.copy()
        order, begin = _by_agent(mixed["source"], self.agents)
        for i in np.flatnonzero(np.diff(begin)).tolist():
            rows = order[begin[i] : begin[i + 1]]
            ks, place = (
                np.frombuffer(self._ks[i], dtype=np.int64),
                mixed["version"][rows] - self._forgotten[i],
            )
            ended = place < len(ks)
            then[rows[ended]] = np.minimum(now[rows[ended]], ks[place[ended]])
        return now, then


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded run; the tables are numpy structured arrays (see the head of this file).

    Attributes:
        blocks: whether its agents share out one model, see `offbeat.Agent`; not part of the digest
        settings: what is needed to run it again, JSON-ready; not part of the digest
    """

    agents: int
    kinds: tuple[str, ...]
    events: np.ndarray
    writes: np.ndarray
    mixed: np.ndarray
    transmissions: np.ndarray
    settings: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    blocks: bool = field(default=False, kw_only=True)

    @property
    def tables(self) -> dict[str, np.ndarray]:
        """All of them, in the order of `TABLES`."""
        return {name: getattr(self, name) for name in TABLES}

    def iterations(self) -> np.ndarray:
        """k of every write, from 0: int64 [writes]."""
        return TraceSummary(self.agents).iterations(self.writes["time"])

    def selected(self) -> tuple[np.ndarray, np.ndarray]:
        """For every row of what is `used`: k, and s_ij^k = min(k, k of the write that ended its version)."""
        return TraceSummary(self.agents, self.blocks).selected(self)

    def used(self) -> np.ndarray:
        """Rows as of `mixed`, which it is but by blocks: one for each version that was used."""
        return TraceSummary(self.agents, self.blocks).used(self)

    def staleness(self) -> Staleness:
        """B and D, measured over the whole trace, its ends included."""
        return self.summary().staleness()

    def updates(self, until: float = np.inf) -> np.ndarray:
        """Gradients applied by each agent, up to that time: int64 [agents]."""
        counts, writes = np.zeros(self.agents, dtype=np.int64), self.writes[self.writes["time"] <= until]
        np.maximum.at(counts, writes["agent"], writes["step"])
        return counts

    def table(self) -> list[dict[str, Any]]:
        """The writes as rows {"k", "time", "agent", "step", "versions": {neighbour: version}}."""
        rows: list[dict[str, Any]] = [
            {"k": k, "time": time, "agent": agent, "step": step, "versions": {}}
            for k, (time, agent, step) in zip(self.iterations().tolist(), self.writes.tolist(), strict=True)
        ]
        for write, source, version in self.mixed.tolist():
            rows[write]["versions"][source] = version
        return rows

    def digest(self, *more: bytes) -> str:
        """SHA-256 over the SHA-256 of every table, and over whatever else is given (the final models)."""
        return self.summary().digest(*more)

    def summary(self) -> TraceSummary:
        summary = TraceSummary(self.agents, self.blocks)
        summary.add(self)
        return summary

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as .npz (no pickle), whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, format=np.array(FORMAT), agents=np.array(self.agents),
            kinds=np.array(self.kinds, dtype="U"), events=self.events, writes=self.writes, mixed=self.mixed,
            transmissions=self.transmissions, settings=np.array(json.dumps(dict(self.settings))),
            blocks=np.array(self.blocks),
        )  # fmt: skip
        write_atomically(Path(path), buffer.getvalue())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Trace":
        """Read a trace back, of a file or of a run's folder. Raises DataError if there is none."""
        folder, do = Path(path), ""
        if folder.is_dir():
            path = folder / "trace.npz"
            do = f"{folder} is not the folder of a live run."
            if any(folder.glob("agent-*.trace")):
                do = f"The run in {folder} has not ended: the same command with --resume goes on with it."
        with reading(path, "a trace, a .npz that offbeat wrote", do):
            z = arrays(path)
            refuse_newer(path, str(z.get("format", FORMAT)), FORMAT)
            settings = json.loads(str(z["settings"])) if "settings" in z else {}
            if not isinstance(settings, dict):
                raise ValueError(f"its settings are {type(settings).__name__}")
            for name, dtype in TABLES.items():
                found = z[name].dtype.names
                if z[name].ndim != 1 or found != dtype.names:
                    raise ValueError(f"its table '{name}' has the columns {found}, expected {dtype.names}")
            tables = [z[name].astype(dtype) for name, dtype in TABLES.items()]
            agents, kinds = int(z["agents"]), tuple(z["kinds"].tolist())
            trace = Trace(agents, kinds, *tables, settings=settings, blocks=bool(z.get("blocks", False)))
            trace.check()
        return trace

    def check(self) -> None:
        """Raise ValueError for a number of an agent, an event, a kind or a write that there cannot be."""
        kinds, n = len(self.kinds), self.agents
        if not 1 <= n <= MOST_AGENTS:
            raise ValueError(f"it is of {n} agents")
        ranges = [
            (self.events, "agent", 0, n), (self.events, "source", -1, n),
            (self.events, "event", 0, len(NAMES)), (self.events, "kind", -1, kinds),
            (self.events, "version", -1, MOST), (self.writes, "agent", 0, n), (self.writes, "step", 0, MOST),
            (self.mixed, "write", 0, len(self.writes)), (self.mixed, "source", 0, n),
            (self.mixed, "version", 0, MOST), (self.transmissions, "agent", 0, n),
            (self.transmissions, "kind", -1, kinds), (self.transmissions, "bytes", 0, MOST),
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


def joined(parts: Sequence[Trace]) -> Trace:
    """One trace of consecutive parts."""
    tables = [np.concatenate([part.tables[name] for part in parts]) for name in TABLES]
    kinds = max((part.kinds for part in parts), key=len)
    return Trace(parts[0].agents, kinds, *tables, blocks=parts[0].blocks)


def in_order(trace: Trace) -> Trace:
    """The same with every table by time; what is simultaneous by agent, and of one agent as it is."""

    def by_time(table: np.ndarray) -> np.ndarray:
        return np.lexsort((table["agent"], table["time"]))

    order = by_time(trace.writes)
    mixed = trace.mixed.copy()
    mixed["write"] = np.argsort(order)[mixed["write"]]
    return replace(
        trace, events=trace.events[by_time(trace.events)], writes=trace.writes[order],
        mixed=mixed[np.argsort(mixed["write"], kind="stable")],
        transmissions=trace.transmissions[np.argsort(trace.transmissions["start"], kind="stable")],
    )  # fmt: skip


def _by_agent(agent: np.ndarray, agents: int) -> tuple[np.ndarray, np.ndarray]:
    """An order of rows by this column, and where every agent's rows begin in it: [agents + 1]."""
    order = np.argsort(agent, kind="stable")
    return order, np.searchsorted(agent[order], np.arange(agents + 1))


def folder_of(path: Path) -> Path:
    """The folder of the run that `Trace.load` reads from there."""
    return path if path.is_dir() else path.parent
