"""What a folder holds of a run: whether another may start there, or this one can go on."""

from collections.abc import Callable
from pathlib import Path

from offbeat.core.errors import SettingError
from offbeat.engines.live.node.checkpoint import agent_folder, newest, set_aside
from offbeat.engines.live.node.enter import log_path

SERIES = "live.json"
"""What `offbeat live` was asked for; the folders of its runs lie beside it."""


def refuse_used(folder: Path) -> None:
    """Raise SettingError if the folder holds a run already, or several."""
    runs = [path for pattern in ("agent-*.trace", "*/agent-*.trace") for path in folder.glob(pattern)]
    if (folder / SERIES).exists() or runs:
        raise SettingError(
            f"{folder} holds a run already: --resume goes on with it, another --out starts a new one."
        )


def named(out: Path | None) -> Path:
    """The folder of the run that is to go on. Raises SettingError if none was named."""
    if out is None:
        raise SettingError("--resume goes on with a run: name its folder with --out.")
    return out


def begun(folder: Path) -> bool:
    """Whether a run's agents have done anything yet."""
    return any(path.stat().st_size for path in folder.glob("agent-*.trace"))


def checkpointed(folder: Path) -> bool:
    """Whether any agent of a run has saved a checkpoint."""
    return any((folder / "checkpoints").glob("agent-*/step-*"))


def set_damaged_aside(folder: Path, on_notice: Callable[[str], None]) -> None:
    """Before a run goes on: take what is damaged out of the way of all agents, and say it."""
    for each in sorted((folder / "checkpoints").glob("agent-*")):
        set_aside(each, on_notice)


def refuse_unresumable(out: Path | None, agents: int, together: bool) -> None:
    """Raise SettingError unless there is a run of offbeat launch in the folder that can go on from its
    checkpoints; see `why_not_resumable`.
    """
    folder = named(out)
    had = len([*folder.glob("agent-*.trace")])
    if not had:
        raise SettingError(
            f"{folder} holds no run of offbeat launch that could go on: there is no agent-0.trace. Expected "
            "the --out of an earlier run; without --resume a new one starts there."
        )
    if had != agents:
        raise SettingError(
            f"{folder} holds a run of {had} agents; got --agents {agents}. Expected as many as it has."
        )
    if why := why_not_resumable(folder, agents, together, "Start a new one, with another --out."):
        raise SettingError(why)


def why_not_resumable(folder: Path, agents: int, together: bool, do: str = "") -> str:
    """Why a run that was interrupted cannot go on from its checkpoints, and what to do; empty if it can.

    Args:
        together: whether all agents have to go on from the same step
    """
    found = [newest(agent_folder(folder, i), agents, together) for i in range(agents)]
    if None not in found:
        return ""
    why, more = f"before agent {found.index(None)} had saved a checkpoint" + " that all have" * together, ""
    if not checkpointed(folder):
        why, more = "without a checkpoint", " --checkpoint-every 100"
    do = do or f"Remove it, and --resume{more} runs it anew."
    return f"The run in {folder} was interrupted {why}, so it cannot go on. {do}"


def what_is_left(folder: Path) -> str:
    """What can be done with a run that has failed."""
    if not checkpointed(folder):
        return "No agent had saved a checkpoint yet (--checkpoint-every)."
    saved = f"What was saved is there: 'offbeat export {folder}' writes the model."
    if not log_path(folder, 0).exists():
        return f"{saved} The agents' logs are gone, so the run cannot go on."
    return f"{saved} Once what went wrong is mended, the same command with --resume --out {folder} goes on."
