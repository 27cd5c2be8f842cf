"""Workers of a sweep that are tasks of a Ray cluster."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

from offbeat.core.errors import SettingError

Result = TypeVar("Result")


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
        lost = ray.exceptions
        self.died: tuple[type[Exception], ...] = (
            lost.WorkerCrashedError,
            lost.NodeDiedError,
            lost.OutOfMemoryError,
        )
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
