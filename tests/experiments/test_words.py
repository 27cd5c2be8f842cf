"""Small mistakes are told in words that fit them."""

from pathlib import Path

import numpy as np
import pytest
from setups import SMALL

import offbeat
from offbeat.core.errors import DataError, SettingError
from offbeat.core.system.streams import Purpose
from offbeat.experiments.sweep.rows import Rows
from offbeat.world.speeds import speeds


def test_no_algorithm() -> None:
    with pytest.raises(
        SettingError, match=r"Expected algorithms, a list or names with commas between; got 3"
    ):
        offbeat.compare(3, **SMALL)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_written_is_named_once(tmp_path: Path) -> None:
    result = offbeat.compare("adsgd", **SMALL)
    with pytest.raises(FileNotFoundError) as refused:
        result.save_json(tmp_path / "nodir" / "x.json")
    assert str(refused.value).endswith("nodir/x.json'")


def test_json_with_a_mark_of_its_encoding_is_read(tmp_path: Path) -> None:
    result = offbeat.compare("adsgd", **SMALL)
    result.save_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "x.json").read_bytes())
    assert offbeat.load(tmp_path / "x.json").runs[0].digest == result.runs[0].digest


def test_a_metric_that_raises_says_what_it_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("late.py").write_text("def raises(at):\n    raise ValueError('late')\n")
    with pytest.raises(
        SettingError, match=r"^late\.py:raises: late\.py, line 2, in raises: ValueError: late"
    ):
        offbeat.simulate("adsgd", **SMALL, metrics=["late.py:raises"])


def test_speeds_without_spread() -> None:
    with pytest.raises(
        SettingError, match=r"no spread in 'lognormal:0': expected a number > 0, or no 'speeds'"
    ):
        speeds("speeds", "lognormal:0", 3, 0, Purpose.SPEED)


def test_where_nothing_is_kept_nothing_is_said_to_be(tmp_path: Path) -> None:
    error = PermissionError(13, "Permission denied", "r")
    assert "No run is kept" in str(Rows(tmp_path).full(error))
    Rows(tmp_path).write("k", {})
    assert "The runs that are finished are in" in str(Rows(tmp_path).full(error))


def test_an_array_that_is_not_there_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", rtt=np.ones((2, 3, 3)))
    with pytest.raises(DataError, match="it has no array 'nix'"):
        offbeat.simulate("adsgd", **SMALL, latency=f"rtt:{tmp_path / 'f.npz'}:nix:1")
