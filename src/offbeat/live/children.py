"""The processes of a run: started, watched, their output read."""

from __future__ import annotations

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

from offbeat.live.output import Output, Say

READING = 0.05
"""Seconds that output is read before anything else is looked at again: an agent may print without pause."""


@dataclass
class Child:
    """One process of one agent."""

    agent: int
    incarnation: int
    process: subprocess.Popen[bytes]
    pidfd: int
    started: float
    output: Output


class Children:
    """All processes; `wait` returns when one has ended, or the bell rings, or the time is over."""

    def __init__(self, bell: int, say: Say) -> None:
        self.selector = selectors.DefaultSelector()
        self.selector.register(bell, selectors.EVENT_READ, None)
        self.say = say
        self.running: dict[int, Child] = {}
        # Every child holds the reading end: it becomes readable when this process is gone, however it went.
        self.lifeline, self._held = os.pipe()

    def start(
        self, agent: int, incarnation: int, command: Sequence[str], environment: Mapping[str, str], output: Path
    ) -> Child:
        """Start an agent's process, in a session of its own: Ctrl-C is for the launcher."""
        process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **environment, "OFFBEAT_LIFELINE": str(self.lifeline)}, pass_fds=[self.lifeline],
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        read = Output(agent, process.stdout.fileno(), output, self.say)
        child = Child(agent, incarnation, process, os.pidfd_open(process.pid), time.monotonic(), read)
        self.selector.register(process.stdout, selectors.EVENT_READ, ("output", child))
        self.selector.register(child.pidfd, selectors.EVENT_READ, ("ended", child))
        self.running[agent] = child
        return child

    def wait(self, timeout: float | None) -> list[Child]:
        """The children that have ended meanwhile, all their output read."""
        ended, printed = [], []
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                with suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif key.data[0] == "output":
                printed.append(key.data[1])
            else:
                ended.append(key.data[1])
        self._read(printed)
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
        self.selector.unregister(child.pidfd)
        child.process.stdout.close()
        os.close(child.pidfd)
        del self.running[child.agent]

    def _read(self, children: Iterable[Child]) -> None:
        """A little of each, round and round, until nothing is left or the time is over; the others are next then."""
        waiting = deque(sorted(children, key=lambda child: child.output.read_at))
        end = time.monotonic() + READING
        while waiting and time.monotonic() < end:
            child = waiting.popleft()
            if child.output.read():
                waiting.append(child)
            elif child.output.ended:  # the process may live on
                self.selector.unregister(child.output.handle)
