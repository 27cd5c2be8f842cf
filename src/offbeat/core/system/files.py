"""Which files may be opened or replaced; how one is written, whole or not at all; locks on folders."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from offbeat.core.errors import DiskError, SettingError

RUNS = "offbeat-runs"  # the folder in the current one in which results are, unless another is named
LOCK = ".lock"  # the lock's file, in the folder that it is for
WITHOUT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # what a file system says that has no locks


def as_file_name(text: str) -> str:
    """What something is called as the name of a file, without characters that mean something to shells."""
    return re.sub(r"[^\w.+=]+", "-", text).strip("-")


def irregular(mode: int) -> str:
    """What a file of this mode is instead of a regular one: "a folder", say; empty if it is regular."""
    if stat.S_ISREG(mode):
        return ""
    return "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "no regular file"


def refuse_irregular(path: Path) -> None:
    """Raise OSError if something is in the place of a file to be written that is no regular file."""
    if path.exists() and (what := irregular(path.stat().st_mode)):
        raise OSError(errno.EINVAL, f"it is {what}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old one or the new one, even after a power failure.

    Raises OSError, with the file's name, also where a pipe, a device or a folder would be replaced.
    """
    path = path.resolve()  # a link stays a link
    try:
        refuse_irregular(path)
        with NamedTemporaryFile(dir=path.parent, prefix=".offbeat-", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                file.close()
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(path.stat().st_mode if path.exists() else 0o666 & ~mask)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


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
    path = folder / LOCK
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
        raise DiskError(f"Cannot lock {folder / LOCK}: {error.strerror or error}.") from error
    if lock is None:
        raise SettingError(refusal)
    try:
        yield
    finally:
        lock.release()
