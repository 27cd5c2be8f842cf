"""Notices that a folder that a run works in, or a file that it writes, has been taken away while the run goes
on.
"""

import os
from collections.abc import Iterable
from pathlib import Path


class Present:
    """These folders stay the same ones, and these files, once they have been there, stay there.

    Who writes to a file that has no name any more gets no error; so somebody has to look.
    """

    def __init__(self, folders: Iterable[Path], files: Iterable[Path]) -> None:
        # Open, so that no file system gives one of them another number meanwhile.
        self._folders = {path: os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in folders}
        self._files = dict.fromkeys(files, False)

    def gone(self) -> Path | None:
        """The first that was there, and is not any more, or is another folder."""
        for path, handle in self._folders.items():
            try:
                same = os.path.samestat(path.stat(), os.fstat(handle))
            except (FileNotFoundError, NotADirectoryError):
                same = False
            if not same:
                return path
        for path, seen in self._files.items():
            if seen and not path.exists():
                return path
            self._files[path] = seen or path.exists()
        return None

    def close(self) -> None:
        """Close the folders."""
        for handle in self._folders.values():
            os.close(handle)
