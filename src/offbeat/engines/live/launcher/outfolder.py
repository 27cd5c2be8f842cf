"""The folder of a run: made for it, and gone again without a step; who may go on there; is it still there."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system.files import LOCK, RUNS, held
from offbeat.engines.events import GradientDone, rows_of
from offbeat.engines.live.members import STAGES
from offbeat.engines.live.node.checkpoint import ENDING, agent_folder, newest, set_aside, step_name
from offbeat.engines.live.node.log import read
from offbeat.engines.live.places import log_path

SERIES = "live.json"  # what `offbeat live` was asked for; the folders of its runs lie beside it
OURS = ("agent-*.trace", "agent-*.log", "agent-*.json", "metrics.jsonl", "trace.npz", "looks", SERIES,
        STAGES, "checkpoints/agent-*/*.safetensors", "cluster.json", LOCK)  # fmt: skip
"""What we write into it."""


@contextmanager
def out_folder(wanted: Path | None, name: str) -> Iterator[Path]:
    """The folder for a run's results: `wanted`, or a new one below ./offbeat-runs; no other run may use it.

    If the run is refused, or fails before its first step, what it has written there is removed, and the
    folder, if it is new. Raises SettingError if there can be no such folder, or another run is at work there.
    """
    first = Path(RUNS) if wanted is None else wanted
    missing = [path for path in [*reversed(first.parents), first] if not path.exists()]
    folder = _made(wanted, name)
    missing += [] if wanted else [folder]
    locked = (folder / LOCK).exists()
    refusal = f"Another run is writing {folder}. Wait for its end, or name another folder with --out."
    with held(folder, refusal), undone(folder, missing, [] if locked else [folder / LOCK]):
        yield folder


def _made(wanted: Path | None, name: str) -> Path:
    try:
        if wanted is not None:
            wanted.mkdir(parents=True, exist_ok=True)
            return wanted
        for k in range(10_000):
            folder = Path(RUNS) / f"{name}-{k}"
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
    except OSError as error:
        said = f"Cannot make the folder {error.filename} for the results: {error.strerror}."
        raise SettingError(said) from None
    raise SettingError(f"./{RUNS} has 10,000 runs of this name; remove some, or name a folder with --out.")


@contextmanager
def undone(folder: Path, missing: Sequence[Path] = (), new: Sequence[Path] = ()) -> Iterator[None]:
    """If a run is refused, or fails before its first step, remove what it has written in its folder, `new`
    files too, and of the folders that were `missing`, named from above, those in which nothing else is.
    """
    before = {*folder.rglob("*")} - {*new}
    try:
        yield
    except (OffbeatError, OSError):
        made = {path for pattern in OURS for path in folder.glob(pattern)} - before
        if not any(folder.glob("*/agent-*.trace")) and not any(map(_of_a_step, made)):
            with suppress(OSError):
                for path in made:
                    path.unlink()
                for path in sorted({*folder.rglob("*")} - before, reverse=True):
                    if path.is_dir():
                        path.rmdir()
                for path in reversed(missing):
                    path.rmdir()
        raise


def _of_a_step(path: Path) -> bool:
    """Whether it was written after a step: a trace with a gradient, a checkpoint of a later step than 0."""
    if path.suffix == ".trace":
        return len(rows_of(read(path).events, GradientDone)) > 0
    return path.suffix == ENDING and path.stem != step_name(0)


def refuse_used(folder: Path) -> None:
    """Raise SettingError if the folder holds a run already, or several, or checkpoints, or lies in that of a
    run: two runs would lie in each other. Files of others may be there: a log, TensorBoard's.
    """
    if any(any(folder.glob(pattern)) for pattern in (SERIES, "agent-*.trace", "*/agent-*.trace")):
        raise SettingError(f"{folder} holds a run already: --resume goes on with it; or name another --out.")
    for above in folder.parents:
        if any(any(above.glob(pattern)) for pattern in (SERIES, "agent-*.trace")):
            of = f"{folder} lies in {above}, the folder of a run"
            raise SettingError(f"{of}. To go on with it: --resume --out {above}; else name another --out.")
    for saved in (path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}step-*{ENDING}")):
        do = "name another --out, or remove what is no longer needed"
        raise SettingError(f"{folder} holds checkpoints of another run ({saved.relative_to(folder)}): {do}.")


def named(out: Path | None) -> Path:
    """The folder of the run that is to go on. Raises SettingError if none was named."""
    if out is None:
        raise SettingError("--resume goes on with a run: name its folder with --out.")
    return out


def begun(folder: Path) -> bool:
    return any(path.stat().st_size for path in folder.glob("agent-*.trace"))


def set_damaged_aside(folder: Path, on_notice: Callable[[str], None]) -> None:
    """Before a run goes on: take what is damaged out of the way of all agents, and say it."""
    for each in sorted((folder / "checkpoints").glob("agent-*")):
        set_aside(each, on_notice)


def why_not_resumable(folder: Path, agents: int, together: bool, do: str = "") -> str:
    """Why a run that was interrupted cannot go on from its checkpoints (`together`: all from the same step),
    and what to do; empty if it can.
    """
    found = [newest(agent_folder(folder, i), agents, together) for i in range(agents)]
    if None not in found:
        return ""
    why, more = f"before agent {found.index(None)} had saved a checkpoint" + " that all have" * together, ""
    if not _checkpointed(folder):
        why, more = "without a checkpoint", " --checkpoint-every 100"
    do = do or f"Remove it, and --resume{more} runs it anew."
    return f"The run in {folder} was interrupted {why}, so it cannot go on. {do}"


def what_is_left(folder: Path) -> str:
    if not _checkpointed(folder):
        return "No agent had saved a checkpoint yet (--checkpoint-every)."
    saved = f"What was saved is there: 'offbeat export {folder}' writes the model."
    if not log_path(folder, 0).exists():
        return f"{saved} The agents' logs are gone, so the run cannot go on."
    return f"{saved} Once what went wrong is mended, the same command with --resume --out {folder} goes on."


def how_to_go_on(folder: Path, steps: int) -> str:
    """What is there after Ctrl-C, when all agents together have made so many steps, and what goes on."""
    if _checkpointed(folder):
        return f"Interrupted at {steps:,} steps. The same command with --resume --out {folder} goes on."
    return f"Interrupted at {steps:,} steps, and it cannot go on: no agent had saved a checkpoint yet."


def _checkpointed(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("agent-*/step-*"))


class Present:
    """These folders stay the same ones, and these files, once they have been there, stay there.

    Who writes to a file that has no name any more gets no error; so somebody has to look.
    """

    def __init__(self, folders: Iterable[Path], files: Iterable[Path]) -> None:
        # Open, so that no file system gives one of them another number meanwhile.
        self._folders = {path: os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in folders}
        self._files, self._seen = [*files], set[Path]()

    def gone(self) -> Path | None:
        """The first that was there, and is not any more, or is another folder."""
        for path, handle in self._folders.items():
            same = False
            with suppress(FileNotFoundError, NotADirectoryError):
                same = os.path.samestat(path.stat(), os.fstat(handle))
            if not same:
                return path
        there = {path for path in self._files if path.exists()}
        lost, self._seen = self._seen - there, self._seen | there
        return min(lost, default=None)

    def watch(self, path: Path) -> None:
        """One file more."""
        self._files.append(path)

    def close(self) -> None:
        for handle in self._folders.values():
            os.close(handle)
