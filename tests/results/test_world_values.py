"""The world in the results: what is recorded of it, in files and out of them, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

import offbeat
from offbeat import Crash, DataError, World
from offbeat.experiments.sweep.grid import points
from offbeat.experiments.sweep.running import sweep
from offbeat.results.values import RECORDED
from offbeat.results.world import WorldValues
from offbeat.world.changes import Byzantine, Cut, Slowdown
from offbeat.world.per_link import PerLink
from offbeat.world.topology import build

SMALL: dict[str, Any] = {"task": "quadratic", "agents": 4, "topology": "ring", "until": 8, "eval_every": 4}
RICH: dict[str, Any] = {
    "speeds": "1,2,1,0.3", "event": ["agent 1 slows by 5 at 2 until 4", "cut {0,1} from the rest at 5"],
    "crash": ["agent 2 at 3 until 4"], "byzantine": ["agent 0 flips"],
}  # fmt: skip


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("links") / "latency.csv"
    path.write_text("from,to,value\n0,1,0.5\n1,0,0.25\n*,*,0.1\n")
    return path


def made(**more: Any) -> offbeat.Run:
    return offbeat.simulate("adsgd", **(SMALL | more))


def test_the_record_of_a_plain_world_has_no_word_of_it() -> None:
    for more in ({}, {"case": "slow-comm"}, {"loss": 0.1, "latency": 0.2, "sending": "unicast"}):
        run = made(**more)
        assert run.world is None
        assert [*run.record()] == [*RECORDED]


def test_times_are_expected_ones_and_links_are_those_of_the_graph(links: Path) -> None:
    run = made(case="combined", straggler=3, latency=f"file:{links}", **RICH)
    assert run.world is not None
    assert run.world.computing == [1.0, 0.5, 1.0, 33.3333] and run.world.sending == [1.0, 1.0, 1.0, 10.0]
    columns = run.world.links
    assert [*columns] == ["from", "to", "latency"]
    at = dict(zip(zip(columns["from"], columns["to"], strict=True), columns["latency"], strict=True))
    assert [*at] == run.topology.links and at[0, 1] == 0.5 and at[1, 0] == 0.25 and at[2, 3] == 0.1
    assert run.world.events == (
        (Crash(2, 3, 4),), (Slowdown(1, 5, 2, 4), Cut(frozenset({0, 1}), 5)), (Byzantine(0, scale=1),)
    )  # fmt: skip
    assert run.record()["world"] == vars(run.world)


def test_of_many_links_and_crashes_little_is_kept() -> None:
    n = 60
    topology = build(nx.complete_graph(n), n)
    numbers = PerLink(0.2, {(0, 1): 0.1, (1, 0): 0.9})
    crashes = tuple(Crash(agent, at, at + 0.5) for agent in range(n) for at in range(40))
    world = World(latency=numbers, bandwidth=PerLink(2.0, {(0, 1): 2.0}), crashes=crashes)
    found = WorldValues.of(world, n, topology)
    assert found is not None and found.links == {"latency": [0.1, 0.2, 0.9]}
    assert len(found.crashes) == 2000 and found.left_out == 400
    assert str(found) == "Latency is 0.1 to 0.9 (median 0.2) by link; 50 agents crash 2,400 times in all."


def test_a_world_is_said_in_a_sentence() -> None:
    slow = WorldValues.of(World(slow_compute={3: 10, 7: 10}), 9)
    assert str(slow) == "Agents 3 and 7 need 10 times as long for a gradient."
    both = World(slow_compute={4: 4}, slow_communication={4: 4})
    assert str(WorldValues.of(both, 9)) == "Agent 4 needs 4 times as long for a gradient and to send a model."
    assert str(made(**RICH).world) == (
        "Agents need 0.5 to 3.33 (median 1) for a gradient; agent 2 is down from 3 until 4; agent 1 slows by "
        "5 at 2 until 4; cut {0,1} from the rest at 5; agent 0 flips (Byzantine)."
    )


def test_it_comes_back_from_json_folders_and_sweeps_and_so_does_who_holds_what(
    links: Path, tmp_path: Path
) -> None:
    settings = SMALL | RICH | {"task": "digits", "latency": f"file:{links}"}
    result = offbeat.compare("adsgd", **settings)
    result.save_json(tmp_path / "a.json")
    made = result.runs[0]
    grid = {"fixed": settings | {"algorithm": "adsgd"}, "grid": {"case": ["base", "combined"]}}
    sweep(points(grid), tmp_path / "grid.parquet", workers=1)
    for name in ("a.json", "grid.parquet", "grid.parquet.runs"):
        runs = offbeat.load(tmp_path / name).runs
        assert runs[0].world == made.world and made.world is not None, name
        assert runs[0].holdings == made.holdings and made.holdings is not None
        assert runs[0].record()["world"] == made.record()["world"]
        assert len(runs) == 1 or runs[1].world not in (None, made.world)


def test_of_files_that_record_no_world_case_and_crashes_say_it(tmp_path: Path) -> None:
    run = made(case="combined", crash="agent 1 at 2 until 3")
    record = run.record()
    assert record.pop("world")
    (tmp_path / "old.json").write_text(json.dumps({"offbeat": "0.1.0", "runs": [record]}))
    assert offbeat.load(tmp_path / "old.json").runs[0].world == run.world


@pytest.mark.parametrize(
    "change",
    [
        {"computing": [1.0]}, {"sending": "1111"}, {"computing": [1, 1, 1, -1]}, {"sending": [1, 1, 1, None]},
        {"crashes": ["agent 9 at 1"]}, {"changes": ["agent 3 sleeps"]}, {"byzantine": None},
        {"links": {"from": [0], "to": [9], "latency": [1]}}, {"links": {"from": [0], "latency": [1]}},
        {"links": {"latency": [1.0]}}, {"links": {"colour": [1, 2, 3]}}, {"left_out": -1}, {"left_out": "x"},
        {"links": {"from": [0.5], "to": [1], "loss": [0.1]}}, {"links": []},
    ],
)  # fmt: skip
def test_a_damaged_world_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    record = made(**RICH).record()
    record["world"] |= change
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"offbeat": offbeat.__version__, "runs": [record]}))
    with pytest.raises(DataError, match=r"a\.json"):
        offbeat.load(path)
