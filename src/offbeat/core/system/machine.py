"""How many cores and how much memory a process may use: of the machine, or of its container."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS, PROC = Path("/sys/fs/cgroup"), Path("/proc")


def cores() -> int:
    """The cores that this process may use, whatever share of their time its container has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_share() -> float | None:
    """How many cores' time the control groups allow; None: no limit."""
    shares = [text.split() for text in _cgroup_texts("cpu", "cpu.max", "")]
    found = [int(share[0]) / int(share[1]) for share in shares if len(share) == 2 and share[0].isdecimal()]
    texts = (_cgroup_texts("cpu", "", f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    quotas, periods = ([int(text) for text in each if text.strip().isdecimal()] for each in texts)
    return min([*found, *(q / p for q, p in zip(quotas, periods, strict=False))], default=None)


def memory() -> tuple[float, float | None]:
    """Bytes that may still be used; and the container's limit, where that leaves less than the machine has.

    Raises OSError, ValueError or LookupError where the system does not say.
    """
    free = _proc("meminfo", "MemAvailable")
    limit = cgroup("memory", "memory.max", "memory.limit_in_bytes")
    if limit is None:
        return free, None
    left = max(0.0, limit - (cgroup("memory", "memory.current", "memory.usage_in_bytes") or 0))
    return (left, limit) if left < free else (free, None)


def available() -> float:
    """Bytes that may still be used; inf where the system does not say."""
    with suppress(OSError, ValueError, LookupError):
        return memory()[0]
    return math.inf


def resident() -> float:
    """Bytes that this process holds for itself alone: before its runs, mostly data. 0 where nobody says."""
    with suppress(OSError, ValueError, LookupError):
        return _proc("self/status", "RssAnon")
    return 0.0


def _proc(file: str, name: str) -> float:
    lines = dict(line.split(":", 1) for line in (PROC / file).read_text().splitlines())
    return 1024.0 * int(lines[name].split()[0])


def cgroup(controller: str, second: str, first: str) -> float | None:
    """The least of a number in this process's control groups, as version 2 and 1 name it; None: no limit."""
    texts = [text.strip() for text in _cgroup_texts(controller, second, first)]
    numbers = [float(text) for text in texts if text.isdecimal()]
    return min((number for number in numbers if number < 2**62), default=None)  # "no limit" is larger


def _cgroup_texts(controller: str, second: str, first: str) -> Iterator[str]:
    """What these files say in the group of this process, and in all groups around it."""
    with suppress(OSError):
        for line in (PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root, name = (CGROUPS / controllers, first) if controllers else (CGROUPS, second)
            group = root / path.lstrip("/")
            for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
                with suppress(OSError):
                    yield (folder / name).read_text()
