"""A learning rate may be coupled to the number of agents, and says what it was and what it came to."""

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from warm import finished, needs_shared_memory

import offbeat
from offbeat import Comparison, SettingError
from offbeat.cli.options import parse_lrs
from offbeat.core.rates import Rate
from offbeat.experiments.sweep.grid import points
from offbeat.experiments.sweep.running import sweep
from offbeat.results.again import command

QUICK: dict[str, Any] = {"task": "quadratic", "agents": 4, "topology": "ring", "until": 5.0}


@pytest.mark.parametrize(
    ("said", "with_16", "again"),
    [
        (0.01, 0.01, 0.01), ("1e-2", 0.01, 0.01), ("0.01n", 0.16, "0.01n"), (" 0.01 * n ", 0.16, "0.01n"),
        ("0.01sqrt(n)", 0.04, "0.01sqrt(n)"), ("1e-3*n*n", 0.256, "0.001n*n"),
        ("2sqrt(n)n", 128.0, "2n*sqrt(n)"),
    ],
)  # fmt: skip
def test_a_rate_is_read_and_said_in_one_way(said: Any, with_16: float, again: Any) -> None:
    rate = Rate.of(said)
    assert math.isclose(rate.at(16), with_16) and rate.said == again and Rate.of(again) == rate


@pytest.mark.parametrize("said", ["", "n", "0.01m", "0.01n*", "0.01+n", "n0.01", True, None, [1]])
def test_what_is_no_rate_is_refused(said: Any) -> None:
    with pytest.raises(SettingError, match="Cannot read the learning rate"):
        Rate.of(said)


def test_what_was_said_and_what_it_came_to_are_recorded_and_said_again() -> None:
    lrs = parse_lrs(["0.01n", "rfast=0.02sqrt(n)"])
    result = offbeat.compare(["adsgd", "dsgd", "rfast"], lr=lrs, **QUICK)
    assert [(run.lr, run.settings["lr_said"]) for run in result.runs] == [
        (0.04, "0.01n"), (0.04, "0.01n"), (0.04, "0.02sqrt(n)"),
    ]  # fmt: skip
    line, missing = command(result)
    assert "--lr 0.01n --lr 'rfast=0.02sqrt(n)'" in line and not missing
    assert "adsgd 0.04 (0.01n)" in str(result) and result.runs[0].record()["settings"]["lr_said"] == "0.01n"
    plain = offbeat.simulate("adsgd", lr=0.04, **QUICK)
    assert plain.digest == result.runs[0].digest and "lr_said" not in plain.settings
    common = offbeat.compare(["adsgd", "rfast"], lr="0.01n", **QUICK)
    assert [run.settings["lr_said"] for run in common.runs] == ["0.01n", "0.01n*n"], "rfast takes n times it"
    assert "--lr 0.01n " in command(common)[0]
    assert isinstance(common, Comparison)


def test_rates_of_several_algorithms_in_one_option_are_refused_with_how_it_is_said() -> None:
    with pytest.raises(SettingError, match=r"one at a time: --lr adsgd=0.1 --lr rfast=0.9"):
        parse_lrs(["adsgd=0.1, rfast=0.9"])


def test_two_rates_that_come_to_the_same_are_refused() -> None:
    with pytest.raises(SettingError, match=r"different learning rates; got \['0.01n', 0.04\] with 4 agents"):
        offbeat.plan(["adsgd"], lr=["0.01n", 0.04], **QUICK)
    with pytest.raises(SettingError, match=r"A learning rate is a number, or one that is coupled"):
        offbeat.plan(["adsgd"], lr={"": [None]}, **QUICK)


def test_a_sweep_over_agents_couples_the_rate_in_every_point(tmp_path: Path) -> None:
    table = {
        "fixed": {"task": "quadratic", "topology": "ring", "until": 5, "lr": "0.01n"},
        "grid": {"algorithm": ["adsgd", "rfast"], "agents": [3, 4, 6]},
    }
    assert sweep(points(table), tmp_path / "a.parquet", workers=1) == []
    rows = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["lr"] for row in rows[:3]] == [0.03, 0.04, 0.06] and rows[3]["lr"] == pytest.approx(0.09)
    assert [row["lr_said"] for row in rows] == ["0.01n"] * 3 + ["0.01n*n"] * 3
    with pytest.raises(SettingError, match=r"Cannot read the learning rate .0\.01x"):
        points(table | {"fixed": table["fixed"] | {"lr": "0.01x"}})


@needs_shared_memory
def test_live_runs_couple_the_rate_and_record_it(tmp_path: Path) -> None:
    words = "live --task quadratic --agents 2 --lr 0.02n --until 3 --unit 20ms --quiet --out"
    json_, page = tmp_path / "a.json", tmp_path / "a.html"
    more = ["--json", str(json_), "--report", str(page)]
    done = finished(tmp_path, *words.split(), str(tmp_path / "out"), *more)
    assert done.code == 0, done.complained
    (run,) = offbeat.load(json_).runs
    assert (run.lr, run.settings["lr_said"]) == (0.04, "0.02n")
    assert "<span>--lr</span> 0.02n" in page.read_text("utf-8")
