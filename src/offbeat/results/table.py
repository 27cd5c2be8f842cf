"""The comparison as a table of text."""

import io
import sys
from collections import Counter
from collections.abc import Sequence
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from offbeat.algorithms import ALGORITHMS, find
from offbeat.results.markup import time_text
from offbeat.results.tuned import how_tuned, tried
from offbeat.results.values import ComparisonValues, RunValues, spread

WIDTH = 118
"""Columns of text where the output is not a terminal."""


def as_text(comparison: ComparisonValues) -> str:
    """The table as plain text, in characters that standard output has."""
    file = io.TextIOWrapper(io.BytesIO(), getattr(sys.stdout, "encoding", None) or "utf-8", "replace")
    Console(file=file, width=WIDTH).print(as_table(comparison))
    file.seek(0)
    return file.read().rstrip()


def as_table(comparison: ComparisonValues, width: int = WIDTH) -> Group:
    """The table, with a line that says what was run and notes on what needs saying.

    Where it is wider than `width`, it is several tables below one another.
    """
    if not comparison.runs:
        return Group(Text("No run was finished."))
    heads, rows = cells(comparison)
    tables = []
    for columns in _fitting([heads, *rows], width):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
        for index in columns:
            table.add_column(heads[index], justify="left" if index == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(row[index] for index in columns))
        tables.append(table)
    said = (Text(note, style="dim") for note in notes(comparison))
    return Group(Text(headline(comparison), style="bold"), *tables, *said)


