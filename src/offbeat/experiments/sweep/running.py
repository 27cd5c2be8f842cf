"""A sweep from start to end: what is done is skipped, what ends is kept, what fails stops no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from offbeat.core.errors import SettingError
from offbeat.experiments.scheduler import Batch, Pool, Scheduler
from offbeat.experiments.sweep.grid import Point
from offbeat.experiments.sweep.pools import Ray
from offbeat.experiments.sweep.store import Store
from offbeat.experiments.sweep.work import Outcome, batches, reason, run_batch
from offbeat.experiments.workers import Processes, wanted


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is, in points."""

    total: int
    done: int
    failed: int = 0
    running: int = 0


def sweep(
    points: Sequence[Point],
    out: Path,
    workers: int | None = None,
    ray: str | None = None,
    on_progress: Callable[[SweepProgress], None] = lambda progress: None,
    on_failure: Callable[[Outcome], None] = lambda outcome: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> list[Outcome]:
    """Make the runs that are not done, write the Parquet file of all that are; returns those that failed.

    Args:
        workers: how many at once; None: one for each core that this process may use (with Ray: for each of
            the cluster)
        ray: the address of a Ray cluster
        on_progress: called at the beginning and whenever something changes
        on_failure: called with every run that failed, at once
        on_notice: told what the user should know: that a worker was killed

    Ctrl-C (KeyboardInterrupt), or an error that is not a run's, abandons what is running, writes the Parquet
    file of what there is, and is raised again. Raises SettingError if another sweep writes the same file,
    DiskError where something cannot be written.
    """
    wanted(workers)
    store, failures = Store(out), list[Outcome]()
    with store.locked():
        missing = [point for point in points if not store.has(point)]
        now = SweepProgress(len(points), len(points) - len(missing))

        def tell(**changes: int) -> None:
            nonlocal now
            changed = replace(now, **changes)
            if changed != now:
                now = changed
                on_progress(now)

        def arrived(batch: Batch[Point], point: Point, outcome: Outcome) -> None:
            if outcome.row is None:
                failures.append(outcome)
                on_failure(outcome)
                tell(failed=len(failures))
            else:
                store.write(point.key, outcome.row)
                tell(done=now.done + 1)

        def failed(batch: Batch[Point], error: BaseException) -> None:
            for point in batch.runs:
                arrived(batch, point, Outcome(point, failure=reason(error)))

        on_progress(now)
        try:
            if missing:
                with closing(
                    Scheduler(_pool(missing, workers, ray), run_batch, arrived, failed, on_notice)
                ) as made:
                    made.add(batches(missing))
                    for _ in made:
                        tell(running=sum(len(batch.runs) for batch in made.running.values()))
        except KeyboardInterrupt:
            tell(done=store.write_table(points), running=0)
            raise
        except SettingError:  # nothing has begun
            raise
        except Exception:
            with suppress(Exception):  # the first error is the one to tell
                store.write_table(points)
            raise
        store.write_table(points)
    return failures


def _pool(points: Sequence[Point], workers: int | None, ray: str | None) -> Pool:
    if ray is None:
        return Processes(min(wanted(workers), len(points)))
    for point in points:
        delays = [point.settings[name].partition(" ") for name in ("compute", "communication")]
        files = [rest.strip() for family, _, rest in delays if family in ("file", "empirical")]
        for path in (*files, *filter(None, [point.settings["data"]])):
            if not Path(path).is_absolute():
                raise SettingError(
                    f"With --ray a path must be absolute, and there on every machine; got '{path}'."
                )
    return Ray(ray, workers)
