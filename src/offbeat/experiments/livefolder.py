"""The folder of `offbeat live`: which experiment is in it, and what became of its runs.

- `live.json`: what was asked for; written before anything starts
- `NAME-lrSTEP/`: a run: what its agents wrote (see `offbeat.experiments.liverun`)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from offbeat.algorithms import Algorithm
from offbeat.core.errors import DiskError, SettingError
from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import json_in, reading, refuse_newer
from offbeat.engines.live.node.checkpoint import newest, refuse_other, set_aside

NAME, FORMAT = "live.json", "live 1"
EXPECTED = "the settings of a run of offbeat live"
NAME_IT = "--resume goes on with a run: name its folder with --out."


def run_folder(folder: Path, spec: Algorithm, lr: float) -> Path:
    """Where the run of an algorithm with a step is."""
    return folder / f"{spec.name.replace(':', '-')}-lr{lr!r}"


def refuse_used(folder: Path) -> None:
    """Raise SettingError if the folder holds a run already."""
    runs = [path.parent for pattern in ("agent-*.trace", "*/agent-*.trace") for path in folder.glob(pattern)]
    if (folder / NAME).exists() or runs:
        raise SettingError(
            f"{folder} holds a run already: --resume goes on with it, another --out starts a new one."
        )


def keep_asked(folder: Path, asked: Mapping[str, Any], how: Mapping[str, Any]) -> None:
    """Write down what was asked for: the experiment, and how it is run. Raises DiskError."""
    content = {"format": FORMAT, "asked": asked, "how": how}
    try:
        write_atomically(folder / NAME, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise DiskError(f"Cannot write {folder / NAME}: {error.strerror or error}.") from error


def asked_before(
    folder: Path | None, asked: Mapping[str, Any], how: Mapping[str, Any], given: Set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was asked for when the run in this folder was started, and how it goes on.

    Args:
        given: the names of what was said this time. Of `asked` it must be what was said then; of `how` it
            counts.

    Raises SettingError, with the differences, if it is another experiment, or there is none.
    """
    if folder is None:
        raise SettingError(NAME_IT)
    path = folder / NAME
    if not path.exists():
        raise SettingError(
            f"{folder} holds no run of offbeat live that could go on: there is no {NAME}. Expected the --out "
            "of an earlier run; without --resume a new one starts there."
        )
    with reading(path, EXPECTED):
        saved = json_in(path)
        refuse_newer(path, saved.get("format", FORMAT), FORMAT)
        before, then = _known(saved["asked"], asked), _known(saved["how"], how)
    now = {name: json.loads(json.dumps(value)) for name, value in asked.items() if name in given}
    refuse_other(
        {name: before.get(name) for name in now}, now,
        f"{folder} holds another experiment. Name the same settings, or none, or another --out:",
    )  # fmt: skip
    return before, then | {name: value for name, value in how.items() if name in given}


def _known(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings, as many and of such types as there are now. Raises ValueError for others."""
    for name, value in saved.items():
        if name not in now:
            raise ValueError(f"the setting '{name}' is not known: it is of another version of offbeat")
        kinds = {int if kind is float else kind for kind in (type(value), type(now[name]))} - {type(None)}
        if len(kinds) > 1:
            raise ValueError(f"the setting '{name}' is {value!r:.60}")
    return {**now, **saved}


def begun(where: Path) -> bool:
    """Whether a run's agents have done anything yet."""
    return any(path.stat().st_size for path in where.glob("agent-*.trace"))


def set_damaged_aside(where: Path, say: Callable[[str], None]) -> None:
    """Before a run goes on: take what is damaged out of the way of all agents, and say it."""
    for folder in sorted((where / "checkpoints").glob("agent-*")):
        set_aside(folder, say)


def refuse_unresumable(out: Path | None, agents: int, spec: Algorithm) -> None:
    """Raise SettingError unless there is a run of offbeat launch in the folder that can go on from its
    checkpoints.
    """
    if out is None:
        raise SettingError(NAME_IT)
    had = len([*out.glob("agent-*.trace")])
    if not had:
        raise SettingError(
            f"{out} holds no run of offbeat launch that could go on: there is no agent-0.trace. Expected the "
            "--out of an earlier run; without --resume a new one starts there."
        )
    if had != agents:
        raise SettingError(
            f"{out} holds a run of {had} agents; got --agents {agents}. Expected as many as it has."
        )
    if why := why_not_resumable(out, agents, spec, "Start a new one, with another --out."):
        raise SettingError(why)


def why_not_resumable(where: Path, agents: int, spec: Algorithm, do: str = "") -> str:
    """Why a run that was interrupted cannot go on from its checkpoints, and what to do; empty if it can."""
    together = "return" not in spec.tolerates
    found = [newest(where / "checkpoints" / f"agent-{i}", agents, together) for i in range(agents)]
    missing = [i for i, step in enumerate(found) if step is None]
    if not missing:
        return ""
    if not any((where / "checkpoints").glob("agent-*/step-*")):
        why, more = "without a checkpoint", " --checkpoint-every 100"
    else:
        why, more = f"before agent {missing[0]} had saved a checkpoint" + " that all have" * together, ""
    do = do or f"Remove it, and --resume{more} runs it anew."
    return f"The run in {where} was interrupted {why}, so it cannot go on. {do}"
