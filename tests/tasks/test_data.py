"""The data sets: finding, fetching, checking and reading their files."""

import gzip
import hashlib
import io
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import idx, small_set, write
from mirrors import Mirrors, served
from rich.console import Console

from offbeat.core.errors import DataError, SettingError
from offbeat.core.system import native
from offbeat.tasks import data, fetching
from offbeat.tasks.data import STEMS, images, load
from offbeat.tasks.fetching import VARIABLE

REAL = Path(os.environ.get("OFFBEAT_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
needs_real = pytest.mark.skipif(not (REAL / "mnist").is_dir(), reason=f"no real data in {REAL}")


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the user's data directory, cache or proxy."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")


def message(error: pytest.ExceptionInfo[Exception]) -> str:
    """The message of an error, which is one paragraph."""
    text = str(error.value)
    assert "\n" not in text
    return text


# The data sets themselves.


def test_digits_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read off its file, or asked for where that lies elsewhere."""
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.datasets.load_digits", None)
        read = images("digits")
    monkeypatch.setattr(data, "_digits_file", lambda: Path("nowhere"))
    given = images("digits")
    for mine, theirs in zip(vars(read).values(), vars(given).values(), strict=True):
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs


def test_digits() -> None:
    digits = load("digits")
    assert (digits.name, digits.classes) == ("digits", 10)
    assert digits.train_x.shape == (1438, 64)
    assert digits.test_x.shape == (359, 64)
    assert [bound.item() for bound in digits.train_x.aminmax()] == [0, 1]
    assert digits.train_x.dtype == digits.test_x.dtype == torch.float32
    assert digits.train_y.dtype == digits.test_y.dtype == torch.int64
    assert digits.train_y[:6].tolist() == [0, 1, 2, 3, 5, 6]
    assert digits.test_y[0] == 4


@needs_real
@pytest.mark.parametrize(("name", "mean"), [("mnist", 0.1307), ("fashion-mnist", 0.2860)])
def test_real_set(name: str, mean: float) -> None:
    start = time.perf_counter()
    real = load(name, REAL)
    assert time.perf_counter() - start < 10
    assert real.train_x.shape == (60_000, 784)
    assert real.test_x.shape == (10_000, 784)
    assert real.train_y.bincount().shape == real.test_y.bincount().shape == (10,)
    assert real.test_y.bincount().sum() == 10_000
    assert [bound.item() for bound in real.train_x.aminmax()] == [0, 1]
    assert real.train_x.mean().item() == pytest.approx(mean, abs=1e-4)


@needs_real
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_known_checksums_are_those_of_the_real_files(name: str) -> None:
    for path, known in zip(data._find(name, REAL), data.SOURCES[name].sha256, strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == known


@needs_real
def test_real_files_of_the_other_set_are_refused() -> None:
    with pytest.raises(DataError, match=r"holds the labels of MNIST; expected those of Fashion-MNIST"):
        load("fashion-mnist", REAL / "mnist")


def test_unknown_name() -> None:
    with pytest.raises(SettingError, match="Did you mean 'fashion-mnist'"):
        load("fashion_mnist")


def test_values_and_order(tmp_path: Path) -> None:
    content = small_set()
    got = load("mnist", write(tmp_path, content))
    pixels = np.frombuffer(content[STEMS[0]][16:], dtype=np.uint8).reshape(6, 784)
    assert np.array_equal(got.train_x.numpy(), pixels.astype(np.float32) / 255)
    assert got.train_y.tolist() == list(content[STEMS[1]][8:])
    assert got.test_y.tolist() == list(content[STEMS[3]][8:])
    assert got.test_x.dtype == torch.float32
    assert got.test_y.dtype == torch.int64


def test_tensors_are_the_callers_own(tmp_path: Path) -> None:
    write(tmp_path, small_set())
    load("mnist", tmp_path).train_x.zero_()
    assert load("mnist", tmp_path).train_x.sum() > 0


# Finding files.


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", [False, True])
def test_names_in_circulation(tmp_path: Path, suffix: str, dot: bool) -> None:
    write(tmp_path, small_set(), lambda stem: (stem.replace("-idx", ".idx") if dot else stem) + suffix)
    assert len(load("mnist", tmp_path).train_y) == 6


def test_gzip_is_told_by_content(tmp_path: Path) -> None:
    for stem, raw in small_set().items():
        (tmp_path / stem).write_bytes(gzip.compress(raw))
    assert len(load("mnist", tmp_path).train_y) == 6


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "mnist"), ("fashion-mnist", "fashion_mnist"), ("fashion-mnist", "fashion-mnist")],
)
def test_own_folder_comes_first(tmp_path: Path, name: str, folder: str) -> None:
    write(tmp_path / folder, small_set(train=5))
    write(tmp_path, small_set(train=8))
    assert len(load(name, tmp_path).train_y) == 5


def test_the_directory_itself_is_refused_beside_a_folder_of_the_other_set(tmp_path: Path) -> None:
    write(tmp_path / "mnist", small_set())
    write(tmp_path, small_set())
    with pytest.raises(DataError, match="Fashion-MNIST") as error:
        load("fashion-mnist", tmp_path)
    assert f"{tmp_path / 'fashion-mnist'} (no such directory)" in message(error)


def test_variable_names_the_directory_and_the_argument_overrules_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", small_set(train=5))
    write(tmp_path / "b", small_set(train=8))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "a"))
    assert len(load("mnist").train_y) == 5
    assert len(load("mnist", tmp_path / "b").train_y) == 8


def test_missing_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="given as argument"):
        load("mnist", tmp_path / "none")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(SettingError, match=VARIABLE):
        load("mnist")


def test_missing_file_is_named_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_download", lambda name: pytest.fail("downloaded"))
    write(tmp_path / "mnist", small_set())
    (tmp_path / "mnist" / STEMS[2]).unlink()
    with pytest.raises(DataError, match="MNIST") as error:
        load("mnist", tmp_path)
    assert f"{tmp_path / 'mnist'} (lacks {STEMS[2]})" in message(error)


# Checking files.

IMAGES = idx(np.zeros((6, 28, 28), dtype=np.uint8))
LABELS = idx(np.zeros(6, dtype=np.uint8))


@pytest.mark.parametrize(
    ("stem", "raw", "got"),
    [
        (STEMS[0], b"", "starts with nothing, it is empty; expected 00 00 08 03"),
        (STEMS[0], b"\x00\x00\x08", "starts with 00 00 08; expected 00 00 08 03"),
        (STEMS[0], b"<html>404</html>", "starts with 3c 68 74 6d; expected 00 00 08 03"),
        (STEMS[0], b"\x00\x00\x0d" + IMAGES[3:], "starts with 00 00 0d 03"),
        (STEMS[0], LABELS, "starts with 00 00 08 01; expected 00 00 08 03"),
        (STEMS[1], IMAGES, "starts with 00 00 08 03; expected 00 00 08 01"),
        (STEMS[0], IMAGES[:15], "ends after 15 bytes; expected a header of 16 bytes"),
        (STEMS[0], IMAGES[:-1], "has 4719 bytes (uncompressed); expected 4720"),
        (STEMS[0], IMAGES + b"\x00", "has 4721 bytes (uncompressed); expected 4720"),
        (STEMS[1], LABELS + LABELS, "has 28 bytes (uncompressed); expected 14"),
        (STEMS[0], idx(np.zeros((6, 32, 32), dtype=np.uint8)), "6x32x32; expected Nx28x28"),
        (STEMS[0], idx(np.zeros((0, 28, 28), dtype=np.uint8)), "0x28x28; expected Nx28x28 with N > 0"),
        (STEMS[1], idx(np.zeros(0, dtype=np.uint8)), "shape 0; expected N with N > 0"),
        (STEMS[1], idx(np.zeros(5, dtype=np.uint8)), "has 5 labels; expected 6"),
        (STEMS[1], idx(np.full(6, 10, dtype=np.uint8)), "holds the label 10; expected labels from 0 to 9"),
        (STEMS[0], gzip.compress(IMAGES, mtime=0)[:-9], "cannot be read (Compressed file ended"),
        (STEMS[0], gzip.compress(IMAGES, mtime=0) + b"more", "cannot be read (Not a gzipped file"),
        (STEMS[0], gzip.compress(IMAGES, mtime=0)[:-8] + bytes(8), "cannot be read (CRC check failed"),
        (STEMS[0], gzip.compress(IMAGES, mtime=0)[:10] + b"\xff" * 20, "cannot be read (Error -3"),
    ],
)
def test_bad_file_is_named_with_what_was_got_and_expected(
    tmp_path: Path, stem: str, raw: bytes, got: str
) -> None:
    write(tmp_path, small_set())
    (tmp_path / stem).write_bytes(raw)
    with pytest.raises(DataError) as error:
        load("mnist", tmp_path)
    assert message(error).startswith(str(tmp_path / stem))
    assert got in message(error)


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncation_is_noticed(tmp_path: Path, packed: bool) -> None:
    raw = gzip.compress(LABELS) if packed else LABELS
    path = tmp_path / "labels"
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(DataError):
            data._idx(path, ())


# Fetching files.


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    """Two mirrors, "a" and "b", with nothing on them yet, and the checksums of `small_set()` for MNIST."""
    zipped = (gzip.compress(raw, mtime=0) for raw in small_set().values())
    one, two, three, four = (hashlib.sha256(raw).hexdigest() for raw in zipped)
    with served() as web:
        source = data.Source("MNIST", ("mnist",), (web.url("a"), web.url("b")), (one, two, three, four), "")
        monkeypatch.setitem(data.SOURCES, "mnist", source)
        yield web


def cached(tmp_path: Path) -> list[str]:
    """The names of the files in the cache."""
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_download_is_done_once(mirrors: Mirrors, tmp_path: Path) -> None:
    mirrors.offer("a", small_set())
    first = load("mnist")
    assert mirrors.asked == [f"/a/{stem}.gz" for stem in STEMS]
    assert cached(tmp_path) == sorted(f"{stem}.gz" for stem in STEMS)
    assert torch.equal(load("mnist").train_x, first.train_x)
    assert len(mirrors.asked) == 4


def test_a_user_without_a_name_and_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("pooch.os_cache", lambda name: f"~/.cache/{name}")
    for name in ("HOME", "XDG_CACHE_HOME", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingError, match=r"cache for downloads is: .* Set HOME, or name"):
        load("mnist")
    with pytest.raises(SettingError, match=r"the data directory '~/data' is: .* Set HOME, or name"):
        load("mnist", Path("~/data"))
    with pytest.raises(OSError, match="home directory"):
        native._folder()


def test_second_mirror_is_tried(mirrors: Mirrors) -> None:
    mirrors.offer("b", small_set())
    assert len(load("mnist").train_y) == 6
    assert mirrors.asked == [f"/a/{STEMS[0]}.gz", *(f"/b/{stem}.gz" for stem in STEMS)]


def test_second_mirror_goes_on_where_the_first_failed(mirrors: Mirrors) -> None:
    mirrors.offer("a", {stem: small_set()[stem] for stem in STEMS[:2]})
    mirrors.offer("b", small_set())
    assert len(load("mnist").train_y) == 6
    assert mirrors.asked == [
        f"/{path}.gz" for path in (*("a/" + s for s in STEMS[:3]), *("b/" + s for s in STEMS[2:]))
    ]


def test_wrong_checksum_leaves_nothing_behind(mirrors: Mirrors, tmp_path: Path) -> None:
    mirrors.offer("a", small_set(seed=1))
    with pytest.raises(DataError, match="does not match the known hash"):
        load("mnist")
    assert cached(tmp_path) == []


def test_wrong_checksum_at_one_mirror_is_made_good_by_the_next(mirrors: Mirrors) -> None:
    mirrors.offer("a", small_set(seed=1))
    mirrors.offer("b", small_set())
    assert load("mnist").train_y.tolist() == list(small_set()[STEMS[1]][8:])


def test_damaged_file_in_the_cache_is_fetched_again(mirrors: Mirrors, tmp_path: Path) -> None:
    mirrors.offer("a", small_set())
    load("mnist")
    (tmp_path / "cache" / "offbeat" / "mnist" / f"{STEMS[1]}.gz").write_bytes(b"damaged")
    load("mnist")
    assert mirrors.asked[4:] == [f"/a/{STEMS[1]}.gz"]


def test_all_mirrors_fail(mirrors: Mirrors, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^MNIST could not be downloaded") as error:
        load("mnist")
    text = message(error)
    assert mirrors.url("a") in text
    assert mirrors.url("b") in text
    assert text.count("it answered 404 ") == 2 and "client error" not in text.lower()
    assert "--data DIR" in text
    assert "OFFBEAT_DATA=DIR" in text
    assert cached(tmp_path) == []


def test_progress_is_drawn_on_a_terminal_and_the_screen_given_back(
    mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    consoles: list[Console] = []

    def console(stderr: bool) -> Console:
        assert stderr
        consoles.append(Console(file=screen, force_terminal=True, width=100))
        return consoles[-1]

    monkeypatch.setattr(fetching, "Console", console)
    mirrors.offer("a", {stem: small_set()[stem] for stem in STEMS[:3]})
    with pytest.raises(DataError):
        load("mnist")
    assert STEMS[0] in screen.getvalue()
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert screen.getvalue().count(hide) == screen.getvalue().count(show) == 3
