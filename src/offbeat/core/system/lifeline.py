"""How a process ends with the one that started it, even while it is stopped or blocked in C code."""

import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent(lifeline: int | None = None) -> None:
    """Have the kernel kill this process when the thread that started it ends; only Linux does so.

    A parent that was gone already is noticed by the `lifeline`, a pipe whose other end it alone holds.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if lifeline is not None and readable([lifeline], 0.0):
        os._exit(1)


def readable(files: list[int], timeout: float | None) -> list[int]:
    """Which of these files can be read, as soon as one can, or so many seconds have passed."""
    if max(files, default=0) < 1024:  # select waits to the microsecond, but knows no others
        return [*select.select(files, [], [], timeout)[0]]
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return [file for file, _ in poll.poll(None if timeout is None else 1000 * timeout)]
