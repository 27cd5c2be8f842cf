"""Which files may be opened or replaced, and how one is written: whole or not at all."""

import errno
import os
import stat
from pathlib import Path
from tempfile import NamedTemporaryFile


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
                temporary.chmod(path.stat().st_mode if path.exists() else 0o666 & ~_umask())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
