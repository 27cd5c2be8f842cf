"""Files that say the world: their versions are recorded with every run, and runs of two are never mixed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from setups import SMALL

import offbeat
from offbeat.core.errors import SettingError
from offbeat.core.system.own import pinned, version
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import prepare
from offbeat.experiments.study import study
from offbeat.experiments.sweep.grid import points
from offbeat.experiments.sweep.running import sweep
from offbeat.results.run import Comparison

OTHER = ("*,*,0.1\n", "*,*,0.2\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ({"latency": "file:f.csv mean 0.5"}, OTHER),
        ({"bandwidth": "file:f.csv"}, OTHER),
        ({"loss": "file:f.csv"}, OTHER),
        ({"latency": "rtt:f.csv"}, ("0 1 1\n1 0 1\n1 1 0\n", "0 2 2\n2 0 2\n2 2 0\n")),
        ({"speeds": "file:f.csv"}, ("1\n1\n2\n", "1\n1\n3\n")),
        ({"links": "file:f.csv:b"}, ("a,b\n0,1\n1,1\n2,2\n", "a,b\n0,1\n1,1\n2,3\n")),
        ({"compute": "file f.csv mean 3"}, ("1\n2\n", "1\n3\n")),
        ({"communication": "file f.csv"}, ("1\n2\n", "1\n3\n")),
        ({"availability": "f.csv"}, ("0,1\n", "0,2\n")),
        ({"topology": "f.csv", "agents": 3}, ("from,to\n0,1\n1,2\n", "from,to\n0,1\n1,2\n2,0\n")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_runs_of_two_versions_are_kept_apart(folder: Path, said: Any, written: tuple[str, str]) -> None:
    path, runs = folder / "f.csv", []
    for seed, text in enumerate(written):
        path.write_text(text)
        runs.append(offbeat.simulate("adsgd", **SMALL | said, seed=seed))
        assert runs[-1].settings["code"] == {"f.csv": version("f.csv")}
    assert len(Comparison(runs).groups()) == 2
    same = offbeat.simulate("adsgd", **SMALL | said, seed=2)
    assert len(Comparison([runs[1], same]).groups()) == 1


def test_a_file_of_arrays_has_a_version_whatever_is_named_of_it(folder: Path) -> None:
    np.savez("f.npz", rtt=np.ones((2, 3, 3)))
    run = offbeat.simulate("adsgd", **SMALL, latency="rtt:f.npz:rtt:1")
    assert run.settings["code"] == {"f.npz": version("f.npz")}


def test_a_folder_of_a_comparison_has_the_runs_of_the_files_as_they_are(folder: Path) -> None:
    for text in OTHER:
        (folder / "l.csv").write_text(text)
        made = [*study("adsgd", **SMALL, latency="file:l.csv").runs(out=folder / "R")]
        assert [run.digest for run in offbeat.load("R").runs] == [run.digest for run in made]
    (folder / "l.csv").write_text(OTHER[0])
    there = list[int]()
    again = [*study("adsgd", **SMALL, latency="file:l.csv").runs(out=folder / "R", on_there=there.append)]
    assert there == [1] and again[0].digest == offbeat.load("R").runs[0].digest


def test_a_folder_of_a_sweep_has_the_runs_of_the_files_as_they_are(folder: Path) -> None:
    digests = list[str]()
    for text in OTHER:
        (folder / "l.csv").write_text(text)
        grid = points(
            {"fixed": SMALL | {"algorithm": "adsgd", "latency": "file:l.csv"}, "grid": {"seed": [0, 1]}}
        )
        assert not sweep(grid, folder / "s.parquet", workers=1)
        runs = offbeat.load("s.parquet.runs").runs
        assert [run.digest for run in runs] == [run.digest for run in offbeat.load("s.parquet").runs]
        digests += [run.digest for run in runs]
    assert len(set(digests)) == 4


def test_a_sweep_that_made_no_run_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "l.csv").write_text(OTHER[0])
    grid = points({"fixed": SMALL | {"algorithm": "adsgd", "latency": "file:l.csv"}})
    (folder / "l.csv").write_text(OTHER[1])  # the workers' version is not the one that was checked
    failed = sweep(grid, folder / "s.parquet", workers=1)
    assert "l.csv has changed: its SHA-256 was" in failed[0].failure
    assert not (folder / "s.parquet.runs").exists()


def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path) -> None:
    (folder / "l.csv").write_text(OTHER[0])
    e = Experiment(**SMALL, latency="file:l.csv")
    with pinned(["l.csv"]):
        (folder / "l.csv").write_text(OTHER[1])
        with pytest.raises(SettingError, match=r"^l\.csv has changed: its SHA-256 was .*restore it"):
            prepare(e, 0)
