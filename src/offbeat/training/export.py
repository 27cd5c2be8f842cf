"""One model out of a run's checkpoints: a safetensors file that `model.load_state_dict` takes as it is.

Of parameters and of floating buffers, such as BatchNorm's running statistics, it holds the mean over the
agents, taken in float64 and stored in their own dtype; of integers, such as BatchNorm's count of batches, the
largest. Tied weights are there under all their names. Where all agents agree, what they agree on is kept bit
for bit.

    done = export(Path("offbeat-runs/train-0"))
    model.load_state_dict(safetensors.torch.load_file(done.path))
"""

import json
from collections.abc import Mapping, Sequence, Set
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
from offbeat.engines.live.members import stages_of
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.checkpoint import ENDING, agent_folder, path_of
from offbeat.engines.live.node.encode import decode
from offbeat.engines.live.node.saving import SHOWN, refuse_other
from offbeat.engines.trace import MOST_AGENTS

MODEL = "model 1"  # what the metadata of an exported file calls its format
RECENT, AS_FAR = 0.8, 0.95
"""Of the time of the last checkpoint, and of the steps of the furthest agent: an agent that saved its last
one before, with fewer steps, left early or was killed. One that is as far, only sooner, is quick."""


class ExportError(OffbeatError):
    """The model cannot be written."""


@dataclass(frozen=True)
class SavedModel:
    """The model in one checkpoint.

    Attributes:
        about: the run that it is of; it has a "model" if the names are those of a state dict
        tensors: the model, by the names in its state dict
        time: of the run, when it was saved; None in checkpoints that do not say it
    """

    agent: int
    step: int
    path: Path
    about: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    time: float | None = None

    @property
    def named(self) -> bool:
        return "model" in self.about


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
        """Agents with less than half of the steps of the furthest one, or fewer and saved long before it."""
        most, last = max(s.step for s in self.sources), max(s.time or 0.0 for s in self.sources)
        early = {s.agent for s in self.sources if s.time is not None and s.time < RECENT * last}
        steps = {s.agent: s.step for s in self.sources}
        return tuple(i for i, step in steps.items() if step < most * (AS_FAR if i in early else 0.5))

    @property
    def warnings(self) -> list[str]:
        """What whoever uses the mean should know: who is far behind, damaged or missing."""
        far = []
        if behind := self.behind:
            others = ",".join(str(s.agent) for s in self.sources if s.agent not in behind)
            far = [
                f"Far behind the others, as they are slow, left early or were killed: agents "
                f"{', '.join(map(str, behind))}. They count as much as the others; --agents {others} leaves "
                "them out."
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
    free = {"agents", "topology"} if stages_of(folder)[1:] else set[str]()  # those of each one's last stage
    for other in others:
        _refuse_unlike(first, other, free)
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


# -- which checkpoints -----------------------------------------------------------------------------


def _chosen(
    out: Path, folder: Path, agents: Sequence[int] | None, step: int | None, allow_missing: bool
) -> Exported:
    """The checkpoints that are meant, at least one, and the agents that have none. Raises SettingError."""
    folders = _numbered(folder / "checkpoints", "")
    steps, damaged = {i: checkpoint.latest(path) for i, path in folders.items() if path.is_dir()}, list[str]()
    if step is None:
        for i, have in steps.items():
            steps[i] = _whole(agent_folder(folder, i), have, damaged) or have[: not allow_missing]
    found = {i: have for i, have in steps.items() if have}
    if not found:
        raise _no_checkpoints(folder)
    read, first = cache(partial(_read, folder)), min(found)
    known = _agents_said(read(first, found[first][0]).about)
    n = max(known, *(i + 1 for i in (*steps, *_numbered(folder, ".trace"))))
    stages = stages_of(folder)
    wanted = range(stages[-1].count if stages else n) if agents is None else sorted(set(agents))
    if not wanted or not 0 <= wanted[0] <= wanted[-1] < n:
        asked, some = ", ".join(map(str, wanted)) or "none", f"some of 0 to {n - 1}, which {folder} has"
        raise SettingError(f"Agents {asked} were asked for; expected {some}.")
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


def _numbered(folder: Path, ending: str) -> dict[int, Path]:
    """What is called agent-0, agent-1, ... in a folder, by number."""
    paths = {path.name[6:].removesuffix(ending): path for path in sorted(folder.glob(f"agent-*{ending}"))}
    return {int(number): path for number, path in paths.items() if number.isdecimal()}


def _agents_said(about: Mapping[str, Any]) -> int:
    """How many agents a run's settings say that it has; 0 if that cannot be."""
    experiment = about.get("experiment")
    said = about.get("agents", experiment.get("agents") if isinstance(experiment, dict) else None)
    return said if isinstance(said, int) and said <= MOST_AGENTS else 0


def _whole(folder: Path, have: list[int], damaged: list[str]) -> list[int]:
    """An agent's newest checkpoint that is not damaged, and all before; `damaged` is told of the others."""
    for k, step in enumerate(have):
        path = path_of(folder, step)
        if not (why := checkpoint.damage(path)):
            return have[k:]
        damaged.append(f"{path} is left out: {why}.")
    return []


def _steps(have: list[int]) -> str:
    return f"those of {', '.join(map(str, have))}" if have else "none"


def _no_checkpoints(folder: Path) -> SettingError:
    if not folder.is_dir():
        expected = "expected the one that offbeat launch wrote its results to (--out)"
        return SettingError(f"There is no folder {folder}; {expected}.")
    below = [path for path in folder.glob("*/checkpoints") if any(path.glob(f"agent-*/step-*{ENDING}"))]
    if below:
        names = ", ".join(str(path.parent) for path in sorted(below)[:SHOWN])
        return SettingError(f"{folder} holds several runs; name the folder of one: {names}.")
    one = path_of(Path("checkpoints", "agent-0"), 120)
    return SettingError(
        f"{folder} holds no checkpoints; expected {one} and so on, which offbeat launch writes "
        "(--checkpoint-every), and at the end of every run; offbeat live writes them if --checkpoint-every "
        "says how often."
    )


# -- what is in one --------------------------------------------------------------------------------


def _read(folder: Path, agent: int, step: int) -> SavedModel:
    """The model in one checkpoint; its tensors lie in the mapped file, and take memory only when used.

    Raises DataError, also for a model that is not finite.
    """
    path = path_of(agent_folder(folder, agent), step)
    do = "If the run still goes on, it may have made room for a newer one: export again."
    with checkpoint.tensors_of(path, do) as (head, file):
        about = dict(decode(json.loads(head["about"]), {}))
        json.dumps(about)  # as it is written into the exported file
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no iterator)
        state = decode(_without_classes(json.loads(head["state"])), stored)
        tensors = _model(state)
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            got, do = f"of type {type(value).__name__}", "Save the model in the script, with torch.save."
            expected = "expected a tensor, all that safetensors can hold"
            raise DataError(f"{path}: '{name}' of the model's state dict is {got}; {expected}. {do}")
        # An infinity in a buffer may be a mask.
        wrong = torch.isnan(value) if name in state.get("rest", {}) else ~torch.isfinite(value)
        if count := int(wrong.sum()):
            raise DataError(
                f"'{name}' of agent {agent} in {path} has numbers that are not finite, {count:,} of "
                f"{wrong.numel():,}; expected none, as they would be the mean's. --agents names those to "
                "export without it."
            )
    time = float(state["time"]) if isinstance(state.get("time"), int | float) else None
    return SavedModel(agent, step, path, about, tensors, time)


