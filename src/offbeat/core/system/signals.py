"""What ends a process: SIGTERM and SIGHUP, which keep what is done as Ctrl-C does; the end of its parent."""

import ctypes
import os
import select
import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

HANG_UP = getattr(signal, "SIGHUP", None)  # a connection has dropped; terminal and shell may each send it
PR_SET_PDEATHSIG = 1  # of prctl(2)
AGAIN = 0.05  # seconds after which an interrupt comes again that Python ignored, as in a finalizer


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a job of a cluster or a container, or SIGHUP."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def handled(handler: Callable[[int], object], *more: signal.Signals) -> Iterator[None]:
    """Have SIGTERM, SIGHUP and `more` call this meanwhile; SIGHUP only once, and never under nohup."""
    hung_up = False

    def called(number: int, _: FrameType | None) -> None:
        nonlocal hung_up
        if not (hung_up and number == HANG_UP):
            hung_up = hung_up or number == HANG_UP
            handler(number)

    numbers = [signal.SIGTERM, *more]
    if HANG_UP is not None and signal.getsignal(HANG_UP) is not signal.SIG_IGN:
        numbers.append(HANG_UP)
    before = {number: signal.signal(number, called) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            if signal.getsignal(number) is called:  # else one within has caught it: it is ignored since
                signal.signal(number, signal.SIG_IGN if hung_up and number == HANG_UP else former)


@contextmanager
def terminable() -> Iterator[None]:
    """Have these signals raise Terminated meanwhile; none, nor Ctrl-C, is lost in a finalizer."""

    def terminate(number: int) -> NoReturn:
        raise Terminated(number)

    def ignored(lost: "sys.UnraisableHookArgs") -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):  # it comes again, when the finalizer is over
            number = exit_code(lost.exc_value) - 128
            threading.Timer(AGAIN, interrupt_main, (number,)).start()
        else:
            before(lost)

    before, sys.unraisablehook = sys.unraisablehook, ignored
    try:
        with handled(terminate):
            yield
    finally:
        sys.unraisablehook = before


class _Calls:
    """Who is told of errors where C code calls Python, by thread; meanwhile Python's hook is `ignored`."""

    def __init__(self) -> None:
        self.lock, self.keepers = threading.Lock(), dict[int, Callable[[BaseException], None]]()
        self.before, self.telling = sys.unraisablehook, set[int]()

    def ignored(self, lost: "sys.UnraisableHookArgs") -> None:
        here = threading.get_ident()
        keep = self.keepers.get(here)
        if keep is not None and "ctypes callback" in (lost.err_msg or "") and lost.exc_value:
            keep(lost.exc_value)
        elif here in self.telling:  # another hook, which was put in meanwhile, goes on to this one
            sys.__unraisablehook__(lost)
        else:
            self.telling.add(here)
            try:
                self.before(lost)
            finally:
                self.telling.discard(here)


_CALLS = _Calls()
_HOOK = _CALLS.ignored  # one object, so that it is known again


@contextmanager
def kept_from_calls(keep: Callable[[BaseException], None]) -> Iterator[None]:
    """Have this called meanwhile with what is raised where C code calls Python, in this thread; also by a
    signal such as Ctrl-C, which comes before the call has begun. Else Python says that it ignores it. Threads
    may overlap, but do not nest.
    """
    calls, here = _CALLS, threading.get_ident()
    try:
        with calls.lock:
            if sys.unraisablehook is not _HOOK:
                calls.before, sys.unraisablehook = sys.unraisablehook, _HOOK
            calls.keepers[here] = keep
        yield
    finally:
        with calls.lock:
            calls.keepers.pop(here, None)
            if not calls.keepers and sys.unraisablehook is _HOOK:
                sys.unraisablehook = calls.before


@contextmanager
def deferred() -> Iterator[None]:
    """Have one of these signals, or Ctrl-C, wait until this is done; one more ends it at once."""
    came: list[int] = []

    def note(number: int) -> None:
        came.append(number)
        if len(came) > 1:
            raise _interrupt(number)

    with handled(note, signal.SIGINT):
        yield
    if came:
        raise _interrupt(came[0])


def _interrupt(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """The exit code of a command that this has ended."""
    return 128 + (interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT)


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
