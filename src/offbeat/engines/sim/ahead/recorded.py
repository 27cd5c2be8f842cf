"""What is recorded of a run that is known piece by piece."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.trace import Trace, TraceSummary, joined
from offbeat.world.sending import senders, slowdowns
from offbeat.world.world import World


class Recorded:
    """The trace of n agents, part by part; or, where that is not kept, its summary. blocks: see `Trace`."""

    def __init__(self, n: int, keep: bool, blocks: bool = False) -> None:
        self._keep, self._blocks, self._parts = keep, blocks, list[Trace]()
        self._summary = TraceSummary(n, blocks)

    def add(self, part: Trace) -> None:
        """What follows."""
        if self._keep:
            self._parts.append(part)
        else:
            self._summary.add(part)

    def forget(self, oldest: Sequence[int] | np.ndarray) -> None:
        """Later parts mix no version of an agent that is older than this: [n]."""
        if not self._keep:
            self._summary.forget(oldest)

    def traced(self) -> Trace | TraceSummary:
        """All so far."""
        if not self._keep:
            return self._summary
        self._parts = [replace(joined(self._parts), blocks=self._blocks)]
        return self._parts[0]


def bandwidth(world: World, n: int) -> float:
    """That of all links. Raises NoTimetable where links are not alike, or speeds change."""
    links = senders(world, range(n))
    if any(slowdowns(world, i, sends=False) or links[i].slowdowns for i in range(n)) or not links[0].uniform:
        raise NoTimetable
    return links[0].bandwidth.usual
