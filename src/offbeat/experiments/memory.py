"""How much memory runs will need, estimated before they start; and what would fit where they do not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from offbeat.core.errors import SettingError
from offbeat.core.system import devices, machine
from offbeat.engines.recorder import PART
from offbeat.experiments import jobs, limits
from offbeat.experiments.jobs import Job
from offbeat.experiments.setup import Setup

WORTH_SAYING = 500_000_000
"""Bytes from which a command says how much it needs."""

LEVELS = 2.2, 300, 130
"""By levels: models an agent; bytes of the timetable for an update, and for each model that it mixes."""

KEPT = 120, 90
"""By levels: bytes of the trace that is held, for an update and for each model that it mixes."""

HEAP = 130, 110
"""With the simulator's heap: bytes of the trace that is held for an update, and for each message."""

DROPPED = 12
"""With the simulator's heap: bytes for an update where the trace is not held, to measure the staleness."""

BATCH = 256
"""Models in one call of the batched executor; with their gradients."""

WIDE = 4
"""By levels on a GPU: tensors as wide as a chunk, of models, gradients, terms and sums."""

FINAL = 2.0
"""Models an agent that a run on a GPU leaves on the host: the final one, and its bytes for the digest."""

POINT, WORLD = 200, 3_000
"""Bytes of an evaluation in a curve, and of an agent in a world that is ready."""

AGENT = 40_000
"""Bytes for an agent's random streams and what they have drawn ahead."""


@dataclass(frozen=True)
class Need:
    """Bytes that runs need at their peak, beyond the data: for models, for the trace, for the rest of the
    agents.
    """

    models: float
    trace: float
    agents: float

    @property
    def total(self) -> float:
        return self.models + self.trace + self.agents


def need(job: Job, beside: int = 1) -> Need:
    """An estimate, good to a third or so for runs that are not small. beside: how many such runs lie side by
    side.
    """
    setup, on_gpu = job.setup, job.setup.task.initial()[0].device.type != "cpu"
    n, size, updates, degree = setup.topology.n, _bytes(setup), setup.updates, setup.topology.degree
    each, edge = job.spec.vectors
    if job.by_levels:
        models = LEVELS[0] * n + (WIDE * min(n, devices.CHUNK / size) if on_gpu else 0.0)
        table, kept = LEVELS[1] + LEVELS[2] * degree, (KEPT[0] + KEPT[1] * degree) * job.keep_trace
        here = min(updates, jobs.SEGMENT / (1 + degree) / beside)
        trace = here * table + (updates - here) * kept
    else:
        models = (each + edge * degree) * n + 2 * min(n, BATCH)
        here = updates if job.keep_trace else min(updates, PART)
        trace = here * (HEAP[0] + HEAP[1] * (1 + degree)) + (updates - here) * DROPPED
    # two copies of the models more are made for the evaluation
    return Need(beside * (models + 2 * n) * size, beside * trace, beside * n * AGENT)


def needed(waiting: Sequence[Job]) -> float:
    """Bytes of memory that these runs need at most at a time, beyond the data: an estimate."""
    return max(need(job, min(len(waiting), job.beside)).total for job in waiting)


def held(setup: Setup) -> float:
    """About how many bytes the trace of a run by levels has; those of others have not many more."""
    return setup.updates * (KEPT[0] + KEPT[1] * setup.topology.degree)


def _bytes(setup: Setup) -> int:
    return sum(part.nbytes for part in setup.task.initial())


def refuse_too_many(setup: Setup, runs: int, seeds: int) -> None:
    """Raise SettingError if the results of so many such runs, and the worlds of so many seeds, cannot be
    held.
    """
    each = setup.topology.n * _bytes(setup) + len(setup.eval_times) * POINT
    limits.refuse_runs(runs, each, seeds, setup.topology.n * (1 + setup.topology.degree / 10) * WORLD)


def refuse_too_large(job: Job) -> None:
    """Raise SettingError if the run needs more of this machine's memory than there is, with what would fit.

    On a GPU the models are held against its memory, and everything else against that of the machine.
    """
    setup, device = job.setup, job.setup.task.initial()[0].device
    n, what = setup.topology.n, f"A run of {job.spec.name} with {setup.topology.n:,} agents"
    if device.type != "cpu" and (models := need(job).models) > (free := devices.free(device)):
        raise SettingError(
            f"{what} needs about {models / 1e9:.1f} GB of memory for models on {device}; {free / 1e9:.1f} GB "
            f"are free there. Expected fewer agents, or device 'cpu'; about {int(n * free / models):,} "
            "agents would fit."
        )

    def here(job: Job) -> Need:
        needed = need(job)
        return needed if device.type == "cpu" else replace(needed, models=FINAL * n * _bytes(setup))

    def fits(job: Job, until: float) -> bool:
        return here(replace(job, setup=replace(setup, until=until))).total <= free

    needed, free = here(job), machine.available()
    if needed.total <= free:
        return
    advice = [f"about {int(n * free / needed.total):,} agents"]
    if job.keep_trace and fits(replace(job, keep_trace=False), setup.until):
        advice.append("these without --traces")
    low, high = 0.0, setup.until
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(job, middle) else (low, middle)
    if low > 0:
        advice.append(f"these until time {low:,.6g},")
    raise SettingError(
        f"{what} until time {setup.until:g} needs about {needed.total / 1e9:.1f} GB of memory: "
        f"{needed.models / 1e9:.1f} for models, {needed.trace / 1e9:.1f} for the trace; {free / 1e9:.1f} GB "
        f"are free. Expected fewer agents or an earlier end; {', or '.join(advice)} would fit."
    )
