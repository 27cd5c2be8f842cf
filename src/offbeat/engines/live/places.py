"""Which files a run has: in its folder in shared memory, and in that of its results.

Names alone, and what agent 0 has joined with: launchers, gateways and keepers look for these, and need
nothing else of what agents do.
"""

import json
from pathlib import Path
from typing import NamedTuple

MODEL = "model.json"  # in the run's shared folder: what agent 0 has joined with
INITIAL = "initial"  # and the register of the model where all start
MEMBERS = "members.json"  # and who has come since it began, or was asked to leave
CHECKPOINTS = "checkpoints"  # in that of its results: the folder of all agents' own


def register_path(folder: Path, agent: int, incarnation: int, k: int) -> Path:
    return folder / f"register.{agent}.{incarnation}.{k}"


def log_path(folder: Path, agent: int) -> Path:
    return folder / f"agent-{agent}.trace"


class Joined(NamedTuple):
    """What agent 0 has joined with: see `node.enter.propose`."""

    algorithm: str
    returns: bool
    needed: frozenset[int]
    closed: str


def joined_with(shared: Path) -> Joined | None:
    """The algorithm that agent 0 has joined with, and what that allows; None: not known."""
    try:
        said = json.loads((shared / MODEL).read_text())
        name, returns, needed = str(said["about"]["algorithm"]), bool(said["returns"]), said["needed"]
        return Joined(name, returns, frozenset(needed), str(said["closed"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
