"""One model out of a run's checkpoints: a safetensors file that `model.load_state_dict` takes as it is.

Of parameters and of floating buffers, such as BatchNorm's running statistics, it holds the mean over the
agents, taken in float64 and stored in their own dtype; of integers, such as BatchNorm's count of batches, the
largest. Tied weights are there under all their names. Where all agents agree, what they agree on is kept bit
for bit.

    done = export(Path("offbeat-runs/train-0"))
    model.load_state_dict(safetensors.torch.load_file(done.path))
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save as serialized
from torch import Tensor

from offbeat.core.errors import DataError, OffbeatError, SettingError
from offbeat.core.system.files import write_atomically
from offbeat.core.vector import Vector
from offbeat.engines.live.node.checkpoint import ENDING, damage, latest, refuse_other, step_name, tensors_of
from offbeat.engines.live.node.encode import decode
from offbeat.engines.trace import MOST_AGENTS

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
class Source:
    """One agent's checkpoint.

    Attributes:
        about: the run that it is of
        tensors: the model, by the names in its state dict
        time: of the run, when it was saved; None in checkpoints that do not say it
    """

    agent: int
    step: int
    path: Path
    about: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    time: float | None = None


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        named: whether by the names of a state dict
        missing: agents without a checkpoint
        damaged: which newer checkpoints are left out, and why
    """

    path: Path
    sources: tuple[Source, ...]
    named: bool
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


def export(
    folder: Path, out: Path | None = None, agents: Sequence[int] | None = None, step: int | None = None,
    allow_missing: bool = False, force: bool = False,
) -> Exported:  # fmt: skip
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
    damaged: list[str] = []
    sources, missing = _sources(folder, agents, step, allow_missing, damaged)
    first = sources[0]
    for other in sources[1:]:
        _refuse_unlike(first, other)
    mean = {name: _combined([s.tensors[name] for s in sources]) for name in first.tensors}
    named = "model" in first.about
    about = {key: value for key, value in first.about.items() if key != "model"}
    metadata = {
        "format": "pt", "offbeat": MODEL, "run": folder.resolve().name, "about": json.dumps(about),
        "steps": json.dumps({str(s.agent): s.step for s in sources}), "missing": json.dumps(missing),
        "names": "state_dict" if named else "x",
    }  # fmt: skip
    try:
        write_atomically(path, serialized(mean, metadata))
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise ExportError(
            f"Cannot write the model {path}: {why}. Expected a folder that exists, with room, that this user "
            "may write to; --out names another file."
        ) from error
    return Exported(path, tuple(sources), named, tuple(missing), tuple(damaged))


def _sources(
    folder: Path, only: Sequence[int] | None, step: int | None, allow_missing: bool, damaged: list[str]
) -> tuple[list[Source], list[int]]:
    """The checkpoints that are meant, and the agents that have none. At least one, or SettingError.

    Args:
        damaged: is told which newer ones are left out
    """
    steps = {int(path.name[6:]): latest(path) for path in _agent_folders(folder)}
    if step is None:
        steps = {
            i: _whole(folder, i, have, damaged) or have[: not allow_missing] for i, have in steps.items()
        }
    found = {i: have for i, have in steps.items() if have}
    if not found:
        raise SettingError(_no_checkpoints(folder))
    a = min(found)
    source = cache(partial(_read, folder))
    about = source(a, found[a][0]).about
    n = max(_agents(about), *steps, *(int(path.stem[6:]) for path in _numbered(folder, ".trace")), -1) + 1
    wanted = range(n) if only is None else sorted(set(only))
    if not wanted or not 0 <= wanted[0] <= wanted[-1] < n:
        asked = ", ".join(map(str, wanted)) or "none"
        raise SettingError(
            f"Agents {asked} were asked for; expected some of 0 to {n - 1}, which {folder} has."
        )
    chosen = {
        i: have[0] if step is None else step for i, have in found.items() if step is None or step in have
    }
    missing = [i for i in wanted if i not in chosen]
    if missing and (not allow_missing or len(missing) == len(wanted)):
        what = "a checkpoint" if step is None else f"a checkpoint of step {step}"
        have = "; ".join(f"agent {i} has {_steps(steps.get(i, []))}" for i in missing)
        do = "" if len(missing) == len(wanted) else " --allow-missing leaves them out."
        common = sorted(set.intersection(*(set(steps.get(i, [])) for i in wanted)))
        if step is not None and len(wanted) > 1:
            do += f" All of them have {_steps(common)}."
        raise SettingError(f"Expected {what} of every agent that is asked for, but {have}.{do}")
    return [source(i, chosen[i]) for i in wanted if i in chosen], missing


def _whole(folder: Path, agent: int, have: list[int], damaged: list[str]) -> list[int]:
    """The newest of an agent's checkpoints that is not damaged, and all before it."""
    for k, step in enumerate(have):
        path = _path(folder, agent, step)
        if not (why := damage(path)):
            return have[k:]
        damaged.append(f"{path} is left out: {why}.")
    return []


