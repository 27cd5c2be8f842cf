"""What another machine is asked that may have no offbeat, or another one: functions that travel as they are.

They import what Python itself has, and nothing of ours.
"""

import importlib.util
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("torch", "offbeat", "ray")
MISSING = "missing"


def versions() -> dict[str, str]:
    """Of what has to be the same on every machine."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = MISSING if importlib.util.find_spec(name) is None else version(name)
        except PackageNotFoundError:
            found[name] = "from its source"
    return found


class Answering:
    """One end of a link that is measured: an asynchronous actor."""

    async def clock(self) -> int:
        """Now, in ns of the monotonic clock."""
        return time.monotonic_ns()

    async def versions(self) -> dict[str, str]:
        return versions()

    async def give(self, nbytes: int) -> bytes:
        return bytes(nbytes)

    async def measure(self, other: Any, asked: int, nbytes: int, times: int) -> tuple[list[int], list[int]]:
        """How long answers of `other` take, in ns: those that say the time, and those of so many bytes."""
        short, long = [], []
        for _ in range(asked):
            began = time.monotonic_ns()
            await other.clock.remote()
            short.append(time.monotonic_ns() - began)
        for _ in range(times):
            began = time.monotonic_ns()
            await other.give.remote(nbytes)
            long.append(time.monotonic_ns() - began)
        return short, long
