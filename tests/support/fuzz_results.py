"""The readers of results: how a good file of each is made, how it is read and shown, and what only somebody
who knows its format writes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
from fuzz_readers import Reader, craft_json, odd_json
from pyarrow import parquet

import offbeat
from offbeat.experiments.keeping import ASKED
from offbeat.experiments.sweep.rows import RUN

SMALL: dict[str, Any] = {
    "task": "quadratic",
    "agents": 3,
    "topology": "ring",
    "until": 6.0,
    "eval_every": 2.0,
}
TUNED: dict[str, Any] = {"tune": "lr=0.05:1:log", "tune_budget": 2, "tune_seeds": 1}
FILES = Path(__file__).parents[1] / "results" / "files"


@cache
def comparison() -> offbeat.Comparison:
    tuned = offbeat.compare(
        "adsgd,dsgd", crash="agent 1 at 2 until 4", metrics="gradient_norm", **SMALL, **TUNED
    )
    return offbeat.Comparison(tuned.runs, interrupted=True, planned={"adsgd": 1, "dsgd": 2})


def make_folder(folder: Path) -> None:
    offbeat.compare("adsgd,dsgd", out=folder, **SMALL, **TUNED)


def shown(path: Path) -> object:
    """What is loaded, once every text of it could be made."""
    result = offbeat.load(path)
    texts = [str(result), result.to_csv("std"), result.to_latex("ci")]
    assert len(result.to_frame()) == sum(len(run.curve.time) for run in result.runs)
    return json.dumps(result.record()), texts


def craft_run(path: Path, rng: Random) -> str:
    """An odd run, with the sum that fits."""
    key, body = path.stem, path.read_bytes().split(b"\n")[1]
    body = json.dumps(odd_json(json.loads(body), rng)).encode()
    total = hashlib.sha256(key.encode() + b"\n" + body).hexdigest()
    path.write_bytes(f"{total}\n".encode() + body + b"\n")
    return "an odd run"


def craft_parquet(path: Path, rng: Random) -> str:
    """A table that Parquet takes, with odd columns and values."""
    rows = parquet.read_table(path).to_pylist()
    kind, name = rng.choice(("value", "column", "missing", "none")), rng.choice([*rows[0]])
    odd = rng.choice((-1, 0, 10**9, 1e308, float("nan"), "", "x", True, [], [1.5], {"a": 1}))
    for row in rows if kind != "value" else rows[:1]:
        if kind == "missing":
            del row[name]
        else:
            row[name] = odd
    try:
        table = pyarrow.Table.from_pylist(rows if kind != "none" else [])
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):  # no column has values of two types
        table = pyarrow.Table.from_pylist([dict.fromkeys(row, odd) for row in rows])
    parquet.write_table(table, path)
    return f"an odd {name}"


def a_run(folder: Path) -> str:
    return min(path.name for path in folder.glob(f"*{RUN}"))


SWEEP = f"sweep.parquet.runs/{a_run(FILES / 'sweep.parquet.runs')}"
RESULTS = [
    Reader("results.json", "r.json", lambda folder: comparison().save_json(folder / "r.json"), shown,
           craft=craft_json, weight=6),
    Reader("old results", "tuned.json", lambda folder: shutil.copy(FILES / "tuned.json", folder), shown,
           craft=craft_json, weight=2),
    Reader("comparison", ASKED, make_folder, lambda path: shown(path.parent), craft=craft_json, weight=2),
    Reader("finished run", SWEEP, lambda folder: shutil.copytree(FILES, folder, dirs_exist_ok=True),
           lambda path: shown(path.parent), True, craft=craft_run),
    Reader("sweep.parquet", "sweep.parquet", lambda folder: shutil.copy(FILES / "sweep.parquet", folder),
           shown, craft=craft_parquet),
    Reader("live results", "live.json",
           lambda folder: shutil.copytree(FILES / "live", folder, dirs_exist_ok=True),
           lambda path: shown(path.parent), named=False, craft=craft_json, weight=1),
    Reader("live end", "adsgd-lr0.1/ended.json",
           lambda folder: shutil.copytree(FILES / "live", folder, dirs_exist_ok=True),
           lambda path: shown(path.parents[1]), named=False, craft=craft_json, weight=1),
]  # fmt: skip
"""All of them."""
