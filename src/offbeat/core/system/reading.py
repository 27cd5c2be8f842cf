"""How all files are read that may be damaged, swapped, hostile, or of a newer version.

    with reading(path, "a trace that offbeat wrote"):
        head = json.loads(content(path))      # whatever is raised in here, and is no error of ours already,
        ...                                   # becomes a DataError that names the file and both sides

What is no regular file is refused before it is opened; sizes are checked before anything is allocated.
"""

import json
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, BinaryIO
from zipfile import ZipFile

import numpy as np

from offbeat.core.errors import DataError, OffbeatError
from offbeat.core.system.files import irregular

LARGEST = 4_000_000_000  # bytes of a file that is read as a whole
LARGEST_JSON = 100_000_000  # the same for JSON and other text
SMALL, MOST_TIMES = 64_000_000, 200  # bytes that may always be inflated; beyond, so many times what is stored
UNSAYING = (  # exceptions whose messages say little without their names
    LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError, UnicodeError,
)  # fmt: skip
SHOWN = 300  # characters of a parser's message that are shown


@contextmanager
def reading(path: str | os.PathLike[str], expected: str, do: str = "") -> Iterator[None]:
    """Whatever a parser raises becomes a DataError: the file, what was found, what is `expected`; to `do`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OffbeatError) and (not isinstance(error, DataError) or str(path) in str(error)):
            raise
        found = f"{path} cannot be read ({_found(error)})"
        if isinstance(error, FileNotFoundError):
            found = f"There is no {'file' if Path(path).suffix else 'file or folder'} {path}"
        raise DataError(f"{found}; expected {expected}. {do}".rstrip()) from error


def _found(error: Exception) -> str:
    """What a parser has to say, in a line that a terminal can show; or one of our own errors, as it is."""
    if isinstance(error, DataError):
        return str(error).rstrip(".")
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if not said or isinstance(error, UNSAYING):
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    plain = "".join(c if c.isprintable() else " " for c in said)
    return shorten(plain, SHOWN).rstrip(".")


def opened(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, to be read. Raises ValueError for what may have no end: a pipe, a device."""
    if what := irregular(Path(path).stat().st_mode):
        raise ValueError(f"it is {what}")
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if what := irregular(os.fstat(file.fileno()).st_mode):  # it may have been swapped
        file.close()
        raise ValueError(f"it is {what}")
    return file


def content(path: str | os.PathLike[str], most: int = LARGEST) -> bytes:
    """All bytes of a regular file. Raises ValueError if there are more than `most`."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size:,} bytes, more than {most:,}")
        return file.read(most)


def json_in(path: str | os.PathLike[str]) -> Any:
    return json.loads(content(path, LARGEST_JSON))


def refuse_unknown(settings: Mapping[str, Any], kinds: Mapping[str, Set[type]]) -> None:
    """Raise ValueError for a setting without kinds, or of another kind; where none are named, any fits."""
    for name, value in settings.items():
        if name not in kinds:
            raise ValueError(f"the setting '{name}' is not known: it is of another version of offbeat")
        if kinds[name] and type(value) not in kinds[name]:
            raise ValueError(f"the setting '{name}' is {value!r:.60}")


def refuse_newer(path: str | os.PathLike[str], got: object, known: str) -> None:
    """Raise DataError if a file says that it is of a later version, `got`, than is `known`: 'trace 1'."""
    name, _, version = known.rpartition(" ")
    match = re.fullmatch(rf"{name} (\d{{1,9}})", got) if isinstance(got, str) else None
    if match and int(match[1]) > int(version):
        said = f"it says '{got}', this one reads up to '{known}'"
        raise DataError(f"{path} was written by a newer offbeat: {said}. Upgrade offbeat.")


def check_inflated(plain: int, stored: int) -> None:
    """Raise ValueError if so many bytes, to be inflated from `stored` ones, cannot be meant."""
    if plain > max(SMALL, MOST_TIMES * stored):
        raise ValueError(f"its {stored:,} bytes would be inflated to {plain:,}")


def array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in a .npy file; no objects."""
    with opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _array(file, os.fstat(file.fileno()).st_size)


def arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays in a .npz file, by name, each checked against its checksum; no objects."""
    with opened(path) as file, ZipFile(file) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        members = archive.infolist()
        check_inflated(sum(member.file_size for member in members), os.fstat(file.fileno()).st_size)
        found = {}
        for member in members:
            with archive.open(member) as stream:
                found[member.filename.removesuffix(".npy")] = _array(stream, member.file_size)
                stream.read(1)  # the end is where the checksum is compared
        return found


def _array(stream: Any, size: int) -> np.ndarray:
    """The array in these bytes. Raises ValueError unless its head says how many there are."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is an array of format {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    declared = stream.tell() + dtype.itemsize * math.prod(shape)
    if declared != size:
        raise ValueError(f"its head says {declared:,} bytes, and there are {size:,}")
    stream.seek(0)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
