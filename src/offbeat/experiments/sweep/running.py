"""A sweep from start to end: what is done is skipped, what ends is kept at once, what fails stops no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from offbeat.core.errors import SettingError
from offbeat.experiments.sweep.grid import Point
from offbeat.experiments.sweep.pools import Pool, Ray
from offbeat.experiments.sweep.store import Store
from offbeat.experiments.sweep.work import Outcome, batches, run_batch
from offbeat.experiments.workers import Processes, wanted

KILLED = "its worker was killed, again when it ran alone; was there too little memory?"


@dataclass(frozen=True)
class Progress:
    """How far a sweep is, in points. note: what the user should be told; mostly nothing."""

    total: int
    done: int
    failed: int = 0
    running: int = 0
    note: str = ""


def sweep(
    points: Sequence[Point],
    out: Path,
    workers: int | None = None,
    ray: str | None = None,
    told: Callable[[Progress], None] = lambda progress: None,
    failed: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Make the runs that are not done, write the Parquet file of all that are; returns those that failed.

    Args:
        workers: how many at once; None: one for each core that this process may use (with Ray: for each of
            the cluster)
        ray: the address of a Ray cluster
        told: called at the beginning and whenever something changes
        failed: called with every run that failed, at once

    Ctrl-C (KeyboardInterrupt), or an error that is not a run's, abandons what is running, writes the Parquet
    file of what there is, and is raised again. Raises SettingError if another sweep writes the same file,
    DiskError where something cannot be written.
    """
    wanted(workers)
    store, failures = Store(out), list[Outcome]()
    with store.locked():
        missing = [point for point in points if not store.has(point)]
        now = Progress(len(points), len(points) - len(missing))
        told(now)
        try:
            if missing:
                with closing(_pool(missing, workers, ray)) as pool:
                    for event in carried_out(pool, missing):
                        if isinstance(event, Outcome):
                            if event.row is None:
                                failures.append(event)
                                failed(event)
                                now = replace(now, failed=len(failures), note="")
                            else:
                                store.write(event.point.key, event.row)
                                now = replace(now, done=now.done + 1, note="")
                        else:
                            now = replace(now, running=event.running, note=event.note)
                        told(now)
        except KeyboardInterrupt:
            told(replace(now, done=store.write_table(points), running=0))
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


@dataclass(frozen=True)
class Turn:
    """What changed about the workers: how many points are running, and what the user should be told."""

    running: int
    note: str = ""


def carried_out(pool: Pool, points: Sequence[Point]) -> Iterator[Outcome | Turn]:
    """Run these points; every outcome as soon as it is there.

    When a worker is killed, all that was running is suspect, and is run again, one at a time: what kills its
    worker then has failed, and the others are innocent.
    """
    waiting, suspects = deque(batches(points)), deque[list[Point]]()
    running: dict[Future[list[Outcome]], list[Point]] = {}
    while waiting or suspects or running:
        alone = bool(suspects)
        source, width = (suspects, 1) if alone else (waiting, pool.width)
        while source and len(running) < width:
            batch = source.popleft()
            running[_submitted(pool, batch)] = batch
        yield Turn(sum(map(len, running.values())))
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        killed = any(isinstance(future.exception(), pool.died) for future in ended)
        if killed:
            ended, _ = wait(running)  # of processes, all end when one is killed
        for future in ended:
            batch, error = running.pop(future), future.exception()
            if error is None:
                yield from future.result()
            elif not isinstance(error, pool.died):
                yield from _failed(batch, f"{type(error).__name__}: {' '.join(str(error).split())}")
            elif alone:
                yield from _failed(batch, KILLED)
            else:
                suspects.extend([point] for point in batch)
        if killed:
            pool.restart()
            if not alone:
                yield Turn(
                    0, f"A worker was killed (out of memory?). Again, one at a time: {len(suspects)} points."
                )


def _submitted(pool: Pool, batch: list[Point]) -> Future[list[Outcome]]:
    try:
        return pool.submit(run_batch, batch)
    except pool.died:  # an idle worker was killed
        pool.restart()
        return pool.submit(run_batch, batch)


def _failed(batch: Sequence[Point], reason: str) -> Iterator[Outcome]:
    return (Outcome(point, failure=reason) for point in batch)
