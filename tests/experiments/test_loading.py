"""What was written can be loaded again: files of this version, and those that version 0.1.0 left in
`tests/results/files`, which must load, tabulate and plot ever after.
"""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

import offbeat
from offbeat import Comparison, DataError, SettingError
from offbeat.experiments.sweep.grid import points
from offbeat.experiments.sweep.running import sweep
from offbeat.results.page import page

FILES = Path(__file__).parents[1] / "results" / "files"
OLD = {
    "tuned.json": "adsgd dsgd", "quadratic.json": "adsgd rfast dsgd:after", "live-results.json": "adsgd dsgd",
    "live": "adsgd dsgd", "sweep.parquet": "adsgd dsgd", "sweep.parquet.runs": "adsgd dsgd",
}  # fmt: skip
SMALL: dict[str, Any] = {"task": "quadratic", "agents": 4, "topology": "ring", "until": 8, "eval_every": 2}


@pytest.mark.parametrize("name", OLD)
def test_what_the_first_version_wrote_loads_tabulates_and_plots(name: str) -> None:
    result = offbeat.load(FILES / name)
    assert [*dict.fromkeys(run.algorithm for run in result.runs)] == OLD[name].split()
    text = str(result)
    assert all(f" {algorithm}" in text for algorithm in OLD[name].split())
    assert len(result.plot().data) >= len(result.groups())
    assert "Run it again" in page(result) and len(result.to_frame()) == sum(
        len(run.curve.time) for run in result.runs
    )
    for run in result.runs:
        assert run.models == () and run.trace is None
        assert run.topology.n == run.settings["agents"]


def test_a_json_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = offbeat.compare(["adsgd", "rfast"], seeds=2, crash="agent 3 at 2 until 4", loss=0.1, **SMALL)
    diverged = offbeat.compare("adsgd", lr=1e30, **(SMALL | {"until": 200, "eval_every": 50}))
    assert diverged.runs[0].diverged_at is not None
    for result in (made, diverged, Comparison(made.runs[:3], interrupted=True, planned={"adsgd": 2})):
        result.save_json(tmp_path / "a.json")
        again = offbeat.load(tmp_path / "a.json")
        again.save_json(tmp_path / "b.json")
        assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()
        if result is not diverged:
            assert str(again) == str(result)
    tuned = (FILES / "tuned.json").read_text()
    offbeat.load(FILES / "tuned.json").save_json(tmp_path / "tuned.json")
    kept = json.loads((tmp_path / "tuned.json").read_text())["runs"]
    for before, after in zip(json.loads(tuned)["runs"], kept, strict=True):
        assert all(after[name] == value for name, value in before.items() if name != "settings")
        before["settings"]["straggler"] = [1]  # which was a number
        assert before["settings"].pop("rule") == "SGD" and after["settings"]["optimizer"] == "sgd"
        assert all(after["settings"][name] == value for name, value in before["settings"].items())


