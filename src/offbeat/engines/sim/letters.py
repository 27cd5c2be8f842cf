"""Mail as a replay has it: what was summed until it left, or for room, is added up as it was in the run."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial, reduce
from itertools import pairwise
from typing import NamedTuple

from offbeat.core.agent import Message
from offbeat.engines import events
from offbeat.engines.handler_step import BEGIN_ANEW
from offbeat.engines.outbox import added
from offbeat.engines.trace import Trace


class Letter(NamedTuple):
    """Mail: if it was accumulated, its number (`Actor.letter`), and whether what begins behind it is a sum of
    its own, which is added to those before it as one.
    """

    message: Message
    number: int = -1
    ends: bool = False

    @property
    def summed(self) -> bool:
        return self.number >= 0


def total(letters: Sequence[Letter]) -> Message:
    """All of them as one, added in this order."""
    sums = [[letters[0].message]]
    for older, newer in pairwise(letters):
        if older.ends:
            sums.append([])
        sums[-1].append(newer.message)
    return reduce(added, map(partial(reduce, added), sums))


SumEnd = tuple[int, int, int, str, int]
"""Whose sum, after how often it had begun anew, to whom, of which message type; its last number."""


def sums_end(trace: Trace) -> set[SumEnd]:
    """The sums to which others were added, each as one."""
    found, begun = set[SumEnd](), defaultdict[int, int](int)
    if len(events.rows_of(trace.events, events.SumAdded)):
        for event in events.records(trace.events):
            begun[event.agent] += isinstance(event, BEGIN_ANEW)
            if isinstance(event, events.SumAdded):
                kind = trace.kinds[event.kind]
                found.add((event.agent, begun[event.agent], event.receiver, kind, event.number))
    return found
