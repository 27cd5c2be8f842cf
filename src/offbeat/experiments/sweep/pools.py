"""The workers of a sweep: processes of this machine (`offbeat.experiments.workers`), or tasks of a Ray
cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any, Protocol, TypeVar

from offbeat.core.errors import SettingError

Result = TypeVar("Result")


class Pool(Protocol):
    """Workers. width: how many things they do at once; died: what is raised where a worker was killed."""

    width: int
    died: tuple[type[Exception], ...]

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Have a worker do something."""

    def restart(self) -> None:
        """Go on after a worker was killed. Nothing is running."""

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""


class Ray:
    """Tasks of a Ray cluster, one core each. Raises SettingError if Ray is not installed, or there is no
    cluster.
    """

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
        self.task = cache(ray.remote(num_cpus=1, max_retries=0))

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Have the cluster do something."""
        future: Future[Result] = self.task(work).remote(*arguments).future()
        return future

    def restart(self) -> None:
        """Ray has started new workers already."""

    def close(self) -> None:
        """Leave the cluster, which ends what still runs."""
        self.ray.shutdown()
