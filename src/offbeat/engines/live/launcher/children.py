"""The processes of a run: started, watched, and what they print, as it comes: line by line, and bounded.

A carriage return begins a line anew, as on a terminal: of a progress bar, its newest state counts.
"""

import math
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from offbeat.core.errors import OffbeatError

READING = 0.05  # seconds that output is read before anything else: an agent may print without pause
POLLED = 0.05  # seconds between looks at processes of which the kernel does not report the end
CHUNK, LONGEST = 1 << 10, 1 << 14  # bytes that are read at once, and of a line: a longer one is broken
REMEMBERED = 40  # lines of an agent's output that an error report may quote

OnOutput = Callable[[int, str], None]

RANKS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_|NODE_)?(RANK|WORLD_SIZE)|TORCHELASTIC_.*|(OMPI|MV2)_COMM_WORLD_.*|PMIX?_.*"
    r"|MPI_LOCAL(RANKID|NRANKS)|JSM_NAMESPACE_.*"
    r"|SLURM_(NTASKS|NTASKS_PER_NODE|NPROCS|PROCID|LOCALID|STEP_NUM_TASKS)"
)
"""What torchrun, mpirun, jsrun and srun call the number of a process, and of all. A launcher may have such a
one; what its agents inherited of it, Accelerate and Lightning would take for theirs, and wait for the others.
"""


