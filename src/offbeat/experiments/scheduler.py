"""The scheduler of runs: batches wait in a queue, from which workers and this process take until it is empty.

A comparison is a grid of runs in memory, a sweep one with a store; both hand their batches to a `Scheduler`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count
from queue import Empty, PriorityQueue, SimpleQueue
from threading import Event, Thread
from typing import Generic, Protocol, TypeVar

from offbeat.core.errors import OffbeatError

Item = TypeVar("Item")
Result = TypeVar("Result")

TICK = 0.2  # seconds between looks at the workers while this process has nothing else to do

NOTICE = "A worker was killed (out of memory?). What was running is made again, one run at a time."


class WorkerKilled(OffbeatError):
    """A run killed its worker, and did so again when nothing ran beside it."""

    def __str__(self) -> str:
        return "its worker was killed, again when it ran alone; was there too little memory?"


@dataclass(frozen=True)
class Batch(Generic[Item]):
    """Runs that one process makes together: side by side where they can be, else one after another.

    Attributes:
        seconds: how long it takes, estimated: with workers, the longest is made first
        place: without workers, the smallest is made first
        here: whether only this process can make it, for something in it is the user's own object
        label: what it is called while it is being made
    """

    runs: tuple[Item, ...]
    seconds: float = 0.0
    place: int = 0
    here: bool = False
    label: str = ""


class Pool(Protocol):
    """Workers. width: how many batches they make at once; died: what is raised where a worker was killed.

    `restart` goes on after that, when nothing is running; `close` ends all, whatever they are doing.
    """

    width: int
    died: tuple[type[Exception], ...]

    def submit(self, work: Callable[..., Result], *arguments: object) -> Future[Result]: ...

    def restart(self) -> None: ...

    def close(self) -> None: ...


class Scheduler(Generic[Item, Result]):
    """Makes batches until none is left. Whoever is free takes the longest that waits.

    When a worker is killed, all that workers were making is suspect. It is made again, one run at a time with
    nothing beside it, not even in this process: a run that kills its worker then has failed. After that the
    workers go on.

    Every worker has a thread here, which hands it one batch after another, so that none waits while this
    process is busy. All callbacks are called by the thread that iterates.

    Attributes:
        running: what the workers are making, by their number
    """

    def __init__(
        self,
        pool: Pool | None,
        work: Callable[[Batch[Item], int], Sequence[Result]],
        on_result: Callable[[Batch[Item], Item, Result], None],
        on_failure: Callable[[Batch[Item], BaseException], None],
        on_notice: Callable[[str], None],
        here: Callable[[Batch[Item]], Iterable[Result]] | None = None,
    ) -> None:
        """Nothing begins before the first step of the iteration.

        Args:
            work: how the worker of a number makes a batch: the results in the order of the batch
            on_result: told of every result as soon as it is there
            on_failure: told of a batch that has none, and why: `WorkerKilled`, or what was raised
            on_notice: told what the user should know
            here: how this process makes a batch, result by result; None: it leaves everything to the workers
        """
        self.pool, self.work, self.here = pool, work, here
        self.on_result, self.on_failure, self.on_notice = on_result, on_failure, on_notice
        self.left, self.numbers, self.mine = 0, count(), deque[Batch[Item]]()
        self.waiting = PriorityQueue[tuple[float, int, Batch[Item] | None]]()
        self.running, self.threads = dict[int, Batch[Item]](), list[Thread]()
        self.news = SimpleQueue[tuple[int, Batch[Item], Future[Sequence[Result]] | None]]()
        self.suspects, self.broken, self.alone, self.noticed = deque[Batch[Item]](), False, False, False

    def add(self, batches: Iterable[Batch[Item]]) -> None:
        for batch in batches:
            self.left += 1
            if batch.here and self.pool is not None:
                self.mine.append(batch)
            else:
                rank = batch.place if self.pool is None else -batch.seconds
                self.waiting.put((rank, next(self.numbers), batch))

    def __iter__(self) -> Iterator[None]:
        """Make everything; a step ends whenever results may have arrived."""
        batch = self._next()  # before the workers, which need some seconds until they begin
        self._start()
        while self.left:
            if batch is None:
                self.look(TICK)
            elif self.here is not None:
                try:
                    for run, result in zip(batch.runs, self.here(batch), strict=True):
                        self.on_result(batch, run, result)
                        self.look()
                        yield
                except Exception as error:
                    self.on_failure(batch, error)
                self.left -= 1
            yield
            if self.broken:
                yield from self._again()
            batch = self._next()

    def look(self, seconds: float = 0.0) -> None:
        """Take in what workers have done meanwhile; wait for it so long."""
        while True:
            try:
                number, batch, future = self.news.get(bool(seconds), seconds)
            except Empty:
                return
            seconds = 0.0
            if future is None:
                self.running[number] = batch
            else:
                self.running.pop(number, None)
                self._ended(batch, future)

    def close(self) -> None:
        self._dismiss()
        if self.pool is not None:
            self.pool.close()
        self._join()

    def _ended(self, batch: Batch[Item], future: Future[Sequence[Result]]) -> None:
        error = future.exception()
        if self.pool is not None and isinstance(error, self.pool.died):
            self.broken = True
            if not self.alone:
                self.suspects.extend(replace(batch, runs=(run,)) for run in batch.runs)
                self.left += len(batch.runs) - 1
                return
            error = WorkerKilled()
        self.left -= 1
        if error is not None:
            self.on_failure(batch, error)
        else:
            for run, result in zip(batch.runs, future.result(), strict=True):
                self.on_result(batch, run, result)

    def _again(self) -> Iterator[None]:
        """After a worker was killed: make the suspects, each alone, then let the workers go on."""
        if not self.noticed:
            self.on_notice(NOTICE)
        self._dismiss()
        self._join()
        self.look()
        self.noticed = self.alone = True
        while self.broken or self.suspects:
            if self.broken and self.pool is not None:
                self.pool.restart()
                self.broken = False
            if self.suspects:
                self.running[0] = self.suspects.popleft()
                self._serve_all([self.running[0]])
            while self.running:
                self.look(TICK)
                yield
            self._join()
        self.alone = False
        self._start()

    def _next(self) -> Batch[Item] | None:
        """What this process makes next; None if there is nothing for it."""
        if self.mine:
            return self.mine.popleft()
        try:
            return self.waiting.get_nowait()[-1] if self.here is not None else None
        except Empty:
            return None

    def _start(self) -> None:
        self._serve_all(*[self._queued() for _ in range(0 if self.pool is None else self.pool.width)])

    def _serve_all(self, *served: Iterable[Batch[Item]]) -> None:
        for each in enumerate(served):
            thread = Thread(target=self._serve, args=each, daemon=True)
            thread.start()
            self.threads.append(thread)  # only now: who is interrupted joins what is here

    def _queued(self) -> Iterator[Batch[Item]]:
        while (batch := self.waiting.get()[-1]) is not None:
            yield batch

    def _serve(self, number: int, batches: Iterable[Batch[Item]]) -> None:
        assert self.pool is not None
        for batch in batches:
            self.news.put((number, batch, None))
            try:
                future = self.pool.submit(self.work, batch, number)
            except Exception as error:  # of a pool that is broken, closed or cannot be had: `look` decides
                future = Future()
                future.set_exception(error)
            _wait(future)
            if future.cancelled():
                return
            self.news.put((number, batch, future))
            if isinstance(future.exception(), self.pool.died):
                return

    def _dismiss(self) -> None:
        for _ in self.threads:
            self.waiting.put((-math.inf, next(self.numbers), None))

    def _join(self) -> None:
        for thread in self.threads:
            thread.join()
        self.threads = []
        while self.waiting.queue and self.waiting.queue[0][-1] is None:  # for threads that had ended before
            self.waiting.get()


def _wait(future: Future[Result]) -> None:
    """Until it is done or cancelled; for what is cancelled `concurrent.futures.wait` may wait for ever."""
    ended = Event()
    future.add_done_callback(lambda _: ended.set())
    ended.wait()
