"""How much memory runs will need, estimated before they start; and what would fit where they do not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from offbeat.core.errors import SettingError
from offbeat.core.system import devices, machine
from offbeat.engines.recorder import PART
from offbeat.engines.sim.recording import LONGEST, PER_AGENT
from offbeat.experiments import runs
from offbeat.experiments.runs import Job
from offbeat.experiments.segments import segment_of
from offbeat.experiments.setup import Setup, check_algorithm, refuse

WORTH_SAYING = 500_000_000  # bytes from which a command says how much it needs

LEVELS = (
    500,
    200,
    120,
)  # by levels: bytes of the timetable and of what is made, for an update, each model that
# it mixes, and each vector that is kept for a neighbour
KEPT = 120, 90  # by levels: bytes of the trace that is held, for an update, and for each model mixed
HEAP = 130, 110  # event by event: bytes of the trace that is held, for an update, and for each message
DROPPED = 12  # event by event: bytes for an update where the trace is not held, to measure the staleness
BATCH = 256  # models in one call of the batched executor; with their gradients
WIDE = 4  # by levels on a GPU: tensors as wide as a chunk, of models, gradients, terms and sums
FINAL = 2.0  # models an agent that a run on a GPU leaves on the host: the final one, its bytes for the digest
ARRIVED = 3.0  # event by event: models an agent more, where what arrives of messages is not what was sent
POINT, WORLD = 200, 3_000  # bytes of an evaluation in a curve, and of an agent in a world that is ready
RECORD = 450  # bytes of a record of the batched executor
AGENT = 40_000  # bytes for an agent's random streams and what they have drawn ahead


@dataclass(frozen=True)
class Need:
    """Bytes that runs need at their peak, beyond the data: models, trace, and the rest of the agents."""

    models: float
    trace: float
    agents: float

    @property
    def total(self) -> float:
        return self.models + self.trace + self.agents


def need(job: Job, beside: int = 1) -> Need:
    """An estimate, good to a third or so for runs that are not small. beside: how many lie side by side."""
    setup, on_gpu = job.setup, job.setup.task.initial()[0].device.type != "cpu"
    n, size, updates, degree = setup.topology.n, _bytes(setup), setup.updates, setup.topology.degree
    each, edge = job.spec.vectors
    if job.by_levels:
        degree = job.heard
        models = (each + setup.steps.vectors + edge * degree) * n
        models += WIDE * min(n, devices.CHUNK / size) if on_gpu else 0.0
        table, kept = (
            LEVELS[0] + (LEVELS[1] + LEVELS[2] * edge) * degree,
            (KEPT[0] + KEPT[1] * degree) * job.keep_trace,
        )
        here = min(updates, segment_of(setup) / (1 + degree) / beside)
        trace = here * table + (updates - here) * kept
    else:
        more = setup.steps.vectors + (0.0 if setup.codec is None else ARRIVED)
        models = (each + more + edge * degree) * n + 2 * min(n, BATCH)
        here = updates if job.keep_trace else min(updates, PART)
        trace = here * (HEAP[0] + HEAP[1] * (1 + degree)) + (updates - here) * DROPPED
    # two copies of the models more are made for the evaluation
    records = 0 if job.by_levels else RECORD * (LONGEST + PER_AGENT * n)
    return Need(beside * (models + 2 * n) * size, beside * trace, beside * n * AGENT + records)


def needed(waiting: Sequence[Job]) -> float:
    """Bytes of memory that these runs need at most at a time, beyond the data: an estimate."""
    return max(need(job, min(len(waiting), job.beside)).total for job in waiting)


def held(setup: Setup) -> float:
    """About how many bytes the trace of a run by levels has; those of others have not many more."""
    return setup.updates * (KEPT[0] + KEPT[1] * setup.topology.degree)


def _bytes(setup: Setup) -> int:
    return sum(part.nbytes for part in setup.task.initial())


def refuse_too_many(setup: Setup, count: int, seeds: int) -> None:
    """Raise SettingError if the results of so many runs, and the worlds of so many seeds, cannot be held."""
    each = setup.topology.n * _bytes(setup) + len(setup.eval_times) * POINT
    world = setup.topology.n * (1 + setup.topology.degree / 10) * WORLD
    advice = "with their results. Expected fewer seeds or evaluations"
    refuse(count * each + seeds * world, f"{count:,} runs", advice)


def check_run(job: Job) -> None:
    """Raise SettingError if this run makes no sense, or for too little memory, with what would fit.

    On a GPU the models are held against its memory, and everything else against that of the machine.
    """
    check_algorithm(job.setup, job.spec)
    if job.executor == runs.LEVELS and job.why_not_by_levels:
        why = f"{job.spec.name} cannot be run by levels: {job.why_not_by_levels}"
        raise SettingError(f"{why}. Expected --executor auto, which sees to it.")
    setup, device = job.setup, job.setup.task.initial()[0].device
    n, what = setup.topology.n, f"A run of {job.spec.name} with {setup.topology.n:,} agents"
    if device.type != "cpu" and (models := need(job).models) > (free := devices.free(device)):
        raise SettingError(
            f"{what} needs about {models / 1e9:.1f} GB of memory for models on {device}; {free / 1e9:.1f} GB "
            f"are free there. Expected fewer agents, or device 'cpu'; about {int(n * free / models):,} "
            "agents would fit."
        )

    def here(job: Job) -> Need:
        return need(job) if device.type == "cpu" else replace(need(job), models=FINAL * n * _bytes(setup))

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
