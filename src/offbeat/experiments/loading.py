"""Results from disk: of `compare`, `sweep` and `live`, of this version and older ones, as one Comparison.

    result = offbeat.load("a.json", "b.parquet", "offbeat-runs/digits-0")

What is in a file is told by its content, what is in a folder by the files in it.
"""

import json
import os
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from offbeat.algorithms import ALGORITHMS, row_of
from offbeat.core.errors import DataError, SettingError
from offbeat.core.settings import Settings, declared
from offbeat.core.system.named import Own
from offbeat.core.system.own import of_versions
from offbeat.core.system.reading import content, json_in, reading, refuse_newer
from offbeat.engines.live.launcher.outfolder import SERIES
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.keeping import ASKED, TUNING, is_kept, kept_in
from offbeat.experiments.live.series import FORMAT, Series
from offbeat.experiments.sweep.grid import SETTINGS
from offbeat.experiments.sweep.rows import RUN, VERSIONS, rows_in
from offbeat.experiments.sweep.store import AS_JSON
from offbeat.results.records import run_from
from offbeat.results.run import Comparison, Run
from offbeat.results.values import VERSION

EXPECTED = (
    "results of offbeat: a JSON file of compare or live, a Parquet file or folder of sweep, or the folder of "
    "compare or live"
)
GROUPS = ("final", "curve", "staleness")  # of a record; in a table their values are columns, 'final_loss'
LOGS = "agent-*.trace"  # in the folder of every run of a live folder
PARQUET, ZIP, BRACE = b"PAR1", b"PK\x03\x04", b"{"


def load(*paths: str | os.PathLike[str]) -> Comparison:
    """The runs in these files and folders, as one comparison, grouped by every setting that differs.

    Files: JSON of `compare` and `live`, Parquet of `sweep`. Folders: of `live`; `NAME.parquet.runs` of a
    sweep; or one with such files and folders. A run that is there twice is kept once.

    The runs have no models and no traces; `run.topology` is built anew, by its name. Of a folder of `live`
    the models that were seen are evaluated again, so its data must be there.

    Raises SettingError if nothing is named, or the same run is there twice with different results; DataError
    for what is missing, damaged, of something else, or of a newer version.
    """
    if not paths:
        raise SettingError(f"Nothing to load was named; expected {EXPECTED}.")
    return merged([(path, loaded(path)) for path in map(Path, paths)])


def loaded(path: Path) -> Comparison:
    """What is in one file or folder."""
    try:
        return _in_folder(path) if path.is_dir() else _in_file(path)
    except SettingError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path} cannot be read ({f'{error}'.rstrip('.')}); expected {EXPECTED}.") from error


def merged(parts: Iterable[tuple[Path, Comparison]]) -> Comparison:
    """All runs of these; one that is there twice, with the same digest, is kept once.

    Raises SettingError if they differ, with the names of their files.
    """
    found, parts = dict[str, tuple[Path, Run]](), list(parts)
    if len(parts) == 1:
        return parts[0][1]
    for path, comparison in parts:
        for run in comparison.runs:
            before, other = found.setdefault(key := _identity(run), (path, run))
            if other.digest != run.digest:
                raise SettingError(
                    f"{run.algorithm} with lr {run.lr:g} and seed {run.seed} is in {before} and in {path}, "
                    f"with the same settings, other results (digest {other.digest[:8]}, {run.digest[:8]}): "
                    "of another machine, version or data, or of live runs. Expected one: leave one out."
                )
            if len([*run.curve.names()]) > len([*other.curve.names()]):
                found[key] = path, run  # of which more was measured
    interrupted = any(comparison.interrupted for _, comparison in parts)
    return Comparison([run for _, run in found.values()], interrupted=interrupted)


def _identity(run: Run) -> str:
    """What is the same of the same run: all of its settings that mean anything."""
    left_out = {
        "own",
        "executor",
        "data",
        "metrics",
        "per_agent",
        *run.settings.idle(),
        *["code"] * (not run.settings.get("code")),
    }
    said = {name: value for name, value in run.settings.items() if name not in left_out}
    return json.dumps(said | {"algorithm": run.algorithm, "lr": run.lr, "seed": run.seed}, sort_keys=True)


