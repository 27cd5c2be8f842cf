"""Real processes that start at once: a fresh interpreter imports everything, and forks what is asked for.

A cold process needs seconds for its imports, most of a short test. So `offbeat ...` runs in a fork of a
process that has imported everything, and so does every agent that it starts. All else is as it always is:
processes, signals, pipes, shared memory. What depends on a cold start is in `test_processes`.
"""

import atexit
import gc
import json
import multiprocessing.util
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offbeat.core.system.signals import end_with_parent

SHARED = Path("/dev/shm")
needs_shared_memory = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine().lower() not in ("x86_64", "amd64") or not SHARED.is_dir(),
    reason="needs Linux on x86-64 with /dev/shm",
)
on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

WARM_WORKERS = "import __main__; __main__.fork_the_server()"
"""A setup with which the server of a command's workers is a fork too, instead of a cold interpreter."""

PATIENCE = 60.0
"""Seconds that a test waits for what should happen in a moment; the machine may be busy."""


# -- in the test -----------------------------------------------------------------------------------


@dataclass
class Started:
    """A launcher: `offbeat launch` or `offbeat live`. pid: its process; folder: where it runs."""

    pid: int
    folder: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.code is None:
            self.code = _ask({"poll": self.pid})
        return self.code

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code, once it has ended."""
        until(lambda: self.poll() is not None, seconds)
        assert self.code is not None
        return self.code

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    @property
    def said(self) -> str:
        """What it printed."""
        return (self.folder / "stdout").read_text()

    @property
    def complained(self) -> str:
        """What it printed on standard error, as one line."""
        return " ".join((self.folder / "stderr").read_text().split())

    @property
    def agents(self) -> list[int]:
        """The processes that it has started and that still run."""
        return [pid for pid in _children(self.pid) if alive(pid)]

    @property
    def shared(self) -> list[Path]:
        """Its folders in shared memory."""
        return list(SHARED.glob(f"offbeat-run-{os.getuid()}-{self.pid}-*"))


def start(folder: Path, *arguments: str, script: str | None = None, setup: str = "") -> Started:
    """Run `offbeat` with these arguments in a folder; `script` is written to train.py; `setup` runs first."""
    if script is not None:
        (folder / "train.py").write_text(script)
    return Started(_ask({"arguments": arguments, "folder": str(folder), "setup": setup}), folder)


def finished(
    folder: Path, *arguments: str, script: str | None = None, setup: str = "", seconds: float = PATIENCE
) -> Started:
    """The same, and wait for its end; nothing may be left."""
    run = start(folder, *arguments, script=script, setup=setup)
    try:
        run.wait(seconds)
    finally:
        if run.poll() is None:
            run.kill()
    assert not run.shared, "something was left in shared memory"
    assert "Traceback" not in run.complained, run.complained
    return run


def ran(folder: Path, program: str) -> Started:
    """What `python -c` makes of this program, in a process that has imported everything; wait for its end."""
    return finished(folder, setup=f"{program}\nraise SystemExit")


def until(done: Callable[[], bool], seconds: float = PATIENCE, what: str = "it takes too long") -> None:
    """Poll until something is so: at first every millisecond, and the more seldom the longer it takes."""
    end, pause = time.monotonic() + seconds, 0.001
    while not done():
        assert time.monotonic() < end, what
        time.sleep(pause)
        pause = min(1.1 * pause, 0.02)


def plant(folder: Path) -> Path:
    """Lay modules there of which none may ever run; the file that is there once one has."""
    witness = folder / "witness"
    for name in ("numpy", "queue", "random", "safetensors", "torch", "typer"):
        (folder / f"{name}.py").write_text(f"open({str(witness)!r}, 'a').write('{name} ')\n")
    return witness


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    return process_state(pid) not in ("", "Z")


def process_state(pid: int) -> str:
    """R, S, T (stopped), Z (zombie), ...; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def session(leader: int) -> list[int]:
    """The processes of a session, its leader included, and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number, *_ = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(number) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        yield from map(int, task.read_text().split())


def _ask(request: Mapping[str, Any]) -> Any:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@cache
def _server() -> "subprocess.Popen[str]":
    server = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Without a GPU, where there is one: its driver does not survive a fork.
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "120"}
        | {"CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "7"},  # another order than in the tests' processes
    )
    atexit.register(_end, server)
    return server


def _end(server: "subprocess.Popen[str]") -> None:
    server.communicate()  # it ends at the end of its input


# -- in the interpreter that forks -----------------------------------------------------------------


class Forked:
    """What the launcher takes for a `subprocess.Popen`: an agent's program in a fork of this process."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int], **_: Any
    ) -> None:
        reading, writing = os.pipe()
        at = command.index("-m") + 1
        module, arguments = command[at], command[at + 1 :]

        def program() -> None:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(env)
            _standard(writing, writing, keep=pass_fds)
            sys.excepthook = sys.__excepthook__
            sys.argv = [module, *arguments]
            if module == "offbeat.experiments.live.program":
                offbeat.experiments.live.program.main()
            else:
                assert module == "offbeat.training.child"
                offbeat.training.child.main()

        self.pid = forked(program)
        self.returncode: int | None = None
        os.close(writing)
        self.stdout = os.fdopen(reading, "rb", buffering=0)

    def wait(self) -> int | None:
        """Its exit code."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Unless it has been waited for."""
        if self.returncode is None:
            os.kill(self.pid, number)


