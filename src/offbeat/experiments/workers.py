"""Worker processes: of this machine, or tasks of a Ray cluster."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

from offbeat.core.errors import SettingError
from offbeat.core.system.machine import cores
from offbeat.core.system.ray_cluster import cluster, nodes_of, refuse_differences
from offbeat.experiments.forking import start_server

Result = TypeVar("Result")

_told: list[Any] = []
"""In a worker: the numbers that `tell` writes."""


def wanted(workers: int | None) -> int:
    """So many workers; None: one for each core. Raises SettingError for less than one."""
    if workers is not None and workers < 1:
        raise SettingError(f"There must be at least one worker; got {workers}.")
    return cores() if workers is None else workers


class Processes:
    """Processes of this machine. They are forked from a server that has imported everything and done nothing.

    Every worker holds the reading end of a pipe of which this process alone holds the other: when it closes
    the pipe, the workers end. However it ends itself, the kernel ends the server with it, and with the server
    the workers, whatever they are doing. They have this process's environment and folder.

    Attributes:
        width: how many at once
        told: three numbers of each, float64 [3 * width]: see `tell`
        died: what a future raises, or `submit`, when a worker was killed; the others have ended with it
    """

    died: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def __init__(self, width: int) -> None:
        self.width, self.told = width, get_context("forkserver").RawArray("d", 3 * width)
        self._start()

    def _start(self) -> None:
        start_server()
        context = get_context("forkserver")
        self.reading, self.lifeline = context.Pipe(duplex=False)
        given = (self.reading, dict(os.environ), self.told)
        self.executor = ProcessPoolExecutor(self.width, context, initializer=_become_worker, initargs=given)

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Have a worker do something. The first call waits until the server has imported everything."""
        try:
            return self.executor.submit(work, *arguments)
        except (OSError, EOFError) as error:  # the server that workers are forked from was killed
            raise BrokenProcessPool(str(error)) from error

    def restart(self) -> None:
        """New workers for those of which one was killed: the others have ended with it."""
        self.close()
        self._start()

    def close(self) -> None:
        self.lifeline.close()
        self.executor.shutdown(cancel_futures=True)
        self.reading.close()


def _become_worker(lifeline: Connection, environment: dict[str, str], told: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    _told.append(told)


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # nobody writes: what comes is the end
    os._exit(1)


def tell(number: int, *three: float) -> None:
    """The worker of this number lets the process that has started it read these numbers."""
    _told[0][3 * number : 3 * number + 3] = three


class Ray:
    """Tasks of a Ray cluster, one core each; see `Processes`. SettingError without Ray or a cluster.

    Args:
        ship: a folder that travels to all machines, where the tasks are made
    """

    died: tuple[type[Exception], ...]

    def __init__(self, address: str, width: int | None, ship: Path | None = None) -> None:
        with ExitStack() as stack:
            self.ray: Any = stack.enter_context(cluster(address, ship, width or 1))
            refuse_differences(self.ray, nodes_of(self.ray))
            self._open = stack.pop_all()
        lost = self.ray.exceptions
        self.died = lost.WorkerCrashedError, lost.NodeDiedError, lost.OutOfMemoryError
        self.width = width or max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        self.task = self.ray.remote(num_cpus=1, max_retries=0)(_called)

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        future: Future[Result] = self.task.remote(work, *arguments).future()
        return future

    def restart(self) -> None:
        """Ray has started new workers already."""

    def close(self) -> None:
        self._open.close()


def _called(work: Callable[..., Result], *arguments: Any) -> Result:
    return work(*arguments)
