"""How files are read that may be anything: one guard for what parsers raise, and sizes before memory."""

import json
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from offbeat.core.errors import DataError, SettingError
from offbeat.core.system.reading import array, arrays, content, json_in, reading, refuse_newer


@pytest.mark.parametrize(
    ("raised", "found"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (RecursionError(), "RecursionError"),
        (ValueError("it is 3 bytes long."), "it is 3 bytes long"),
        (MemoryError(), "MemoryError"),
        (DataError("No state."), "No state"),
        (ValueError("\x1b[31mred"), r"\[31mred"),
    ],
)
def test_whatever_a_parser_raises_names_the_file_and_both_sides(raised: Exception, found: str) -> None:
    with pytest.raises(DataError) as error, reading("a.x", "a trace", "Make it anew."):
        raise raised
    assert str(error.value).startswith("a.x cannot be read (")
    assert found.replace("\\", "") in str(error.value)
    assert str(error.value).endswith("; expected a trace. Make it anew.")
    assert str(error.value).isprintable()


def test_other_errors_of_ours_go_through() -> None:
    with pytest.raises(SettingError, match=r"^no$"), reading("a.x", "a trace"):
        raise SettingError("no")


@pytest.mark.parametrize("what", ["a pipe", "a folder", "no regular file", "nothing"])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(what: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    elif what == "no regular file":
        path.symlink_to("/dev/zero")
    with (
        pytest.raises(DataError, match="There is no file" if what == "nothing" else f"it is {what}"),
        reading(path, "y"),
    ):
        content(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    with (
        pytest.raises(DataError, match="it has 1,099,511,627,776 bytes, more than 100,000,000"),
        reading(path, "y"),
    ):
        json_in(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_newer_version_is_said() -> None:
    refuse_newer("a.x", "trace 1", "trace 1")
    refuse_newer("a.x", "model 9", "trace 1")
    with pytest.raises(DataError, match=r"a\.x was written by a newer offbeat: it says 'trace 2'.*Upgrade"):
        refuse_newer("a.x", "trace 2", "trace 1")


def test_sizes_of_arrays_are_checked_before_anything_is_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    head = (
        b"\x93NUMPY\1\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (25000000,), }".ljust(127) + b"\n"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", head + bytes(200_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="would be inflated to 200,000,128"):
        arrays(path)
    (tmp_path / "x.npy").write_bytes(head + bytes(8))
    with pytest.raises(ValueError, match="its head says 200,000,128 bytes, and there are 136"):
        array(tmp_path / "x.npy")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_what_fits_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=np.arange(3), b=np.array("text"))
    np.save(tmp_path / "x.npy", np.zeros((2, 0)))
    (tmp_path / "x.json").write_text(json.dumps({"a": [1]}))
    found = arrays(tmp_path / "x.npz")
    assert found["a"].tolist() == [0, 1, 2]
    assert str(found["b"]) == "text"
    assert array(tmp_path / "x.npy").shape == (2, 0)
    assert json_in(tmp_path / "x.json") == {"a": [1]}