class Output:
    """The output of one process, from `handle`; a file keeps it, as a terminal would show it.

    `on_output` is called with the agent and every line that has ended.
    """

    def __init__(self, agent: int, handle: int, path: Path, on_output: OnOutput) -> None:
        os.set_blocking(handle, False)
        self.agent, self.handle, self.path, self.on_output = agent, handle, path, on_output
        self.lines: deque[str] = deque(maxlen=REMEMBERED)  # the last that have ended
        self.newest = ""  # the line that has not ended yet
        self.ended, self.read_at = False, 0.0
        self._keeping, self._rest = True, b""
        self._at = 1 << 62  # where in the file the line that has not ended begins

    def read(self) -> bool:
        """Take a little of what is there; whether there may be more."""
        self.read_at = time.monotonic()
        try:
            data = os.read(self.handle, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.ended = True
            return False
        *lines, rest = (self._rest + data).split(b"\n")
        rest = _restarted(rest)
        if len(rest) > LONGEST:
            lines, rest = [*lines, rest], b""
        self._take(lines, rest)
        return True

    def finish(self) -> None:
        """The process is gone: take the rest, at most a pipe full; others may hold it open, and print on."""
        left = 1 << 20
        while left > 0 and self.read():
            left -= CHUNK
        if self._rest:
            self._take([self._rest], b"")

    def keep(self, text: str) -> None:
        """Lines for the file alone."""
        self._write(text.encode(errors="replace").split(b"\n"))

    def _take(self, lines: Sequence[bytes], rest: bytes) -> None:
        shown = [_restarted(line).rstrip(b"\r") for line in lines]
        self._rest, self.newest = rest, _text(rest)
        self._write(shown)
        for line in shown:
            self.lines.append(_text(line))
            self.on_output(self.agent, self.lines[-1])

    def _write(self, lines: Sequence[bytes]) -> None:
        """These lines, and after them the one that has not ended, in place of what was there of it."""
        if not self._keeping:
            return
        whole = b"".join(line + b"\n" for line in lines)
        content = whole + self._rest
        try:
            with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
                size, done = os.fstat(file.fileno()).st_size, 0
                self._at = min(self._at, size)
                while done < len(content):
                    done += os.pwrite(file.fileno(), content[done:], self._at + done)
                if self._at + done < size:
                    file.truncate(self._at + done)
            self._at += len(whole)
        except OSError as error:
            self._keeping = False
            said = f"(the output is no longer kept: {self.path}: {error.strerror or error})"
            self.on_output(self.agent, said)


@dataclass
class Child:
    """One process of one agent."""

    agent: int
    incarnation: int
    process: subprocess.Popen[bytes]
    pidfd: int | None
    started: float
    output: Output

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int:
        """Its exit code once it has ended, negative for a signal."""
        return self.process.returncode


class NoRoom(OffbeatError):
    """There is no machine on which an agent could be started now; the message says why."""


class Printed(Protocol):
    """What a process has printed, wherever that is read."""

    lines: deque[str]
    newest: str

    def keep(self, text: str) -> None: ...


class Life(Protocol):
    """One process of one agent, wherever it is: what a launcher asks of a `Child`."""

    agent: int
    incarnation: int
    started: float

    @property
    def pid(self) -> int: ...
    @property
    def code(self) -> int: ...
    @property
    def output(self) -> Printed: ...


class Processes(Protocol):
    """The processes of a run, wherever they are: what a launcher asks of `Children`."""

    @property
    def running(self) -> MutableMapping[int, Any]: ...  # agent -> its `Life`
    def start(
        self, agent: int, incarnation: int, command: Sequence[str], more: Mapping[str, str], output: Path
    ) -> Life:
        """Start an agent's process. Raises NoRoom where that cannot be now."""

    def wait(self, timeout: float) -> Sequence[Life]: ...
    def signal(self, number: signal.Signals, agents: Sequence[int] | None = None) -> None: ...
    def see_models(self, most: float = math.inf) -> None: ...
    def close(self) -> None: ...
    @property
    def links(self) -> Mapping[int, "MachineSeen"]: ...  # machine -> what is seen of it; none on one machine
    def machine(self, agent: int) -> int: ...  # where an agent lives


@dataclass(frozen=True)
class MachineSeen:
    """What a launcher sees of another machine.

    Attributes:
        name: with its number
        age: seconds since its last answer
        received: bytes of models that have come from there
    """

    name: str
    age: float
    received: int


class Children:
    """All processes; `wait` returns when one has ended, or the bell rings, or the time is over."""

    def __init__(self, bell: int, on_output: OnOutput) -> None:
        self.selector = selectors.DefaultSelector()
        self.selector.register(bell, selectors.EVENT_READ, None)
        self.on_output = on_output
        self.running: dict[int, Child] = {}
        self.links: Mapping[int, MachineSeen] = {}
        # Every child holds the reading end: it becomes readable when this process is gone, however it went.
        self.lifeline, self._held = os.pipe()

    def start(
        self, agent: int, incarnation: int, command: Sequence[str], more: Mapping[str, str], output: Path
    ) -> Child:
        """Start an agent's process, in a session of its own: Ctrl-C is for the launcher.

        It imports nothing from the current folder, which may be anybody's; `more` joins its environment, and
        takes the place of what numbers this process among others (RANKS).
        """
        inherited = {name: value for name, value in os.environ.items() if not RANKS.fullmatch(name)}
        process = subprocess.Popen(
            [sys.executable, "-P", *command],
            env={**inherited, **more, "OFFBEAT_LIFELINE": str(self.lifeline)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[self.lifeline],
            start_new_session=True,
        )
        assert process.stdout is not None
        read = Output(agent, process.stdout.fileno(), output, self.on_output)
        child = Child(agent, incarnation, process, pidfd(process.pid), time.monotonic(), read)
        self.selector.register(process.stdout, selectors.EVENT_READ, ("output", child))
        if child.pidfd is not None:
            self.selector.register(child.pidfd, selectors.EVENT_READ, ("ended", child))
        self.running[agent] = child
        return child

    def wait(self, timeout: float) -> list[Child]:
        """The children that have ended meanwhile, all their output read."""
        ended, printed = [], []
        unreported = [child for child in self.running.values() if child.pidfd is None]
        if unreported:
            timeout = min(timeout, POLLED)
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                with suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif key.data[0] == "output":
                printed.append(key.data[1])
            else:
                ended.append(key.data[1])
        # A little of each, round and round, until the time is over; who was not read then is next.
        waiting = deque(sorted(printed, key=lambda child: child.output.read_at))
        end = time.monotonic() + READING
        while waiting and time.monotonic() < end:
            child = waiting.popleft()
            if child.output.read():
                waiting.append(child)
            elif child.output.ended:  # the process may live on
                self.selector.unregister(child.output.handle)
        for child in unreported:
            if os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                ended.append(child)  # its exit code is still to be had
        for child in ended:
            self._close(child)
        return ended

    def signal(self, number: signal.Signals, agents: Sequence[int] | None = None) -> None:
        for agent in self.running if agents is None else agents:
            if agent in self.running:
                with suppress(ProcessLookupError):
                    self.running[agent].process.send_signal(number)

    def machine(self, agent: int) -> int:
        return 0

    def see_models(self, most: float = math.inf) -> None:
        """Have the newest models of all in the run's folder, unless one has more bytes: here they are."""

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        for child in [*self.running.values()]:
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
    refused = "the kernel or the container refuses pidfd_open"
    why = refused if hasattr(os, "pidfd_open") else "no os.pidfd_open"
    return f"{why}: looked for every {1000 * POLLED:.0f} ms"


def _restarted(line: bytes) -> bytes:
    """What is left of a line: what follows the last carriage return that anything follows."""
    return line[line.rstrip(b"\r").rfind(b"\r") + 1 :]


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode(errors="replace")
