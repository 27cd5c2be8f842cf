"""Everything that offbeat raises on purpose.

    OffbeatError
    |-- SettingError     what was asked for makes no sense; nothing has run     (exit code 2)
    |-- DataError        a data file is missing, truncated or corrupt           (exit code 2)
    |-- ContractError    an algorithm broke a promise of its contract           (exit code 1)
    |-- DiskError        a log, trace or checkpoint cannot be written           (exit code 74)
    `-- SharedMemoryError, BrokenViews, KernelError, ExportError, RunFailed of live runs: in their files

A message is one paragraph: what was got, what was expected, what to do.
"""

import errno
import os
from collections.abc import Iterable
from difflib import get_close_matches

MISSING = 69  # exit code of a run that ended without one of its agents: EX_UNAVAILABLE of sysexits.h
FINAL = 70  # exit code of an agent after an error that no restart can heal: EX_SOFTWARE of sysexits.h


class OffbeatError(Exception):
    """The root of the tree: catch this to catch everything that offbeat raises on purpose."""

    exit_code = 1


class SettingError(OffbeatError):
    """What was asked for makes no sense; raised before any work starts."""

    exit_code = 2


class DataError(OffbeatError):
    """A data file is missing, truncated or corrupt."""

    exit_code = 2


class ContractError(OffbeatError):
    """An algorithm broke a promise of the contract at the head of `offbeat.core.agent`."""


class DiskError(OffbeatError):
    """What a run has to write cannot be written; what was written before is intact."""

    exit_code = 74  # as sysexits.h has it for input and output


FEWER = "use fewer agents or workers"
OPEN_FILES = f"Raise the limit ('ulimit -n' shows it; 'ulimit -n 4096'), or {FEWER}."
ROOM = "Make room there, or name another folder."
PERMISSION = "Name a folder in which this user may write."
ADVICE = {
    errno.EMFILE: OPEN_FILES, errno.ENFILE: OPEN_FILES, errno.ENOSPC: ROOM, errno.EDQUOT: ROOM,
    errno.EROFS: PERMISSION, errno.EACCES: PERMISSION, errno.EPERM: PERMISSION,
    errno.EFBIG: "'ulimit -f' shows how large a file may be here.",
    errno.ENOMEM: f"{FEWER.capitalize()}, or a smaller model.",
    errno.EAGAIN: f"The system allows no more processes ('ulimit -u' shows how many): {FEWER}.",
}  # fmt: skip


def failed(error: OSError) -> str:
    """What the system refused, and what to do."""
    why = os.strerror(error.errno) if error.errno is not None else str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{why}. {ADVICE.get(error.errno or 0, '')}".rstrip()


def agents(n: int) -> str:
    """So many of them, in a sentence: '1 agent', '2,000 agents'."""
    return f"{n:,} agent{'s' * (n != 1)}"


def unknown(what: str, got: str, known: Iterable[str]) -> SettingError:
    """The error for a name that is not in a table, with the nearest name that is."""
    names = list(known)
    lower, said = {name.lower(): name for name in reversed(names)}, got.lower()
    near = [name for name in (said[:-1], said + "s") if name in lower]  # 'seeds': 'seed' before 'speeds'
    near = near or get_close_matches(said, [name.lower() for name in names], n=1, cutoff=0.5)
    hint = f" Did you mean '{lower[near[0]]}'?" if near else ""
    return SettingError(f"Unknown {what} '{got}'.{hint} Known: {', '.join(names)}.")
