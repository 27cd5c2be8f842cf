"""The processes of a run: started, watched, their output read."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from offbeat.engines.live.launcher.output import OnOutput, Output

READING = 0.05
"""Seconds that output is read before anything else is looked at again: an agent may print without pause."""

POLLED = 0.05
"""Seconds between looks at processes of which the kernel does not report the end."""


@dataclass
class Child:
    """One process of one agent."""

    agent: int
    incarnation: int
    process: subprocess.Popen[bytes]
    pidfd: int | None
    started: float
    output: Output


class Children:
    """All processes; `wait` returns when one has ended, or the bell rings, or the time is over."""

    def __init__(self, bell: int, on_output: OnOutput) -> None:
        self.selector = selectors.DefaultSelector()
        self.selector.register(bell, selectors.EVENT_READ, None)
        self.on_output = on_output
        self.running: dict[int, Child] = {}
        # Every child holds the reading end: it becomes readable when this process is gone, however it went.
        self.lifeline, self._held = os.pipe()

    def start(
        self,
        agent: int,
        incarnation: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: Path,
    ) -> Child:
        """Start an agent's process, in a session of its own: Ctrl-C is for the launcher.

        It imports nothing from the current folder, which may be anybody's.
        """
        process = subprocess.Popen(
            [sys.executable, "-P", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env={**os.environ, **environment,
            "OFFBEAT_LIFELINE": str(self.lifeline)},
            pass_fds=[self.lifeline], start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        read = Output(agent, process.stdout.fileno(), output, self.on_output)
        child = Child(agent, incarnation, process, pidfd(process.pid), time.monotonic(), read)
        self.selector.register(process.stdout, selectors.EVENT_READ, ("output", child))
        if child.pidfd is not None:
            self.selector.register(child.pidfd, selectors.EVENT_READ, ("ended", child))
        self.running[agent] = child
        return child

    def wait(self, timeout: float | None) -> list[Child]:
        """The children that have ended meanwhile, all their output read."""
        ended, printed = [], []
        unreported = [child for child in self.running.values() if child.pidfd is None]
        if unreported:
            timeout = POLLED if timeout is None else min(timeout, POLLED)
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                with suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif key.data[0] == "output":
                printed.append(key.data[1])
            else:
                ended.append(key.data[1])
        self._read(printed)
        ended += [child for child in unreported if _has_ended(child.process.pid)]
        for child in ended:
            self._close(child)
        return ended

    def signal(self, number: signal.Signals, agents: Sequence[int] | None = None) -> None:
        """Send a signal to these agents, or to all."""
        for agent in list(self.running) if agents is None else agents:
            child = self.running.get(agent)
            if child is not None:
                with suppress(ProcessLookupError):
                    child.process.send_signal(number)

    def close(self) -> None:
        """Kill whatever still runs."""
        self.signal(signal.SIGKILL)
        for child in list(self.running.values()):
            child.process.wait()
            self._close(child)
        self.selector.close()
        os.close(self._held)
        os.close(self.lifeline)

    def _close(self, child: Child) -> None:
        child.process.wait()
        child.output.finish()
        assert child.process.stdout is not None
        with suppress(KeyError):
            self.selector.unregister(child.process.stdout)
        if child.pidfd is not None:
            self.selector.unregister(child.pidfd)
            os.close(child.pidfd)
        child.process.stdout.close()
        del self.running[child.agent]

    def _read(self, children: Iterable[Child]) -> None:
        """A little of each, round and round, until nothing is left or the time is over; the others are next
        then.
        """
        waiting = deque(sorted(children, key=lambda child: child.output.read_at))
        end = time.monotonic() + READING
        while waiting and time.monotonic() < end:
            child = waiting.popleft()
            if child.output.read():
                waiting.append(child)
            elif child.output.ended:  # the process may live on
                self.selector.unregister(child.output.handle)


def pidfd(pid: int) -> int | None:
    """A file that can be read when the process has ended; None where the system offers none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def noticed() -> str:
    """How the end of a process is noticed here."""
    if (handle := pidfd(os.getpid())) is not None:
        os.close(handle)
        return "reported by the kernel (pidfd)"
    why = (
        "the kernel or the container refuses pidfd_open" if hasattr(os, "pidfd_open") else "no os.pidfd_open"
    )
    return f"{why}: looked for every {1000 * POLLED:.0f} ms"


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; its exit code is still to be had."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
