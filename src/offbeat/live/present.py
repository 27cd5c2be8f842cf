"""Notices that a folder that a run works in, or a file that it writes, has been taken away while the run goes on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class Present:
    """These paths, once they have been there, stay the same files and folders.

    Who writes to a file that has no name any more gets no error; so somebody has to look.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._seen = {path: _identity(path) for path in paths}

    def gone(self) -> Path | None:
        """The first that was there, and is not any more, or is another one."""
        for path, before in self._seen.items():
            now = _identity(path)
            if before is not None and now != before:
                return path
            self._seen[path] = now
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return about.st_dev, about.st_ino