# -- folders ---------------------------------------------------------------------------------------


def _in_folder(folder: Path) -> Comparison:
    if is_live(folder):
        return _live(folder)
    if is_kept(folder):
        return kept_in(folder, usual())
    if is_kept(folder.parent) and folder.name == TUNING:
        raise DataError(f"{folder} has the runs that a comparison tuned by; expected {folder.parent}.")
    if any(folder.glob(f"*{RUN}")):
        return _rows(folder)
    if is_live(folder.parent) and any(folder.glob(LOGS)):
        raise DataError(f"{folder} is one run of a live folder; expected that folder, {folder.parent}.")
    with reading(folder, EXPECTED):
        there = sorted(folder.iterdir())
    results = [path for path in there if path.suffix in (".json", ".parquet") and path.is_file()]
    results += [path for path in there if path.is_dir() and _has_runs(path)]
    if not results:
        raise DataError(f"{folder} holds no results; expected {EXPECTED}, or a folder of such.")
    return merged([(path, loaded(path)) for path in results])


def _has_runs(folder: Path) -> bool:
    return is_live(folder) or is_kept(folder) or any(folder.glob(f"*{RUN}"))


def is_trace(path: Path) -> bool:
    """Whether it is an archive, as a trace is."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == ZIP


def is_live(folder: Path) -> bool:
    """Whether it is the folder of offbeat live, in which a run has begun."""
    return (folder / SERIES).is_file() and any(folder.glob(f"*/{LOGS}"))


def run_in(folder: Path) -> Run | None:
    """The run whose own folder this is, below that of offbeat live; None: there is none that has ended."""
    folder = folder.resolve()
    runs = _series(folder.parent).runs if is_live(folder.parent) else []
    return next((each.result() for each in runs if each.folder == folder), None)


def _series(folder: Path) -> Series:
    path = folder / SERIES
    with reading(path, "the settings of a run of offbeat live"):
        saved = json_in(path)
        refuse_newer(path, saved.get("format", FORMAT), FORMAT)
        return Series.of(saved["asked"], saved["how"]).within(folder)


def _live(folder: Path) -> Comparison:
    """The runs of a live folder that have ended; what was seen of their models is evaluated."""
    series = _series(folder)
    ended = [run for each in series.runs if (run := each.result()) is not None]
    if not ended:
        raise DataError(
            f"No run in {folder} has ended; 'offbeat live --resume --out {folder}' goes on with it."
        )
    loaded = [run_from(run.record(), usual()) for run in ended]
    return Comparison(loaded, interrupted=len(ended) < len(series.runs))


def _rows(folder: Path) -> Comparison:
    """The finished runs of a sweep, in the order of their settings."""
    rows = [*rows_in(folder, "a finished run of a sweep", "Remove it, and the sweep makes it anew.")]
    if any(isinstance(row, dict) and {*row} == {"place", "run"} for _, row in rows):
        said = f"{folder} has runs of a comparison, and no {ASKED}"
        raise DataError(f"{said}; the command that made the folder writes it anew: expected that file.")
    all_runs = [(row, _of_row(path, row)) for path, row in rows]  # which are runs, before they are compared
    versions = _versions(folder / VERSIONS)
    found = [(row, run) for row, run in all_runs if of_versions(run.settings.get("code") or {}, versions)]
    if not found:
        raise DataError(
            f"No run in {folder} of its files as they are now has ended; the sweep goes on with it."
        )
    return Comparison(_called([run for _, run in sorted(found, key=lambda each: _place(each[0]))]))


def _called(runs: Sequence[Run]) -> list[Run]:
    """The runs of a sweep, which names algorithms as it found them, with the names that `compare` gives: of
    the user's own the name in its file; with its file where two would be called the same.
    """
    own = {name: Own.parse(name) for name in {run.algorithm for run in runs}}
    short = {name: each.short for name, each in own.items() if each is not None}
    count = Counter([short.get(name, name) for name in own])
    names = {name: said for name, said in short.items() if count[said] == 1 and row_of(said) is None}
    return [replace(run, algorithm=names.get(run.algorithm, run.algorithm)) for run in runs]


def _versions(path: Path) -> dict[str, str]:
    """The versions of the files that a sweep was begun with last; none where it says none."""
    with reading(path, "the versions of the files of a sweep", "Remove it, and the sweep writes it anew."):
        found: dict[str, str] = json_in(path) if path.exists() else {}
        if not isinstance(found, dict):
            raise ValueError("it is JSON of something else")
    return found


def _place(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Where a row stands: those of one world together, algorithms as in their table, then lr and seed."""
    name, names = str(row.get("algorithm")), [*ALGORITHMS]
    known = row_of(name)
    which = [names.index(known.name) if known else len(names), name, row.get("lr"), row.get("seed")]
    values = [*(row.get(setting) for setting in SETTINGS if setting not in ("lr", "seed")), *which]
    return [(type(value).__name__, "" if value is None else value) for value in values]


