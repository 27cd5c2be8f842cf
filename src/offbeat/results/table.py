"""The comparison as a table of text, with notes; and the table of all learning rates that were tried."""

import io
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from offbeat.algorithms import ALGORITHMS, find
from offbeat.results import WIDTH, holdings
from offbeat.results.values import ComparisonValues, RunValues, Tuning, spread, stragglers, time_text
from offbeat.tasks.metrics import METRICS
from offbeat.tasks.metrics.evaluation import AVERAGE, JUDGED

MANY = 5  # stragglers that are named, in a line that names what was run


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
    lines = [heads, *rows]
    parts = [[[row[index] for index in columns] for row in lines] for columns in _fitting(lines, width)]
    tables = [_table(part, range(1, len(part[0]))) for part in parts]
    said = (Text(note, style="dim") for note in notes(comparison))
    return Group(Text(headline(comparison), style="bold"), *tables, *said)


def tuning_table(comparison: ComparisonValues) -> Table:
    heads, rows = tried(comparison)
    return _table([heads, *rows], range(1, 4))


def _table(rows: Sequence[Sequence[str]], right: Iterable[int]) -> Table:
    """Of the head and the rows; right: the columns that are aligned on the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for index, head in enumerate(rows[0]):
        table.add_column(head, justify="right" if index in right else "left", no_wrap=True)
    for row in rows[1:]:
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


IN_ITS_WORDS = {  # settings that the headline, or the head of a column, says in words of their own
    *("task", "agents", "topology", "case", "straggler", "slowdown", "until", "target", "stop_at"),
    *("partition", "skew", "dirichlet", "algorithm", "lr", "seed", "own", "code"),
}
WORDS = {  # what a setting is called in the headline, where it is not by its name
    "batch": "batches of", "reg": "lambda", "eval_every": "evaluated every", "loss": "message loss",
    "compute": "computing", "communication": "sending", "crash": "crash of", "faults": "fault",
    "links": "speeds of links",
    "metrics": "measuring", "judge": "judged by", "per_agent": "every agent measured",
}  # fmt: skip


def headline(comparison: ComparisonValues) -> str:
    """What was run, in one line: whatever is not as it is by default is named."""
    first = comparison.runs[0]
    s, seeds = first.settings, sorted({run.seed for run in comparison.runs})
    slow = stragglers(s)
    who = f"agent{'s' * (len(slow) > 1)} {_and(slow)}" if len(slow) <= MANY else f"{len(slow)} agents"
    slower = f" ({who}, {s['slowdown']:g} times slower)" * bool(slow)
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    agents = f"{s['agents']} agents on {s['topology']}" if s["agents"] > 1 else "1 agent"
    shares = [_split(s)] if s.get("partition") else []
    named = {k: v for k, v in s.departures().items() if k not in IN_ITS_WORDS and v not in ([], "SGD")}
    others = [f"{WORDS.get(name, name)} {_said(name, value)}".rstrip() for name, value in named.items()]
    until = f"to time {s['until']:g}" + " or the target" * (s.get("stop_at") == "target")
    world = [s["task"], f"case {s['case']}{slower}", agents, *shares]
    return ", ".join([*world, *others, until, which])


def _and(agents: Sequence[int]) -> str:
    *before, last = [str(agent) for agent in agents] or [""]
    return f"{', '.join(before)} and {last}" if before else last


def _split(s: Mapping[str, Any]) -> str:
    name, _, parameter = str(s["partition"]).partition(":")
    known = {"skew": f"label skew {parameter}", "dirichlet": f"Dirichlet {parameter}"}
    return known.get(name, f"partition {s['partition']}")


def _said(name: str, value: object) -> str:
    if value is True or name == "judge":
        return JUDGED[str(value)] if name == "judge" else ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{1000 * value:g} ms" if name == "unit" else f"{value:g}"
    return " and ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


HEADS = {name: name.replace("_", " ") for name in METRICS}  # of the columns of further metrics


def gap_known(run: RunValues) -> bool:
    """Whether the loss is the distance from the optimum: the built-in quadratics know theirs."""
    return bool(run.settings["task"] == "quadratic" and "the task quadratic" not in run.settings["own"])


def judged_model(run: RunValues) -> str:
    """Which model loss, accuracy and target are of, in words."""
    return JUDGED[run.settings.get("judge", AVERAGE)]


def measured_more(run: RunValues) -> bool:
    """Whether more was asked for than is always measured."""
    s = run.settings
    return bool(s.get("metrics") or s.get("per_agent") or s.get("judge", AVERAGE) != AVERAGE)


def target_name(run: RunValues) -> str:
    target = run.target
    if target is None:
        return "time to target"
    gap = target.metric == "loss" and gap_known(run)
    return f"time to {replace(target, metric='gap') if gap else target}"


def cells(comparison: ComparisonValues) -> tuple[list[str], list[list[str]]]:
    first = comparison.runs[0]
    scores = {"accuracy": "accuracy", "accuracy_worst": "worst"} if first.measure == "accuracy" else {}
    further = dict.fromkeys(name for run in comparison.runs for name in run.curve.more)
    named = [HEADS.get(name, name) for name in further]
    heads = ["algorithm", target_name(first), "vs best", *scores.values(), "loss", *named]
    heads += ["updates", "messages", "MB", "consensus", "B", "D"]
    groups = comparison.groups()
    times = {key: spread([run.time_to_target for run in runs]) for key, runs in groups.items()}
    lasting = [t[0] for key, t in times.items() if not any(map(lost_again, groups[key]))]
    best = min((middle for middle in lasting if middle is not None), default=None)
    rows = []
    for key, runs in groups.items():
        middle = times[key][0]
        then = ", then diverged" * any(map(lost_again, runs))
        stopped = " (stopped)" * any(run.error is not None for run in runs)
        diverged = any(run.diverged_at is not None for run in runs)
        stale = [run.staleness.D for run in runs if run.staleness.D is not None]
        row = [
            comparison.label(key),
            spread_text(times[key]) + then,
            "" if middle is None or not best or then else f"{middle / best:.2f}x",
            *(f"{100 * _middle(runs, name):.1f} %" for name in scores),
            "diverged" if diverged else f"{_middle(runs, 'loss'):.4g}{stopped}",
            *("-" if math.isnan(value := _middle(runs, name)) else f"{value:.4g}" for name in further),
            f"{median(run.updates for run in runs):,.0f}",
            f"{median(run.messages for run in runs):,.0f}",
            f"{median(run.megabytes for run in runs):,.1f}",
            f"{_middle(runs, 'consensus'):.3g}",
            f"{max(run.staleness.B for run in runs)}",
            str(max(stale, default="-")),
        ]
        rows.append(row)
    return heads, rows


def _middle(runs: Sequence[RunValues], name: str) -> float:
    values = [value for run in runs if (value := run.final.get(name)) is not None]
    return median(values) if values else float("nan")


def spread_text(times: tuple[float | None, float | None, float | None]) -> str:
    middle, low, high = map(time_text, times)
    return middle if times[1] == times[2] else f"{middle} [{low} - {high}]"


def lost_again(run: RunValues) -> bool:
    return run.time_to_target is not None and run.diverged_at is not None


def error_of(run: RunValues) -> str:
    return f"Error of {run.algorithm} with lr {run.lr:g}, seed {run.seed}: {run.error}."


def notes(comparison: ComparisonValues) -> list[str]:
    runs, said = comparison.runs, list[str]()
    names, settings = dict.fromkeys(run.algorithm for run in runs), runs[0].settings
    if (held := holdings.line(runs)) is not None:
        said.append(held)
    if runs[0].measure == "accuracy":
        judged = "the average model" if settings.get("judge", AVERAGE) == AVERAGE else judged_model(runs[0])
        said.append(f"accuracy, loss: of {judged}; worst: accuracy of the worst agent's own model.")
    if len({run.seed for run in runs}) > 1:
        time = "for the time with [smallest - largest]"
        said.append(f"Medians over the seeds, {time}; B and D are the largest.")
    if any(run.stopped_at is not None for run in runs):
        said.append(
            "A run that met its target ended at that evaluation: loss, updates and all else are of that time."
        )
    ours = {run.algorithm for run in runs if f"the algorithm {run.algorithm}" not in run.settings["own"]}
    ours = {name for name in ours if name.partition(":")[0] in ALGORITHMS}
    if forms := [f"{name} {form}" for name in names if name in ours and (form := find(name).form)]:
        said.append("; ".join(forms) + ".")
    for run in runs:
        if run.diverged_at is not None:
            which = f"{run.algorithm} with lr {run.lr:g}, seed {run.seed},"
            met = f" met its target at time {time_text(run.time_to_target)}, then" * lost_again(run)
            said.append(f"{which}{met} diverged by time {run.diverged_at:g}; its run ended there.")
        if run.error is not None:
            said.append(error_of(run))
    lossless = dict.fromkeys(run.algorithm for run in runs if run.staleness.D is None)
    if settings["loss"] and settings["agents"] > 1 and lossless:
        by = ", ".join(lossless)
        said.append(f"Lost are messages of registers alone; what {by} send as mail always arrives.")
    if settings["crash"]:
        known = [(name, ALGORITHMS[name]) for name in names if name in ALGORITHMS]
        said += [f"{name} {row.note}." for name, row in known if "return" not in row.tolerates]
    tuned_too = any(run.tuning for run in runs)
    if tuned_too or len({run.lr for run in runs}) > 1:
        rates = dict.fromkeys(f"{run.algorithm} {run.lr:g}" for run in runs)
        said.append(f"Learning rates{' (tuned)' * tuned_too}: " + ", ".join(rates) + ".")
    said += how_tuned(comparison)
    if comparison.interrupted:
        made = Counter(run.algorithm for run in runs)
        counts = ", ".join(f"{name} {made[name]} of {count}" for name, count in comparison.planned.items())
        counts = f" ({counts})" * bool(counts)
        said.append(f"Interrupted: these are the runs that were finished{counts}.")
    return said


def tuned(comparison: ComparisonValues) -> dict[str, tuple[RunValues, Tuning]]:
    """Of every algorithm whose learning rate was tuned one run, and how it was found."""
    return {run.algorithm: (run, run.tuning) for run in comparison.runs if run.tuning is not None}


def tried(comparison: ComparisonValues) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of all learning rates that were tried; no rows where none was tuned."""
    rows = []
    for name, (run, tuning) in tuned(comparison).items():
        for lr, one in tuning.steps.items():
            loss = "diverged" if one.loss is None else f"{one.loss:.4g}"
            stable = f"no: {one.unstable}" if one.unstable else "yes"
            chosen = "chosen" * (lr == run.lr)
            rows.append([name, f"{lr:g}", spread_text(spread(one.values)), loss, stable, chosen])
    return ["algorithm", "lr", "median [smallest - largest]", "final loss", "stable", ""], rows


def how_tuned(comparison: ComparisonValues) -> list[str]:
    """How learning rates were tuned, in a sentence or two; and warnings."""
    found = tuned(comparison)
    if not found:
        return []
    first, one = next(iter(found.values()))
    by = one.by
    if by == "loss" and first.target is not None and first.target.is_loss:
        by = "target"
    way = "made nine tenths of the way down to the smallest final one"
    about = {"loss": f"time at which the average model's loss {way}", "target": "time to the target"}
    seeds = f"{len(one.seeds)} seeds that are" if len(one.seeds) > 1 else "a seed that is"
    sizes = sorted({len(tuning.steps) for _, tuning in found.values()})
    count = " to ".join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))
    said = [
        f"Tuned by the median {about.get(by, 'final loss')}, over {seeds} not compared; of {count} learning "
        "rates for each, stable ones first."
    ]
    for name, (run, tuning) in found.items():
        grid = [*tuning.steps]
        if run.lr in (min(grid), max(grid)) and len(grid) > 1:
            said.append(f"{name}'s lr {run.lr:g} is at the edge of the grid; a better one may lie beyond it.")
        if why := tuning.steps[run.lr].unstable:
            said.append(f"No learning rate of {name} was stable; {run.lr:g} was not: {why}.")
    return said
