"""The folder beside the Parquet file: one file for every finished run, under its key.

A file has two lines: the SHA-256 of the key and the row, and the row as JSON. What does not match is not
there: it was written by half, or by somebody else, and the run is made again. Files that no point asks for
are left alone.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.core.errors import DiskError
from offbeat.core.system.files import LOCK, held, write_atomically
from offbeat.core.system.reading import content
from offbeat.experiments.sweep.grid import Point
from offbeat.experiments.sweep.record import write_parquet


@dataclass(frozen=True)
class Store:
    """The finished runs of the sweep that writes `out`."""

    out: Path

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.out.with_name(self.out.name + ".runs")

    def has(self, point: Point) -> bool:
        """Whether this run is finished."""
        return self._body(point.key) is not None

    def read(self, point: Point) -> dict[str, Any] | None:
        """The row of a run; None if it is not finished."""
        body = self._body(point.key)
        return None if body is None else json.loads(body)

    def write(self, key: str, row: dict[str, Any]) -> None:
        """Keep a row. Raises DiskError where it cannot be written."""
        body, path = json.dumps(row, allow_nan=False).encode(), self._path(key)
        try:
            if path.is_dir() and not path.is_symlink():
                path.rename(path.with_suffix(".foreign"))
            elif path.is_symlink() or (
                path.exists() and not path.is_file()
            ):  # none of ours, and may lead anywhere
                path.unlink()
            write_atomically(path, _sum(key, body) + b"\n" + body + b"\n")
        except OSError as error:
            raise self._full(error) from error

    def write_table(self, points: Sequence[Point]) -> int:
        """Write the Parquet file of the points that are finished, whole or not at all; how many there are."""
        temporary = self.folder / ".offbeat-table"
        temporary.unlink(missing_ok=True)
        count = 0

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal count
            for point in points:
                row = self.read(point)
                if row is not None:
                    count += 1
                    yield row

        try:
            with temporary.open("xb") as file:  # never through a link that somebody has laid there
                write_parquet(file, rows())
            temporary.replace(self.out.resolve())  # a link stays a link
        except OSError as error:
            raise self._full(error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return count

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes here meanwhile; the lock of a process that was killed is gone with it.

        Raises SettingError if somebody else does, DiskError where the folder cannot be made.
        """
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise self._full(error) from error
        refusal = f"Another sweep is writing {self.out}. Wait for its end, or name another file with --out."
        with held(self.folder, refusal):
            for left in self.folder.glob(".offbeat-*"):  # of a sweep that was killed while it wrote
                left.unlink(missing_ok=True)
            try:
                yield
            finally:  # of a sweep that made no run nothing stays
                if [path.name for path in self.folder.iterdir()] == [LOCK]:
                    (self.folder / LOCK).unlink(missing_ok=True)
                    with suppress(OSError):
                        self.folder.rmdir()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.run"

    def _body(self, key: str) -> bytes | None:
        try:
            head, _, body = content(self._path(key)).partition(b"\n")
        except (OSError, ValueError):
            return None
        body = body.removesuffix(b"\n")
        return body if head == _sum(key, body) else None

    def _full(self, error: OSError) -> DiskError:
        return DiskError(
            f"Cannot write {error.filename or self.folder}: {error.strerror or error}. The runs that are "
            f"finished are in {self.folder}; give the same command again to go on."
        )


def _sum(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\n" + body).hexdigest().encode()