def _without_classes(tree: Any) -> Any:
    """With messages as plain tuples: those of a user's own algorithm are classes not loaded here."""
    if isinstance(tree, list):
        return [_without_classes(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "message" in tree:
        return {"tuple": [_without_classes(item) for item in tree["fields"].values()]}
    return {key: _without_classes(item) for key, item in tree.items()}


def _model(state: Mapping[str, Any]) -> dict[str, Any]:
    """The model's state dict; of a run of `offbeat live`, whose tasks have no names, the parts of x."""
    if "model" in state:
        return {**state["model"], **state["rest"]}
    x = state["agent"]["x"]
    if not isinstance(x, Vector):
        raise TypeError(f"expected a model of the script, or a vector x; got {type(x).__name__}")
    return {f"x.{k}": part for k, part in enumerate(x.parts)}


# -- their mean ------------------------------------------------------------------------------------


def _refuse_unlike(first: SavedModel, other: SavedModel, free: Set[str]) -> None:
    """Raise SettingError, with the differences, if these are not two copies of one model, of one run, which
    may differ in what is `free`.
    """
    one, two = ({name: _kind(t) for name, t in s.tensors.items()} for s in (first, other))
    names = (f"of agent {first.agent}:", f"of agent {other.agent}:")
    what = f"The checkpoints of agents {first.agent} and {other.agent}"
    refuse_other(one, two, f"{what} are of unlike models, which have no mean (--agents exports some):", names)
    saved, now = ({k: v for k, v in s.about.items() if k not in free} for s in (first, other))
    refuse_other(saved, now, f"{what} are of two runs:", names)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _combined(tensors: list[Tensor]) -> Tensor:
    """The mean of floating tensors, the largest of others: a new tensor of their dtype."""
    first, *others = tensors
    if all(torch.equal(_bytes(first), _bytes(other)) for other in others):
        return first.clone(memory_format=torch.contiguous_format)
    if first.is_floating_point() or first.is_complex():
        total = first.to(torch.complex128 if first.is_complex() else torch.float64, copy=True)
        for other in others:
            total += other.to(total.dtype)
        return (total / len(tensors)).to(first.dtype)
    with suppress(TypeError):
        return torch.from_numpy(np.array(np.maximum.reduce([t.numpy() for t in tensors])))
    raise DataError(f"There is no largest of tensors of {first.dtype}; --agents 0 exports one agent's model.")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
