"""How the life of an agent's process ended, what it says of that, and whether another life can help.

A process that fails writes what happened into a file of the run's shared folder (`tell`); its launcher takes
it out (`take`), so that a traceback is shown once.
"""

import json
import os
import runpy
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import StackSummary, TracebackException

from offbeat.core.errors import FINAL, DiskError, OffbeatError

FORGIVEN = 600.0  # seconds of steps in one life for which a restart of before is forgiven
QUOTED, LONGEST = 12, 1 << 16  # lines of output that an error report quotes, and characters of a traceback


@dataclass(frozen=True)
class Failure:
    """An error that ended an agent's process."""

    what: str  # in a line
    where: tuple[str, ...]  # its type, and the lines of the script that led to it
    text: str  # the traceback; of an error of ours, its message


def tell(error: BaseException, starter: str) -> int:
    """Tell the launcher which error ends this process, without the frames of `starter`, which began it,
    and call the script's `sys.excepthook`, as it would be without us. Returns the process's exit code.
    """
    told = TracebackException.from_exception(error)
    frames = [*told.stack]
    while frames and frames[0].filename in (starter, runpy.__file__, "<frozen runpy>"):
        frames.pop(0)
    told.stack = StackSummary.from_list(frames)
    text = "".join(told.format()).rstrip().removeprefix("Traceback (most recent call last):\n")
    ours, kind = str(error) if isinstance(error, OffbeatError) else "", type(error).__name__
    where = (kind, *(f"{frame.filename}:{frame.lineno}" for frame in frames))
    failure = Failure(ours or f"{kind}: {error}".strip(), where, (ours or text)[-LONGEST:])
    try:
        path = _path(Path(os.environ["OFFBEAT_RUN"]), int(os.environ["OFFBEAT_RANK"]))
        path.write_text(json.dumps(asdict(failure)))
    except (OSError, ValueError, KeyError):
        sys.stderr.write(f"Error: {failure.text}\n")
    if isinstance(error, OffbeatError):
        return error.exit_code if isinstance(error, DiskError) else FINAL  # the launcher heeds a full disk
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, error.__traceback__)
    return 1


def take(shared: Path, agent: int) -> Failure | None:
    path = _path(shared, agent)
    with suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads(path.read_text())
        path.unlink()
        return Failure(str(said["what"]), tuple(map(str, said["where"])), str(said["text"]))
    return None


def _path(shared: Path, agent: int) -> Path:
    return shared / f"failure.{agent}"


@dataclass(frozen=True)
class Ending:
    """The end of one life of an agent."""

    agent: int
    code: int  # the exit code of the process, negative for a signal
    life: int  # which one it was, from 1
    steps: int  # in all lives
    made: int  # steps in this one
    failure: Failure | None  # what the process said, if anything
    lines: tuple[str, ...]  # what it printed last
    healthy: float = 0.0  # seconds from its first to its last step in this life
    machine: int | None = None  # on which it was, of several

    @property
    def name(self) -> str:
        where = "" if self.machine is None else f" (on machine {self.machine})"
        return f"Agent {self.agent}{where}"

    @property
    def how(self) -> str:
        return words(self.code) if self.failure is None else self.failure.what.splitlines()[0]

    @property
    def said(self) -> str:
        """What an error report quotes: a space and the error, or what the process printed last."""
        lines = self.lines[-QUOTED:] if self.failure is None else self.failure.text.splitlines()
        if self.failure is not None and len(lines) == 1:
            return f" {lines[0]}"
        head = " It last said:" if self.failure is None else ""
        return f"{head}\n" + "\n".join(f"    {line}" for line in lines) if lines else ""

    @property
    def of_all(self) -> bool:
        """Whether it says that the script or the machine is wrong, and not this agent alone."""
        return self._at_once or self.code in (0, FINAL, DiskError.exit_code)

    @property
    def _at_once(self) -> bool:
        return self.code > 0 and not self.made and self.life == 1

    def counted(self, restarts: int) -> int:
        """Of so many restarts of before, those that still count after this life."""
        return max(0, restarts - int(self.healthy // FORGIVEN))

    def why_final(
        self, before: "Ending | None", returns: bool, needed: bool, restarts: int, allowed: int
    ) -> str:
        """Why there is no other life, after so many restarts; empty if there is one.

        Args:
            returns: whether the algorithm takes an agent back
            needed: whether the others stand still without it
        """
        name, at = self.name, f"at step {self.steps}"
        if self.code == 0:
            return (
                f"{name} ended {at} without having left the run. Expected a script that calls "
                "offbeat.join(), wraps its optimizer, and runs to its end in this process, or calls leave() "
                f"of what join gave.{self.said}"
            )
        if self.code == DiskError.exit_code:
            return f"{name} cannot write its results.{self.said}"
        if self._at_once:
            how = f" ({words(self.code)})" if self.failure is None else ""
            return f"{name} failed before its first step{how}, so no restart can help.{self.said}"
        if self.code == FINAL:
            return f"{name} failed {at}, and no restart can help.{self.said}"
        if before is not None and self.failure is not None and before.failure is not None:
            as_far = self.steps == before.steps or self.made == before.made  # as many steps on, or none
            if as_far and self.failure.where == before.failure.where:
                return f"{name} failed {at} as it had failed before: no further restart can help.{self.said}"
        failed = f"died ({words(self.code)})" if self.failure is None else f"failed {at}"
        if not returns:
            how = "cannot go on without it" if needed else "takes nobody back"
            return f"{name} {failed}, and the algorithm {how}.{self.said}"
        if restarts >= allowed:
            most = f"{allowed} restarts" if allowed else "no restart"
            return f"{name} {failed}; {most} of an agent had been allowed (--max-restarts).{self.said}"
        return ""


@dataclass(frozen=True)
class Missing:
    """An agent that was left out of its run, and the others went on."""

    agent: int
    since: float  # seconds of the run
    steps: int  # in all lives
    why: str

    def __str__(self) -> str:
        when = f"since {self.since:,.1f} s, its step {self.steps:,}"
        return f"Agent {self.agent} is missing {when}: the others went on without it. {self.why}"


def words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
