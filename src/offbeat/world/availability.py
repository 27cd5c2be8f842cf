"""When agents are there, from a file: on and off times, as crashes."""

import math
from collections import defaultdict
from pathlib import Path

from offbeat.core.system.reading import reading
from offbeat.world.columns import in_order
from offbeat.world.files import fields_of, lines_of, number_at
from offbeat.world.world import Crash

EXPECTED = "lines 'agent,on,off': each a time span in which the agent is there; without off, it stays"


def read_availability(path: Path, n: int, until: float) -> tuple[Crash, ...]:
    """The crashes of n agents before `until`, from a text file with a line 'agent,on,off' for each time span
    in which the agent is there; an empty off, or none, means that it stays.

    Outside of its spans an agent is down: before the first too, if that does not begin at 0. Whoever has no
    line is always there. Raises DataError, with the line, for anything else, or spans that overlap.
    """
    spans = defaultdict[int, list[tuple[float, float, int]]](list)
    with reading(path, f"'availability' as {EXPECTED}"):
        rows = [(at, fields_of(line)) for at, line in lines_of(path)]
        for at, fields in in_order(rows, ("agent", "on", "off"), optional="off"):
            agent, on, off = _span(at, fields, n)
            spans[agent].append((on, off, at))
        if not spans:
            raise ValueError("it names no agent")
        return tuple(
            crash for agent in sorted(spans) for crash in _crashes(agent, sorted(spans[agent]), until)
        )


def _span(at: int, fields: list[str], n: int) -> tuple[int, float, float]:
    if len(fields) not in (2, 3):
        raise ValueError(f"line {at} has {len(fields)} values; expected agent,on,off")
    if not (fields[0].isdecimal() and int(fields[0]) < n):
        raise ValueError(f"line {at} has the agent '{fields[0]}'; expected 0 to {n - 1}")
    on = number_at(at, fields[1])
    off = number_at(at, fields[2]) if fields[2:] and fields[2] else math.inf
    if not 0 <= on < off or math.isinf(on):
        raise ValueError(f"line {at} is on at {on:g} and off at {off:g}; expected 0 <= on < off")
    return int(fields[0]), on, off


def _crashes(agent: int, spans: list[tuple[float, float, int]], until: float) -> list[Crash]:
    """The gaps between spans, and before and after them, as far as they begin before the end."""
    gone, found = 0.0, list[Crash]()
    for on, off, at in spans:
        if on < gone:
            raise ValueError(f"line {at} has agent {agent} on at {on:g}, and it is on until {gone:g} already")
        if gone < on and gone < until:
            found.append(Crash(agent, gone, on))
        gone = off
    return [*found, *([Crash(agent, gone)] if gone < until else [])]
