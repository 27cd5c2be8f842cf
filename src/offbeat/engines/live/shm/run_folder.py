"""The folder of a run in shared memory, and the files in it: made whole or not at all, private to this user.

It is alive as long as its lock is held, by the launcher that made it. Anybody may plant anything under such a
name in /dev/shm: what is no folder of this user, closed to all others, is left alone, and none is ever
searched in depth. What one process writes becomes visible to the others in the order in which it was written:
x86-64 guarantees that; elsewhere plain Python has no way to ask for it, so the runtime refuses.
"""

import errno
import json
import mmap
import os
import platform
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.core.errors import failed
from offbeat.core.system.files import Lock, take
from offbeat.engines.live.shm.layout import ALIGN, SharedMemoryError

SHARED = Path("/dev/shm")
PREFIX = f"offbeat-run-{os.getuid()}-"
PLAN = "plan.json"  # in the folder of a machine that is one of several: what its part of the run is
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
        raise SharedMemoryError(f"There is no {SHARED}: real processes need Linux with shared memory.")
    try:
        made = next(filter(None, (_attempt() for _ in range(ATTEMPTS))))
    except (OSError, StopIteration) as error:
        said = getattr(error, "strerror", None) or f"{ATTEMPTS} attempts were disturbed"
        said = f"Cannot make a folder in {SHARED}: {said}. 'offbeat doctor' says more."
        raise SharedMemoryError(said) from error
    try:
        (made.path / "run.json").write_text(json.dumps(dict(settings)))
    except OSError as error:
        made.remove()
        said = f"Cannot write to {SHARED}: {error.strerror or error}. 'offbeat doctor' says how to make room."
        raise SharedMemoryError(said) from error
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
            if _ours(path) and (lock := take(path, sure=True)) is not None:
                yield Shared(path, lock)


def living() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of runs of this user's that go on, and what they say of themselves."""
    for path in sorted(SHARED.glob(f"{PREFIX}*")) if SHARED.is_dir() else []:
        with suppress(OSError, ValueError):
            if not _ours(path):
                continue
            if (lock := take(path, sure=True)) is not None:
                lock.release()
            elif isinstance(said := json.loads((path / "run.json").read_text()), dict):
                yield path, said


def _ours(path: Path) -> bool:
    """Whether it is a folder of this user's, closed to all others."""
    about = path.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077


def sweep() -> list[Path]:
    """Remove what runs left whose launcher was killed; which folders those were."""
    found = []
    for folder in dead():
        folder.remove()
        found.append(folder.path)
    return found


def create(path: Path, size: int, head: bytes, reserved: int | None = None) -> mmap.mmap:
    """A new file of `size` bytes that begins with `head`; it gets its name when it is complete, so whoever
    finds it can use it. Raises SharedMemoryError where it does not fit.

    Args:
        reserved: so many bytes of it are there at once, the others when they are reserved; None: all
    """
    require_ordered_stores()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except OSError as error:
        raise SharedMemoryError(f"Cannot create shared memory: {failed(error)}") from error
    try:
        _allocate(handle, path, size if reserved is None else reserved)
        os.ftruncate(handle, size)
        memory = mmap.mmap(handle, size)
        memory[: len(head)] = head
        os.link(temporary, path)
    except OSError as error:
        said = f"Cannot create shared memory of {size / 1e6:.1f} MB: {failed(error)}"
        if isinstance(error, FileExistsError):
            said = f"Cannot create shared memory {path}: it exists. Is another run using it?"
        raise SharedMemoryError(said) from error
    finally:
        os.close(handle)
        temporary.unlink()
    return memory


def reserve(path: Path, size: int) -> None:
    """Take the memory of a file of which not all is there. Raises SharedMemoryError where it does not fit."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError as error:
        raise SharedMemoryError(f"Cannot attach to shared memory: {failed(error)}") from error
    try:
        _allocate(handle, path, size)
    finally:
        os.close(handle)


def _allocate(handle: int, path: Path, size: int) -> None:
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        said = f"Cannot create shared memory of {size / 1e6:.1f} MB: {failed(error)}"
        if error.errno == errno.ENOSPC:
            left = shutil.disk_usage(path.parent).free / 1e6
            said = (
                f"Shared memory is too small: {size / 1e6:.1f} MB were asked for, {left:.1f} MB are left in "
                f"{path.parent} ({error.strerror}). In a container: docker run --shm-size=2g."
            )
        raise SharedMemoryError(said) from error


def attach(path: Path, magic: int, what: str) -> mmap.mmap:
    """Map a file of somebody else's that begins with this word; SharedMemoryError if it is none."""
    require_ordered_stores()
    try:
        with path.open("r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        if len(mapped) % 8:
            raise ValueError(f"it has {len(mapped)} bytes, which no file of a run has")
    except (OSError, ValueError) as error:
        raise SharedMemoryError(f"Cannot attach to shared memory {path}: {error}.") from error
    if len(mapped) < ALIGN or memoryview(mapped).cast("q")[0] != magic:
        raise not_ours(path, what)
    return mapped


def not_ours(path: Path, what: str) -> SharedMemoryError:
    return SharedMemoryError(f"{path} is not {what} of this offbeat. Do all agents run the same version?")


def require_ordered_stores() -> None:
    """Raise SharedMemoryError on a processor that may reorder stores."""
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64"):
        raise SharedMemoryError(
            "Registers in shared memory need a processor that keeps the order of stores, as x86-64 does; "
            f"this is {machine}. The simulator (offbeat compare) runs anywhere."
        )
