"""Whether this machine can make live runs: every check says what was found, what is expected and what to do.

    for name, check in examine().items():
        print(name, check.status, check.found)

The last check is `selftest`: two processes, started as agents are, read each other's models. Nothing that
belongs to a run is touched; what runs that were killed left in shared memory goes only if it is asked for.
"""

import os
import platform
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Literal

import torch

from offbeat.core.errors import OffbeatError
from offbeat.core.system import kernel, machine
from offbeat.engines.live.launcher import selftest
from offbeat.engines.live.launcher.children import noticed
from offbeat.engines.live.shm import run_folder

FAILED: Literal["FAILED"] = "FAILED"
Status = Literal["ok", "warning", "FAILED"]

MODEL, COPIES = 100e6, 3  # bytes of the model that room is counted in; its copies in an agent's register
AGENT = 300e6 + 7 * MODEL  # bytes: Python with torch; parameters, gradient, two moments and the register
FILES, FEW_FILES = 64, 1024
TASKS, FEW_TASKS = 8, 64
THREADS = 4  # threads of one agent: its own two, and what torch starts
SIMULATE = "simulate: offbeat compare runs anywhere"


@dataclass(frozen=True)
class Check:
    """What a check has found, what is expected, and what to do."""

    status: Status
    found: str
    expected: str
    do: str = "nothing"


def examine(
    remove: bool = False, functions: Mapping[str, Callable[[], str]] | None = None
) -> dict[str, Check]:
    """All checks by name, in order.

    Args:
        remove: also remove what killed runs left in shared memory
        functions: other functions that are compiled: what each is for -> how it is evaluated here
    """
    found = {name: _guarded(check) for name, check in checks(remove, functions or {}).items()}
    failed = [name for name, check in found.items() if check.status == FAILED]
    if blocked := ", ".join(name for name in failed if name in ("platform", "shared memory")):
        do = f"first see to: {blocked}"
        found["self-test"] = Check("warning", "not tried", "two processes that exchange models", do)
    else:
        found["self-test"] = _guarded(self_test)
    return found


def checks(remove: bool, functions: Mapping[str, Callable[[], str]]) -> dict[str, Callable[[], Check]]:
    return {
        "platform": platform_, "Python": python, "packages": packages, "shared memory": shared_memory,
        "memory": memory, "cores": cores, "processes": processes, "ends of agents": ends,
        "open files": open_files, "kernel": partial(compiled, functions), "clock": clock, "CUDA": cuda,
        "left-overs": partial(left_overs, remove),
    }  # fmt: skip


def _guarded(check: Callable[[], Check]) -> Check:
    """A check that cannot be made is reported, and ends nothing."""
    try:
        return check()
    except (OSError, ValueError, AttributeError, RuntimeError, LookupError) as error:
        said = f"{type(error).__name__}: {error}"
        return Check("warning", said, "that this can be looked at", "see by hand")


def platform_() -> Check:
    """Linux on x86-64: the registers need the order of stores that it keeps."""
    found = f"{platform.system()} on {platform.machine()}"
    expected = "Linux on x86-64, which keeps the order of what is written"
    if found.lower() in ("linux on x86_64", "linux on amd64"):
        return Check("ok", found, expected)
    return Check(FAILED, found, expected, SIMULATE)


def python() -> Check:
    """The version that the package requires, and not one that it was never tried with."""
    got, about = platform.python_version(), str(metadata.metadata("offbeat"))
    known = sorted(map(_numbers, re.findall(r"Python :: (\d+\.\d+)", about)))
    span = " to ".join(".".join(map(str, each)) for each in (known[0], known[-1]))
    if _numbers(got)[:2] < known[0]:
        return Check(FAILED, got, span, "install a newer Python")
    if _numbers(got)[:2] > known[-1]:
        return Check("warning", got, span, "try; if something fails, use one of these versions")
    return Check("ok", got, span)


