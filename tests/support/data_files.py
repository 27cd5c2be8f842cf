"""Small data sets in the files that MNIST comes in."""

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from offbeat.tasks import cifar
from offbeat.tasks.data import STEMS


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    """An IDX file."""
    shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, kind, array.ndim)) + shape + array.tobytes()


def small_set(seed: int = 0, train: int = 6, test: int = 3) -> dict[str, bytes]:
    """A small data set of random pixels, as the content of its four files."""
    rng = np.random.default_rng(seed)
    content = {}
    for stem, count in zip(STEMS, (train, train, test, test), strict=True):
        shape, top = ((count, 28, 28), 256) if "images" in stem else ((count,), 10)
        content[stem] = idx(rng.integers(0, top, shape, dtype=np.uint8))
    return content


def write(folder: Path, content: dict[str, bytes], name: Callable[[str], str] = str) -> Path:
    """The files in `folder`, gzip-compressed where `name` says so."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, raw in content.items():
        path = folder / name(stem)
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return folder


def cifar_set(seed: int = 0, count: int = 4) -> dict[str, bytes]:
    """A small CIFAR-10 of random pixels, so many images in each file, as the content of its six files."""
    rng, content = np.random.default_rng(seed), {}
    for name in cifar.FILES:
        records = rng.integers(0, 256, (count, cifar.RECORD), dtype=np.uint8)
        records[:, 0] %= 10
        content[name] = records.tobytes()
    return content


def cifar_archive(content: dict[str, bytes]) -> bytes:
    """These files as they are downloaded."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, raw in content.items():
            entry = tarfile.TarInfo(f"{cifar.FOLDERS[-1]}/{name}")
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    return made.getvalue()


def write_cifar(folder: Path, content: dict[str, bytes], packed: bool = True) -> Path:
    """The files in `folder`, in xz or as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in content.items():
        path = folder / (name + ".xz" * packed)
        path.write_bytes(lzma.compress(raw) if packed else raw)
    return folder


PLAY = "".join(
    f"{role}:\n{line * 150}\n\n" for role, line in (("First", "abc "), ("Second", "deab."), ("First", "bad "))
)
"""A small play: two roles, three speeches."""
