"""The processes of a run: started, watched, their output passed on line by line."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

REMEMBERED = 40
"""Lines of an agent's output that an error report may quote."""

Say = Callable[[int, str], None]


@dataclass
class Child:
    """One process of one agent."""

    agent: int
    incarnation: int
    process: subprocess.Popen[bytes]
    pidfd: int
    started: float
    output: Path
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    rest: bytes = b""


class Children:
    """All processes; `wait` returns when one has ended, or the bell rings, or the time is over."""

    def __init__(self, bell: int, say: Say) -> None:
        self.selector = selectors.DefaultSelector()
        self.selector.register(bell, selectors.EVENT_READ, None)
        self.say = say
        self.keeping = True  # whether output is still written to files
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
        child = Child(agent, incarnation, process, os.pidfd_open(process.pid), time.monotonic(), output)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self.selector.register(process.stdout, selectors.EVENT_READ, ("output", child))
        self.selector.register(child.pidfd, selectors.EVENT_READ, ("ended", child))
        self.running[agent] = child
        return child

    def wait(self, timeout: float | None) -> list[Child]:
        """The children that have ended meanwhile, all their output read."""
        ended = []
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                with suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif key.data[0] == "output":
                self._read(key.data[1])
            else:
                ended.append(key.data[1])
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
        self._read(child)
        if child.rest:
            self._line(child, child.rest)
        assert child.process.stdout is not None
        with suppress(KeyError):
            self.selector.unregister(child.process.stdout)
        self.selector.unregister(child.pidfd)
        child.process.stdout.close()
        os.close(child.pidfd)
        del self.running[child.agent]

    def _read(self, child: Child) -> None:
        assert child.process.stdout is not None
        with suppress(BlockingIOError):
            while data := os.read(child.process.stdout.fileno(), 1 << 16):
                *lines, child.rest = (child.rest + data).split(b"\n")
                for line in lines:
                    self._line(child, line)
            with suppress(KeyError):  # at its end; the process may live on
                self.selector.unregister(child.process.stdout)

    def _line(self, child: Child, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        child.lines.append(text)
        self.say(child.agent, text)
        if self.keeping:
            try:
                with child.output.open("ab") as file:
                    file.write(line + b"\n")
            except OSError as error:
                self.keeping = False
                self.say(child.agent, f"(the output is no longer kept: {child.output}: {error.strerror or error})")
