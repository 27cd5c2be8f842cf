"""What a sweep leaves: a row of values of every finished run, each in a file, and all in one Parquet file.

The files of the rows (`offbeat.experiments.sweep.rows`) lie in a folder beside it, under their keys. Files
that no point asks for are left alone.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from offbeat.core.settings import as_word
from offbeat.core.system.files import write_atomically
from offbeat.core.system.own import together
from offbeat.experiments.sweep.grid import SETTINGS, Point
from offbeat.experiments.sweep.rows import VERSIONS, Rows
from offbeat.results.run import Run

FLOATS, TABLE = "list float64", "list list float64"

RESULTS = {
    "digest": "string", "measure": "string", "code": "string", "holdings": "string", "world": "string",
    "updates": "int64", "messages": "int64", "megabytes": "float64",
    "time_to_target": "float64", "diverged_at": "float64", "error": "string", "epoch": "float64",
    "staleness_B": "int64", "staleness_D": "int64",
    "final_loss": "float64", "final_accuracy": "float64", "final_consensus": "float64",
    "final_accuracy_mean": "float64", "final_accuracy_worst": "float64",
    # one value for each evaluation
    "curve_time": FLOATS, "curve_updates": "list int64", "curve_megabytes": FLOATS,
    "curve_loss": FLOATS, "curve_accuracy": FLOATS, "curve_consensus": FLOATS,
}  # fmt: skip

COLUMNS = {
    "key": "string", "algorithm": "string",
    **{name: each.kind.column for name, each in SETTINGS.items()}, "lr_said": "string", **RESULTS,
}  # fmt: skip
"""The columns of the table and their types. 'loss' is the setting, the probability that a message is lost;
the training loss is 'final_loss' and 'curve_loss'. As JSON: 'code', the versions of one's own code, and
`AS_JSON` of the record of a run. What is not finite, or was not measured, is null.
"""

AS_JSON = ("holdings", "world")

ROW_GROUP = 256  # rows that are in memory at once when the file is written


def row_of(point: Point, run: Run) -> dict[str, Any]:
    """The row of a run, JSON-ready; nothing in it depends on when or where it was made."""
    record = run.record()
    code = json.dumps(point.code, sort_keys=True) if point.code else None
    row = record | {"key": point.key, "measure": run.measure, "code": code} | point.settings
    kept = {name: value for name in AS_JSON if (value := record.get(name)) is not None}
    row |= {name: json.dumps(kept[name]) if name in kept else None for name in AS_JSON}
    for group in ("final", "curve", "staleness"):
        row |= {f"{group}_{name}": value for name, value in record[group].items()}
    more = run.curve.more
    further = [*(f"final_{name}" for name in more), *(f"curve_{name}" for name in more)]
    details = {f"{group}_{name}": values for group, of in run.details.items() for name, values in of.items()}
    text = [name for name, kind in COLUMNS.items() if kind == "string" and row[name] is not None]
    words = {name: as_word(row[name]) for name in text}
    return {name: row[name] for name in (*COLUMNS, *further)} | words | details


def write_parquet(
    file: BinaryIO, rows: Iterable[dict[str, Any]], further: Mapping[str, str] | None = None
) -> int:
    """Write the table; how many rows it has. The same rows give the same bytes (of one pyarrow).

    Args:
        further: columns of metrics that only some rows have, and their types
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    types = {"string": pyarrow.string(), "int64": pyarrow.int64(), "float64": pyarrow.float64()}
    types |= {f"list {name}": pyarrow.list_(kind) for name, kind in types.items()}
    types |= {"bool": pyarrow.bool_(), TABLE: pyarrow.list_(types[FLOATS]), "number": pyarrow.float64()}
    columns = {**COLUMNS, **(further or {})}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    said = [name for name, kind in columns.items() if kind == "string" and COLUMNS.get(name) == "number"]
    remaining, count = ({**row, **{name: as_word(row[name]) for name in said}} for row in rows), 0
    with ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(remaining, ROW_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count


@dataclass(frozen=True)
class Store:
    """The finished runs of the sweep that writes `out`."""

    out: Path

    @property
    def folder(self) -> Path:
        return self.out.with_name(self.out.name + ".runs")

    @property
    def rows(self) -> Rows:
        return Rows(self.folder)

    def keep_versions(self, points: Sequence[Point]) -> None:
        """Write down of which versions the files are that these points name. Raises DiskError."""
        code = together(*(point.code for point in points))
        try:
            if code or (self.folder / VERSIONS).exists():
                write_atomically(self.folder / VERSIONS, (json.dumps(code, indent=1) + "\n").encode())
        except OSError as error:
            raise self.rows.full(error) from error

    def has(self, point: Point) -> bool:
        return self.read(point) is not None

    def read(self, point: Point) -> dict[str, Any] | None:
        """The row of a run; None if it is not finished."""
        row: dict[str, Any] | None = self.rows.read(point.key)
        return row

    def write(self, key: str, row: dict[str, Any]) -> None:
        """Keep a row. Raises DiskError where it cannot be written."""
        self.rows.write(key, row)

    def write_table(self, points: Sequence[Point]) -> int:
        """Write the Parquet file of the points that are finished, whole or not at all; how many there are."""
        temporary = self.folder / ".offbeat-table"
        temporary.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as file:  # never through a link that somebody has laid there
                count = write_parquet(file, self._rows(points), self._further(points))
            temporary.replace(self.out.resolve())  # a link stays a link
        except OSError as error:
            raise self.rows.full(error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return count

    def _rows(self, points: Sequence[Point]) -> Iterator[dict[str, Any]]:
        return (row for point in points if (row := self.read(point)) is not None)

    def _further(self, points: Sequence[Point]) -> dict[str, str]:
        """The columns that some rows have beside `COLUMNS`: metrics that only some runs were asked for; and
        numbers that some rows say in words, 'file:PATH', so that all of the column is text.
        """
        found = dict.fromkeys(name for row in self._rows(points) for name in row if name not in COLUMNS)
        kinds = {"final_": "float64", "per_agent_": TABLE}
        starts = {name: [kind for start, kind in kinds.items() if name.startswith(start)] for name in found}
        types = {name: kind[0] if kind else FLOATS for name, kind in starts.items()}
        numbers = [name for name, kind in COLUMNS.items() if kind == "number"]
        said = {name for name in numbers for point in points if isinstance(point.settings[name], str)}
        return types | {name: "string" for name in numbers if name in said}

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else writes here meanwhile, as `Rows.locked` has it."""
        refusal = f"Another sweep is writing {self.out}. Wait for its end, or name another file with --out."
        return self.rows.locked(refusal)