def tuning_table(comparison: ComparisonValues) -> Table:
    """What every learning rate gave that was tried, where they were tuned."""
    heads, rows = tried(comparison)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if 0 < index < 4 else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _fitting(rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """The columns in groups that are no wider than `width`, each with the first column."""
    widths = [max(len(row[index]) for row in rows) + 2 for index in range(len(rows[0]))]
    groups = [[0]]
    for index in range(1, len(widths)):
        if len(groups[-1]) > 1 and sum(widths[i] for i in groups[-1]) + widths[index] > width - 1:
            groups.append([0])
        groups[-1].append(index)
    return groups


IN_ITS_WORDS = {
    *("task", "agents", "topology", "case", "straggler", "slowdown", "skew", "dirichlet", "until", "target"),
    *("algorithm", "lr", "seed", "own"),
}
"""Settings that the headline, or the head of a column, says in words of their own."""

WORDS = {
    "batch": "batches of", "reg": "lambda", "eval_every": "evaluated every", "loss": "message loss",
    "compute": "computing", "communication": "sending", "crash": "crash of", "faults": "fault",
}  # fmt: skip
"""What a setting is called in the headline, where it is not by its name."""


def headline(comparison: ComparisonValues) -> str:
    """What was run, in one line: whatever is not as it is by default is named."""
    first = comparison.runs[0]
    s, seeds = first.settings, sorted({run.seed for run in comparison.runs})
    slow = f" (agent {s['straggler']}, {s['slowdown']:g} times slower)" if s["straggler"] is not None else ""
    split = f"Dirichlet {s['dirichlet']:g}" if s["dirichlet"] is not None else f"label skew {s['skew']:g}"
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    agents = f"{s['agents']} agents on {s['topology']}" if s["agents"] > 1 else "1 agent"
    shares = [split] if first.measure == "accuracy" and not s["own"] else []
    others = [
        f"{WORDS.get(name, name)} {_said(name, value)}"
        for name, value in s.departures().items()
        if name not in IN_ITS_WORDS and value not in ([], "SGD")
    ]
    return ", ".join(
        [s["task"], f"case {s['case']}{slow}", agents, *shares, *others, f"to time {s['until']:g}", which]
    )


def _said(name: str, value: object) -> str:
    match value:
        case float() if name == "unit":
            return f"{1000 * value:g} ms"
        case bool() | None:
            return str(value)
        case int() | float():
            return f"{value:g}"
        case list() | tuple():
            return " and ".join(map(str, value))
    return str(value)


def gap_known(run: RunValues) -> bool:
    """Whether the loss is the distance from the optimum: the built-in quadratics know theirs."""
    return bool(run.settings["task"] == "quadratic" and "the task quadratic" not in run.settings["own"])


def target_name(run: RunValues) -> str:
    """The column that says when the target was met."""
    target = run.settings["target"]
    if target is None:
        return "time to target"
    if run.measure == "accuracy":
        return f"time to {target * 100:g} %"
    return f"time to {'gap' if gap_known(run) else 'loss'} {target:g}"


def cells(comparison: ComparisonValues) -> tuple[list[str], list[list[str]]]:
    first = comparison.runs[0]
    with_accuracy = first.measure == "accuracy"
    heads = ["algorithm", target_name(first), "vs best", *(["accuracy", "worst"] if with_accuracy else []),
             "loss", "updates", "messages", "MB", "consensus", "B", "D"]  # fmt: skip
    groups = comparison.groups()
    times = {key: spread([run.time_to_target for run in runs]) for key, runs in groups.items()}
    lasting = [t[0] for key, t in times.items() if not any(map(lost_again, groups[key]))]
    best = min((middle for middle in lasting if middle is not None), default=None)
    rows = []
    for key, runs in groups.items():
        middle, low, high = times[key]
        then = ", then diverged" * any(map(lost_again, runs))
        row = [comparison.label(key), _time(middle, low, high, len(runs)) + then]
        row.append("" if middle is None or not best or then else f"{middle / best:.2f}x")
        if with_accuracy:
            row += [_percent(_middle(runs, "accuracy")), _percent(_middle(runs, "accuracy_worst"))]
        loss = _middle(runs, "loss")
        stopped = " (stopped)" * any(run.error is not None for run in runs)
        row.append("diverged" if any(run.diverged_at is not None for run in runs) else f"{loss:.4g}{stopped}")
        row += [
            f"{median(run.updates for run in runs):,.0f}",
            f"{median(run.messages for run in runs):,.0f}",
            f"{median(run.megabytes for run in runs):,.1f}",
            f"{_middle(runs, 'consensus'):.3g}",
            f"{max(run.staleness.B for run in runs)}",
            _largest([run.staleness.D for run in runs]),
        ]
        rows.append(row)
    return heads, rows


def lost_again(run: RunValues) -> bool:
    """Whether the run met its target and diverged later."""
    return run.time_to_target is not None and run.diverged_at is not None


def error_of(run: RunValues) -> str:
    return f"Error of {run.algorithm} with lr {run.lr:g}, seed {run.seed}: {run.error}."


def notes(comparison: ComparisonValues) -> list[str]:
    """What a reader of the table should be told."""
    said = []
    if comparison.runs[0].measure == "accuracy":
        said.append("accuracy, loss: of the average model; worst: accuracy of the worst agent's own model.")
    if len({run.seed for run in comparison.runs}) > 1:
        said.append(
            "Medians over the seeds, for the time with [smallest - largest]; B and D are the largest."
        )
    if forms := _forms(comparison):
        said.append("; ".join(f"{name} {form}" for name, form in forms.items()) + ".")
    for run in comparison.runs:
        if run.diverged_at is not None:
            which = f"{run.algorithm} with lr {run.lr:g}, seed {run.seed},"
            met = f" met its target at time {time_text(run.time_to_target)}, then" * lost_again(run)
            said.append(f"{which}{met} diverged by time {run.diverged_at:g}; its run ended there.")
        if run.error is not None:
            said.append(error_of(run))
    lossless = dict.fromkeys(run.algorithm for run in comparison.runs if run.staleness.D is None)
    if comparison.runs[0].settings["loss"] and comparison.runs[0].settings["agents"] > 1 and lossless:
        said.append(
            f"Lost are messages of registers alone; what {', '.join(lossless)} send as mail always arrives."
        )
    if comparison.runs[0].settings["crash"]:
        for name in dict.fromkeys(run.algorithm for run in comparison.runs):
            if name in ALGORITHMS and "return" not in ALGORITHMS[name].tolerates:
                said.append(f"{name} {ALGORITHMS[name].note}.")
    tuned = any(run.tuning for run in comparison.runs)
    if tuned or len({run.lr for run in comparison.runs}) > 1:
        named = dict.fromkeys(f"{run.algorithm} {run.lr:g}" for run in comparison.runs)
        said.append(f"Learning rates{' (tuned)' * tuned}: " + ", ".join(named) + ".")
    said += how_tuned(comparison)
    if comparison.interrupted:
        made = Counter(run.algorithm for run in comparison.runs)
        counts = ", ".join(f"{name} {made[name]} of {count}" for name, count in comparison.planned.items())
        said.append(
            "Interrupted: these are the runs that were finished" + f" ({counts})" * bool(counts) + "."
        )
    return said


def _forms(comparison: ComparisonValues) -> dict[str, str]:
    """What agents do, of the algorithms that have several forms."""
    ours = {
        run.algorithm
        for run in comparison.runs
        if f"the algorithm {run.algorithm}" not in run.settings["own"]
    }
    names = dict.fromkeys(run.algorithm for run in comparison.runs)
    return {name: form for name in names if name in ours and (form := find(name).form)}


def _middle(runs: Sequence[RunValues], name: str) -> float:
    values = [value for run in runs if (value := run.final[name]) is not None]
    return median(values) if values else float("nan")


def _time(middle: float | None, low: float | None, high: float | None, count: int) -> str:
    return (
        time_text(middle)
        if count == 1 or low == high
        else f"{time_text(middle)} [{time_text(low)} - {time_text(high)}]"
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _largest(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    return str(max(known)) if known else "-"
