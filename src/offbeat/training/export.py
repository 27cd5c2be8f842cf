"""One model out of a run's checkpoints: a safetensors file that `model.load_state_dict` takes as it is.

Of parameters and of floating buffers, such as BatchNorm's running statistics, it holds the mean over the
agents, taken in float64 and stored in their own dtype; of integers, such as BatchNorm's count of batches, the
largest. Tied weights are there under all their names. Where all agents agree, what they agree on is kept bit
for bit.

    done = export(Path("offbeat-runs/train-0"))
    model.load_state_dict(safetensors.torch.load_file(done.path))
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save as serialized
from torch import Tensor

from offbeat.core.errors import DataError, OffbeatError, SettingError
from offbeat.core.system.files import write_atomically
from offbeat.engines.live.node.checkpoint import ENDING, damage
from offbeat.engines.live.node.saving import refuse_other
from offbeat.training.saved_model import (
    SavedModel,
    agents_of,
    no_checkpoints,
    path_of,
    read_model,
    saved_steps,
)

MODEL = "model 1"
"""What the metadata of an exported file calls its format."""

SHOWN = 8
"""How many differences of two models are shown."""

RECENT, AS_FAR = 0.8, 0.95
"""Of the time of the last checkpoint, and of the steps of the furthest agent: an agent that saved its last
one before, with fewer steps, left early or was killed. One that is as far, only sooner, is quick.
"""


class ExportError(OffbeatError):
    """The model cannot be written."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        sources: the checkpoints that it is the mean of
        missing: agents without a checkpoint
        damaged: which newer checkpoints are left out, and why
    """

    path: Path
    sources: tuple[SavedModel, ...]
    missing: tuple[int, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def behind(self) -> tuple[int, ...]:
        """Agents far behind the furthest one: with less than half of its steps, or fewer and saved long
        before it.
        """
        most, last = max(s.step for s in self.sources), max(s.time or 0.0 for s in self.sources)
        return tuple(
            s.agent
            for s in self.sources
            if 2 * s.step < most or (s.step < AS_FAR * most and s.time is not None and s.time < RECENT * last)
        )

    @property
    def warnings(self) -> list[str]:
        """What whoever uses the mean should know: who is far behind, damaged or missing."""
        far = []
        if self.behind:
            others = ",".join(str(s.agent) for s in self.sources if s.agent not in self.behind)
            far = [
                "Far behind the others, as they are slow, left early or were killed: agents "
                f"{', '.join(map(str, self.behind))}. They count as much as the others; --agents {others} "
                "leaves them out."
            ]
        return [*far, *self.damaged, *(f"agent {i}: left out, no checkpoint" for i in self.missing)]


def export(
    folder: Path,
    out: Path | None = None,
    agents: Sequence[int] | None = None,
    step: int | None = None,
    allow_missing: bool = False,
    force: bool = False,
) -> Exported:
    """Write the mean of all agents' models, out of the checkpoints in a run's folder, as one file.

    Args:
        out: the file; default: model.safetensors in the folder, or a name that says which agents and step
        agents: of these agents only
        step: of this step; default: each agent's newest that is whole
        allow_missing: leave out agents that have no such checkpoint
        force: the file may exist, and is replaced

    Raises SettingError for what cannot be had, DataError for a file that is no checkpoint, ExportError if the
    model cannot be written.
    """
    of = "" if agents is None else f"-agents-{'-'.join(map(str, agents))}"
    at = "" if step is None else f"-step-{step}"
    path = folder / f"model{of}{at}{ENDING}" if out is None else out
    if path.is_dir():
        raise SettingError(f"{path} is a folder; expected the name of a file to write.")
    if path.exists() and not force:
        raise SettingError(f"{path} exists; --force replaces it, --out names another file.")
    exported = _chosen(path, folder, agents, step, allow_missing)
    first, *others = exported.sources
    for other in others:
        _refuse_unlike(first, other)
    mean = {name: _combined([s.tensors[name] for s in exported.sources]) for name in first.tensors}
    metadata = {
        "format": "pt",
        "offbeat": MODEL,
        "run": folder.resolve().name,
        "about": json.dumps({key: value for key, value in first.about.items() if key != "model"}),
        "steps": json.dumps({str(s.agent): s.step for s in exported.sources}),
        "missing": json.dumps(exported.missing),
        "names": "state_dict" if first.named else "x",
    }
    try:
        write_atomically(path, serialized(mean, metadata))
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise ExportError(
            f"Cannot write the model {path}: {why}. Expected a folder that exists, with room, that this user "
            "may write to; --out names another file."
        ) from error
    return exported


def _chosen(
    out: Path, folder: Path, agents: Sequence[int] | None, step: int | None, allow_missing: bool
) -> Exported:
    """The checkpoints that are meant, at least one, and the agents that have none. Raises SettingError."""
    steps, damaged = saved_steps(folder), list[str]()
    if step is None:
        for i, have in steps.items():
            steps[i] = _whole(folder, i, have, damaged) or have[: not allow_missing]
    found = {i: have for i, have in steps.items() if have}
    if not found:
        raise no_checkpoints(folder)
    read, first = cache(partial(read_model, folder)), min(found)
    n = agents_of(folder, read(first, found[first][0]).about)
    wanted = range(n) if agents is None else sorted(set(agents))
    if not wanted or not 0 <= wanted[0] <= wanted[-1] < n:
        asked = ", ".join(map(str, wanted)) or "none"
        raise SettingError(
            f"Agents {asked} were asked for; expected some of 0 to {n - 1}, which {folder} has."
        )
    having = [i for i in wanted if (i in found if step is None else step in steps.get(i, []))]
    missing = [i for i in wanted if i not in having]
    if missing and not (allow_missing and having):
        what = "a checkpoint" if step is None else f"a checkpoint of step {step}"
        they_have = "; ".join(f"agent {i} has {_steps(steps.get(i, []))}" for i in missing)
        do = " --allow-missing leaves them out." if having else ""
        if step is not None and len(wanted) > 1:
            common = sorted(set.intersection(*(set(steps.get(i, [])) for i in wanted)))
            do += f" All of them have {_steps(common)}."
        raise SettingError(f"Expected {what} of every agent that is asked for, but {they_have}.{do}")
    sources = [read(i, steps[i][0] if step is None else step) for i in having]
    return Exported(out, tuple(sources), tuple(missing), tuple(damaged))


def _whole(folder: Path, agent: int, have: list[int], damaged: list[str]) -> list[int]:
    """The newest of an agent's checkpoints that is not damaged, and all before it; `damaged` is told of those
    that are.
    """
    for k, step in enumerate(have):
        path = path_of(folder, agent, step)
        if not (why := damage(path)):
            return have[k:]
        damaged.append(f"{path} is left out: {why}.")
    return []


def _steps(have: list[int]) -> str:
    return f"those of {', '.join(map(str, have))}" if have else "none"


def _refuse_unlike(first: SavedModel, other: SavedModel) -> None:
    """Raise SettingError, with the difference, if these are not two copies of one model, of one run."""
    one, two = ({name: _kind(t) for name, t in s.tensors.items()} for s in (first, other))
    lines = [
        f"{name}: {one.get(name, 'not there')} of agent {first.agent}, {two.get(name, 'not there')} of agent "
        f"{other.agent}"
        for name in {**one, **two}
        if one.get(name) != two.get(name)
    ]
    what = f"The checkpoints of agents {first.agent} and {other.agent}"
    if lines:
        head = f"{what} are of unlike models, which have no mean (--agents exports some):"
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise SettingError("\n  ".join([head, *lines[:SHOWN], *more]))
    try:
        refuse_other(first.about, other.about)
    except SettingError as error:
        _, _, difference = str(error).partition("\n")
        raise SettingError(
            f"{what} are of two runs (saved: the first one's, now: the other's):\n{difference}"
        ) from None


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _combined(tensors: list[Tensor]) -> Tensor:
    """The mean of floating tensors, the largest of others: a new tensor of their dtype."""
    first, *others = tensors
    if all(_same_bits(first, other) for other in others):
        return first.clone(memory_format=torch.contiguous_format)
    if first.is_floating_point() or first.is_complex():
        total = first.to(torch.complex128 if first.is_complex() else torch.float64, copy=True)
        for other in others:
            total += other.to(total.dtype)
        return (total / len(tensors)).to(first.dtype)
    with suppress(TypeError):
        return torch.from_numpy(np.array(np.maximum.reduce([t.numpy() for t in tensors])))
    raise DataError(f"There is no largest of tensors of {first.dtype}; --agents 0 exports one agent's model.")


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(
        a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8)
    )
