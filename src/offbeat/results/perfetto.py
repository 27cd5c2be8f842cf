"""A trace as the JSON that https://ui.perfetto.dev shows (the trace-event format).

A process for every agent, with the tracks

    compute        from the start to the end of every gradient; its step is the one that it leads to
    mix            from a gradient to the write that it led to; a write without one is an instant
    transmissions  from the start to the end of everything it sent
    received       every register it read, with an arrow from the write that made what was read
    events         crash, rejoin, view, mail, moved, saved, resume

Slices of one track that overlap get a track each. Times are microseconds from the start of the run.
"""

import gzip
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.core.system.files import write_atomically
from offbeat.engines import events
from offbeat.engines.trace import Trace

TRACKS = ("compute", "mix", "transmissions", "received", "events")
INSTANTS = (
    events.Crashed, events.LossKnown, events.Rejoined, events.ViewChanged, events.MailReceived,
    events.RegisterMoved, events.Saved, events.Resumed, events.Regrouped,
)  # fmt: skip
ARROWS = 100_000  # the most arrows that are drawn; the page slows down with more
SHOWN = {"algorithm", "topology", "seed"}
Json = dict[str, Any]


@dataclass
class _Drawing:
    """The events of a page. A track's lane, made when first used, is a thread of its agent's process."""

    agents: int
    scale: float
    placed: list[tuple[float, int, int, Json]] = field(default_factory=list)
    threads: dict[tuple[int, int, int], int] = field(default_factory=dict)
    busy: dict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))

    def at(self, time: float) -> float:
        """Microseconds, to the nanosecond, so that what touches does not overlap."""
        return round(time * self.scale, 3)

    def add(self, ts: float, group: int, place: int, event: Json) -> None:
        """At the same instant, events are in the order of their groups, and there of their places."""
        self.placed.append((ts, group, place, {**event, "ts": ts}))

    def thread(self, agent: int, track: str, start: float = 0.0, end: float = math.inf) -> Json:
        """Where something of an agent from `start` to `end` is drawn; call it in the order of the starts."""
        which, lane = TRACKS.index(track), 0
        if end < math.inf:
            ends = self.busy[agent, which]
            lane = next((k for k, busy in enumerate(ends) if busy <= start), len(ends))
            ends[lane : lane + 1] = [end]
        tid = self.threads.setdefault((agent, which, lane), self.agents + 1 + len(self.threads))
        return {"pid": agent + 1, "tid": tid}

    def slice(self, track: str, agent: int, start: float, end: float, place: int, **named: Any) -> Json:
        """Something that takes time, `named` other than its track. Returns where it is."""
        ts, stop = self.at(start), self.at(end)
        where, length = self.thread(agent, track, ts, stop), round(stop - ts, 3)
        self.add(ts, 0, place, {"name": track, "cat": track, "ph": "X", "dur": length, **where, **named})
        return where

    def names(self) -> Iterator[Json]:
        named: list[tuple[str, Json, str, int]] = []
        named += [("process", {"pid": i + 1}, f"agent {i}", i) for i in range(self.agents)]
        for (i, which, lane), tid in sorted(self.threads.items()):
            name = TRACKS[which] + (f" {lane + 1}" if lane else "")
            named.append(("thread", {"pid": i + 1, "tid": tid}, name, 1000 * which + lane))
        for what, where, name, place in named:
            at = {"ph": "M", "ts": 0, **where}
            yield {"name": f"{what}_name", **at, "args": {"name": name}}
            yield {"name": f"{what}_sort_index", **at, "args": {"sort_index": place}}


def perfetto(trace: Trace, arrows: int = ARROWS) -> Json:
    """The page's JSON: {"traceEvents", "displayTimeUnit", "metadata"}. At most so many arrows are drawn."""
    unit = float(trace.settings.get("unit", 1.0))
    drawing = _Drawing(trace.agents, 1e6 * unit)
    for place, (_, agent, step, start, end) in _timed(events.rows_of(trace.events, events.GradientDone)):
        drawing.slice("compute", agent, start, end, place, args={"step": step + 1})
    made = _mixed(drawing, trace)
    for place, (start, end, agent, kind, size) in _timed(trace.transmissions):
        name = _kind(trace, kind)
        drawing.slice("transmissions", agent, start, end, place, name=name, args={"bytes": size})
    drawn, found = _received(drawing, trace, made, arrows)
    drawing.placed.sort(key=lambda each: each[:3])
    metadata: Json = {name: trace.settings[name] for name in sorted(SHOWN & trace.settings.keys())}
    metadata |= {"agents": trace.agents, "unit_s": unit, "arrows": drawn, "arrows_left_out": found - drawn}
    if found > drawn:
        note = f"Only the first {drawn:,} of {found:,} arrows from a write to its readers are drawn."
        metadata["note"] = note
    shown = [*drawing.names(), *(event for _, _, _, event in drawing.placed)]
    return {"traceEvents": shown, "displayTimeUnit": "ms", "metadata": metadata}


