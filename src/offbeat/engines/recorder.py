"""What an engine says while it runs, as a trace, or as the summary of one."""

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from offbeat.engines.events import EVENT, LAYOUTS, MIXED, TABLES, Event
from offbeat.engines.trace import Trace, TraceSummary

PART = 65_536
"""Writes after which a recorder that keeps nothing gives up its rows."""

_FORMATS = {"f8": "d", "i4": "i", "i2": "h", "i8": "q"}


def packing(dtype: np.dtype[Any]) -> struct.Struct:
    """How a row of such a table lies in memory: for single rows this is faster than an array."""
    return struct.Struct("<" + "".join(_FORMATS[dtype[name].str[1:]] for name in dtype.names or ()))


class Rows:
    """A table that grows, packed row by row: millions of tuples would keep the garbage collector busy."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype, self._pack, self.packed = dtype, packing(dtype).pack, bytearray()

    def append(self, *row: float) -> None:
        self.packed += self._pack(*row)

    def __len__(self) -> int:
        return len(self.packed) // self.dtype.itemsize


_pack, _pack_mixed = packing(EVENT).pack, packing(MIXED).pack
_ROWS = {kind: (layout.order, layout.rest) for kind, layout in LAYOUTS.items()}


class Recorder:
    """Collects what happens to so many agents; a summary is given the rows, part by part, instead of keeping
    them. `kinds`: of messages, and their numbers; `written`: writes in all, also those that are given up;
    `blocks`: see `Trace`.
    """

    def __init__(self, agents: int, keep: bool = True, blocks: bool = False) -> None:
        self.agents, self.blocks, self.kinds, self.written = agents, blocks, dict[str, int](), 0
        self._numbers = dict[type, int]()
        self.summary = None if keep else TraceSummary(agents, blocks)
        self.tables = [Rows(dtype) for dtype in TABLES.values()]
        self.events, self.writes, self.mixed, self.transmissions = self.tables
        self._part = PART  # by when so many were written, rows are given up

    def kind(self, message: object) -> int:
        """The number of a message type; new types get the next one."""
        kind = type(message)
        if kind not in self._numbers:
            self._numbers[kind] = self.kinds.setdefault(kind.__name__, len(self.kinds))
        return self._numbers[kind]

    def event(self, record: Event) -> None:
        order, rest = _ROWS[type(record)]
        self.events.packed += _pack(*order(record + rest))  # called for millions of events: not by `append`

    def write(self, time: float, agent: int, step: int, mixed: Iterable[tuple[int, int]]) -> None:
        """An agent wrote its model, into which these versions (agent, version) of others entered."""
        self.writes.append(time, agent, step)
        write, packed = self.written, self.mixed.packed
        for source, version in mixed:
            packed += _pack_mixed(write, source, version)
        self.written = write + 1
        if self.summary is not None and self.written >= self._part:
            self.traced()

    def add(self, packed: Iterable[bytes], written: int) -> None:
        """Rows of each table, as they lie in memory; so many were written in all."""
        for rows, more in zip(self.tables, packed, strict=True):
            rows.packed += more
        self.written = written
        if self.summary is not None and written >= self._part:
            self.traced()

    def traced(self) -> Trace | TraceSummary:
        """What was collected so far: the trace, or its summary."""
        trace = self.trace()
        if self.summary is None:
            return trace
        self.summary.add(trace)
        self.clear()
        return self.summary

    def clear(self) -> None:
        self._part = self.written + PART
        for rows in self.tables:
            rows.packed.clear()

    def trace(self) -> Trace:
        tables = (np.frombuffer(bytes(rows.packed), rows.dtype).copy() for rows in self.tables)
        return Trace(self.agents, tuple(self.kinds), *tables, blocks=self.blocks)
