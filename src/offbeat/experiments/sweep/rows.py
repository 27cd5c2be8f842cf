"""Finished runs in a folder, each in a file under its key.

A file has two lines: the SHA-256 of the key and the run, and the run as JSON. What does not match is not
there: it was written by half, or by somebody else, and the run is made again.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.core.errors import DiskError
from offbeat.core.system.files import LOCK, held, write_atomically
from offbeat.core.system.reading import content, reading

RUN = ".run"  # how the name of a run's file ends
VERSIONS = "versions.json"  # file -> version of what a sweep's runs are made of, as it was begun last


@dataclass(frozen=True)
class Rows:
    """The finished runs in this folder."""

    folder: Path

    def read(self, key: str) -> Any:
        """What was kept of a run; None if it is not finished."""
        try:
            body = intact(content(self._path(key)), key)
        except (OSError, ValueError):
            return None
        return None if body is None else json.loads(body)

    def write(self, key: str, row: dict[str, Any]) -> None:
        """Keep a run. Raises DiskError where it cannot be written."""
        body, path = json.dumps(row, allow_nan=False).encode(), self._path(key)
        try:
            if path.is_dir() and not path.is_symlink():
                path.rename(path.with_suffix(".foreign"))
            elif path.is_symlink() or (path.exists() and not path.is_file()):
                path.unlink()  # none of ours, and may lead anywhere
            write_atomically(path, _sum(key, body) + b"\n" + body + b"\n")
        except OSError as error:
            raise self.full(error) from error

    @contextmanager
    def locked(self, refusal: str) -> Iterator[None]:
        """Nobody else writes here meanwhile; the lock of a process that was killed is gone with it. Raises
        SettingError, the refusal, if somebody else does, DiskError where the folder cannot be made.
        """
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise self.full(error) from error
        with held(self.folder, refusal):
            for left in self.folder.glob(".offbeat-*"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            try:
                yield
            finally:  # where no run was made nothing stays
                if {path.name for path in self.folder.iterdir()} <= {LOCK, VERSIONS}:
                    for name in (VERSIONS, LOCK):
                        (self.folder / name).unlink(missing_ok=True)
                    with suppress(OSError):
                        self.folder.rmdir()

    def full(self, error: OSError) -> DiskError:
        """What is said where something cannot be written."""
        why = f"Cannot write {error.filename or self.folder}: {error.strerror or error}."
        if not any(self.folder.glob(f"*{RUN}")):
            return DiskError(f"{why} No run is kept. Expected a folder that can be written, with space left.")
        kept = f"The runs that are finished are in {self.folder}"
        return DiskError(f"{why} {kept}; give the same command again to go on.")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{RUN}"


def rows_in(folder: Path, what: str, advice: str) -> Iterator[tuple[Path, Any]]:
    """All runs that were kept in a folder, by name: file, and what was kept.

    Raises DataError for a file that is damaged: it says what was expected, and what to do.
    """
    for path in sorted(folder.glob(f"*{RUN}")):
        with reading(path, what, advice):
            body = intact(content(path), path.stem)
            if body is None:
                raise ValueError("its checksum does not match")
            row = json.loads(body)
        yield path, row


def intact(written: bytes, key: str) -> bytes | None:
    """The run as JSON in what was written under this key; None where it is damaged."""
    head, _, body = written.partition(b"\n")
    body = body.removesuffix(b"\n")
    return body if head == _sum(key, body) else None


def _sum(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\n" + body).hexdigest().encode()
