"""CIFAR-10, in its binary version: six files of records, each a label and 3,072 pixels.

A record has 3,073 bytes: the label, then 1,024 bytes each of red, green and blue, row by row
(https://www.cs.toronto.edu/~kriz/cifar.html). The files are plain, in xz, or in the archive that is
downloaded. What is packed is unpacked once, into one file in the user's cache, which all processes map into
their memory; without a cache that can be written it is unpacked by each.
"""

import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offbeat.core.errors import DataError
from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import MOST_TIMES, SMALL, check_inflated, content, reading
from offbeat.tasks.dataset import Images
from offbeat.tasks.fetching import cache_folder, download

NAME, TITLE, CLASSES = "cifar10", "CIFAR-10", 10
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
FOLDERS = ("cifar10", "cifar-10", "cifar-10-batches-bin")
FILES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")
ENDS = ("", ".xz")
ARCHIVE = "cifar-10-binary.tar.gz"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"  # of the archive
OFFICIAL = (
    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
)
"""SHA-256 of each of `FILES`, unpacked."""

DO = "Replace this file by a good copy."
Bytes = npt.NDArray[np.uint8]


def images(root: Path | None) -> Images:
    """The data set, from this directory of the user's, or else from the cache, to which it is downloaded.

    Raises DataError if a file is missing, cannot be downloaded or is not what it should be.
    """
    found = _find(root) if root is not None else _download()
    train, test = _unpacked(found)
    remark = f"The files in {found[0].parent} are not the official ones of {TITLE}, by their SHA-256."
    return Images(NAME, *_pair(train), *_pair(test), CLASSES, remark=remark * (not _official(train, test)))


def _download() -> list[Path]:
    return download(TITLE, FOLDERS[0], MIRRORS, [(ARCHIVE, SHA256)], NAME)


def _find(root: Path) -> list[Path]:
    """The six files under `root`, or the archive; DataError if no one place has them."""
    places = [root / folder for folder in FOLDERS if (root / folder).is_dir()] or [root]
    looked = []
    for place in places:
        there = {n: [place / (n + end) for end in ENDS if (place / (n + end)).is_file()] for n in FILES}
        if all(there.values()):
            return [paths[0] for paths in there.values()]
        if (place / ARCHIVE).is_file():
            return [place / ARCHIVE]
        looked.append(f"{place} (lacks {', '.join(name for name, paths in there.items() if not paths)})")
    raise DataError(
        f"The files of {TITLE}, binary version, are not in the data directory '{root}'. Looked in "
        f"{'; '.join(looked)}. Each may end in '.xz'. Put the six files, or {ARCHIVE}, into "
        f"{root / FOLDERS[0]}, or name no data directory to have it downloaded."
    )


def _unpacked(found: Sequence[Path]) -> tuple[Bytes, Bytes]:
    """The bytes of all records for training, and of those for testing."""
    if all(path.suffix == ".bin" for path in found):
        return _joined(found, [_read(path) for path in found])
    packed = [_read(path) for path in found]
    key = hashlib.sha256(b"".join(hashlib.sha256(raw).digest() for raw in packed)).hexdigest()
    folder = cache_folder() / NAME / key[:16]
    train, test = _kept(folder, "train"), _kept(folder, "test")
    if train is not None and test is not None:
        return train, test
    plain = [raw for path, raw in zip(found, packed, strict=True) for raw in _plain(path, raw)]
    train, test = _joined([*found] if len(found) > 1 else [*found] * len(FILES), plain)
    with suppress(OSError):  # what is not kept is unpacked again
        folder.mkdir(parents=True, exist_ok=True)
        for part, raw in (("train", train), ("test", test)):
            write_atomically(folder / f"{part}-{_digest(raw)[:16]}.bin", raw.tobytes())
    return train, test


def _read(path: Path) -> bytes:
    with reading(path, f"a file of {TITLE}, binary version", DO):
        return content(path)


def _plain(path: Path, raw: bytes) -> Iterator[bytes]:
    """What is packed in this file: one of `FILES`, or all of them in their order."""
    with reading(path, f"a whole file of {TITLE}, plain, in xz, or {ARCHIVE}", DO):
        if path.suffix == ".bin":
            yield raw
        elif path.suffix == ".xz":
            with lzma.LZMAFile(io.BytesIO(raw)) as packed:
                plain = packed.read(max(SMALL, MOST_TIMES * len(raw)) + 1)
            check_inflated(len(plain), len(raw))
            yield plain
        else:
            with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
                for name in FILES:
                    member = archive.getmember(f"{FOLDERS[-1]}/{name}")
                    check_inflated(member.size, len(raw))
                    file = archive.extractfile(member)
                    if file is None:
                        raise ValueError(f"{member.name} is no file")
                    yield file.read()


def _joined(paths: Sequence[Path], plain: Sequence[bytes]) -> tuple[Bytes, Bytes]:
    """The records of the first five files together, and those of the last; DataError unless they are."""
    for path, raw in zip(paths, plain, strict=True):
        if not raw or len(raw) % RECORD:
            raise DataError(f"{path} has {len(raw):,} bytes; expected records of {RECORD:,} bytes each. {DO}")
        if (label := max(raw[::RECORD])) >= CLASSES:
            raise DataError(f"{path} holds the label {label}; expected labels from 0 to {CLASSES - 1}. {DO}")
    train, test = b"".join(plain[:-1]), plain[-1]
    return np.frombuffer(bytearray(train), np.uint8), np.frombuffer(bytearray(test), np.uint8)


def _kept(folder: Path, part: str) -> Bytes | None:
    """What was unpacked before, mapped into memory; None unless it is whole: its digest is in its name."""
    for path in folder.glob(f"{part}-*.bin"):
        with suppress(OSError, ValueError):
            raw = np.memmap(path, np.uint8, mode="c")
            if _digest(raw)[:16] == path.stem.partition("-")[2]:
                return raw
    return None


def _official(train: Bytes, test: Bytes) -> bool:
    parts = [*np.split(train, len(FILES) - 1), test] if len(train) % (len(FILES) - 1) == 0 else []
    return [*map(_digest, parts)] == [*OFFICIAL]


def _digest(raw: Bytes) -> str:
    return hashlib.sha256(raw.data).hexdigest()


def _pair(raw: Bytes) -> tuple[Tensor, Tensor]:
    """Images, uint8 [N, 3, 32, 32], a view of these bytes, and labels, int64 [N]."""
    records = torch.from_numpy(raw).view(-1, RECORD)
    return records[:, 1:].view(-1, *SHAPE), records[:, 0].long()
