"""Files in shared memory that several processes map: made whole or not at all, private to this user.

What is written by one process becomes visible to the others in the order in which it was written. x86-64
guarantees that; elsewhere plain Python has no way to ask for it, so the runtime refuses.
"""

import errno
import mmap
import os
import platform
from pathlib import Path

from offbeat.core.errors import failed
from offbeat.engines.live.shm.wire import ALIGN, SharedMemoryError


def create(path: Path, size: int, head: bytes) -> mmap.mmap:
    """A new file of `size` bytes that begins with `head`. Raises SharedMemoryError where it does not fit.

    It gets its name when it is complete, so whoever finds it can use it.
    """
    require_ordered_stores()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except OSError as error:
        raise SharedMemoryError(f"Cannot create shared memory: {failed(error)}") from error
    try:
        os.posix_fallocate(handle, 0, size)
        memory = mmap.mmap(handle, size)
        memory[: len(head)] = head
        os.link(temporary, path)
    except FileExistsError:
        raise SharedMemoryError(
            f"Cannot create shared memory {path}: it exists. Is another run using it?"
        ) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise SharedMemoryError(
                f"Cannot create shared memory of {size / 1e6:.1f} MB: {failed(error)}"
            ) from error
        room = os.statvfs(path.parent)
        raise SharedMemoryError(
            f"Shared memory is too small: {size / 1e6:.1f} MB were asked for, {path.parent} has "
            f"{room.f_bavail * room.f_frsize / 1e6:.1f} MB left ({error.strerror}). In a container, give it "
            "more: docker run --shm-size=2g."
        ) from error
    finally:
        os.close(handle)
        temporary.unlink()
    return memory


def attach(path: Path, magic: int, what: str) -> mmap.mmap:
    """Map a file that somebody else made, and that begins with this word.

    Raises SharedMemoryError if there is none, or it is not what it should be.
    """
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
    return SharedMemoryError(
        f"{path} is not {what} of this version of offbeat. Do all agents run the same one?"
    )


def require_ordered_stores() -> None:
    """Raise SharedMemoryError on a processor that may reorder stores."""
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64"):
        raise SharedMemoryError(
            "Registers in shared memory need a processor that keeps the order of stores, as x86-64 does; "
            f"this is {machine}. The simulator (offbeat compare) runs anywhere."
        )
