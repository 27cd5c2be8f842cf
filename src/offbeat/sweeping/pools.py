"""The workers of a sweep: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from offbeat.errors import SettingError
from offbeat.sweeping.grid import Point
from offbeat.sweeping.work import Outcome, run_batch

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Pool(Protocol):
    """Workers. width: how many batches run at once; died: what a future raises whose worker was killed."""

    width: int
    died: tuple[type[Exception], ...]

    def submit(self, batch: Sequence[Point]) -> Future[list[Outcome]]:
        """Have a worker run a batch."""

    def restart(self) -> None:
        """Go on after a worker was killed. Nothing is running."""

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processes:
    """Processes of this machine. They are forked from a server that has imported everything and done nothing.

    Every worker holds the reading end of a pipe of which this process alone holds the other: however this process ends,
    and when it closes the pipe, the workers end too.
    """

    died: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def __init__(self, width: int) -> None:
        self.width = width
        forkserver.set_forkserver_preload(["offbeat.commands", "offbeat.sweeping.work"])
        with _undisturbed():
            forkserver.ensure_running()
        self._start()

    def _start(self) -> None:
        context = get_context("forkserver")
        self.reading, self.lifeline = context.Pipe(duplex=False)
        self.executor = ProcessPoolExecutor(self.width, context, initializer=_become_worker, initargs=(self.reading,))

    def submit(self, batch: Sequence[Point]) -> Future[list[Outcome]]:
        """Have a worker run a batch."""
        try:
            return self.executor.submit(run_batch, batch)
        except BrokenProcessPool:  # an idle worker was killed
            self.restart()
            return self.executor.submit(run_batch, batch)

    def restart(self) -> None:
        """New workers for those of which one was killed: the others have ended with it."""
        self.close()
        self._start()

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
        self.lifeline.close()
        self.executor.shutdown(cancel_futures=True)
        self.reading.close()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What is started here has this process's modules and one thread, and leaves Ctrl-C to this process."""
    wanted = {**dict.fromkeys(THREADS, "1"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = {name: os.environ.get(name) for name in wanted}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if main:
            signal.signal(signal.SIGINT, handler)


def _become_worker(lifeline: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # nobody writes: what comes is the end
    os._exit(1)


class Ray:
    """Tasks of a Ray cluster, one core each. Raises SettingError if Ray is not installed, or there is no cluster."""

    def __init__(self, address: str, width: int | None) -> None:
        try:
            import ray
        except ImportError:
            raise SettingError(
                "--ray needs Ray, which is not installed. Install it with: pip install 'offbeat[ray]'"
            ) from None
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SettingError(
                f"Cannot use the Ray cluster at '{address}': {error} Expected 'auto', 'local', HOST:PORT or "
                "ray://HOST:PORT of a cluster that runs."
            ) from None
        self.ray: Any = ray
        self.died: tuple[type[Exception], ...] = (
            ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError,
        )  # fmt: skip
        self.width = width or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.task = ray.remote(num_cpus=1, max_retries=0)(run_batch)

    def submit(self, batch: Sequence[Point]) -> Future[list[Outcome]]:
        """Have the cluster run a batch."""
        future: Future[list[Outcome]] = self.task.remote(batch).future()
        return future

    def restart(self) -> None:
        """Ray has started new workers already."""

    def close(self) -> None:
        """Leave the cluster, which ends what still runs."""
        self.ray.shutdown()