def fork_the_server() -> None:
    """What `multiprocessing` starts from now on, the server of workers above all, are forks."""

    def spawned(_: bytes, command: Sequence[str], pass_fds: Sequence[int]) -> int:
        def program() -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _close_all_but({0, 1, 2, *pass_fds})
            exec(command[command.index("-c") + 1], {})

        return forked(program)

    vars(multiprocessing.util)["spawnv_passfds"] = spawned


def forked(program: Callable[[], None]) -> int:
    """Run it in a child, and give it the exit code that Python would give it; returns the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code: Any = 1
    try:
        program()
        code = 0
    except SystemExit as ending:
        code = ending.code
        if isinstance(code, str):
            sys.stderr.write(code + "\n")
    except BaseException:
        traceback.print_exc()
    finally:
        code = 0 if code is None else code if isinstance(code, int) else 1
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            code = 120
        finally:
            os._exit(code)


def _standard(output: int, error: int, keep: Sequence[int] = ()) -> None:
    """Nothing to read, these to write to, and no other file open."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(error, 2)
    _close_all_but({0, 1, 2, *keep})
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _close_all_but(keep: set[int]) -> None:
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd not in keep:
            try:
                os.close(fd)
            except OSError:  # the listing itself
                continue


def serve() -> None:
    """Fork what the test asks for, line by line, and say how it ended."""
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = forked(lambda request=request: _launcher(request))  # type: ignore[misc]
        os.write(1, (json.dumps(answer) + "\n").encode())


def _launcher(request: Mapping[str, Any]) -> None:
    os.setsid()
    end_with_parent()  # so also with a test that is killed
    os.chdir(request["folder"])
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    _standard(os.open("stdout", new), os.open("stderr", new))
    exec(request["setup"], {})
    sys.argv = ["offbeat", *request["arguments"]]
    offbeat.cli.commands.main()


if __name__ == "__main__":
    import warnings

    import seldom  # noqa: F401
    import torch

    import offbeat.cli.commands
    import offbeat.cli.compare
    import offbeat.cli.joining
    import offbeat.cli.launch
    import offbeat.cli.live
    import offbeat.cli.sweep
    import offbeat.core.system.kernel
    import offbeat.engines.live.launcher.children
    import offbeat.experiments.live.program
    import offbeat.results.by_matplotlib
    import offbeat.results.page
    import offbeat.tasks.data
    import offbeat.training.child

    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of forks
    torch.set_num_threads(1)
    weight = torch.nn.Parameter(torch.zeros(1))
    for optimizer in (
        torch.optim.SGD([weight]),
        torch.optim.AdamW([weight]),
    ):  # they import much when first used
        weight.grad = torch.zeros(1)
        optimizer.step()
    offbeat.tasks.data.load("digits")  # so does scikit-learn
    for name, arguments in {
        "live": [],
        "launch": ["there"],
        "export": ["there"],
        "replay": ["there"],
        "join": ["there"],
    }.items():
        offbeat.cli.commands.loaded(name).make_context(name, [*arguments])  # and the first command line
    offbeat.cli.commands.Commands(name="offbeat")
    vars(offbeat.engines.live.launcher.children)["subprocess"] = SimpleNamespace(
        Popen=Forked, PIPE=-1, STDOUT=-2, DEVNULL=-3
    )
    gc.collect()
    gc.freeze()  # what all of them share is not looked through, and so not copied, in each
    serve()
