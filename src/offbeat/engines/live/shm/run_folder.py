"""The folder of a run in shared memory: made, told from those of dead runs, removed.

It is alive as long as its lock is held, by the launcher that made it. Anybody may plant anything under such a
name in /dev/shm: what is no folder of this user, closed to all others, is left alone, and none is ever
searched in depth.
"""

import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.core.system.locks import Lock, take
from offbeat.engines.live.shm.memory import require_ordered_stores
from offbeat.engines.live.shm.wire import SharedMemoryError

SHARED = Path("/dev/shm")
PREFIX = f"offbeat-run-{os.getuid()}-"
ATTEMPTS = 100


@dataclass(frozen=True)
class Shared:
    """A folder in shared memory, and its lock, which this process holds."""

    path: Path
    lock: Lock

    def remove(self) -> None:
        """Remove the folder and its files. Folders in it, which no run makes, stay, and it with them."""
        with suppress(OSError):
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                with os.scandir(handle) as entries:
                    for entry in [*entries]:
                        with suppress(OSError):
                            os.unlink(entry.name, dir_fd=handle)
            finally:
                os.close(handle)
            self.path.rmdir()
        self.lock.release()


def make_run_folder(settings: Mapping[str, Any]) -> Shared:
    """A new folder in shared memory that only this user may enter, with the settings of the run."""
    require_ordered_stores()
    if not SHARED.is_dir():
        raise SharedMemoryError(
            f"There is no {SHARED}: the runtime of real processes needs Linux with shared memory."
        )
    try:
        made = next(filter(None, (_attempt() for _ in range(ATTEMPTS))))
    except (OSError, StopIteration) as error:
        said = getattr(error, "strerror", None) or f"{ATTEMPTS} attempts were disturbed"
        raise SharedMemoryError(
            f"Cannot make a folder in {SHARED}: {said}. 'offbeat doctor' says more."
        ) from error
    try:
        (made.path / "run.json").write_text(json.dumps(dict(settings)))
    except OSError as error:
        made.remove()
        raise SharedMemoryError(
            f"Cannot write to {SHARED}: {error.strerror or error}. 'offbeat doctor' says how to make room "
            "there."
        ) from error
    return made


def _attempt() -> Shared | None:
    """A new folder, locked; None where somebody has taken it for a dead one before it was."""
    path = SHARED / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    with suppress(FileExistsError, FileNotFoundError):
        path.mkdir(mode=0o700)
        lock = take(path, sure=True)
        return None if lock is None else Shared(path, lock)
    return None


def dead() -> Iterator[Shared]:
    """The folders of runs whose launcher is gone, each locked until the next is asked for."""
    for path in sorted(SHARED.glob(f"{PREFIX}*")) if SHARED.is_dir() else []:
        with suppress(OSError):
            about = path.lstat()
            ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077
            if ours and (lock := take(path, sure=True)) is not None:
                yield Shared(path, lock)


def sweep() -> list[Path]:
    """Remove what runs left whose launcher was killed; which folders those were."""
    found = []
    for folder in dead():
        folder.remove()
        found.append(folder.path)
    return found
