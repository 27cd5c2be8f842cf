"""How much memory a run will need, said before it starts; and what would fit where it does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from offbeat.algorithms import Algorithm
from offbeat.core.errors import SettingError
from offbeat.core.system import devices
from offbeat.core.system.machine import available as available
from offbeat.engines.trace import PART
from offbeat.experiments.experiment import Setup
from offbeat.experiments.room import refuse_runs

WORTH_SAYING = 500_000_000
"""Bytes from which a command says how much it needs."""

LEVELS = 2.2, 300, 130
"""By levels: models an agent; bytes of the timetable for an update, and for each model that it mixes."""

PIECE = 2_000_000
"""Updates, and models that they mix, in a piece of the timetable."""

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
        """All together."""
        return self.models + self.trace + self.agents


def need(setup: Setup, spec: Algorithm, by_levels: bool, keep_trace: bool = True, beside: int = 1) -> Need:
    """An estimate, good to a third or so for runs that are not small.

    Args:
        by_levels: whether it is made so
        keep_trace: whether the trace is held
        beside: how many such runs lie side by side
    """
    n, size, on_gpu = setup.topology.n, _bytes(setup), setup.task.initial()[0].device.type != "cpu"
    updates, degree = setup.updates, setup.topology.degree
    each, edge = spec.vectors
    if by_levels:
        models = LEVELS[0] * n + (WIDE * min(n, devices.CHUNK / size) if on_gpu else 0.0)
        table, kept = LEVELS[1] + LEVELS[2] * degree, (KEPT[0] + KEPT[1] * degree) * keep_trace
        here = min(updates, PIECE / (1 + degree) / beside)
        trace = here * table + (updates - here) * kept
    else:
        models = (each + edge * degree) * n + 2 * min(n, BATCH)
        here = updates if keep_trace else min(updates, PART)
        trace = here * (HEAP[0] + HEAP[1] * (1 + degree)) + (updates - here) * DROPPED
    # two copies of the models more are made for the evaluation
    return Need(beside * (models + 2 * n) * size, beside * trace, beside * n * AGENT)


def held(setup: Setup) -> float:
    """About how many bytes the trace of a run by levels has; those of others have not many more."""
    return setup.updates * (KEPT[0] + KEPT[1] * setup.topology.degree)


def pieces(setup: Setup, beside: int) -> Sequence[float]:
    """Where the pieces of the timetables of so many such runs end."""
    count = math.ceil(beside * setup.updates * (1 + setup.topology.degree) / PIECE)
    return [*[setup.until * k / count for k in range(1, count)], setup.until]


def _bytes(setup: Setup) -> int:
    """Of one model."""
    return sum(part.nbytes for part in setup.task.initial())


def resident() -> float:
    """Bytes that this process holds for itself alone: before its runs, mostly the data. 0 where nobody says."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024.0 * int(lines["RssAnon"].split()[0])
    except (OSError, ValueError, KeyError):
        return 0.0


def refuse_too_many(setup: Setup, runs: int, seeds: int) -> None:
    """Raise SettingError if the results of so many such runs, and the worlds of so many seeds, cannot be
    held.
    """
    each = setup.topology.n * _bytes(setup) + len(setup.eval_times) * POINT
    refuse_runs(runs, each, seeds, setup.topology.n * (1 + setup.topology.degree / 10) * WORLD)


def refuse_too_large(setup: Setup, spec: Algorithm, by_levels: bool, keep_trace: bool = False) -> None:
    """Raise SettingError if the run needs more of this machine's memory than there is, with what would fit.

    On a GPU the models are held against its memory, and everything else against that of the machine.
    """
    device = setup.task.initial()[0].device
    if device.type != "cpu":
        _refuse_gpu(setup, spec, need(setup, spec, by_levels, keep_trace), device)

    def here(keep_trace: bool, until: float = setup.until) -> Need:
        needed = need(replace(setup, until=until), spec, by_levels, keep_trace)
        return (
            needed
            if device.type == "cpu"
            else replace(needed, models=FINAL * setup.topology.n * _bytes(setup))
        )

    needed, free = here(keep_trace), available()
    if free is None or needed.total <= free:
        return
    fits = [f"about {int(setup.topology.n * free / needed.total):,} agents"]
    if keep_trace and here(keep_trace=False).total <= free:
        fits.append("these without --traces")
    low, high = 0.0, setup.until
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if here(keep_trace, middle).total <= free else (low, middle)
    if low > 0:
        fits.append(f"these until time {low:,.6g},")
    raise SettingError(
        f"A run of {spec.name} with {setup.topology.n:,} agents until time {setup.until:g} needs about "
        f"{needed.total / 1e9:.1f} GB of memory: {needed.models / 1e9:.1f} for models, "
        f"{needed.trace / 1e9:.1f} for the trace; {free / 1e9:.1f} GB are free. Expected fewer agents or an "
        f"earlier end; {', or '.join(fits)} would fit."
    )


def _refuse_gpu(setup: Setup, spec: Algorithm, needed: Need, device: torch.device) -> None:
    """Raise SettingError if the models do not fit into the GPU's memory, with what would."""
    free = devices.free(device)
    if needed.models > free:
        raise SettingError(
            f"A run of {spec.name} with {setup.topology.n:,} agents needs about {needed.models / 1e9:.1f} GB "
            f"of memory for models on {device}; {free / 1e9:.1f} GB are free there. Expected fewer agents, "
            f"or device 'cpu'; about {int(setup.topology.n * free / needed.models):,} agents would fit."
        )
