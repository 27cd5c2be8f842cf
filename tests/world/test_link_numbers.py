"""Numbers for links: as they are said, and read from lists, matrices and measured round-trip times."""

import math
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from offbeat import SettingError, World
from offbeat.core.errors import DataError
from offbeat.experiments import comparison
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.live.series import Series
from offbeat.experiments.setup import Setup, prepare
from offbeat.world.links import numbers_of_links, spelt_links
from offbeat.world.per_link import PerLink

RING = [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (3, 0), (0, 3)]


def read(said: str, n: int = 4, name: str = "latency", seed: int = 0) -> PerLink:
    found = numbers_of_links(name, said, n, RING if n == 4 else [], seed)
    assert isinstance(found, PerLink)
    return found


def test_a_list_of_links_and_its_ways_back(tmp_path: Path) -> None:
    path = tmp_path / "lat.csv"
    path.write_text("from,to,value\n0,1,0.1\n1,0,0.2  # slower\n1,2,0.3\n3,2,0.4\n0,3,0\n")
    found = read(f"file:{path}")
    assert [found(*link) for link in RING] == [0.1, 0.2, 0.3, 0.3, 0.4, 0.4, 0.0, 0.0]
    assert found.source == f"{path}: 8 links, 2 of them 0, from 0 to 0.4, mean 0.2125"
    path.write_text("0 1 0.5\n*,*,0.01\n".replace(" ", ","))
    found = read(f"file:{path}", name="loss")
    assert [found(0, 1), found(1, 0), found(0, 2)] == [0.5, 0.01, 0.01], "what is not listed is the usual"


@pytest.mark.parametrize("kind", ["csv", "npy", "npz"])
def test_a_matrix_has_a_row_for_each_sender(kind: str, tmp_path: Path) -> None:
    matrix = np.array([[9, 1, 5, np.nan], [2, 9, 3, 5], [5, np.nan, 9, 4], [7, 5, 6, np.nan]])
    path = tmp_path / f"m.{kind}"
    if kind == "csv":
        path.write_text("\n".join(";".join(map(str, row)) for row in matrix))
    elif kind == "npy":
        np.save(path, matrix)
    else:
        np.savez(path, other=np.ones(3), lat=matrix)
    said = f"file:{path}:lat" if kind == "npz" else f"file:{path}"
    assert [read(said)(*link) for link in RING] == [1, 2, 3, 3, 4, 6, 7, 7]
    scaled = read(f"{said} mean 0.5")
    assert math.fsum(scaled(*link) for link in RING) / 8 == pytest.approx(0.5, rel=1e-15)
    assert scaled(1, 0) / scaled(0, 1) == pytest.approx(2.0, rel=1e-15)


def slices(path: Path) -> np.ndarray:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.uniform(1, 9, (3, 6, 6)), 1)
    np.savez(path, rtt=upper, about=np.ones(2))
    return upper + upper.swapaxes(1, 2)


def test_round_trips_are_halved_mirrored_and_drawn_for_each_seed(tmp_path: Path) -> None:
    path = tmp_path / "rtt.npz"
    full = slices(path)
    every = read(f"rtt:{path}:rtt:2", n=6)
    assert all(every(i, j) == full[1, i, j] / 2 for i in range(6) for j in range(6) if i != j)
    middle = read(f"rtt:{path}:rtt:median", n=6)
    assert middle(1, 4) == np.median(full[:, 1, 4]) / 2
    some = [read(f"rtt:{path}:rtt:2", n=4, seed=seed) for seed in range(30)]
    found = {tuple(each(*link) for link in RING) for each in some}
    assert len(found) > 20
    measured = set((full[1] / 2).ravel())
    assert all(value in measured for values in found for value in values)
    assert read(f"rtt:{path}:rtt:2", n=4, seed=7) == some[7]
    assert "4 of 6 nodes, drawn for each seed" in some[0].source