def _agents(about: Mapping[str, Any]) -> int:
    """The highest number of an agent, as the run's settings have it; -1 if they do not say."""
    experiment = about.get("experiment")
    said = about.get("agents", experiment.get("agents", 0) if isinstance(experiment, dict) else 0)
    return said - 1 if isinstance(said, int) and said <= MOST_AGENTS else -1


def _agent_folders(folder: Path) -> list[Path]:
    return [path for path in _numbered(folder / "checkpoints", "") if path.is_dir()]


def _numbered(folder: Path, ending: str) -> list[Path]:
    """What is called agent-0, agent-1, ... in a folder."""
    return [
        path
        for path in sorted(folder.glob(f"agent-*{ending}"))
        if path.name[6:].removesuffix(ending).isdecimal()
    ]


def _steps(have: list[int]) -> str:
    return f"those of {', '.join(map(str, have))}" if have else "none"


def _no_checkpoints(folder: Path) -> str:
    if not folder.is_dir():
        return (
            f"There is no folder {folder}; expected the one that offbeat launch wrote its results to (--out)."
        )
    below = sorted(
        path.parent for path in folder.glob("*/checkpoints") if any(path.glob(f"agent-*/step-*{ENDING}"))
    )
    if below:
        return f"{folder} holds several runs; name the folder of one: {', '.join(map(str, below[:SHOWN]))}."
    return (
        f"{folder} holds no checkpoints; expected checkpoints/agent-0/{step_name(120)}{ENDING} and so on, "
        "which offbeat launch writes (--checkpoint-every), and at the end of every run."
    )


# -- one checkpoint --------------------------------------------------------------------------------


class _Lazy(Mapping[str, Tensor]):
    """The tensors of an open file; each lies in the mapped file, and takes no memory until it is used."""

    def __init__(self, file: Any) -> None:
        self.file, self.names = file, dict.fromkeys(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        found: Tensor = self.file.get_tensor(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _path(folder: Path, agent: int, step: int) -> Path:
    return folder / "checkpoints" / f"agent-{agent}" / f"{step_name(step)}{ENDING}"


def _read(folder: Path, agent: int, step: int) -> Source:
    """The model in one checkpoint. Raises DataError."""
    path = _path(folder, agent, step)
    do = "If the run still goes on, it may have made room for a newer one: export again."
    with tensors_of(path, do) as (head, file):
        about = dict(decode(json.loads(head["about"]), {}))
        json.dumps(about)  # as it is written below
        state = decode(_without_classes(json.loads(head["state"])), _Lazy(file))
        tensors = _model(state)
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"{path}: '{name}' of the model's state dict is of type {type(value).__name__}; expected a "
                "tensor, all that safetensors can hold. Save the model in the script, with torch.save."
            )
        _refuse_not_finite(name, value, agent, path, name in state.get("rest", {}))
    time = state.get("time")
    return Source(agent, step, path, about, tensors, float(time) if isinstance(time, int | float) else None)


def _refuse_not_finite(name: str, value: Tensor, agent: int, path: Path, buffer: bool) -> None:
    """Raise DataError for a NaN, and for an infinity in anything but a buffer, which may be a mask."""
    wrong = torch.isnan(value) if buffer else ~torch.isfinite(value)
    if wrong.any():
        raise DataError(
            f"'{name}' of agent {agent} in {path} has numbers that are not finite, {int(wrong.sum()):,} of "
            f"{wrong.numel():,}; expected none, as they would be the mean's. --agents names those to export "
            "without it."
        )


def _without_classes(tree: Any) -> Any:
    """The same with messages as plain tuples: those of a user's own algorithm are classes that are not loaded
    here.
    """
    if isinstance(tree, list):
        return [_without_classes(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "message" in tree:
        return {"tuple": [_without_classes(item) for item in tree["fields"].values()]}
    return {key: _without_classes(item) for key, item in tree.items()}


def _model(state: Mapping[str, Any]) -> dict[str, Any]:
    """What is in the model's state dict; of a run of `offbeat live`, whose tasks have no names, the parts of
    x.
    """
    if "model" in state:
        return {**state["model"], **state["rest"]}
    x = state["agent"]["x"]
    if not isinstance(x, Vector):
        raise TypeError(f"expected a model of the script, or a vector x; got {type(x).__name__}")
    return {f"x.{k}": part for k, part in enumerate(x.parts)}


# -- several ---------------------------------------------------------------------------------------


def _refuse_unlike(first: Source, other: Source) -> None:
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
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise SettingError(
            "\n  ".join(
                [
                    f"{what} are of unlike models, which have no mean (--agents exports some):",
                    *lines[:SHOWN],
                    *more,
                ]
            )
        )
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
    if all(_same(first, other) for other in others):
        return first.clone(memory_format=torch.contiguous_format)
    if first.is_floating_point() or first.is_complex():
        total = first.to(torch.complex128 if first.is_complex() else torch.float64, copy=True)
        for other in others:
            total += other.to(total.dtype)
        return (total / len(tensors)).to(first.dtype)
    with suppress(TypeError):
        return torch.from_numpy(np.array(np.maximum.reduce([t.numpy() for t in tensors])))
    raise DataError(f"There is no largest of tensors of {first.dtype}; --agents 0 exports one agent's model.")


def _same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit."""
    return torch.equal(
        a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8)
    )
