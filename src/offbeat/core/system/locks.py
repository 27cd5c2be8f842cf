"""Locks on folders. A process holds one until it ends, however it ends, also against other containers."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from offbeat.core.errors import DiskError, SettingError
from offbeat.core.system.files import irregular

NAME = ".lock"  # the lock's file, in the folder that it is for
WITHOUT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # what a file system says that has no locks


@dataclass(frozen=True)
class Lock:
    """Held until it is released, or this process ends; processes that it starts do not hold it."""

    handle: int

    def release(self) -> None:
        os.close(self.handle)


def take(folder: Path, sure: bool = False) -> Lock | None:
    """Take the lock of this folder; None if somebody else has it, or has just removed it.

    Where the file system has no locks nobody is kept out, unless `sure`: then that is an OSError, as is
    anything in the lock's place that is no regular file.
    """
    try:
        import fcntl
    except ImportError:
        raise SettingError(f"This system cannot lock {folder}; expected Linux or macOS.") from None
    path = folder / NAME
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        if what := irregular(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, f"it is {what}", str(path))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if sure or error.errno not in WITHOUT:
                raise
        if not os.path.samestat(path.lstat(), os.fstat(handle)):
            raise BlockingIOError  # whoever had it has removed it, and somebody has made another
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError | FileNotFoundError):
            return None
        raise
    return Lock(handle)


@contextmanager
def held(folder: Path, refusal: str) -> Iterator[None]:
    """Hold this folder's lock. Raises SettingError, the refusal, if another does; DiskError if it fails."""
    try:
        lock = take(folder)
    except OSError as error:
        raise DiskError(f"Cannot lock {folder / NAME}: {error.strerror or error}.") from error
    if lock is None:
        raise SettingError(refusal)
    try:
        yield
    finally:
        lock.release()
