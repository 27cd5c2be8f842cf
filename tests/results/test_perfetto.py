"""The page of a trace for Perfetto: what is on it, and that it follows the trace-event format."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import table_of

import offbeat
from offbeat.engines.events import (
    EVENT,
    MIXED,
    TRANSMISSION,
    WRITE,
    Crashed,
    Event,
    GradientDone,
    MailReceived,
    RegisterMoved,
    RegisterRead,
    Rejoined,
    ViewChanged,
    rows_of,
)
from offbeat.engines.trace import Trace
from offbeat.results.perfetto import perfetto, save_perfetto

Drawn = dict[str, Any]
NAMED = ("adsgd", "rfast", "adpsgd", "dsgd:after", "allreduce")


def simulated(algorithm: str = "adsgd", **settings: Any) -> Trace:
    run = offbeat.simulate(algorithm, task="quadratic", agents=4, topology="ring", until=60, **settings)
    assert run.trace is not None
    return run.trace


def with_ph(page: dict[str, Any], ph: str) -> list[Drawn]:
    return [event for event in page["traceEvents"] if event["ph"] == ph]


def tracks(page: dict[str, Any]) -> dict[int, str]:
    """Thread -> the name of its track, without the number of its lane."""
    named = [event for event in with_ph(page, "M") if event["name"] == "thread_name"]
    return {event["tid"]: event["args"]["name"].split()[0] for event in named}


def check(page: dict[str, Any], agents: int) -> None:
    """What the format asks for."""
    events = page["traceEvents"]
    timed = [event for event in events if event["ph"] != "M"]
    times = [event["ts"] for event in timed]
    assert times == sorted(times) and times[0] >= 0
    assert {event["ph"] for event in timed} <= {"X", "i", "s", "f"}
    named = tracks(page)
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert processes == {i + 1: f"agent {i}" for i in range(agents)}
    assert all(event["name"] and event["pid"] in processes and event["tid"] in named for event in timed)
    assert not named.keys() & processes.keys(), "a thread with its process's number would be its main thread"
    where: dict[int, set[int]] = defaultdict(set)
    busy: dict[int, float] = defaultdict(float)
    for event in timed:
        where[event["tid"]].add(event["pid"])
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert event["ts"] >= busy[event["tid"]] - 1e-6, "slices of one track do not overlap"
            busy[event["tid"]] = event["ts"] + event["dur"]
    assert all(len(pids) == 1 for pids in where.values())
    starts, ends = ({e["id"]: (k, e) for k, e in enumerate(timed) if e["ph"] == ph} for ph in "sf")
    assert starts.keys() == ends.keys()
    assert len(starts) == len(with_ph(page, "s")) == page["metadata"]["arrows"]
    for i, (k, start) in starts.items():
        assert k < ends[i][0] and start["ts"] <= ends[i][1]["ts"]
        last = [e for e in timed[:k] if e["tid"] == start["tid"] and e["ph"] == "X"][-1]
        assert named[start["tid"]] == "mix" and abs(last["ts"] + last["dur"] - start["ts"]) < 2e-3
        assert (
            timed[ends[i][0] - 1]["name"] == "register" and timed[ends[i][0] - 1]["tid"] == ends[i][1]["tid"]
        )


@pytest.mark.parametrize("algorithm", NAMED)
def test_a_simulated_trace_gives_a_page_that_follows_the_format(algorithm: str) -> None:
    trace = simulated(algorithm)
    page = perfetto(trace)
    check(page, 4)
    named = tracks(page)
    drawn = {name: sum(named[e["tid"]] == name for e in with_ph(page, "X")) for name in set(named.values())}
    gradients = len(rows_of(trace.events, GradientDone))
    registers = len(rows_of(trace.events, RegisterRead))
    assert drawn["compute"] == gradients > 0
    assert drawn["mix"] == len(trace.writes) > 0
    assert drawn["transmissions"] == len(trace.transmissions) > 0
    assert drawn.get("received", 0) == registers
    json.dumps(page, allow_nan=False)


def test_arrows_lead_from_the_write_to_those_who_read_that_version() -> None:
    trace = simulated("adsgd")
    page = perfetto(trace)
    read = rows_of(trace.events, RegisterRead)
    wrote = [trace.writes["time"][trace.writes["agent"] == i] for i in range(4)]
    expected = sorted(
        (round(1e6 * wrote[source][version - 1], 3), source + 1, round(1e6 * time, 3), agent + 1)
        for time, agent, source, _, version, _, _ in read[read["version"] > 0].tolist()
    )
    ends = {event["id"]: event for event in with_ph(page, "f")}
    got = sorted((s["ts"], s["pid"], ends[s["id"]]["ts"], ends[s["id"]]["pid"]) for s in with_ph(page, "s"))
    assert got == expected and len(got) > 20


def test_the_number_of_arrows_is_capped_and_the_page_says_so() -> None:
    trace = simulated("adsgd")
    everything, some, none = perfetto(trace), perfetto(trace, arrows=7), perfetto(trace, arrows=0)
    count = len(with_ph(everything, "s"))
    assert everything["metadata"]["arrows_left_out"] == 0 and "note" not in everything["metadata"]
    assert len(with_ph(some, "s")) == len(with_ph(some, "f")) == 7
    assert some["metadata"]["arrows_left_out"] == count - 7 and f"{count:,}" in some["metadata"]["note"]
    assert with_ph(none, "s") == with_ph(none, "f") == []
    check(some, 4)


def by_hand(**settings: Any) -> Trace:
    """Agent 0 computes for one unit, waits for mail, writes; agent 1 reads that, and dies; 0 notices."""
    events: list[Event] = [
        GradientDone(1.0, 0, 0, 0.0, 1.0), MailReceived(1.5, 0, 1, 0, 0, 0.5, 1.4),
        RegisterRead(2.0, 1, 0, 0, 1, 1.5, 1.9), GradientDone(2.5, 1, 0, 0.0, 2.5), Crashed(3.0, 1),
        ViewChanged(3.1, 0, 1, False), Rejoined(4.0, 1, 0, 1),
        RegisterMoved(4.2, 1, 0, 0, 9, -1.0, -1.0), RegisterRead(4.5, 1, 0, 0, 9, -1.0, -1.0),
    ]  # fmt: skip
    return Trace(
        2, ("Model",), table_of(events),
        np.array([(1.5, 0, 1), (4.0, 1, 0), (5.0, 1, 1)], dtype=WRITE), np.array([(0, 1, 0)], dtype=MIXED),
        np.array([(1.5, 1.9, 0, 0, 80), (0.5, 1.4, 1, 0, 80), (1.0, 2.0, 1, 0, 80)], dtype=TRANSMISSION),
        settings=settings,
    )  # fmt: skip


def test_a_page_says_what_the_trace_says() -> None:
    page = perfetto(by_hand(unit=0.5, algorithm="adsgd"))
    check(page, 2)
    named = tracks(page)
    slices = {(named[e["tid"]], e["pid"], e["ts"], e["dur"]): e for e in with_ph(page, "X")}
    assert slices.keys() == {
        ("compute", 1, 0.0, 5e5), ("compute", 2, 0.0, 1.25e6), ("mix", 1, 5e5, 2.5e5), ("mix", 2, 2e6, 0.0),
        ("mix", 2, 2.5e6, 0.0), ("transmissions", 1, 7.5e5, 2e5), ("transmissions", 2, 2.5e5, 4.5e5),
        ("transmissions", 2, 5e5, 5e5), ("received", 2, 1e6, 0), ("received", 2, 2.25e6, 0),
    }  # fmt: skip
    assert slices["mix", 1, 5e5, 2.5e5]["args"] == {"version": 1, "step": 1, "mixed": {"1": 0}}
    assert slices["mix", 2, 2.5e6, 0.0]["name"] == "write", "the gradient before the crash did not lead to it"
    assert slices["compute", 1, 0.0, 5e5]["args"] == {"step": 1}
    assert slices["transmissions", 1, 7.5e5, 2e5]["name"] == "Model"
    instants = [(e["name"], e["pid"], e["ts"]) for e in with_ph(page, "i")]
    assert instants == [
        ("mail", 1, 7.5e5), ("crash", 2, 1.5e6), ("view", 1, 1.55e6), ("rejoin", 2, 2e6), ("moved", 2, 2.1e6)
    ]  # fmt: skip
    assert [(s["pid"], s["ts"]) for s in with_ph(page, "s")] == [(1, 7.5e5)], "nobody wrote version 9"
    assert page["metadata"]["unit_s"] == 0.5 and page["metadata"]["algorithm"] == "adsgd"


def test_crashes_of_the_simulator_are_instants() -> None:
    page = perfetto(simulated("adsgd", crash=offbeat.Crash(1, 20.0, 30.0)))
    check(page, 4)
    assert {"crash", "view", "rejoin"} == {e["name"] for e in with_ph(page, "i")}


def test_an_empty_trace_gives_an_empty_page() -> None:
    tables = [np.zeros(0, dtype=dtype) for dtype in (EVENT, WRITE, MIXED, TRANSMISSION)]
    page = perfetto(Trace(2, (), tables[0], tables[1], tables[2], tables[3]))
    assert [e["args"]["name"] for e in with_ph(page, "M") if e["name"] == "process_name"] == [
        "agent 0",
        "agent 1",
    ]
    assert page["metadata"]["arrows"] == 0


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    trace = by_hand()
    plain, packed = tmp_path / "trace.json", tmp_path / "trace.json.gz"
    save_perfetto(trace, plain)
    save_perfetto(trace, str(packed))
    assert (
        json.loads(plain.read_text()) == json.loads(gzip.decompress(packed.read_bytes())) == perfetto(trace)
    )
    assert packed.stat().st_size < plain.stat().st_size
    before = plain.read_bytes()
    with pytest.raises(ValueError):
        save_perfetto(by_hand(unit=float("nan")), plain)
    assert plain.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.json", "trace.json.gz"]
