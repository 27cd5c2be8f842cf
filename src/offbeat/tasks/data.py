"""The data sets of images by name; those of MNIST: where their files are looked for, fetched, checked, read.

MNIST and Fashion-MNIST are four IDX files each: two zero bytes, the element type, the number of dimensions,
each as a big-endian 32-bit number, then the elements in row-major order.
"""

import gzip
import hashlib
import io
import math
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offbeat.core.errors import DataError, unknown
from offbeat.core.system.reading import MOST_TIMES, SMALL, check_inflated, content, reading
from offbeat.tasks import cifar
from offbeat.tasks.dataset import DataSet, Images
from offbeat.tasks.fetching import directory, download

CLASSES, IMAGE = 10, (28, 28)
STEMS = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
"""The file names, without '.gz': training images and labels, test images and labels."""


@dataclass(frozen=True)
class Source:
    """Where the four files of a data set come from and how they are recognised."""

    title: str
    folders: tuple[str, ...]  # the names that a directory of these files may have
    mirrors: tuple[str, ...]  # base URLs, tried in this order
    sha256: tuple[str, str, str, str]  # of the four gzip files, in the order of `STEMS`
    labels: str  # SHA-256 of the test labels alone, one byte each: it tells sets apart whose files are alike


SOURCES = {
    "mnist": Source(
        "MNIST",
        ("mnist",),
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
    "fashion-mnist": Source(
        "Fashion-MNIST",
        ("fashion_mnist", "fashion-mnist"),
        # Plain HTTP is all that this host speaks; the SHA-256 of each file makes up for it.
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    ),
}


NAMES = ("digits", *SOURCES, "cifar10")


def load(name: str, data: Path | None = None) -> DataSet:
    """The images of a data set as rows of numbers, features / 16 of the digits, pixels / 255 of the others,
    in new tensors that the caller may change. Where from, and what is raised: see `images`.
    """
    return images(name, data).flat()


def images(name: str, data: Path | None = None) -> Images:
    """The data set "digits", "mnist", "fashion-mnist" or "cifar10", as bytes.

    "digits" comes with scikit-learn: 8x8 images, of which those at 4, 9, 14, ... are for testing; `data`
    plays no part. The files of the others are taken from the directory `data`, else from the one that
    `OFFBEAT_DATA` names, else from the user's cache, to which they are downloaded once. In a directory D that
    is named, they are looked for in D/mnist, D/fashion_mnist or D/fashion-mnist, D/cifar10 (and others:
    `offbeat.tasks.cifar`), and in D itself if it has none of these; nothing is downloaded.

    Raises SettingError if the name is unknown or the directory does not exist; DataError if a file is
    missing, cannot be downloaded, or is not exactly what it should be.
    """
    if name == "digits":
        return _digits()
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    root = directory(data)
    return cifar.images(root) if name == "cifar10" else _mnist(name, root)


def _mnist(name: str, root: Path | None) -> Images:
    paths = _download(name) if root is None else _find(name, root)
    train, test = _pair(paths[0], paths[1]), _pair(paths[2], paths[3])
    digest, mine = hashlib.sha256(test[1].to(torch.uint8).numpy().tobytes()).hexdigest(), SOURCES[name]
    for source in SOURCES.values():
        if source is not mine and source.labels == digest:
            raise DataError(
                f"{paths[3]} holds the labels of {source.title}; expected those of {mine.title}, whose files "
                "have the same names. Keep each set in a folder of its own."
            )
    return Images(name, *train, *test, CLASSES)


def _digits() -> Images:
    """From scikit-learn's own file; to import scikit-learn takes more than a second."""
    file = _digits_file()
    if file.is_file():
        pixels, labels = np.split(np.loadtxt(file, delimiter=","), [-1], axis=1)
    else:  # it lies elsewhere in this version
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels.astype(np.uint8)).view(-1, 1, 8, 8)
    y = torch.from_numpy(labels.astype(np.int64).ravel())
    test = torch.arange(len(y)) % 5 == 4
    return Images("digits", x[~test], y[~test], x[test], y[test], CLASSES, scale=16)


