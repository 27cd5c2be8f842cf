"""A run as a row of values, and many rows as a Parquet file: the same rows, the same bytes."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, BinaryIO

from offbeat.experiments.sweep.grid import SETTINGS, Point
from offbeat.results.run import Run

FLOATS = "list float64"

RESULTS = {
    "digest": "string", "measure": "string",
    "updates": "int64", "messages": "int64", "megabytes": "float64",
    "time_to_target": "float64", "diverged_at": "float64", "error": "string",
    "staleness_B": "int64", "staleness_D": "int64",
    "final_loss": "float64", "final_accuracy": "float64", "final_consensus": "float64",
    "final_accuracy_mean": "float64", "final_accuracy_worst": "float64",
    # one value for each evaluation
    "curve_time": FLOATS, "curve_updates": "list int64", "curve_megabytes": FLOATS,
    "curve_loss": FLOATS, "curve_accuracy": FLOATS, "curve_consensus": FLOATS,
}  # fmt: skip

COLUMNS = {
    "key": "string", "algorithm": "string",
    **{name: each.kind.column for name, each in SETTINGS.items()}, **RESULTS,
}  # fmt: skip
"""The columns of the table and their types. 'loss' is the setting, the probability that a message is lost;
the training loss is 'final_loss' and 'curve_loss'. What is not finite, or was not measured, is null.
"""

ROW_GROUP = 256
"""Rows that are in memory at once when the file is written."""


def row_of(point: Point, run: Run) -> dict[str, Any]:
    """The row of a run, JSON-ready; nothing in it depends on when or where it was made."""
    record = run.record()
    row = record | {"key": point.key, "measure": run.measure} | point.settings
    for group in ("final", "curve", "staleness"):
        row |= {f"{group}_{name}": value for name, value in record[group].items()}
    return {name: row[name] for name in COLUMNS}


def write_parquet(file: BinaryIO, rows: Iterable[dict[str, Any]]) -> None:
    """Write the table. The same rows in the same order give the same bytes (of one version of pyarrow)."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    types = {"string": pyarrow.string(), "int64": pyarrow.int64(), "float64": pyarrow.float64()}
    types |= {f"list {name}": pyarrow.list_(kind) for name, kind in types.items()}
    schema, remaining = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()]), iter(rows)
    with ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(remaining, ROW_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
