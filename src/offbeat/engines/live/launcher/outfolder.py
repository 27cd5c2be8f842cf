"""The folder of a run's results: made for it, and gone again if the run makes no step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system.locks import NAME, held
from offbeat.engines.events import GradientDone, rows_of
from offbeat.engines.live.node.checkpoint import ENDING, step_name
from offbeat.engines.live.node.log import read

RUNS = Path("offbeat-runs")

OURS = (
    "agent-*.trace", "agent-*.log", "agent-*.json", "metrics.jsonl", "trace.npz", "looks", "live.json",
    "checkpoints/agent-*/*.safetensors", NAME,
)  # fmt: skip
"""What we write into it."""


@contextmanager
def out_folder(wanted: Path | None, name: str) -> Iterator[Path]:
    """The folder for the results of a run: `wanted`, or a new one below ./offbeat-runs; no other run may use
    it.

    If the run is refused, or fails before its first step, what it has written there is removed, and the
    folder, if it is new. Raises SettingError if there can be no such folder, or another run is at work there.
    """
    missing = _missing(RUNS if wanted is None else wanted)
    folder = _made(wanted, name)
    missing += [] if wanted else [folder]
    locked = (folder / NAME).exists()
    refusal = f"Another run is writing {folder}. Wait for its end, or name another folder with --out."
    with held(folder, refusal), undone(folder, missing, [] if locked else [folder / NAME]):
        yield folder


@contextmanager
def undone(folder: Path, missing: Sequence[Path] = (), new: Sequence[Path] = ()) -> Iterator[None]:
    """If a run is refused, or fails before its first step, remove what it has written in its folder.

    Args:
        missing: folders that are removed then, if nothing else is in them, from above
        new: files, likewise
    """
    before = {*folder.rglob("*")} - {*new}
    try:
        yield
    except (OffbeatError, OSError):
        _undo(folder, before, missing)
        raise


def _undo(folder: Path, before: set[Path], missing: Sequence[Path]) -> None:
    """Remove what is new, unless there has been a step."""
    made = {path for pattern in OURS for path in folder.glob(pattern)} - before
    if any(folder.glob("*/agent-*.trace")) or any(map(_of_a_step, made)):
        return
    with suppress(OSError):
        for path in made:
            path.unlink()
        for path in sorted({*folder.rglob("*")} - before, reverse=True):
            if path.is_dir():
                path.rmdir()
        for path in reversed(missing):
            path.rmdir()


def _of_a_step(path: Path) -> bool:
    """Whether this file was written after a step: a trace with a gradient, a checkpoint of a later step than
    0.
    """
    if path.suffix == ".trace":
        return len(rows_of(read(path).events, GradientDone)) > 0
    return path.suffix == ENDING and path.stem != step_name(0)


def _missing(folder: Path) -> list[Path]:
    """This folder and those above it that are not there, from above."""
    return [path for path in [*reversed(folder.parents), folder] if not path.exists()]


def _made(wanted: Path | None, name: str) -> Path:
    try:
        if wanted is not None:
            wanted.mkdir(parents=True, exist_ok=True)
            return wanted
        for k in range(10_000):
            folder = RUNS / f"{name}-{k}"
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
    except OSError as error:
        raise SettingError(
            f"Cannot make the folder {error.filename} for the results: {error.strerror}."
        ) from None
    raise SettingError(
        f"There are 10,000 runs of this name in ./{RUNS}; remove some, or name a folder with --out."
    )
