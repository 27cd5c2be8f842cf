"""The speeds of agents and of their links: as they are said, drawn and applied."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import offbeat
from offbeat import SettingError
from offbeat.core.errors import DataError
from offbeat.core.system.streams import Purpose
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import prepare
from offbeat.world.links import numbers_of_links
from offbeat.world.per_link import PerLink
from offbeat.world.speeds import speeds, spelt_speeds


@pytest.mark.parametrize(("family", "cv"), [("lognormal", 0.5), ("gamma", 0.5), ("gamma", 0.8)])
def test_drawn_speeds_have_mean_1_and_the_cv_that_is_said(family: str, cv: float) -> None:
    drawn = np.array(speeds("speeds", f"{family}:{cv}", 4000, 0, Purpose.SPEED))
    assert drawn.mean() == pytest.approx(1.0, rel=0.08)
    assert drawn.std() == pytest.approx(cv, rel=0.12)


def test_a_speed_is_the_agents_own_whatever_the_number_of_agents() -> None:
    few, many = (speeds("speeds", "lognormal:0.5", n, 3, Purpose.SPEED) for n in (4, 9))
    assert many[:4] == few
    assert speeds("speeds", "lognormal:0.5", 4, 4, Purpose.SPEED) != few
    assert speeds("links", "lognormal:0.5", 4, 3, Purpose.LINK) != few


def test_twice_as_fast_takes_half_as_long(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("who,speed\na,2\nb,1\nc,0.5\n")
    for said in ("2,1,0.5", [2, 1, 0.5], f"file:{tmp_path / 'v.csv'}:speed"):
        world = prepare(
            Experiment(task="quadratic", agents=3, topology="ring", speeds=said, links="1,1,4"), 0
        ).world
        assert [world.compute_delay(i).expected for i in range(3)] == [0.5, 1.0, 2.0]
        assert [world.communication_delay(i).expected for i in range(3)] == [1.0, 1.0, 0.25]


def test_the_case_comes_on_top_for_every_straggler() -> None:
    common: dict[str, Any] = {"task": "quadratic", "agents": 4, "topology": "ring", "case": "combined"}
    setup = prepare(Experiment(**common, straggler="1,3", speeds="1,2,1,1"), 0)
    assert [setup.world.compute_delay(i).expected for i in range(4)] == [1.0, 5.0, 1.0, 10.0]
    assert [setup.world.communication_delay(i).expected for i in range(4)] == [1.0, 10.0, 1.0, 10.0]
    assert setup.settings["straggler"] == [1, 3]
    same = [prepare(Experiment(**common, straggler=given), 0).settings for given in (2, "2", [2], (2,))]
    assert all(settings["straggler"] == [2] for settings in same)


def test_fast_agents_make_more_gradients() -> None:
    run = offbeat.simulate(
        "adsgd", task="quadratic", agents=3, topology="ring", speeds="4,1,1", compute="constant", until=50
    )
    assert run.trace is not None
    steps = [run.trace.writes[run.trace.writes["agent"] == i]["step"].max() for i in range(3)]
    assert steps == [200, 50, 50]
    assert "speeds 4,1,1" in str(offbeat.Comparison([run]))


@pytest.mark.parametrize(
    ("said", "fragment"),
    [
        ("lognormal", "Cannot read 'speeds', 'lognormal'; expected 'lognormal:0.5'"),
        ("lognormal:-1", "coefficient of variation must be between"),
        ("1,x,3", "Cannot read 'speeds', '1,x,3'"),
        ("1,0,3", "'speeds' gives agent 1 0; expected a speed from 10^-9 to 1000"),
        ("1,nan,3", "gives agent 1 nan"),
        ("1,2", "'speeds' lists 2 numbers, '1,2'; expected 3, one for each agent"),
        ({1: 2}, "must be text or a list of numbers"),
    ],
)
def test_what_are_no_speeds_is_refused(said: object, fragment: str) -> None:
    with pytest.raises(SettingError) as refused:
        prepare(Experiment(task="quadratic", agents=3, topology="ring", speeds=said), 0)  # type: ignore[arg-type]
    assert fragment in str(refused.value)


def test_files_that_are_no_speeds_are_refused_by_name_and_line(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    for text, fragment in (
        ("1\n2\n", "holds 2 numbers; expected 3, one for each agent"),
        ("1\nfast\n1\n", "line 2 has 'fast', which is no number"),
        ("1\n-1\n1\n", "number 2 of 3 is -1.0; speeds are finite"),
    ):
        path.write_text(text)
        with pytest.raises(DataError) as refused:
            speeds("links", f"file:{path}", 3, 0, Purpose.LINK)
        assert fragment in str(refused.value)
        assert str(path) in str(refused.value)
        assert "'links'" in str(refused.value)


def test_there_is_one_way_to_spell_them() -> None:
    assert spelt_speeds("speeds", " lognormal:0.50 ") == "lognormal:0.5"
    assert spelt_speeds("speeds", "1, 2,10.0") == spelt_speeds("speeds", [1, 2, 10]) == "1,2,10"
    assert spelt_speeds("speeds", "file: a b.csv:2 ") == "file:a b.csv:2"


def test_the_advice_for_a_table_is_what_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "speeds.csv"
    path.write_text("agent,speed\n0,1\n1,2\n")
    with pytest.raises(DataError, match=re.escape(f"'file:{path}:2', or its name")):
        speeds("speeds", f"file:{path}", 2, 0, Purpose.SPEED)
    assert speeds("speeds", f"file:{path}:2", 2, 0, Purpose.SPEED) == [1.0, 2.0]
    assert speeds("speeds", f"file:{path}:speed", 2, 0, Purpose.SPEED) == [1.0, 2.0]


@pytest.mark.parametrize(("name", "purpose"), [("speeds", 9), ("links", 10)])
def test_they_are_drawn_as_docs_world_md_says(name: str, purpose: int) -> None:
    c, seed = 0.5, 3
    s = math.log1p(c**2)
    streams = [np.random.SeedSequence(seed, spawn_key=(i, purpose)) for i in range(4)]
    rngs = [np.random.Generator(np.random.PCG64(each)) for each in streams]
    expected = {i: 1 / float(rng.lognormal(-s / 2, math.sqrt(s), 1)[0] * 1.0) for i, rng in enumerate(rngs)}
    settings: dict[str, Any] = {"task": "quadratic", "agents": 4, "until": 5.0, name: f"lognormal:{c}"}
    world = offbeat.plan("adsgd", seed=seed, **settings).setups[0].world
    assert {"speeds": world.slow_compute, "links": world.slow_communication}[name] == expected


def test_nodes_are_drawn_as_docs_world_md_says(tmp_path: Path) -> None:
    rtt, path = np.random.default_rng(0).uniform(1, 9, (7, 7)), tmp_path / "rtt.npy"
    np.save(path, rtt)
    sequence = np.random.SeedSequence(5, spawn_key=(2**32 - 1, 11))
    node = np.random.Generator(np.random.PCG64(sequence)).permutation(7)[:4]
    latency = numbers_of_links("latency", f"rtt:{path}", 4, [(0, 1), (3, 2)], 5)
    assert isinstance(latency, PerLink)
    assert latency(0, 1) == rtt[node[0], node[1]] / 2 and latency(3, 2) == rtt[node[3], node[2]] / 2
