"""One of the runs that lie side by side: segment after segment its timetable, and what is recorded of it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from offbeat.engines.sim.ahead.schedule import Schedule
from offbeat.engines.sim.ahead.update_form import UpdateForm
from offbeat.engines.summary import TraceSummary
from offbeat.engines.trace import Trace, joined

Draw = Callable[[int], np.ndarray[Any, Any]]


class ScheduledRun:
    """A run, in its first segment. Raises NoTimetable if that has no timetable.

    Attributes:
        ends: of the time segments
        forms: what each agent computes
        draws: each agent's next so many minibatches
        keep_trace: whether to hold the trace
    """

    def __init__(
        self, schedule: Schedule, ends: Sequence[float], forms: Sequence[UpdateForm], draws: Sequence[Draw],
        keep_trace: bool = True,
    ) -> None:  # fmt: skip
        self.forms, self.draws, self._keep_trace = forms, draws, keep_trace
        self._schedule, self._ends = schedule, [*ends]
        self._writes = self._messages = 0  # in the segments before
        self._recorded, self._parts, self._summary = -1.0, list[Trace](), TraceSummary(schedule.n)
        self.enter()

    @property
    def more(self) -> bool:
        return bool(self._ends)

    def enter(self) -> None:
        """Go into the next segment. Raises NoTimetable where only the simulator can tell how it goes on."""
        end = self._ends.pop(0)
        self.table = self._schedule.segment(end, self.more)

    def leave(self) -> None:
        """Record this segment to its end, and drop it."""
        table = self.table
        self._record(table.high)
        self._summary.forget(table.oldest)
        self._writes += table.writes(table.high)
        self._messages += table.messages(table.high)
        del self.table

    def counts(self, now: float) -> tuple[int, int, int]:
        """Gradients applied, transmissions and their bytes, by then; that is in this segment."""
        messages = self._messages + self.table.messages(now)
        return self._writes + self.table.writes(now), messages, messages * self._schedule.size

    def traced(self, now: float) -> Trace | TraceSummary:
        self._record(now)
        if not self._keep_trace:
            return self._summary
        self._parts = [joined(self._parts)]
        return self._parts[0]

    def _record(self, until: float) -> None:
        if until > self._recorded:
            part = self.table.trace(self._recorded, until, self.forms[0].kind, self._schedule.size)
            self._recorded = until
            if self._keep_trace:
                self._parts.append(part)
            else:
                self._summary.add(part.kinds, part.tables)
