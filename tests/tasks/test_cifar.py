"""CIFAR-10: its files as they are, in xz and in the archive; what is kept of them, and what is refused."""

import hashlib
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import cifar_archive, cifar_set, write_cifar
from mirrors import served

from offbeat.core.errors import DataError
from offbeat.tasks import cifar
from offbeat.tasks.data import images, load
from offbeat.tasks.fetching import VARIABLE
from offbeat.tasks.networks import moments

REAL = Path(os.environ.get("OFFBEAT_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No test sees the user's data directory, cache or proxy. The cache."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "offbeat" / "cifar10"


def test_pixels_labels_and_order(tmp_path: Path) -> None:
    content = cifar_set()
    write_cifar(tmp_path / "cifar10", content, packed=False)
    got, raw = images("cifar10", tmp_path), content["data_batch_2.bin"]
    assert got.train_x.shape == (20, 3, 32, 32)
    assert got.test_x.shape == (4, 3, 32, 32)
    record = np.frombuffer(raw, np.uint8)[cifar.RECORD : 2 * cifar.RECORD]  # the second of the second file
    assert int(got.train_y[5]) == record[0]
    assert int(got.train_x[5, 1, 2, 3]) == record[1 + 1024 + 2 * 32 + 3], "green, third row, fourth column"
    flat = load("cifar10", tmp_path)
    assert np.array_equal(flat.train_x[5].numpy(), record[1:].astype(np.float32) / 255)
    assert "not the official" in got.remark
    assert "not the official" in flat.remark


@pytest.mark.parametrize("how", ["xz", "archive"])
def test_what_is_packed_is_unpacked_once(
    how: str, tmp_path: Path, apart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, folder = cifar_set(), tmp_path / "data" / "cifar-10"
    write_cifar(folder, content)
    if how == "archive":
        for path in folder.iterdir():
            path.unlink()
        (folder / cifar.ARCHIVE).write_bytes(cifar_archive(content))
    first = images("cifar10", tmp_path / "data")
    plain = images("cifar10", write_cifar(tmp_path / "plain", content, packed=False))
    assert torch.equal(first.train_x, plain.train_x)
    assert torch.equal(first.test_y, plain.test_y)
    (kept,) = apart.glob("*/train-*.bin")
    monkeypatch.setattr(cifar, "_plain", lambda path, raw: pytest.fail("unpacked again"))
    assert torch.equal(images("cifar10", tmp_path / "data").train_x, plain.train_x)
    monkeypatch.undo()
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    kept.write_bytes(bytes(kept.stat().st_size))  # damaged: its digest is another one
    assert torch.equal(images("cifar10", tmp_path / "data").train_x, plain.train_x)


def test_without_a_cache_it_is_unpacked_every_time(tmp_path: Path, apart: Path) -> None:
    apart.parent.mkdir(parents=True)
    apart.write_bytes(b"no folder")
    got = images("cifar10", write_cifar(tmp_path / "data", cifar_set()))
    assert got.train_x.shape == (20, 3, 32, 32)


def test_download_is_checked_and_done_once(
    tmp_path: Path, apart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = cifar_archive(cifar_set())
    with served() as web:
        monkeypatch.setattr(cifar, "MIRRORS", (web.url("a"),))
        monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(archive).hexdigest())
        web.files[f"/a/{cifar.ARCHIVE}"] = b"something else"
        with pytest.raises(DataError, match=r"CIFAR-10 could not be downloaded.*DIR/cifar10"):
            images("cifar10")
        web.files[f"/a/{cifar.ARCHIVE}"] = archive
        got = images("cifar10")
        assert len(got.train_y) == len(images("cifar10").train_y) == 20
        assert len(web.asked) == 2


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("data_batch_3.bin.xz", lzma.compress(b"x" * 100), "has 100 bytes; expected records of 3,073"),
        ("test_batch.bin.xz", lzma.compress(b""), "has 0 bytes"),
        (
            "test_batch.bin.xz",
            lzma.compress(b"\x0a" * 3073),
            "holds the label 10; expected labels from 0 to 9",
        ),
        ("data_batch_1.bin.xz", b"plain", "cannot be read"),
        ("data_batch_1.bin.xz", lzma.compress(bytes(3073))[:-9], "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, raw: bytes, said: str) -> None:
    write_cifar(tmp_path / "cifar10", cifar_set())
    (tmp_path / "cifar10" / name).write_bytes(raw)
    with pytest.raises(DataError) as error:
        images("cifar10", tmp_path)
    assert said in str(error.value)
    assert name in str(error.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar10", cifar_set())
    (tmp_path / "cifar10" / "data_batch_4.bin.xz").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_4\.bin\)"):
        images("cifar10", tmp_path)


@pytest.mark.skipif(not (REAL / "cifar10").is_dir(), reason=f"no real data in {REAL}")
def test_real_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two of the real files: what is commonly said of the moments of all holds for a sixth."""
    monkeypatch.setattr(cifar, "FILES", ("data_batch_1.bin", "test_batch.bin"))
    got = images("cifar10", REAL)
    assert got.test_y.bincount().tolist() == [1000] * 10
    mean, deviation = moments(got)
    assert mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.005)
    assert deviation.tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=0.005)
