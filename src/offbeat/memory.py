"""How much memory a run will need, said before it starts; and what would fit where it does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from offbeat import devices
from offbeat.algorithms import Algorithm
from offbeat.errors import SettingError
from offbeat.experiment import Prepared

WORTH_SAYING = 500_000_000
"""Bytes from which a command says how much it needs."""

LEVELS = 2.2, 300, 130
"""By levels: models an agent; bytes of the timetable for an update, and for each model that it mixes."""

HEAP = 130, 110
"""With the simulator's heap: bytes of the trace for an update, and for each message."""

BATCH = 256
"""Models in one call of the batched executor; with their gradients."""

WIDE = 4
"""By levels on a GPU: tensors as wide as a chunk, of models, gradients, terms and sums."""

FINAL = 2.0
"""Models an agent that a run on a GPU leaves on the host: the final one, and its bytes for the digest."""

AGENT = 40_000
"""Bytes for an agent's random streams and what they have drawn ahead."""


@dataclass(frozen=True)
class Need:
    """Bytes that one run needs at its peak, beyond the data: for models, for its trace, for the rest of an agent."""

    models: float
    trace: float
    agents: float

    @property
    def total(self) -> float:
        """All together."""
        return self.models + self.trace + self.agents


def need(p: Prepared, row: Algorithm, by_levels: bool) -> Need:
    """An estimate, good to a third or so for runs that are not small. by_levels: whether it is made so."""
    n, size, on_gpu = p.topology.n, _bytes(p), p.task.initial()[0].device.type != "cpu"
    degree = sum(len(view.listeners) for view in p.topology.views()) / n
    updates = sum(p.until / p.world.compute_delay(i).mean for i in range(n))
    each, edge = row.vectors
    if by_levels:
        models, trace = LEVELS[0] * n, updates * (LEVELS[1] + LEVELS[2] * degree)
        models += WIDE * min(n, devices.CHUNK / size) if on_gpu else 0.0
    else:
        models, trace = (each + edge * degree) * n + 2 * min(n, BATCH), updates * (HEAP[0] + HEAP[1] * (1 + degree))
    return Need((models + 2 * n) * size, trace, n * AGENT)  # two copies more are made for the evaluation


def _bytes(p: Prepared) -> int:
    """Of one model."""
    return sum(part.numel() * part.element_size() for part in p.task.initial())


def available() -> float | None:
    """Bytes that a process may still use: of the machine, or of its container; None where nobody says."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(1024.0 * int(lines["MemAvailable"].split()[0]))
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            found.append(float(limit) - float(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError, KeyError):
        pass
    return min(found, default=None)


def held() -> float:
    """Bytes that this process holds for itself alone: before its runs, mostly the data. 0 where nobody says."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024.0 * int(lines["RssAnon"].split()[0])
    except (OSError, ValueError, KeyError):
        return 0.0


def refuse_too_large(p: Prepared, row: Algorithm, by_levels: bool) -> Need:
    """What the run needs of this machine's memory. Raises SettingError if that is more than there is, with what fits.

    On a GPU the models are held against its memory, and everything else against that of the machine.
    """
    needed, device = need(p, row, by_levels), p.task.initial()[0].device
    if device.type != "cpu":
        _refuse_gpu(p, row, needed, device)
        needed = replace(needed, models=FINAL * p.topology.n * _bytes(p))
    free = available()
    if free is None or needed.total <= free:
        return needed
    agents = int(p.topology.n * free / needed.total)
    left = free - needed.models - needed.agents
    until = p.until * left / needed.trace if left > 0 else 0.0
    fits = f"about {agents:,} agents" + (f", or these until time {until:,.6g}," if until > 0 else "")
    raise SettingError(
        f"A run of {row.name} with {p.topology.n:,} agents until time {p.until:g} needs about "
        f"{needed.total / 1e9:.1f} GB of memory: {needed.models / 1e9:.1f} for models, {needed.trace / 1e9:.1f} for "
        f"the trace; {free / 1e9:.1f} GB are free. Expected fewer agents or an earlier end; {fits} would fit."
    )


def _refuse_gpu(p: Prepared, row: Algorithm, needed: Need, device: torch.device) -> None:
    """Raise SettingError if the models do not fit into the GPU's memory, with what would."""
    free = devices.free(device)
    if needed.models > free:
        raise SettingError(
            f"A run of {row.name} with {p.topology.n:,} agents needs about {needed.models / 1e9:.1f} GB of memory for "
            f"models on {device}; {free / 1e9:.1f} GB are free there. Expected fewer agents, or device 'cpu'; about "
            f"{int(p.topology.n * free / needed.models):,} agents would fit."
        )