@pytest.mark.parametrize(
    ("rule", "optimizer", "own"),
    [("SGD", "sgd", []), ("Momentum", "momentum", []), ("Mine", "Mine", ["the optimizer Mine"])],
)
def test_what_was_called_a_rule_is_the_optimizer(
    rule: str, optimizer: str, own: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    offbeat.compare("adsgd", **SMALL).save_json(path)
    written = json.loads(path.read_text())
    settings = written["runs"][0]["settings"]
    del settings["optimizer"], settings["schedule"]
    settings |= {"rule": rule, "own": [f"the rule {rule}"] * (rule != "SGD")}
    path.write_text(json.dumps(written))
    (run,) = offbeat.load(path).runs
    assert "rule" not in run.settings
    assert [run.settings[name] for name in ("optimizer", "schedule", "own")] == [optimizer, "constant", own]


def test_the_rows_of_a_sweep_are_the_runs_of_compare(tmp_path: Path) -> None:
    out = tmp_path / "grid.parquet"
    grid = {"fixed": SMALL, "grid": {"algorithm": ["adsgd", "dsgd"], "case": ["base", "combined"]}}
    sweep(points(grid), out, workers=1)
    loaded = offbeat.load(out)
    assert loaded.differing == {"case": ["base", "combined"]}
    for case, part in loaded.split("case").items():
        made = offbeat.compare(["adsgd", "dsgd"], case=case, **SMALL)
        assert str(part) == str(made)
    both = offbeat.load(out, tmp_path / "grid.parquet.runs", tmp_path)
    assert sorted(run.digest for run in both.runs) == sorted(run.digest for run in loaded.runs)


def test_runs_of_several_worlds_are_grouped_and_no_median_mixes_them(tmp_path: Path) -> None:
    for k, case in enumerate(("base", "combined")):
        offbeat.compare(["adsgd", "dsgd"], case=case, seeds=2, **SMALL).save_json(tmp_path / f"{k}.json")
    result = offbeat.load(tmp_path)
    assert [(*key[:2], *key.world) for key in result.groups()] == [
        (name, 0.01, ("case", case)) for case in ("base", "combined") for name in ("adsgd", "dsgd")
    ]
    assert [len(runs) for runs in result.groups().values()] == [2] * 4
    assert result.label(next(iter(result.groups()))) == "adsgd, case=base"
    frame = result.to_frame()
    assert {*frame["case"]} == {"base", "combined"}
    text = page(result)
    assert text.count("offbeat compare</code>") == 0 and text.count("offbeat compare <span>--task") == 2


def test_a_setting_of_several_values_that_is_called_as_a_metric_has_a_column_of_its_own() -> None:
    runs = [offbeat.simulate("adsgd", loss=loss, **SMALL) for loss in (0.0, 0.3)]
    frame = Comparison(runs).to_frame()
    assert {*frame["setting_loss"]} == {0.0, 0.3} and frame["loss"].nunique() > 2


def test_the_same_run_is_kept_once_and_another_outcome_refused(tmp_path: Path) -> None:
    result = offbeat.compare(["adsgd", "dsgd"], **SMALL)
    result.save_json(tmp_path / "a.json")
    Comparison(result.runs[1:]).save_json(tmp_path / "b.json")
    assert len(offbeat.load(tmp_path / "a.json", tmp_path / "b.json").runs) == 2
    Comparison([replace(result.runs[1], digest="f" * 64)]).save_json(tmp_path / "b.json")
    with pytest.raises(SettingError, match=r"dsgd with lr 0.01 and seed 0 is in .*a.json and in .*b.json"):
        offbeat.load(tmp_path / "a.json", tmp_path / "b.json")


def test_a_straggler_is_a_difference_only_where_it_was_chosen() -> None:
    random = SMALL | {"topology": "erdos-renyi:0.5", "agents": 8, "case": "comp-straggler"}
    result = offbeat.compare("adsgd", seeds=4, **random)
    assert len({str(run.settings["straggler"]) for run in result.runs}) > 1
    loaded = [replace(run, graph=None) for run in result.runs]
    assert [len(runs) for runs in Comparison(loaded).groups().values()] == [4]
    chosen = [offbeat.simulate("adsgd", straggler=k, case="combined", **SMALL) for k in (0, 1)]
    assert Comparison(chosen).differing == {"straggler": [(0,), (1,)]}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "it is empty"),
        (b"{", "cannot be read"),
        (b"[1]", "neither JSON nor Parquet"),
        (b'{"a": 1}', "JSON of something else"),
        (b'{"offbeat": "0.1.0", "runs": [{}]}', "KeyError"),
        (b'{"offbeat": "99.1", "runs": []}', "written by offbeat 99.1"),
        (b"PAR1 and no more", "cannot be read"),
        (b"PK\x03\x04", "a trace or another archive"),
    ],
)
def test_what_is_no_result_is_refused_in_a_paragraph(tmp_path: Path, written: bytes, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(written)
    with pytest.raises(DataError, match=said) as error:
        offbeat.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_folders_and_files_of_something_else(tmp_path: Path) -> None:
    shutil.copytree(FILES / "live", tmp_path / "live")
    for missing, said in (
        (tmp_path / "nothing", "There is no file"),
        (tmp_path / "live" / "live.json", "what a live run was asked for; expected its folder"),
        (tmp_path / "live" / "adsgd-lr0.1", "one run of a live folder"),
    ):
        with pytest.raises(DataError, match=said):
            offbeat.load(missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no results"):
        offbeat.load(tmp_path / "empty")
    with pytest.raises(SettingError, match="Nothing to load was named"):
        offbeat.load()
    (tmp_path / "live" / "adsgd-lr0.1" / "ended.json").unlink()
    some = offbeat.load(tmp_path)
    assert some.interrupted and [run.algorithm for run in some.runs] == ["dsgd"]
    (tmp_path / "live" / "dsgd-lr0.1" / "ended.json").unlink()
    with pytest.raises(DataError, match=r"No run in .* has ended; .*--resume"):
        offbeat.load(tmp_path / "live")


def test_a_row_that_is_damaged_is_named(tmp_path: Path) -> None:
    shutil.copytree(FILES / "sweep.parquet.runs", tmp_path / "sweep.parquet.runs")
    row = sorted((tmp_path / "sweep.parquet.runs").iterdir())[0]
    row.write_bytes(row.read_bytes().replace(b"adsgd", b"adsgt").replace(b"dsgd", b"dsgt"))
    with pytest.raises(DataError, match=f"{row.name} cannot be read .its checksum does not match"):
        offbeat.load(row.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": "x"}, "a number was expected"),
        ({"curve": {"time": [0, 1], "loss": [1]}}, "columns have"),
        ({"curve": {}}, "columns have"),
        ({"updates": 1.5}, "whole number"),
        ({"settings": 3}, "names and values"),
        ({"final": {"loss": "low"}}, "a number was expected"),
    ],
)
def test_a_record_with_odd_values_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    found = json.loads((FILES / "quadratic.json").read_text())
    found["runs"][0] |= change
    (tmp_path / "a.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match=said):
        offbeat.load(tmp_path / "a.json")
    for name, value in (("target", "x"), ("slowdown", "fast"), ("agents", None), ("crash", 3)):
        found = json.loads((FILES / "quadratic.json").read_text())
        found["runs"][0]["settings"][name] = value
        (tmp_path / "a.json").write_text(json.dumps(found))
        with pytest.raises(DataError, match=f"a.json cannot be read .*{name}"):
            offbeat.load(tmp_path / "a.json")


def test_a_live_folder_and_its_json_are_the_same_runs_and_no_faults_are_no_setting(tmp_path: Path) -> None:
    live = offbeat.load(FILES / "live", FILES / "live-results.json")
    assert [run.digest for run in live.runs] == [run.digest for run in offbeat.load(FILES / "live").runs]
    beside = offbeat.load(FILES / "live", FILES / "sweep.parquet")
    assert "faults" not in beside.differing and "fault none" not in str(beside)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it is empty"),
        ("[1]", "neither JSON nor Parquet"),
        ('{"name": "x"}', "there is no 'offbeat', no 'runs'"),
        ('{"offbeat": "0.1.0", "runs": {"a": 1}}', "its 'runs' are no list"),
        ('{"offbeat": "0.1.0", "runs": [null]}', "None where names and values were expected"),
        ('{"offbeat": "99.0", "runs": []}', "was written by offbeat 99.0"),
    ],
)
def test_json_of_something_else_is_refused_in_words(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=f"a.json .*{said}"):
        offbeat.load(tmp_path / "a.json")


