"""Targets by name in experiments, from the command line to what is written; runs that end at their target."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

import offbeat
from offbeat import SettingError
from offbeat.cli.commands import app

QUICK: dict[str, Any] = {"task": "quadratic", "agents": 4, "topology": "ring", "until": 60.0}


def test_a_bare_number_is_the_measure_of_the_task_by_name() -> None:
    bare, named, other = (
        offbeat.simulate("adsgd", target=target, **QUICK) for target in (0.2, "loss=0.2", "consensus>=0.01")
    )
    assert bare.record() == named.record() and bare.record()["target"] == 0.2
    assert bare.time_to_target == bare.curve.crossing("loss", 0.2)
    assert other.record()["target"] == "consensus>=0.01" and other.digest == bare.digest
    assert other.time_to_target is not None and other.time_to_target < 5


def test_a_loss_is_a_target_where_the_task_has_an_accuracy() -> None:
    settings: dict[str, Any] = {"task": "digits", "agents": 4, "topology": "ring", "until": 10.0, "lr": 0.1}
    run = offbeat.simulate("adsgd", target="loss=2.2", **settings)
    assert run.time_to_target == run.curve.crossing("loss", 2.2) and run.target.is_loss  # type: ignore[union-attr]
    assert "time to loss 2.2" in str(offbeat.Comparison([run]))
    figure = offbeat.Comparison([run])
    assert not [trace.name for trace in figure.plot().data if "target" in trace.name], "it is of the loss"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("accuracy=0.9", "accuracy cannot be met, for it is not measured; expected one of loss, consensus"),
        ("los=0.9", "A target of los cannot be met"),
        ("loss=0", "must be a finite loss > 0; got 0"),
        ("consensus=inf", "must be a finite consensus; got inf"),
        ("loss", "cannot read the target 'loss'"),
    ],
)
def test_a_target_that_cannot_be_met_is_refused(target: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        offbeat.plan(["adsgd"], target=target, **QUICK)


def test_a_target_by_name_is_in_all_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = "compare --task digits --agents 3 --topology ring --until 4 --algorithms adsgd --target loss=2.29"
    done = CliRunner().invoke(app, [*words.split(), "--json", "a.json", "--report", "a.html"])
    assert done.exit_code == 0 and "time to loss 2.29" in done.output
    assert json.loads(Path("a.json").read_text())["runs"][0]["target"] == "loss=2.29"
    page = Path("a.html").read_text("utf-8")
    assert "<span>--target</span> loss=2.29 " in page and "target 2.29" in page
    table = "[fixed]\ntask = 'quadratic'\nagents = 3\ntopology = 'ring'\nalgorithm = 'adsgd'\nuntil = 5\n"
    Path("grid.toml").write_text(f"{table}[grid]\ntarget = [0.5, 'loss <= 0.6', 'consensus<=0.01']\n")
    done = CliRunner().invoke(app, ["sweep", "grid.toml", "--workers", "1"])
    assert done.exit_code == 0, done.output
    column = pyarrow.parquet.read_table("grid.parquet")["target"]
    assert column.to_pylist() == ["0.5", "0.6", "consensus=0.01"]
