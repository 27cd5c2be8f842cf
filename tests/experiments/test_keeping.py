"""A comparison that was interrupted goes on in its folder, and is what it would have been."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import Call

import offbeat
from offbeat.core.errors import DataError, SettingError
from offbeat.experiments.study import study
from offbeat.results.page import page
from offbeat.results.run import Comparison, Run

SHORT: dict[str, Any] = {"task": "quadratic", "until": 8.0, "eval_every": 2.0, "agents": 4}
SMALL = SHORT | {"topology": "ring"}
TUNED: dict[str, Any] = {"lr": "tuned", "tune_grid": [0.01, 0.1], "tune_seeds": 1}
OVER = {"topology": ["ring", "complete"]}


def made(
    out: Path | None, stop_after: int = 1000, workers: int = 1, **settings: Any
) -> tuple[Comparison, int]:
    """The comparison, and how many runs were there already."""
    there, runs = list[int](), list[Run]()
    plan = study("adsgd,rfast", **settings)

    def on_run(run: Run) -> Run:
        runs.append(run)
        if len(runs) == stop_after:
            raise KeyboardInterrupt
        return run

    found = list(plan.runs(on_run=on_run, on_there=there.append, workers=workers, out=out))
    return Comparison(found), sum(there)


@pytest.mark.parametrize(
    "settings",
    [SMALL | {"seeds": 2, "lr": [0.01, 0.1]}, SMALL | TUNED, SHORT | TUNED | {"over": OVER}],
    ids=["rates", "tuned", "worlds"],
)
def test_an_interrupted_one_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole, none = made(None, **settings)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "out", stop_after=1, **settings)
    part = offbeat.load(tmp_path / "out")
    assert part.interrupted and len(part.runs) >= 1
    again, found = made(tmp_path / "out", workers=2, **settings)
    assert found >= len(part.runs) and none == 0
    assert again.record() == whole.record()
    assert page(again) == page(whole)
    once_more, found = made(tmp_path / "out", **settings)
    assert found == study("adsgd,rfast", **settings).count or "tune_grid" in settings
    assert once_more.record() == whole.record() == offbeat.load(tmp_path / "out").record()
    assert str(once_more) == str(whole)


@pytest.mark.parametrize("rates", [{"lr": [0.01, 0.1]}, TUNED], ids=["rates", "tuned"])
def test_a_folder_grows_in_seeds(tmp_path: Path, rates: dict[str, Any]) -> None:
    settings = SMALL | rates
    few, _ = made(tmp_path / "out", **settings, seeds=2)
    more, found = made(tmp_path / "out", **settings, seeds=3)
    whole, _ = made(None, **settings, seeds=3)
    assert found >= len(few.runs)
    assert more.record() == whole.record() == offbeat.load(tmp_path / "out").record()
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    with pytest.raises(SettingError, match="has 3 seeds, and with 2 some"):
        made(tmp_path / "out", **settings, seeds=2)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before


def test_a_folder_that_was_to_grow_says_what_is_missing(tmp_path: Path) -> None:
    made(tmp_path, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, stop_after=3, **SMALL, seeds=2)
    part = offbeat.load(tmp_path)
    assert part.interrupted and part.planned == {"adsgd": 2, "rfast": 2} and len(part.runs) == 3
    assert made(tmp_path, **SMALL, seeds=2)[1] == 3


def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    whole, _ = made(tmp_path, **SMALL)
    files = sorted([*tmp_path.glob("*.run"), *tmp_path.glob("*.npz")])
    assert len(files) == 4
    for file in files:
        file.write_bytes(file.read_bytes()[:-9])
        if file.suffix == ".run":
            with pytest.raises(DataError, match="checksum"):
                offbeat.load(tmp_path)
        again, found = made(tmp_path, **SMALL)
        assert found == 1
        assert again.record() == whole.record()


def test_another_comparison_is_refused_with_what_differs(tmp_path: Path) -> None:
    made(tmp_path, **SMALL)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SettingError, match=r"until is 8\.0 there, 9\.0 now"):
        made(tmp_path, **SMALL | {"until": 9.0})
    with pytest.raises(SettingError, match="which 'offbeat merge"):
        list(study("adsgd,dsgd", **SMALL).runs(out=tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("mine")
    with pytest.raises(SettingError, match="it is of something else"):
        made(tmp_path / "other", **SMALL)


def test_objects_have_no_lasting_name(tmp_path: Path) -> None:
    own: dict[str, Any]
    for own in (
        {"optimizer": partial(offbeat.Momentum, momentum=0.5)},
        {"world": offbeat.World(own_compute={0: offbeat.Delay("constant")})},
    ):
        with pytest.raises(SettingError, match="is an object of Python's"):
            offbeat.compare("adsgd", out=tmp_path / "out", **SMALL, **own)
    assert not (tmp_path / "out").exists()
    assert offbeat.compare("adsgd", out=tmp_path / "out", optimizer=offbeat.Momentum, **SMALL).runs


def test_ones_own_code_is_known_by_its_version(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    text = "import offbeat\n\n\nclass Mine(offbeat.ALGORITHMS['adsgd'].prototype.__class__):\n    h = {}\n"
    found = []
    for version in (1, 1, 2):
        mine.write_text(text.format(version))
        found += [offbeat.compare(["dsgd", f"{mine}:Mine"], out=tmp_path / "out", **SMALL)]
    assert len([*(tmp_path / "out").glob("*.run")]) == 3
    assert offbeat.load(tmp_path / "out").record() == found[-1].record()


def test_from_the_command_line(call: Call, tmp_path: Path) -> None:
    words = ("compare", "--task", "quadratic", "--until", "8", "--algorithms", "adsgd,dsgd")
    out = tmp_path / "out"
    assert call(*words, "--out", out, "--json", tmp_path / "a.json").code == 0
    again = call(*words, "--out", out, "--json", tmp_path / "b.json")
    assert "2 runs are there already" in again.said
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    for command in ("table", "show"):
        assert "dsgd" in call(command, out).out
    assert "until is 8.0 there, 9.0 now" in call(*words, "--until", "9", "--out", out).refused().said
