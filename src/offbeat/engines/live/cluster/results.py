"""What agents elsewhere write comes to the launcher's folder: logs and output while they run, all at the end.

And back, for an agent that begins anew on another machine: its log goes on where it was.
"""

import json
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from offbeat.engines.live.launcher.children import REMEMBERED
from offbeat.engines.live.node.checkpoint import SAVED, agent_folder, latest, path_of, saved_by
from offbeat.engines.live.places import CHECKPOINTS, log_path

AT_ONCE = 1 << 23  # bytes that cross at once
GROWING = (".trace", ".log")  # files that are written on and on: of these only the rest comes

Ask = Callable[..., Awaitable[Any]]
"""Of one machine's gateway, what the method of this name gives."""


class Grown:
    """An agent's log and output in the launcher's folder, as far as they have come."""

    def __init__(self, agent: int, folder: Path) -> None:
        self.agent, self.log, self.output = agent, log_path(folder, agent), folder / f"agent-{agent}.log"
        self.lines: deque[str] = deque(maxlen=REMEMBERED)
        self.newest = ""
        self.silent: list[tuple[int, int]] = []

    @property
    def sizes(self) -> tuple[int, int]:
        return size_of(self.log), size_of(self.output)

    def keep(self, text: str) -> None:
        """It is kept where the process was."""

    def take(self, kind: int, at: int, more: bytes) -> list[str]:
        """What has come; returns the lines to show."""
        path = self.output if kind else self.log
        if at != size_of(path):
            return []
        with path.open("ab") as file:
            file.write(more)
        shown = []
        for line in more.split(b"\n")[:-1] if kind else []:
            if not any(low <= at < high for low, high in self.silent):
                shown.append(line.decode(errors="replace"))
            at += len(line) + 1
        self.lines.extend(shown)
        return shown


async def bring(ask: Ask, folder: Path, grown: Grown, donor: int, agents: int) -> None:
    """Have on that machine what an agent that begins there goes on with: what it had written itself; the
    newest checkpoint of the donor, if it is to start from another's; and what all agents have saved.
    """
    there = dict(await ask("files"))
    checkpoints = sorted(agent_folder(folder, grown.agent).glob("step-*"))
    if donor >= 0:
        checkpoints.append(path_of(agent_folder(folder, donor), latest(agent_folder(folder, donor))[0]))
    for path in [grown.log, grown.output, *checkpoints]:
        name = str(path.relative_to(folder))
        if path.exists() and there.get(name) != path.stat().st_size:
            with path.open("rb") as file:
                at = 0
                while (more := file.read(AT_ONCE)) or not at:
                    await ask("write", name, at, more)
                    at += len(more)
                    if not more:
                        break
    saved = saved_by(folder / CHECKPOINTS, agents)
    await ask("write", f"{CHECKPOINTS}/{SAVED}", 0, json.dumps(saved).encode())


async def fetch(ask: Ask, folder: Path, agents: Collection[int]) -> None:
    """Have in this folder what that machine has, of agents only of these."""
    for name, size in await ask("files"):
        path, owner = folder / name, _owner(name)
        if owner is not None and owner not in agents:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        at = size_of(path) if path.suffix in GROWING else 0
        temporary = path if at else path.with_name(f".{path.name}.coming")
        with temporary.open("ab" if at else "wb") as file:
            while at < size and (more := await ask("read", name, at)):
                file.write(more)
                at += len(more)
        if temporary != path:
            temporary.replace(path)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _owner(name: str) -> int | None:
    """The agent whose file this is."""
    for part in Path(name).parts:
        stem = part.split(".")[0]
        if stem.startswith("agent-") and stem[6:].isdecimal():
            return int(stem[6:])
    return None
