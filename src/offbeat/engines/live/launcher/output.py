"""What a process prints, as it comes: line by line, and bounded in every respect.

A carriage return begins a line anew, as on a terminal: of a progress bar, its newest state counts.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

CHUNK, LONGEST = 1 << 10, 1 << 14
"""Bytes that are read at once, and of a line: a longer one is broken."""

REMEMBERED = 40
"""Lines of an agent's output that an error report may quote."""

OnOutput = Callable[[int, str], None]


class Output:
    """The output of one process.

    Attributes:
        handle: where it comes from; reading does not block
        path: the file that keeps it, as a terminal would show it
        on_output: called with the agent and every line that has ended
        lines: the newest of these
        newest: the line that has not ended yet
    """

    def __init__(self, agent: int, handle: int, path: Path, on_output: OnOutput) -> None:
        os.set_blocking(handle, False)
        self.agent, self.handle, self.path, self.on_output = agent, handle, path, on_output
        self.lines: deque[str] = deque(maxlen=REMEMBERED)
        self.newest = ""
        self.ended = False
        self.read_at = 0.0
        self._rest = b""
        self._keeping, self._at = True, 1 << 62  # where in the file the line that has not ended begins

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
        """The process is gone: take the rest, at most what fits into a pipe; others may hold it open, and
        print on.
        """
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
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                size = os.fstat(handle).st_size
                self._at = min(self._at, size)
                done = 0
                while done < len(content):
                    done += os.pwrite(handle, content[done:], self._at + done)
                if self._at + len(content) < size:
                    os.ftruncate(handle, self._at + len(content))
            finally:
                os.close(handle)
            self._at += len(whole)
        except OSError as error:
            self._keeping = False
            self.on_output(
                self.agent, f"(the output is no longer kept: {self.path}: {error.strerror or error})"
            )


def _restarted(line: bytes) -> bytes:
    """What is left of a line: what follows the last carriage return that anything follows."""
    return line[line.rstrip(b"\r").rfind(b"\r") + 1 :]


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode(errors="replace")