def save_perfetto(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write the page's JSON, whole or not at all; compressed, which the page reads too, if it ends in .gz."""
    content = json.dumps(perfetto(trace), separators=(",", ":"), allow_nan=False).encode()
    small = os.fspath(path).endswith(".gz")
    write_atomically(Path(path), gzip.compress(content, mtime=0) if small else content)


def _timed(rows: np.ndarray) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The rows that have a start and an end, by their starts, numbered."""
    spans = (rows["start"] >= 0) & (rows["end"] >= rows["start"]) & np.isfinite(rows["end"])
    yield from enumerate(np.sort(rows[spans], order="start", kind="stable").tolist())


def _mixed(drawing: _Drawing, trace: Trace) -> dict[tuple[int, int], tuple[int, Json]]:
    """Draw all writes. Returns for each (agent, version) its place among all writes, and where it is."""
    began, made = _began(trace), {}
    versions: dict[int, Json] = defaultdict(dict)
    for write, source, version in trace.mixed.tolist():
        versions[write][str(source)] = version
    count = [0] * trace.agents
    slices = []
    for place, (time, agent, step) in enumerate(trace.writes.tolist()):
        count[agent] += 1
        args = {"version": count[agent], "step": step, "mixed": versions.get(place, {})}
        slices.append((began.get(place, time), place, agent, time, args))
    for start, place, agent, time, args in sorted(slices, key=lambda each: each[:2]):
        name = "mix" if place in began else "write"
        where = drawing.slice("mix", agent, start, time, 2 * place, name=name, args=args)
        made[agent, args["version"]] = place, where  # odd places are for arrows: right behind the slice
    return made


def _began(trace: Trace) -> dict[int, float]:
    """For every write that a gradient led to, when that gradient was there."""
    ends = (
        events.GradientDone, events.Crashed, events.LossKnown, events.Rejoined, events.Resumed,
        events.Regrouped,
    )  # fmt: skip
    happened = [(e.time, 0, e) for e in events.records(trace.events) if isinstance(e, ends)]
    wrote = [(w[0], 1, (place, *w)) for place, w in enumerate(trace.writes.tolist())]
    open_: list[dict[int, float]] = [{} for _ in range(trace.agents)]
    began = {}
    for time, _, what in sorted([*happened, *wrote], key=lambda each: each[:2]):
        if isinstance(what, events.GradientDone):
            open_[what.agent][what.step] = time
        elif isinstance(what, ends):
            open_[what.agent].clear()  # what it had computed is lost
        else:
            place, _, agent, step = what
            if step - 1 in open_[agent]:
                began[place] = open_[agent].pop(step - 1)
    return began


def _received(
    drawing: _Drawing, trace: Trace, made: dict[tuple[int, int], tuple[int, Json]], arrows: int
) -> tuple[int, int]:
    """Draw what came from others, and what happened. Returns how many arrows are drawn, and of how many."""
    found = 0
    for place, event in enumerate(events.records(trace.events)):
        read = isinstance(event, events.RegisterRead)
        if not (read or isinstance(event, INSTANTS)):
            continue
        name, ts = events.KINDS[type(event)][0], drawing.at(event.time)
        args = event._asdict()
        del args["time"], args["agent"]
        if "kind" in args:
            args["kind"] = _kind(trace, args["kind"])
        where = drawing.thread(event.agent, "received" if read else "events")
        shape = {"ph": "X", "dur": 0} if read else {"ph": "i", "s": "t"}
        drawing.add(ts, 1, 2 * place, {"name": name, "cat": name, **shape, **where, "args": args})
        if not isinstance(event, events.RegisterRead):
            continue
        write, from_where = made.get((event.source, event.version), (-1, {}))
        if write < 0 or (sent := drawing.at(float(trace.writes["time"][write]))) > ts:
            continue
        found += 1
        if found <= arrows:
            arrow = {"name": "read", "cat": "read", "id": found}
            drawing.add(sent, 0, 2 * write + 1, {**arrow, "ph": "s", **from_where})
            drawing.add(ts, 1, 2 * place + 1, {**arrow, "ph": "f", "bp": "e", **where})
    return min(found, arrows), found


def _kind(trace: Trace, kind: int) -> str:
    return trace.kinds[kind] if 0 <= kind < len(trace.kinds) else "-"