def packages() -> Check:
    """torch and the other packages, in the versions that are required."""
    texts = [text for text in metadata.requires("offbeat") or [] if "extra" not in text]
    required = [re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", text) for text in texts]
    least, have = {match[1]: match[2] for match in required if match}, dict[str, str]()
    for name in least:
        with suppress(metadata.PackageNotFoundError):
            have[name] = metadata.version(name)
    wrong = [name for name in least if _numbers(have.get(name, "")) < _numbers(least[name])]
    shown = wrong or ("torch", "numpy", "safetensors")
    found = ", ".join(f"{name} {have.get(name, 'missing')}" for name in shown)
    expected = ", ".join(f"{name} {least[name]} or newer" for name in shown)
    if wrong:
        return Check(FAILED, found, expected, "pip install --upgrade " + " ".join(wrong))
    return Check("ok", found, expected)


def _numbers(version: str) -> tuple[int, ...]:
    """2.13.0+cpu -> (2, 13, 0)."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))


def compiled(functions: Mapping[str, Callable[[], str]]) -> Check:
    """Whether large vectors go through the compiled function, and whether it gives torch's bits."""
    name, expected = kernel.name(), "compiled, with the bits that torch gives"
    if not name.startswith("compiled"):
        do = "install a C compiler (gcc or clang), or name one in $CC: large models mix faster with it"
        return Check("warning", name, expected, do)
    source = torch.Generator("cpu").manual_seed(1)
    for dtype in (torch.float32, torch.float64):  # long enough to be written around the caches
        v = torch.randn((3, kernel.STREAM // 4 + 77), generator=source, dtype=dtype)
        ours, theirs = torch.empty_like(v[0]), v[0] * 0.3
        kernel.linear(ours, [(0.3, v[0]), (-1.7, v[1]), (0.1, v[2])])
        theirs.add_(v[1], alpha=-1.7).add_(v[2], alpha=0.1)
        if not torch.equal(ours, theirs):
            do = "remove the folder ~/.cache/offbeat, try again, and report it with the compiler's version"
            return Check(FAILED, f"{name}: other bits than torch ({dtype})", expected, do)
    others = "".join(f"; {what}: {how()}" for what, how in functions.items())
    return Check("ok", f"{name}, torch's bits{others}", expected)


def cuda() -> Check:
    if not torch.cuda.is_available():
        return Check("ok", "none; models train on the CPU", "either")
    names = ", ".join(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count()))
    return Check("ok", f"{names}; live runs mix models on the CPU", "either")


def shared_memory() -> Check:
    """/dev/shm: there, writable, with room for the registers of a few agents."""
    folder, expected = run_folder.SHARED, "writable, with room for two agents with a model of 100 MB at least"
    if not folder.is_dir():
        return Check(FAILED, f"no {folder}", expected, f"mount a tmpfs there, or {SIMULATE}")
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".offbeat-doctor-"):
            pass
    except OSError as error:
        found = f"{folder} cannot be written to: {error.strerror}"
        return Check(FAILED, found, expected, "chmod 1777 /dev/shm, as root; or free some room in it")
    free = shutil.disk_usage(folder).free
    fit = max(0, int(free / (COPIES * MODEL)) - 1)  # the model that all start from is there as well
    found = f"{free / 1e6:,.0f} MB free in {folder}: {_counted(fit, 'agent')} with a model of 100 MB"
    do = "docker run --shm-size=8g (its default is 64 MB); elsewhere: mount -o remount,size=8G /dev/shm"
    if free < 1e6:
        return Check(FAILED, found, expected, f"offbeat doctor --sweep; {do}")
    return Check("ok", found, expected) if fit >= 2 else Check("warning", found, expected, do)


def open_files() -> Check:
    """How many files a process may have open: about four for every agent it deals with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} at a time"
    most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    do = f"ulimit -n {most}, or docker run --ulimit nofile=4096"
    return _enough(soft, FILES, FEW_FILES, found, do)


def processes() -> Check:
    """How many processes and threads may still be started."""
    left: list[float] = []
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:  # root is above this limit
        left.append(soft - _own_threads())
    limit, used = (machine.cgroup("pids", name, name) for name in ("pids.max", "pids.current"))
    if limit is not None:
        left.append(limit - (used or 0))
    room = min(left, default=float("inf"))
    agents = f"{max(0, room) // THREADS:,.0f} agents"
    found = f"room for {room:,.0f} more threads, {agents}" if left else "no limit"
    do = "ulimit -u 4096; in a container: docker run --pids-limit=4096; or end some processes"
    return _enough(room, TASKS, FEW_TASKS, found, do)


def _own_threads() -> int:
    count = 0
    for entry in machine.PROC.glob("[0-9]*"):
        with suppress(OSError):
            count += len([*entry.glob("task/*")]) if entry.stat().st_uid == os.getuid() else 0
    return count


def ends() -> Check:
    """How the launcher learns that an agent has ended."""
    return Check("ok", noticed(), "reported by the kernel, or looked for")


def cores() -> Check:
    """The cores that may be used, and how many threads every agent will use."""
    have, share = float(machine.cores()), machine.cpu_share()
    found = _counted(have, "core")
    if share is not None and share < have:
        have, found = share, f"{found}, of which the container may use {share:g}"
    asked = os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0].strip()
    threads = int(asked) if asked.isdecimal() and int(asked) else 1
    found += f"; {_counted(threads, 'thread')} an agent"
    if threads > 1 and 2 * threads > have:
        return Check("warning", found, "a core for every thread of two agents", "unset OMP_NUM_THREADS")
    found += f": up to {max(1, int(have // threads))} at full speed"
    if have < 2:
        return Check("warning", found, "2 cores or more", "give it more cores; agents take turns on one")
    return Check("ok", found, "2 cores or more, one for every agent")


def memory() -> Check:
    """What is available, or what the container leaves."""
    have, limit = machine.memory()
    here = "" if limit is None else f" of the container's {limit / 1e6:,.0f} MB"
    found = f"{have / 1e6:,.0f} MB available{here}: about {have // AGENT:.0f} agents with a model of 100 MB"
    do = "end other programs; in a container: docker run --memory=8g"
    return _enough(have, 0.5e9, 2 * AGENT, found, do)


def _enough(have: float, least: float, plenty: float, found: str, do: str) -> Check:
    """FAILED below `least`, a warning below `plenty`."""
    expected = f"{plenty / 1e6:,.0f} MB or more" if plenty > 1e6 else f"{plenty:,.0f} or more"
    if have >= plenty or have == resource.RLIM_INFINITY:
        return Check("ok", found, expected)
    return Check("warning" if have >= least else FAILED, found, expected, do)


def _counted(count: float, what: str) -> str:
    return f"{count:g} {what}{'s' * (count != 1)}"


def clock() -> Check:
    """One clock for all processes, that never goes back; and how late a sleeper wakes."""
    info, expected = time.get_clock_info("monotonic"), "one clock for all processes, in steps of 1 us or less"
    stamps, late = [time.monotonic_ns() for _ in range(2000)], []
    for _ in range(20):
        began = time.monotonic_ns()
        time.sleep(1e-3)
        late.append((time.monotonic_ns() - began) / 1e6 - 1)
    late.sort()
    found = (
        f"{info.implementation}, steps of {1e9 * info.resolution:g} ns; woken up to {late[-1]:.1f} ms late"
    )
    if stamps != sorted(stamps) or not info.monotonic:
        return Check(FAILED, f"{found}; it goes back", expected, f"use another machine, or {SIMULATE}")
    if info.resolution > 1e-6 or late[10] > 10:
        do = "with offbeat live, take a larger --unit; end other programs"
        return Check("warning", found, expected, do)
    return Check("ok", found, expected)


def left_overs(remove: bool) -> Check:
    """Folders in shared memory of runs whose launcher was killed, and its agents with it."""
    size, paths = 0, []
    for folder in run_folder.dead():
        size += sum(file.lstat().st_blocks * 512 for file in folder.path.iterdir())
        paths.append(folder.path)
        (folder.remove if remove else folder.lock.release)()
    if not paths:
        return Check("ok", "none", "none")
    found = f"{_counted(len(paths), 'folder')} of dead runs, {size / 1e6:.1f} MB"
    if not remove:
        do = "offbeat doctor --sweep removes them, and so does the next run"
        return Check("warning", found, "none", do)
    if still := [str(path) for path in paths if path.exists()]:
        return Check("warning", f"{found}; not removed: {', '.join(still)}", "none", "remove them by hand")
    return Check("ok", f"{found}, removed", "none")


def self_test() -> Check:
    """Two processes, started as agents are, read each other's registers while these are written."""
    expected = f"two processes that read whole models of each other, {selftest.READS} times"
    began, do = time.monotonic(), "see to the checks above; if all are ok, report it with this output"
    try:
        wrong = selftest.run()
    except (OffbeatError, OSError) as error:
        wrong, do = str(error), "see shared memory, above"
    if wrong:
        return Check(FAILED, wrong, expected, do)
    return Check("ok", f"two processes exchanged models, in {time.monotonic() - began:.1f} s", expected)
