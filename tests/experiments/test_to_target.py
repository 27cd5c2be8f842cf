"""Targets by name in experiments, from the command line to what is written; runs that end at their target."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

import offbeat
from offbeat import SettingError
from offbeat.algorithms import ALGORITHMS
from offbeat.cli.commands import app
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job
from offbeat.experiments.segments import segment_of
from offbeat.experiments.setup import prepare
from offbeat.experiments.sweep.grid import points
from offbeat.experiments.sweep.running import sweep
from offbeat.tasks import softmax

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


def test_where_calls_do_not_gain_by_width_a_run_that_ends_at_its_target_is_made_alone() -> None:
    """What lies beside it would go on; and its segments are short, for what comes after is in vain."""
    digits: dict[str, Any] = {"task": "digits", "target": 0.9, "until": 4000.0}
    for given, compiled in (
        (digits, softmax.name().startswith("compiled")),
        (QUICK | {"target": 0.2}, False),
    ):
        goes_on, ends = (prepare(Experiment(**given, stop_at=how), 0) for how in ("until", "target"))
        jobs = [Job(setup, ALGORITHMS["adsgd"], 0.05, keep_trace=False) for setup in (goes_on, ends)]
        assert [job.beside for job in jobs] == [8, 1 if compiled else 8]
        assert segment_of(goes_on) == 8 * segment_of(ends)


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
def test_a_run_that_ends_at_its_target_is_the_beginning_of_the_one_that_goes_on(algorithm: str) -> None:
    asked: dict[str, Any] = QUICK | {"target": 0.3, "lr": [0.05, 0.03, 1e-4], "eval_every": 1.5}
    whole = offbeat.compare([algorithm], **asked).runs
    made = {
        how: offbeat.compare([algorithm], stop_at="target", executor=how, **asked).runs
        for how in ("auto", "batched", "event-by-event")
    }
    for runs in zip(whole, *made.values(), strict=True):
        goes_on, stopped, *others = runs
        assert stopped.time_to_target == goes_on.time_to_target
        end = stopped.stopped_at or 60.0
        count = len(stopped.curve.time)
        assert stopped.curve.time == goes_on.curve.time[:count] and stopped.curve.time[-1] == end
        assert stopped.curve.loss == goes_on.curve.loss[:count]
        short = offbeat.simulate(algorithm, **asked | {"until": end, "lr": stopped.lr})
        assert stopped.digest == short.digest and stopped.final == short.final
        assert [other.digest for other in others] == [stopped.digest] * 2, "the executors agree"
    ends = [run.stopped_at for run in made["auto"]]
    assert ends[0] is not None and ends[1] is not None and ends[0] < ends[1] and ends[2] is None
    assert "A run that met its target ended at that evaluation" in str(offbeat.Comparison(made["auto"]))


def test_workers_and_sweeps_end_runs_at_their_targets_too(tmp_path: Path) -> None:
    asked: dict[str, Any] = QUICK | {"target": 0.3, "stop_at": "target", "lr": 0.05}
    table = {"fixed": asked | {"algorithm": "adsgd"}, "grid": {"seed": [0, 1]}}
    assert sweep(points(table), tmp_path / "a.parquet", workers=1) == []
    rows = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    for row, run in zip(rows, offbeat.compare(["adsgd"], seeds=2, **asked).runs, strict=True):
        assert (row["stop_at"], row["digest"]) == ("target", run.digest)
        assert row["curve_time"] == run.curve.time and run.curve.time[-1] == run.stopped_at
    told = dict[str, tuple[float, float]]()

    def on_progress(label: str, now: float, until: float, curve: offbeat.Curve) -> None:
        told[label] = now, until

    offbeat.simulate("adsgd", progress=on_progress, **asked)
    ((now, until),) = told.values()
    assert now == until == rows[0]["curve_time"][-1], "the end of a run is told as such"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop_at": "targe"}, "Unknown end of a run, stop_at 'targe'. Did you mean 'target'"),
        ({"stop_at": "target", "lr": "tuned"}, "tuned by 'loss', for which runs have to go on"),
        ({"stop_at": "target", "task": "own"}, "for there is none; expected a target too"),
    ],
)
def test_an_end_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    if settings.get("task") == "own":
        settings = settings | {"task": offbeat.tasks.build("quadratic", 4, 0)}
    with pytest.raises(SettingError, match=message):
        offbeat.plan(["adsgd"], **QUICK | settings)


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
