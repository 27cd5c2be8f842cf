"""Signals that end a command as Ctrl-C does, keeping what is done: SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

HANG_UP = getattr(signal, "SIGHUP", None)  # a connection has dropped; terminal and shell may each send it
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

    def ignored(lost: sys.UnraisableHookArgs) -> None:
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


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """The exit code of a command that this has ended."""
    return 128 + (interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT)
