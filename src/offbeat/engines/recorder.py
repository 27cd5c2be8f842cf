"""What an engine says while it runs, as a trace, or as the summary of one."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from offbeat.engines.events import LAYOUTS, Event
from offbeat.engines.summary import TraceSummary
from offbeat.engines.tables import EVENT, MIXED, TRANSMISSION, WRITE, Rows, packing
from offbeat.engines.trace import Trace

PART = 65_536
"""Writes after which a recorder that keeps nothing gives up its rows."""

_pack = packing(EVENT).pack
_ROWS = {kind: (layout.order, layout.rest) for kind, layout in LAYOUTS.items()}


@dataclass
class Recorder:
    """Collects what happens to so many agents.

    Attributes:
        summary: what the rows are given to, part by part, instead of keeping them
        kinds: of messages, and their numbers
        written: writes in all, rows that were given up included
    """

    agents: int
    summary: TraceSummary | None = None
    kinds: dict[str, int] = field(default_factory=dict)
    written: int = 0
    events: Rows = field(default_factory=lambda: Rows(EVENT))
    writes: Rows = field(default_factory=lambda: Rows(WRITE))
    mixed: Rows = field(default_factory=lambda: Rows(MIXED))
    transmissions: Rows = field(default_factory=lambda: Rows(TRANSMISSION))

    @property
    def tables(self) -> tuple[Rows, Rows, Rows, Rows]:
        """In the order of a trace."""
        return self.events, self.writes, self.mixed, self.transmissions

    def kind(self, message: object) -> int:
        """The number of a message type; new types get the next one."""
        return self.kinds.setdefault(type(message).__name__, len(self.kinds))

    def event(self, record: Event) -> None:
        """Something happened to an agent."""
        order, rest = _ROWS[type(record)]
        self.events.packed += _pack(*order(record + rest))  # called for millions of events: not by `append`

    def write(self, time: float, agent: int, step: int, mixed: Iterable[tuple[int, int]]) -> None:
        """An agent wrote its model, into which these versions (agent, version) of other models entered."""
        self.writes.append(time, agent, step)
        for source, version in mixed:
            self.mixed.append(self.written, source, version)
        self.written += 1
        if self.summary is not None and len(self.writes) >= PART:
            self.traced()

    def sent(self, start: float, end: float, agent: int, kind: int, size: int) -> None:
        """An agent's transmission of so many bytes."""
        self.transmissions.append(start, end, agent, kind, size)

    def traced(self) -> Trace | TraceSummary:
        """What was collected so far: the trace, or its summary."""
        trace = self.trace()
        if self.summary is None:
            return trace
        self.summary.add(trace.kinds, trace.tables)
        self.clear()
        return self.summary

    def clear(self) -> None:
        """Give up the rows."""
        for rows in self.tables:
            rows.packed.clear()

    def trace(self) -> Trace:
        """The rows that there are, as arrays."""
        return Trace(self.agents, tuple(self.kinds), *(rows.array() for rows in self.tables))