def _digits_file() -> Path:
    spec = find_spec("sklearn")
    (place,) = spec.submodule_search_locations or [""] if spec is not None else [""]
    return Path(place, "datasets", "data", "digits.csv.gz")


def _variants(stem: str) -> list[str]:
    """The names under which a file is in circulation, the most common last."""
    return [name + end for name in (stem.replace("-idx", ".idx"), stem) for end in ("", ".gz")]


def _find(name: str, root: Path) -> list[Path]:
    """The four files under `root`, in the order of `STEMS`; DataError if no one place has them all."""
    source = SOURCES[name]
    places = [root / folder for folder in source.folders]
    # All sets use the same file names: beside a folder of either set, files in `root` itself are nobody's.
    if not any((root / folder).is_dir() for each in SOURCES.values() for folder in each.folders):
        places.append(root)
    looked = []
    for place in places:
        found = {s: place / v for s in STEMS for v in _variants(s) if (place / v).is_file()}
        if len(found) == len(STEMS):
            return [found[stem] for stem in STEMS]
        lacks = ", ".join(stem for stem in STEMS if stem not in found)
        looked.append(f"{place} ({'lacks ' + lacks if place.is_dir() else 'no such directory'})")
    raise DataError(
        f"The files of {source.title} are not in the data directory '{root}'. Looked in {'; '.join(looked)}. "
        f"Each may end in '.gz', and be named as '{_variants(STEMS[0])[0]}' is. Put the four files there, "
        "or name no data directory to have them downloaded."
    )


def _download(name: str) -> list[Path]:
    """The four files in the user's cache; DataError if no mirror delivers them."""
    source = SOURCES[name]
    files = [(f"{stem}.gz", sha256) for stem, sha256 in zip(STEMS, source.sha256, strict=True)]
    return download(source.title, source.folders[0], source.mirrors, files, name)


def _bad(path: Path, got: str, expected: str) -> DataError:
    return DataError(f"{path} {got}; expected {expected}. Replace this file by a good copy.")


def _idx(path: Path, item: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The array [N, *item] of unsigned bytes in an IDX file, plain or gzip, N > 0; DataError for others."""
    with reading(path, "a whole IDX file, plain or gzip-compressed", "Replace this file by a good copy."):
        raw = content(path)
        if raw[:2] == b"\x1f\x8b":
            stored = len(raw)
            raw = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(max(SMALL, MOST_TIMES * stored) + 1)
            check_inflated(len(raw), stored)
    rank = 1 + len(item)
    magic, start = bytes((0, 0, 8, rank)), 4 + 4 * rank
    if raw[:4] != magic:
        what = f"{magic.hex(' ')} (IDX, unsigned bytes, {rank} dimension{'s' * (rank > 1)})"
        raise _bad(path, f"starts with {raw[:4].hex(' ') or 'nothing, it is empty'}", what)
    if len(raw) < start:
        raise _bad(path, f"ends after {len(raw)} bytes", f"a header of {start} bytes")
    shape = struct.unpack_from(f">{rank}I", raw, 4)
    if shape[1:] != item or shape[0] == 0:
        what = "x".join(("N", *map(str, item)))
        raise _bad(path, f"holds an array of shape {'x'.join(map(str, shape))}", f"{what} with N > 0")
    size = start + math.prod(shape)
    if len(raw) != size:
        raise _bad(path, f"has {len(raw)} bytes (uncompressed)", f"{size}, by its header")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def _pair(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    """Pixels, uint8 [N, 1, 28, 28], and labels, int64 [N]; DataError unless they belong together."""
    x, y = _idx(images, IMAGE), _idx(labels, ())
    if len(x) != len(y):
        raise _bad(labels, f"has {len(y)} labels", f"{len(x)}, one for each image of {images}")
    if y.max() >= CLASSES:
        raise _bad(labels, f"holds the label {y.max()}", f"labels from 0 to {CLASSES - 1}")
    return torch.from_numpy(x.copy()).unsqueeze(1), torch.from_numpy(y.astype(np.int64))
