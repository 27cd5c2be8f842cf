"""The server that worker processes are forked from: it imports everything once, for all of them."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_all_start_methods

from offbeat.core.errors import SettingError
from offbeat.core.system.signals import HANG_UP

SOCKETS = 107 - len("/pymp-12345678/listener-12345678")  # bytes of a folder's path with sockets below it
SHORT = ("/tmp", "/var/tmp", "/dev/shm")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def possible() -> bool:
    """Whether this system can have it."""
    return "forkserver" in get_all_start_methods()


def start_server() -> None:
    """Start the process that workers are forked from, unless it is there. It imports everything, for seconds;
    this process goes on meanwhile, until it asks for the first worker.
    """
    forkserver.set_forkserver_preload(["offbeat.cli.preloaded"])
    with _undisturbed(), _short_paths():
        forkserver.ensure_running()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What is started here has this process's modules and one thread, and leaves signals to this process."""
    path = os.pathsep.join(filter(None, sys.path))  # without the current folder, which may be anybody's
    changed = {**dict.fromkeys(THREADS, "1"), "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in changed}
    main = threading.current_thread() is threading.main_thread()
    ignored = [number for number in (signal.SIGINT, HANG_UP) if main and number is not None]
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _short_paths() -> Iterator[None]:
    """A folder for temporary files with a path short enough for sockets, where TMPDIR names a longer one."""
    before, named = tempfile.tempdir, tempfile.gettempdir()
    if len(os.fsencode(named)) > SOCKETS:
        short = next((folder for folder in SHORT if os.access(folder, os.W_OK | os.X_OK)), None)
        if short is None:
            much = f"too long for the sockets of worker processes, which allow {SOCKETS} bytes"
            raise SettingError(f"TMPDIR, {named}, is {much}. Name a shorter folder, or use --workers 1.")
        tempfile.tempdir = short
    try:
        yield
    finally:
        tempfile.tempdir = before
