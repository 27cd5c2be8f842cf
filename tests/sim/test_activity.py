"""What agents did: the same whoever simulates, whether the trace is kept or not."""

from typing import Any

import numpy as np
import pytest
from runs import ALL
from setups import prepared

import offbeat
from offbeat.algorithms import find
from offbeat.engines.activity import EDGES, Activity, carried
from offbeat.experiments.runs import Job, run_one

ASKED = ("ages", "shares", "traffic")
WORLD: dict[str, Any] = {"until": 24.0, "metrics": ASKED, "case": "combined"}


def details(name: str, executor: str, keep_trace: bool, **more: Any) -> dict[str, dict[str, list[Any]]]:
    return run_one(Job(prepared(**(WORLD | more)), find(name), 0.01, executor, keep_trace=keep_trace)).details


@pytest.mark.parametrize("name", ALL)
def test_it_does_not_depend_on_the_executor_or_on_whether_the_trace_is_kept(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offbeat.engines.recorder.PART", 50)
    monkeypatch.setattr("offbeat.experiments.segments.SEGMENT", 100)
    oracle = details(name, "event-by-event", True)
    assert list(oracle) == [*ASKED]
    for executor in ("auto", "batched", "event-by-event"):
        assert details(name, executor, False) == oracle
    crash = {"crash": "agent 1 at 8 until 14"} if "return" in find(name).tolerates else {}
    assert details(name, "batched", False, **crash) == details(name, "event-by-event", True, **crash)


def test_bytes_by_agent_and_link_add_up() -> None:
    run = offbeat.simulate("adsgd", task="quadratic", topology="star", until=30.0, metrics=ASKED)
    traffic = run.details["traffic"]
    links = dict(zip(zip(traffic["from"], traffic["to"], strict=True), traffic["bytes"], strict=True))
    assert sum(traffic["agents"]) == round(run.megabytes * 1e6)
    assert all(links[0, j] == traffic["agents"][0] for j in range(1, 9)), "a multicast passes all links"
    assert all(links[j, 0] == traffic["agents"][j] for j in range(1, 9))
    assert len(links) == 16


@pytest.mark.parametrize("name", ["adsgd", "dsgd", "adpsgd", "rfast", "allreduce"])
def test_links_are_read_off_a_trace_too(name: str) -> None:
    """As for live runs: what was taken in, which of mail is all but what was under way at the end."""
    run = offbeat.simulate(name, task="quadratic", until=30.0, metrics="traffic")
    traffic, trace = run.details["traffic"], run.trace
    assert trace is not None
    found = carried(trace.events, trace.transmissions)
    links = dict(zip(zip(traffic["from"], traffic["to"], strict=True), traffic["bytes"], strict=True))
    missing = [links[link] - found.get(link, 0) for link in links]
    assert set(found) <= set(links) and min(missing) >= 0 and sum(found.values()) > 0.4 * sum(links.values())
    if name in ("dsgd", "adpsgd", "allreduce"):
        under_way = trace.transmissions[trace.transmissions["end"] > 30.0]
        assert sum(missing) <= 4 * int(under_way["bytes"].sum())


def test_ages_are_those_of_the_trace() -> None:
    run = offbeat.simulate("adsgd", task="quadratic", until=30.0, metrics="ages")
    assert run.trace is not None
    now, then = run.trace.selected()
    ages = run.details["ages"]
    assert sum(ages["count"]) == len(now)
    assert ages["count"][:16] == [int((now - then == age).sum()) for age in range(16)]
    assert run.staleness.D is not None and ages["from"][-1] <= run.staleness.D == (now - then).max()
    assert (np.diff(EDGES) > 0).all() and EDGES[16] == 16 and EDGES[20] == 32


def test_shares_of_time_are_those_of_a_calendar_that_is_known() -> None:
    """Constant times: a gradient takes 1, of the straggler 10; sending takes 0.5."""
    run = offbeat.simulate(
        "dsgd:after", task="quadratic", topology="ring", agents=4, until=115.0, case="comp-straggler",
        straggler=2, compute="constant", communication="constant mean 0.5", metrics="shares",
    )  # fmt: skip
    shares = run.details["shares"]
    assert (shares["computing"][2], shares["waiting"][2]) == (1.0, 0.0), "its neighbours' models are there"
    assert shares["computing"][1] == pytest.approx(0.1, abs=0.01) and shares["down"] == [0.0] * 4
    assert np.add(shares["computing"], shares["waiting"]) == pytest.approx(1.0)
    assert shares["sending"][2] == pytest.approx(5 / 115, rel=0.2)


def test_an_agent_that_was_down_was_so_for_that_share_of_its_time() -> None:
    crash = "agent 1 at 10 until 30"
    run = offbeat.simulate("adsgd", task="quadratic", until=50.0, crash=crash, metrics="shares")
    gone = offbeat.simulate("adsgd", task="quadratic", until=50.0, crash="agent 1 at 10", metrics="shares")
    down = run.details["shares"]["down"]
    assert down[1] == pytest.approx(20 / 50, rel=0.1) and sum(down) == down[1]
    assert gone.details["shares"]["down"] == [0.0] * 9, "after its last gradient nothing counts"
    assert gone.details["shares"]["computing"][1] > 0.9


def test_nothing_happened_yet() -> None:
    empty = Activity(3)
    assert empty.histogram() == {"from": [], "count": []}
    assert empty.shares(1.0) == dict.fromkeys(("computing", "waiting", "down", "sending"), [0.0] * 3)
