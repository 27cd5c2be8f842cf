"""Small data sets in the files that MNIST comes in."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

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
