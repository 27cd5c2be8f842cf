"""A run as a row of values, and many rows as a Parquet file: the same rows, the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from offbeat.experiments.sweep.grid import SETTINGS, Point
from offbeat.results.run import Run

if TYPE_CHECKING:
    import pyarrow

RESULTS = {
    "digest": "string",
    "measure": "string",
    "updates": "int64",
    "messages": "int64",
    "megabytes": "float64",
    "time_to_target": "float64",
    "diverged_at": "float64",
    "error": "string",
    "staleness_B": "int64",
    "staleness_D": "int64",
    "final_loss": "float64",
    "final_accuracy": "float64",
    "final_consensus": "float64",
    "final_accuracy_mean": "float64",
    "final_accuracy_worst": "float64",
    # one value for each evaluation
    "curve_time": "list float64",
    "curve_updates": "list int64",
    "curve_megabytes": "list float64",
    "curve_loss": "list float64",
    "curve_accuracy": "list float64",
    "curve_consensus": "list float64",
}

COLUMNS = {
    "key": "string",
    "algorithm": "string",
    **{name: each.kind.column for name, each in SETTINGS.items()},
    **RESULTS,
}
"""The columns of the table and their types. 'loss' is the setting, the probability that a message is lost;
the training loss is 'final_loss' and 'curve_loss'. What is not finite, or was not measured, is null.
"""

ROW_GROUP = 256
"""Rows that are in memory at once when the file is written."""


def row_of(point: Point, run: Run) -> dict[str, Any]:
    """The row of a run, JSON-ready; nothing in it depends on when or where it was made."""
    record = run.record()
    results = {name: record[name] for name in COLUMNS if name in record and name not in point.settings}
    final = {f"final_{name}": value for name, value in record["final"].items()}
    curve = {f"curve_{name}": values for name, values in record["curve"].items()}
    staleness = {f"staleness_{name}": value for name, value in record["staleness"].items()}
    row = {"key": point.key, "measure": run.measure} | point.settings | results | staleness | final | curve
    return {name: row[name] for name in COLUMNS}


def write_parquet(file: BinaryIO, rows: Iterable[dict[str, Any]]) -> None:
    """Write the table. The same rows in the same order give the same bytes (of one version of pyarrow)."""
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    schema, remaining = _schema(), iter(rows)
    with ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(remaining, ROW_GROUP)):
            writer.write_table(Table.from_pylist(group, schema=schema))


def _schema() -> pyarrow.Schema:
    import pyarrow

    types = {"string": pyarrow.string(), "int64": pyarrow.int64(), "float64": pyarrow.float64()}
    types |= {f"list {name}": pyarrow.list_(kind) for name, kind in types.items()}
    return pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