def _of_row(path: Path, row: Mapping[str, Any]) -> Run:
    with reading(path, "a finished run of a sweep"):
        return run_from(_record(row), usual())


# -- files -----------------------------------------------------------------------------------------


def _in_file(path: Path) -> Comparison:
    with reading(path, EXPECTED):
        text = content(path)
        head = text[:4]
        if head == PARQUET:
            return Comparison(_called([run_from(_record(row), usual()) for row in _parquet(path)]))
        if not text.strip():
            raise ValueError("it is empty")
        if head == ZIP:
            raise DataError(f"{path} is a trace or another archive; expected {EXPECTED}.")
        text = text.removeprefix(BOM_UTF8)
        if not text.lstrip().startswith(BRACE):
            raise ValueError("it is neither JSON nor Parquet")
        return _of_json(path, json.loads(text))


def _of_json(path: Path, found: Mapping[str, Any]) -> Comparison:
    if found.get("format") == FORMAT:
        raise DataError(f"{path} says what a live run was asked for; expected its folder, {path.parent}.")
    if "offbeat" not in found or "runs" not in found:
        raise ValueError("it is JSON of something else: there is no 'offbeat', no 'runs'")
    _refuse_newer(path, found["offbeat"])
    if not isinstance(found["runs"], list):
        raise ValueError("its 'runs' are no list")
    runs = [run_from(record, usual()) for record in found["runs"]]
    planned = {str(name): int(count) for name, count in found.get("planned", {}).items()}
    return Comparison(runs, interrupted=bool(found.get("interrupted", False)), planned=planned)


def _refuse_newer(path: Path, version: object) -> None:
    """Raise DataError if a later version wrote it."""
    theirs, ours = ([int(part) for part in re.findall(r"\d+", str(v))[:3]] for v in (version, VERSION))
    if theirs > ours:
        raise DataError(f"{path} was written by offbeat {version}, this one is {VERSION}. Upgrade offbeat.")


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256):
            yield from batch.to_pylist()


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run (`RunValues.record`) from its row in a sweep's table."""
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name, value in row.items():
        group, _, rest = name.partition("_")
        if group in groups and name not in SETTINGS:
            groups[group][rest] = value
    curve = {name: values for name, values in groups["curve"].items() if values is not None}
    settings = {name: row[name] for name in SETTINGS if name in row}
    settings |= {"own": [], "algorithm": row["algorithm"], "lr": row["lr"], "seed": row["seed"]}
    if row.get("lr_said") is not None:
        settings["lr_said"] = row["lr_said"]
    if row.get("code") is not None:
        settings["code"] = json.loads(row["code"])
    written = {name: json.loads(row[name]) for name in AS_JSON if row.get(name) is not None}
    return {**row, **groups, **written, "curve": curve, "settings": settings}


@cache
def usual() -> Settings:
    """The settings of an experiment where nobody says anything."""
    values = {
        name: None if each.default is None else each.kind.record(each.default)
        for name, each in declared(Experiment).items()
    }
    return Settings(values, (Experiment,))
