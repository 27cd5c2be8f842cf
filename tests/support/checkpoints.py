"""Checkpoints as an agent writes them, without an agent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offbeat.engines.live.node import checkpoint


def save(folder: Path, step: int, about: Mapping[str, Any], state: object) -> Path:
    checkpoint.begin(folder, step, about, state)
    checkpoint.finish(folder, step)
    return checkpoint.path_of(folder, step)
