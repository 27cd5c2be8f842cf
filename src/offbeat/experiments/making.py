"""How the runs of a plan are made: those that are kept already are read, the others are made and kept."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import cache, partial
from typing import TYPE_CHECKING

from offbeat.core.errors import ContractError, OffbeatError
from offbeat.experiments.batches import Maker, PlannedRun, Sent, how_many_workers, make_batch
from offbeat.experiments.keeping import Kept
from offbeat.experiments.memory import held
from offbeat.experiments.scheduler import Batch, Scheduler, WorkerKilled
from offbeat.experiments.tuning import Trial
from offbeat.results.run import Run
from offbeat.results.values import Progress

if TYPE_CHECKING:
    from offbeat.experiments.comparison import Plan  # which makes its runs by this

OnRun = Callable[[Run], Run]
OnNotice = Callable[[str], None]


class Making:
    """The runs of one plan, on their way; `Plan.runs` says what the arguments are.

    Attributes:
        done: those that are there and were not yet yielded, by their place
        found: how many were kept already
        waiting: those that are to be made first, of each algorithm together
        lost: those that killed their worker
        faults: what went wrong in algorithms, whose other runs are missing
    """

    def __init__(
        self, plan: "Plan", keep_traces: bool, on_progress: Progress, on_run: OnRun, on_notice: OnNotice,
        kept: Kept | None,
    ) -> None:  # fmt: skip
        self.plan, self.keep_traces, self.kept = plan, keep_traces, kept
        self.on_progress, self.on_run, self.on_notice = on_progress, on_run, on_notice
        self.done, self.lost, self.found = dict[tuple[int, int], Run](), list[str](), 0
        self.faults = list[ContractError]()
        self.searches = [plan.search(place) for place in range(len(plan.specs))]
        self.waiting = self._to_begin_with()

    def runs(self, workers: int) -> Iterator[Run]:
        """Make them with at most so many processes; they come in the order of the plan."""
        plan, waiting = self.plan, self.waiting
        others = self._others(waiting, workers)
        maker = Maker(plan.experiment, plan.setups, plan.check, plan.code, self.on_progress, others)

        def arrived(batch: Batch[PlannedRun], planned: PlannedRun, made: Run | Sent) -> None:
            run = made if isinstance(made, Run) else maker.received(batch, made)
            for missing in self._arrived(planned, run, anew=True):
                scheduler.add(plan.split(missing, others + 1))

        def failed(batch: Batch[PlannedRun], error: BaseException) -> None:
            if isinstance(error, ContractError):  # an algorithm's own, which costs no other's runs
                self.faults.append(error)
            elif isinstance(error, WorkerKilled):
                self.lost.extend(map(str, batch.runs))
            else:
                raise error

        work = partial(make_batch, plan.experiment, plan.check, plan.code)
        scheduler = maker.scheduler = Scheduler(maker.pool, work, arrived, failed, self.on_notice, maker.make)
        order = deque((k, j) for k, spec in enumerate(plan.specs) for j in range(plan.planned[spec.name]))
        with closing(scheduler):
            for missing in waiting:
                scheduler.add(plan.split(missing, others + 1))
            try:
                for _ in scheduler:
                    maker.show()
                    while order and order[0] in self.done:
                        yield self.done.pop(order.popleft())
                yield from self._rest()
                if self.faults:
                    raise ContractError("; ".join(dict.fromkeys(map(str, self.faults))))
                if self.lost:
                    raise OffbeatError(f"{'; '.join(self.lost)}: {WorkerKilled()}")
            except (KeyboardInterrupt, Exception):
                with suppress(Exception):
                    scheduler.look()
                yield from self._rest()
                raise

    def _rest(self) -> Iterator[Run]:
        """What is there, in its order."""
        for key in sorted(self.done):
            yield self.done.pop(key)

    def _others(self, waiting: Sequence[Sequence[PlannedRun]], workers: int) -> int:
        """How many workers pay, beside this process."""
        plan = self.plan
        first = [batch for missing in waiting for batch in plan.split(missing, workers)]
        if workers < 2 or not first:
            return 0
        traces = sum(len(lrs or [1]) * keep for lrs, keep in zip(plan.lrs, plan.traced, strict=True))
        others, why = how_many_workers(first, workers - 1, cache(plan.need), traces * held(plan.setups[0]))
        if why:
            self.on_notice(why)
        return others

    def _to_begin_with(self) -> list[list[PlannedRun]]:
        """The runs that are missing, of each algorithm together: all, or those that find a learning rate."""
        missing = list[list[PlannedRun]]()
        for place, lrs in enumerate(self.plan.lrs):
            trials = self.searches[place].first if lrs is None else [Trial(lr) for lr in lrs]
            missing += self._missing(place, trials, lrs is None)
        return missing

    def _missing(self, place: int, trials: Sequence[Trial], tuning: bool) -> list[list[PlannedRun]]:
        """Of these runs those that are missing; and of those that follow from what is there already."""
        missing, more = list[PlannedRun](), list[list[PlannedRun]]()
        for planned in self.plan.planned_runs(place, trials, tuning, self.keep_traces):
            run = None if self.kept is None else self.kept.read(planned)
            if run is None:
                missing.append(planned)
            else:
                self.found += 1
                more += self._arrived(planned, run, anew=False)
        return [*[missing] * bool(missing), *more]

    def _arrived(self, planned: PlannedRun, run: Run, anew: bool) -> list[list[PlannedRun]]:
        """Take in a run. Returns the runs that are to be made because of it, and are missing."""
        place, search = planned.key[0], self.searches[planned.key[0]]
        tuned = self.plan.lrs[place] is None
        if not planned.tuning:
            run = self.plan.told(run, search.found if tuned else None)
            self.done[planned.key] = run  # before anything can be interrupted
        if anew and self.kept is not None:
            self.kept.write(planned, run)
        if not planned.tuning:
            self.done[planned.key] = self.on_run(run)
            return []
        more = search.add(planned.trial, run)
        return [] if more is None else self._missing(place, more or [search.best], bool(more))