def test_real_round_trips_are_a_world(real_data: Path) -> None:
    said = f"rtt:{real_data / 'traces' / 'planetlab_rtt.npz'}:rtt_upper:1 mean 0.5"
    setup = prepared(latency=said, agents=9, topology="grid")
    latency = setup.world.latency
    assert isinstance(latency, PerLink)
    used = [latency(*link) for link in setup.topology.links]
    assert len(used) == 24
    assert np.mean(used) == pytest.approx(0.5)
    assert len({*used}) == 12, "the same both ways"
    assert "9 of 490 nodes" in latency.source
    devices = read(f"rtt:{real_data / 'traces' / 'seattle_rtt.npz'}:median", n=99)
    assert len(devices.own) == 99 * 98


def prepared(**settings: Any) -> Setup:
    usual: dict[str, Any] = {"task": "quadratic", "agents": 4, "topology": "ring", "until": 10.0}
    return prepare(Experiment(**(usual | settings)), 0)


def test_numbers_are_of_every_link() -> None:
    world = prepared(latency="0.2", bandwidth=3, loss=0.1, sending="unicast", network="fair").world
    assert (world.latency, world.bandwidth, world.loss) == (0.2, 3.0, 0.1)
    assert (world.sending, world.network) == ("unicast", "fair")


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("0,1,0.1\n0,1,0.2\n", "line 2 says again what was said: '0,1,0.2'"),
        ("from,to,value\n0,4,1\n", "line 2 has the agent '4'; expected 0 to 3"),
        ("0,0,1\n", "line 1 is from an agent to itself"),
        ("0,1,-1\n", "line 1 has -1; expected a finite number >= 0"),
        ("0,1,x\n", "line 1 has 'x', which is no number"),
        ("0,1,1\n1,2\n", "line 2 has 2 values; expected from,to,value"),
        ("", "it holds no number"),
        ("1 2\n3 4\n", "its matrix is 2 x 2, and there are 4 agents"),
        ("0 1 1 1\n0 0 1 1\n0 0 0 1\n0 0 0 0\n", "one half of its matrix is all zeros"),
        ("0 1 1 1\n1 0 1 1\n1 1 0 -1\n1 1 1 0\n", "row 3, column 4 is -1.0"),
        ("1 2 3 4\n1 2\n", "line 2 has 2 values, and the first has 4"),
    ],
)
def test_files_that_say_something_else_are_refused(text: str, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "lat.csv"
    path.write_text(text)
    with pytest.raises(DataError) as refused:
        read(f"file:{path}")
    assert fragment in str(refused.value)
    assert f"'latency': {path}" in str(refused.value)


def test_of_three_agents_a_list_says_that_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "lat.csv"
    path.write_text("0 1 1\n1 2 1\n2 0 1\n")
    with pytest.raises(DataError, match="may be a matrix or a list; put 'from,to,value' in its first line"):
        read(f"file:{path}", n=3)
    path.write_text("from to value\n0 1 1\n1 2 1\n2 0 1\n")
    assert len(read(f"file:{path}", n=3).own) == 6


def test_a_link_that_is_used_needs_a_number(tmp_path: Path) -> None:
    path = tmp_path / "lat.csv"
    path.write_text("0,1,0.1\n2,1,0.2\n2,3,0.3\n")
    with pytest.raises(
        SettingError, match="'latency' has no number for the link from agent 3 to 0, nor for"
    ) as found:
        read(f"file:{path}")
    assert str(found.value).endswith(
        "lat.csv. Expected one of them; a line '*,*,NUMBER' gives all other links one."
    )
    with path.open("a") as file:
        file.write("*,*,0\n")
    assert read(f"file:{path}")(3, 0) == 0
    path.write_text("0,1,0.1\n1,2,0.2\n1,3,0.2\n")
    graph = nx.Graph([(0, 1), (1, 2), (1, 3)])
    common: dict[str, Any] = {"task": "quadratic", "topology": graph, "latency": f"file:{path}", "until": 5}
    comparison.plan(["adsgd"], **common)
    with pytest.raises(SettingError, match=r"from agent 0 to 2, .*allreduce, that sends beyond the graph"):
        comparison.plan(["allreduce"], **common)


@pytest.mark.parametrize(
    ("said", "fragment"),
    [
        ("rtt:{}", "it holds the arrays rtt, about; name one of them"),
        ("rtt:{}:rtt", "it has 3 slices; say which, 1 to 3, or 'median'"),
        ("rtt:{}:rtt:0", "it has no slice '0': they are 1 to 3"),
        ("rtt:{}:rtt:mean", "it has no slice 'mean'"),
        ("rtt:{}:about:1", "its array has the shape (2,)"),
        ("rtt:missing.npz", "There is no file missing.npz"),
    ],
)
def test_round_trips_that_are_not_there_are_refused(said: str, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "rtt.npz"
    slices(path)
    with pytest.raises(DataError) as refused:
        read(said.format(path))
    assert fragment in str(refused.value)


def test_as_many_nodes_as_agents_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "rtt.npz"
    slices(path)
    with pytest.raises(DataError, match="it has 6 nodes, and there are 9 agents"):
        prepared(latency=f"rtt:{path}:rtt:1", agents=9)


@pytest.mark.parametrize(
    ("name", "said", "fragment"),
    [
        (
            "latency",
            "fast",
            "Cannot read 'latency', 'fast'; expected a number, 'file:links.csv' (with lines from,to,value, "
            "as in 0,1,0.5), 'rtt:rtt.npz'",
        ),
        ("bandwidth", "rtt:x.npz", "Cannot read 'bandwidth'"),
        ("loss", "file:", "Cannot read 'loss'"),
        ("latency", "inf", "'latency' must be finite"),
        ("latency", -1, "The latency is -1.0"),
        ("bandwidth", 0, "The bandwidth is 0.0"),
        ("loss", 1.0, "probability of loss must be in [0, 1)"),
        ("sending", "unicst", "Unknown sending 'unicst'. Did you mean 'unicast'?"),
        ("network", 3, "'network' must be text"),
    ],
)
def test_what_is_not_meant_is_refused(name: str, said: object, fragment: str) -> None:
    with pytest.raises(SettingError) as refused:
        prepared(**{name: said})
    assert fragment in str(refused.value)


def test_there_is_one_way_to_spell_them() -> None:
    assert spelt_links("latency", " 0.20 ") == spelt_links("latency", 0.2) == 0.2
    assert spelt_links("latency", "rtt: a b.npz:x:1  mean 2.0") == "rtt:a b.npz:x:1 mean 2"
    assert spelt_links("loss", "file:a mean b.csv") == "file:a mean b.csv"


def test_a_world_that_is_given_is_all_of_it() -> None:
    for name, said in (("latency", 1.0), ("event", "agent 1 slows by 2 at 1"), ("availability", "a.csv")):
        with pytest.raises(SettingError, match=f"Expected a world or '{name}'"):
            prepared(world=World(), **{name: said})
    given = World(latency=PerLink(math.nan, {(0, 1): 1.0}))
    with pytest.raises(SettingError, match="'latency' of the world has no number for the link from agent 0"):
        prepared(world=given)


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [({"network": "fair"}, "the fair network"), ({"byzantine": "agent 1 flips"}, "Byzantine agents")],
)
def test_what_real_processes_do_not_heed_is_refused_by_name(settings: dict[str, str], fragment: str) -> None:
    asked: dict[str, Any] = {"task": "quadratic", "agents": 4, "topology": "ring", "until": 10.0}
    asked |= {"algorithms": ["adsgd"], "lr": {"all": 0.01}, "seed": 0, "unit": 0.02}
    how: dict[str, Any] = {"fault": [], "checkpoint_every": "60s", "max_restarts": 0, "on_death": "stop"}
    how["on_nan"] = "skip"
    assert len(Series.of(asked | {"sending": "unicast", "latency": 0.5}, how).runs) == 1
    with pytest.raises(SettingError, match=f"Real processes do not heed {fragment}, .* expected a world"):
        Series.of(asked | settings, how)
