"""A sweep from start to end: what is done is skipped, what ends is kept, what fails stops no other."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from offbeat.algorithms import find
from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system.own import pinned
from offbeat.experiments.runs import Job, run_many
from offbeat.experiments.scheduler import Batch, Scheduler
from offbeat.experiments.setup import prepare
from offbeat.experiments.sweep.grid import Point
from offbeat.experiments.sweep.store import Store, row_of
from offbeat.experiments.workers import Processes, Ray, wanted

AT_ONCE = 4  # points in a batch, at most: all cores shall have work, and little be lost with one of them


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is, in points."""

    total: int
    done: int
    failed: int = 0
    running: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a row, or with the reason why there is none, in one line."""

    point: Point
    row: dict[str, Any] | None = None
    failure: str = ""


def sweep(
    points: Sequence[Point],
    out: Path,
    workers: int | None = None,
    ray: str | None = None,
    on_progress: Callable[[SweepProgress], None] = lambda progress: None,
    on_failure: Callable[[Outcome], None] = lambda outcome: None,
    on_notice: Callable[[str], None] = lambda text: None,
    ship: Path | None = None,
) -> list[Outcome]:
    """Make the runs that are not done, write the Parquet file of all that are; returns those that failed.

    Args:
        workers: how many at once; None: one for each core that this process, or the Ray cluster, may use
        ray: the address of a Ray cluster
        on_progress: called at the beginning and whenever something changes
        on_failure: called with every run that failed, at once
        on_notice: told what the user should know: that a worker was killed
        ship: this folder, if it travels to all machines of the cluster; None: they have it under its path

    Ctrl-C (KeyboardInterrupt), or an error that is not a run's, abandons what is running, writes the Parquet
    file of what there is, and is raised again. Raises SettingError if another sweep writes the same file,
    DiskError where something cannot be written.
    """
    wanted(workers)
    store = Store(out)
    with store.locked():
        store.keep_versions(points)
        missing = [point for point in points if not store.has(point)]
        begun = SweepProgress(len(points), len(points) - len(missing))
        account = _Account(store, begun, on_progress, on_failure)
        on_progress(account.now)
        try:
            if missing:
                pool = (
                    Processes(min(wanted(workers), len(missing))) if ray is None else Ray(ray, workers, ship)
                )
                elsewhere = partial(run_elsewhere, None if ship else str(Path.cwd()))
                work = run_batch if ray is None else elsewhere
                with closing(Scheduler(pool, work, account.arrived, account.failed, on_notice)) as made:
                    made.add(_batches(missing))
                    for _ in made:
                        account.tell(running=sum(len(batch.runs) for batch in made.running.values()))
        except KeyboardInterrupt:
            account.tell(done=store.write_table(points), running=0)
            raise
        except SettingError:  # nothing has begun
            raise
        except Exception:
            with suppress(Exception):  # the first error is the one to tell
                store.write_table(points)
            raise
        store.write_table(points)
    return account.failures


@dataclass
class _Account:
    """How far a sweep is, and what failed."""

    store: Store
    now: SweepProgress
    on_progress: Callable[[SweepProgress], None]
    on_failure: Callable[[Outcome], None]
    failures: list[Outcome] = field(default_factory=list)

    def tell(self, **changes: int) -> None:
        changed = replace(self.now, **changes)
        if changed != self.now:
            self.now = changed
            self.on_progress(changed)

    def arrived(self, batch: Batch[Point], point: Point, outcome: Outcome) -> None:
        if outcome.row is None:
            self.failures.append(outcome)
            self.on_failure(outcome)
            self.tell(failed=len(self.failures))
        else:
            self.store.write(point.key, outcome.row)
            self.tell(done=self.now.done + 1)

    def failed(self, batch: Batch[Point], error: BaseException) -> None:
        for point in batch.runs:
            self.arrived(batch, point, _failure(point, error))


def _failure(point: Point, error: BaseException) -> Outcome:
    said = str(error)
    if not isinstance(error, OffbeatError):
        said = f"{type(error).__name__}: {' '.join(said.split())}"
    return Outcome(point, failure=said)


def _batches(points: Sequence[Point]) -> Iterator[Batch[Point]]:
    """The points, in order, in batches: neighbours that differ in seed or learning rate alone, for these may
    lie side by side (see `offbeat.experiments.runs`), which is faster and changes no result.
    """
    for _, alike in groupby(points, key=lambda point: (point.experiment, point.algorithm)):
        while some := tuple(islice(alike, AT_ONCE)):
            yield Batch(some)


# -- in a worker -----------------------------------------------------------------------------------

_world = lru_cache(AT_ONCE)(prepare)
"""Points of one world often follow each other."""


def run_batch(batch: Batch[Point], number: int = 0) -> list[Outcome]:
    """Make these runs as the worker of this number; one that fails does not disturb the others."""
    points, first = batch.runs, batch.runs[0]
    try:
        with pinned(first.code, first.code):
            spec, how = find(first.algorithm), first.experiment.executor
            jobs = [Job(_world(p.experiment, p.seed), spec, p.lr, how, keep_trace=False) for p in points]
        return [Outcome(p, row_of(p, run)) for p, run in zip(points, run_many(jobs), strict=True)]
    except Exception as error:  # whatever it is, the other points go on
        if len(points) == 1:
            return [_failure(first, error)]
        return [run_batch(Batch((point,)), number)[0] for point in points]  # whose fault it is shows alone


def run_elsewhere(folder: str | None, batch: Batch[Point], number: int = 0) -> list[Outcome]:
    """The same on any machine of a cluster, in the folder in which the sweep was begun, if that is there;
    None: where it has travelled to. So paths mean what they mean here. What fails says on which machine.
    """
    where = platform.node()
    if folder is not None and Path(folder).is_dir():
        os.chdir(folder)
    elif folder is not None:
        where += f", which has no folder {folder}"
    outcomes = run_batch(batch, number)
    return [
        each if each.row is not None else replace(each, failure=f"{each.failure} (On {where}.)")
        for each in outcomes
    ]