def test_a_file_without_runs_is_an_empty_comparison() -> None:
    empty = Comparison([])
    assert str(empty) == "No run was finished." and empty.to_latex() == "% No run was finished.\n"
    assert empty.to_frame().empty and empty.to_csv().strip() == ""


def test_what_a_fuzzer_found_is_told_in_words(tmp_path: Path) -> None:
    twice = json.loads((FILES / "quadratic.json").read_text())
    twice["runs"].append(twice["runs"][0])
    (tmp_path / "twice.json").write_text(json.dumps(twice))
    with pytest.raises(DataError, match=r"twice.json cannot be read \(The run of .* is there twice"):
        offbeat.load(tmp_path / "twice.json")
    odd = json.loads((FILES / "quadratic.json").read_text())
    odd["runs"][0]["settings"]["communication"] = "lognormal01.0"
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    with pytest.raises(DataError, match=r"odd.json.*Unknown delay distribution"):
        offbeat.load(tmp_path / "odd.json")
    offbeat.compare("adsgd", out=tmp_path / "kept", **SMALL)
    (tmp_path / "kept" / "comparison.json").unlink()
    with pytest.raises(DataError, match=r"kept has runs of a comparison, and no comparison.json"):
        offbeat.load(tmp_path / "kept")


def test_frames_csv_and_latex_name_every_setting_that_differs() -> None:
    over: dict[str, Any] = {
        "event": ["cut {0,1} from the rest at 1 until 2", ()],
        "speeds": [None, "1,1,2,10"],
    }
    result = offbeat.compare("adsgd", over=over, seeds=2, target="loss=1.9", **SMALL)
    frame, table = result.to_frame(), pandas.read_csv(io.StringIO(result.to_csv()), keep_default_na=False)
    assert [*frame.columns[:5]] == ["algorithm", "lr", "seed", "speeds", "event"]
    assert {*frame["event"]} == {*table["event"]} == {over["event"][0], "none"}
    assert frame.dtypes["updates"] == "int64" and frame.dtypes["loss"] == "float64"
    again = pandas.read_csv(io.StringIO(frame.to_csv(index=False)), keep_default_na=False)
    assert again["loss"].tolist() == frame["loss"].tolist() and {*again["event"]} == {*frame["event"]}
    latex = result.to_latex()
    rows = latex[latex.index("\\begin{tabular}") :].splitlines()
    assert rows[2].startswith("algorithm & speeds & event & time to gap 1.9 & vs best")
    assert "cut \\{0,1\\} from" in rows[4] and " -- " in rows[4]
    assert all(row.count(" & ") == rows[2].count(" & ") for row in rows[4:8])


def test_a_run_of_which_more_was_measured_is_the_same_run(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"task": "quadratic", "until": 3}
    more, fewer = tmp_path / "more.json", tmp_path / "fewer.json"
    offbeat.compare("adsgd", metrics="gap", **asked).save_json(more)
    offbeat.compare("adsgd", **asked).save_json(fewer)
    for files in ((more, fewer), (fewer, more)):
        (run,) = offbeat.load(*files).runs
        assert "gap" in run.curve.names()
