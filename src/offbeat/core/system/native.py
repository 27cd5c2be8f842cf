"""C functions that are compiled on the machine that runs them, at first use, and kept in the user's cache.

    library, title = loaded(__package__, ("kernel.c",), ("-ffp-contract=off",))

Whoever uses this compares what it computes with what it should, and has another way to do the work, with a
name that gives the reason, wherever one of `FAILURES` comes.
"""

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from offbeat.core.errors import OffbeatError
from offbeat.core.system.reading import content

FLAGS = ("-O3", "-march=native", "-fPIC", "-shared")  # how products and sums are rounded is for each to say


class KernelError(OffbeatError):
    """A compiled function cannot be had, or does not compute what it should."""


# What may come while a library is built, loaded and checked.
FAILURES = (KernelError, subprocess.SubprocessError, OSError, RuntimeError, ValueError, AttributeError)


def loaded(package: str, sources: Sequence[str], flags: Sequence[str]) -> tuple[ctypes.CDLL, str]:
    """The library of these files of the package, which are compiled as one, from the cache if it is there and
    whole; the compiler's title.

    Its name holds all that the result depends on, and the SHA-256 of its own content: what is cut or damaged
    is built anew before anything runs it. Several processes may build it at once. Where the cache cannot be
    written, it is built for this process alone.
    """
    command = _compiler()
    banner = _run([*command, "--version"])
    files = [resources.files(package).joinpath(source) for source in sources]
    text = b"".join([b'#line 1 "%b"\n%b' % (file.name.encode(), file.read_bytes()) for file in files])
    options, named = (*FLAGS, *flags), title(command, banner)
    stem = (
        f"{Path(sources[-1]).stem}-{_sha256(repr((text, command, banner, options, _processor())).encode())}"
    )
    build = [*command, *options, "-x", "c", "-", "-lm", "-o"]
    try:
        folder = _folder()
        library = _cached(folder, stem) or _compiled(build, text, folder, stem)
        return ctypes.CDLL(str(library)), named  # not PyDLL: other threads run
    except OSError:
        with tempfile.TemporaryDirectory() as there:
            return ctypes.CDLL(str(_compiled(build, text, Path(there), stem))), named


def _cached(folder: Path, stem: str) -> Path | None:
    """The library, if it is in the cache as it was written; what is not, is removed."""
    for library in sorted(folder.glob(f"{stem}-*.so")):
        about = library.lstat()
        if about.st_uid != os.geteuid() or not stat.S_ISREG(about.st_mode):
            raise KernelError(f"{library} is not a file of this user")
        if library.name == f"{stem}-{_sha256(content(library))}.so":
            return library
        library.unlink()
    return None


def _compiled(build: Sequence[str], text: bytes, folder: Path, stem: str) -> Path:
    """A new library in that folder, which is there completely or not at all."""
    with tempfile.TemporaryDirectory(dir=folder) as there:
        new = Path(there) / "new.so"
        _run([*build, str(new)], text)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        return new.replace(folder / f"{stem}-{_sha256(content(new))}.so")


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:32]


def _compiler() -> list[str]:
    """The command of a C compiler: that of $CC if it is set, else the first that is found."""
    wanted = shlex.split(os.environ.get("CC", ""))
    found = next(filter(shutil.which, wanted[:1] or ("cc", "gcc", "clang")), None)
    if found is None:
        raise KernelError(f"$CC names {wanted[0]}, which is not found" if wanted else "no C compiler found")
    return wanted or [found]


def title(command: Sequence[str], banner: str) -> str:
    """`gcc 12.2.0` out of what --version prints, whichever name the compiler was called by."""
    by = {"clang": "clang", "Free Software Foundation": "gcc"}
    kind = next((kind for said, kind in by.items() if said in banner), Path(command[0]).name)
    version = re.search(r"\d+(\.\d+)+", re.sub(r"\(.*?\)", "", banner))
    return f"{kind} {version[0]}" if version else kind


def _run(command: Sequence[str], source: bytes = b"") -> str:
    done = subprocess.run(command, input=source, capture_output=True, timeout=60, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines() or ["no message"]
        said = next((line for line in lines if "error" in line), lines[-1])
        raise KernelError(f"{command[0]} failed with exit code {done.returncode}: {said.strip()}")
    return done.stdout.decode(errors="replace")


def _folder() -> Path:
    """The user's cache, closed to everybody else: what lies there is executed."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        folder = (base if base.is_absolute() else Path.home() / ".cache") / "offbeat"
    except RuntimeError as error:  # a user without a home
        raise OSError(str(error)) from None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if {folder.lstat().st_uid, folder.stat().st_uid} != {os.geteuid()}:  # a link, and what it leads to
        raise KernelError(f"{folder} does not belong to this user")
    folder.chmod(0o700)
    return folder


def _processor() -> list[str]:
    """What -march=native depends on: a home directory may be shared by machines that differ."""
    keys = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU ", "Features", "isa", "cpu\t")
    table = Path("/proc/cpuinfo")
    first = table.read_text().split("\n\n")[0].splitlines() if table.exists() else []
    return [platform.machine(), platform.processor(), *(line for line in first if line.startswith(keys))]
