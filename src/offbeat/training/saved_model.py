"""One agent's model, as it stands in a checkpoint of a run's folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offbeat.core.errors import DataError, SettingError
from offbeat.core.vector import Vector
from offbeat.engines.live.node.checkpoint import ENDING, latest, step_name, tensors_of
from offbeat.engines.live.node.encode import decode
from offbeat.engines.trace import MOST_AGENTS

SHOWN = 8
"""How many runs are named."""


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


def saved_steps(folder: Path) -> dict[int, list[int]]:
    """agent -> the steps of which it has checkpoints, the newest first."""
    return {i: latest(path) for i, path in _numbered(folder / "checkpoints", "").items() if path.is_dir()}


def no_checkpoints(folder: Path) -> SettingError:
    if not folder.is_dir():
        return SettingError(
            f"There is no folder {folder}; expected the one that offbeat launch wrote its results to (--out)."
        )
    below = [path for path in folder.glob("*/checkpoints") if any(path.glob(f"agent-*/step-*{ENDING}"))]
    if below:
        names = ", ".join(str(path.parent) for path in sorted(below)[:SHOWN])
        return SettingError(f"{folder} holds several runs; name the folder of one: {names}.")
    return SettingError(
        f"{folder} holds no checkpoints; expected checkpoints/agent-0/{step_name(120)}{ENDING} and so on, "
        "which offbeat launch writes (--checkpoint-every), and at the end of every run."
    )


def agents_of(folder: Path, about: Mapping[str, Any]) -> int:
    """How many agents a run has: as its settings say, or as many as have left something in the folder."""
    experiment = about.get("experiment")
    said = about.get("agents", experiment.get("agents") if isinstance(experiment, dict) else None)
    known = said if isinstance(said, int) and said <= MOST_AGENTS else 0
    return max([known, *(i + 1 for i in (*saved_steps(folder), *_numbered(folder, ".trace")))])


def _numbered(folder: Path, ending: str) -> dict[int, Path]:
    """What is called agent-0, agent-1, ... in a folder, by number."""
    paths = {path.name[6:].removesuffix(ending): path for path in sorted(folder.glob(f"agent-*{ending}"))}
    return {int(number): path for number, path in paths.items() if number.isdecimal()}


def path_of(folder: Path, agent: int, step: int) -> Path:
    return folder / "checkpoints" / f"agent-{agent}" / f"{step_name(step)}{ENDING}"


def read_model(folder: Path, agent: int, step: int) -> SavedModel:
    """The model in one checkpoint; its tensors lie in the mapped file, and take memory only when used.

    Raises DataError, also for a model that is not finite.
    """
    path = path_of(folder, agent, step)
    do = "If the run still goes on, it may have made room for a newer one: export again."
    with tensors_of(path, do) as (head, file):
        about = dict(decode(json.loads(head["about"]), {}))
        json.dumps(about)  # as it is written into the exported file
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no iterator)
        state = decode(_without_classes(json.loads(head["state"])), stored)
        tensors = _model(state)
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"{path}: '{name}' of the model's state dict is of type {type(value).__name__}; expected a "
                "tensor, all that safetensors can hold. Save the model in the script, with torch.save."
            )
        # An infinity in a buffer may be a mask.
        wrong = torch.isnan(value) if name in state.get("rest", {}) else ~torch.isfinite(value)
        if count := int(wrong.sum()):
            raise DataError(
                f"'{name}' of agent {agent} in {path} has numbers that are not finite, {count:,} of "
                f"{wrong.numel():,}; expected none, as they would be the mean's. --agents names those to "
                "export without it."
            )
    time = state.get("time")
    return SavedModel(
        agent, step, path, about, tensors, float(time) if isinstance(time, int | float) else None
    )


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
