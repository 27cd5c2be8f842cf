"""The comparison as a table of text, with notes; and the table of all learning rates that were tried."""

import io
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean, median
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from offbeat.algorithms import ALGORITHMS, find, row_of
from offbeat.results import WIDTH, holdings
from offbeat.results.scores import number_text, plus_minus, score, share_text, spread_text, times_of
from offbeat.results.significance import who_is_first
from offbeat.results.tuned import STABLE, how_tuned, lr_tuned, tried
from offbeat.results.values import ComparisonValues, RunValues, stragglers, time_text, value_text
from offbeat.tasks.metrics import METRICS
from offbeat.tasks.metrics.evaluation import AVERAGE, JUDGED


def as_text(comparison: ComparisonValues) -> str:
    """The table as plain text, in characters that standard output has."""
    file = io.TextIOWrapper(io.BytesIO(), getattr(sys.stdout, "encoding", None) or "utf-8", "replace")
    Console(file=file, width=WIDTH).print(as_table(comparison))
    file.seek(0)
    return file.read().rstrip()


def as_table(comparison: ComparisonValues, width: int = WIDTH, band: str = "range") -> Group:
    """The table, with a line that says what was run and notes on what needs saying.

    Where it is wider than `width`, it is several tables below one another: how far everybody got, and what it
    took, if each of these fits. band: what is shown of seeds, see `offbeat.results.summary.BANDS`.
    """
    if not comparison.runs:
        return Group(Text("No run was finished."))
    heads, rows = cells(comparison, band)
    lines, first = [heads, *rows], 1 + len(comparison.differing)
    fitting = _fitting(lines, width, first, heads.index(EFFORT))
    parts = [[[row[index] for index in columns] for row in lines] for columns in fitting]
    tables = [plain_table(part, range(first, len(part[0]))) for part in parts]
    said = (Text(note, style="dim") for note in notes(comparison, band))
    return Group(Text(headline(comparison), style="bold"), *tables, *said)


def tuning_table(comparison: ComparisonValues) -> Table:
    heads, rows = tried(comparison)
    at = heads.index(STABLE)
    return plain_table([heads, *rows], range(1, at), at)


def plain_table(rows: Sequence[Sequence[str]], right: Iterable[int], breaks: int | None = None) -> Table:
    """Of the head and the rows.

    Args:
        right: the columns that are aligned on the right
        breaks: a column whose text goes on in the next line where there is no room
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for index, head in enumerate(rows[0]):
        side: Literal["left", "right"] = "right" if index in right else "left"
        table.add_column(Text(head), justify=side, no_wrap=index != breaks)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table


def _fitting(rows: Sequence[Sequence[str]], width: int, first: int, middle: int) -> list[list[int]]:
    """The columns in groups that are no wider than `width`, each with so many of the first columns.

    In two before and from `middle`, where that is enough; else about as wide as one another: no column
    stands alone.
    """
    widths = [max(len(row[index]) for row in rows) + 2 for index in range(len(rows[0]))]
    whole = _filled(widths, width, first)
    if len(whole) == 1:
        return whole
    halves = [[*range(middle)], [*range(first), *range(middle, len(widths))]]
    if len(whole) == 2 and all(sum(widths[k] for k in half) < width for half in halves):
        return halves
    found = [_filled(widths, least, first) for least in range(1, width + 1)]
    return next(groups for groups in found if len(groups) == len(whole))


def _filled(widths: Sequence[int], width: int, first: int) -> list[list[int]]:
    """As many columns as fit in each group, one after another."""
    groups = [[*range(first)]]
    for index in range(first, len(widths)):
        if len(groups[-1]) > first and sum(widths[k] for k in groups[-1]) + widths[index] >= width:
            groups.append([*range(first)])
        groups[-1].append(index)
    return groups


IN_ITS_WORDS = {  # settings that the headline, or the head of a column, says in words of their own
    *("task", "agents", "topology", "case", "straggler", "slowdown", "until", "target", "stop_at"),
    *("partition", "skew", "dirichlet", "algorithm", "lr", "lr_said", "seed", "own", "code"),
}
TOLD_OF_RATES = 2  # settings that differ, with which tuned learning rates are told
MANY = 5  # stragglers, or values of a setting that differs, that are named; more are only counted
WORDS = {  # what a setting is called in the headline, where it is not by its name
    "batch": "batches of", "reg": "lambda", "eval_every": "evaluated every", "loss": "message loss",
    "compute": "computing", "communication": "sending", "crash": "crash of", "faults": "fault",
    "links": "speeds of links", "sending": "", "event": "", "byzantine": "Byzantine:",
    "metrics": "measuring", "judge": "judged by", "per_agent": "every agent measured",
}  # fmt: skip


def headline(comparison: ComparisonValues) -> str:
    """What was run, in one line: whatever is not as it is by default is named."""
    first, differing = comparison.runs[0], comparison.differing
    s, seeds = first.settings, sorted({run.seed for run in comparison.runs})
    slow = stragglers(s)
    who = f"agent{'s' * (len(slow) > 1)} {_and(slow)}" if len(slow) <= MANY else f"{len(slow)} agents"
    slower = f" ({who}, {s['slowdown']:g} times slower)" * bool(slow)
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    agents = f"{s['agents']} agents on {s['topology']}" if s["agents"] > 1 else "1 agent"
    shares = _split(s) if s.get("partition") else ""
    agents = agents if "topology" not in differing else f"{s['agents']} agents"
    until = f"to time {s['until']:g}" + " or the target" * (s.get("stop_at") == "target")
    said: dict[tuple[str, ...], str] = {
        ("task",): s["task"], ("case", "straggler", "slowdown"): f"case {s['case']}{slower}",
        ("agents",): agents, ("partition", "skew", "dirichlet"): shares,
        **{(k,): f"{WORDS.get(k, k)} {_said(k, v)}".strip() for k, v in s.departures().items()
           if k not in IN_ITS_WORDS and v not in ([], "SGD")},
        ("until", "stop_at"): until, (): which,
    }  # fmt: skip
    common = [words for names, words in said.items() if words and not differing.keys() & {*names}]
    return "; ".join([", ".join(common), *_varied(differing)])


def _varied(differing: Mapping[str, Sequence[object]]) -> list[str]:
    """What differs, each with its values, if they are few."""
    some = {name: " | ".join(map(value_text, values)) for name, values in differing.items()}
    many = {name: f"{len(values)} values" for name, values in differing.items() if len(values) > MANY}
    return [f"{WORDS.get(name, name) or name} {words}" for name, words in (some | many).items()]


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
    if isinstance(value, list | tuple) and len(value) > MANY:
        return f"{value[0]} and {len(value) - 1} more"
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


def target_name(run: RunValues, *others: RunValues) -> str:
    """What the time to the target of this run is called; of several, what all have in common."""
    target = run.target
    if target is None or any(target_name(other) != target_name(run) for other in others):
        return "time to target"
    gap = target.metric == "loss" and gap_known(run)
    return f"time to {replace(target, metric='gap') if gap else target}"


VERSUS, EFFORT = "vs best", "updates"  # the heads of these columns; from `EFFORT` on: what it took
LEGEND = (
    "vs best: the time, as a multiple of the shortest; updates: gradients applied; MB: 10^6 bytes sent; "
    "consensus: RMS distance of the agents' models from their average; B, D: every agent writes within B "
    "iterations, and no model that is mixed is older than D (arXiv:2505.10322)."
)


def cells(comparison: ComparisonValues, band: str = "range") -> tuple[list[str], list[list[str]]]:
    """Head and rows: the group, a column for each setting that differs, and what came out."""
    accurate = any(run.measure == "accuracy" for run in comparison.runs)
    scores = {"accuracy": "accuracy", "accuracy_worst": "worst"} if accurate else {}
    differing = [(WORDS.get(name, name) or name).rstrip(":") for name in comparison.differing]
    further = dict.fromkeys(name for run in comparison.runs for name in run.curve.more)
    named = [HEADS.get(name, name) for name in further]
    heads = ["algorithm", *differing, target_name(*comparison.runs), VERSUS, *scores.values(), "loss", *named]
    heads += [EFFORT, "messages", "MB", "consensus", "B", "D"]
    groups = comparison.groups()
    times = {key: times_of(runs, band) for key, runs in groups.items()}
    best: dict[object, float] = {}  # of each world
    for key, (middle, *_) in times.items():
        if middle is not None and not any(map(lost_again, groups[key])):
            best[key.world] = min(middle, best.get(key.world, middle))
    rows = []
    for key, runs in groups.items():
        middle = times[key][0]
        then = ", then diverged" * any(map(lost_again, runs))
        stopped = " (stopped)" * any(run.error is not None for run in runs)
        diverged = any(run.diverged_at is not None for run in runs)
        stale = [run.staleness.D for run in runs if run.staleness.D is not None]
        first, centre = best.get(key.world), median if band == "range" else mean
        row = [
            comparison.label(key, world=False),
            *(value_text(value) for _, value in key.world),
            (spread_text(times[key]) if band == "range" else plus_minus(times[key])) + then,
            "" if middle is None or not first or then else f"{middle / first:.2f}x",
            *(share_text(*score(runs, name, band)) for name in scores),
            "diverged" if diverged else f"{number_text(*score(runs, 'loss', band))}{stopped}",
            *(number_text(*score(runs, name, band)) for name in further),
            f"{centre(run.updates for run in runs):,.0f}",
            f"{centre(run.messages for run in runs):,.0f}",
            f"{centre(run.megabytes for run in runs):,.1f}",
            f"{score(runs, 'consensus', band)[0]:.3g}",
            f"{max(run.staleness.B for run in runs)}",
            str(max(stale, default="-")),
        ]
        rows.append(row)
    return heads, rows


def rate_text(run: RunValues) -> str:
    """The learning rate, and how it was said where that depends on the number of agents."""
    said = run.settings.get("lr_said")
    return f"{run.lr:g} ({said})" if said else f"{run.lr:g}"


def _rates(comparison: ComparisonValues) -> str:
    """Of every algorithm its learning rates; where one is tuned in several worlds, which is of which."""
    found: dict[str, dict[str, list[str]]] = {}
    for group, (run, *_) in comparison.groups().items():
        world = " and ".join(f"{name} {value_text(value)}" for name, value in group.world)
        found.setdefault(run.algorithm, {}).setdefault(rate_text(run), []).append(world)
    tuned = all(map(lr_tuned, comparison.runs)) and len(comparison.differing) <= TOLD_OF_RATES
    said = []
    for name, rates in found.items():
        which = {rate: f" ({'; '.join(each)})" * (tuned and len(rates) > 1) for rate, each in rates.items()}
        said += [f"{name} {rate}{which[rate]}" for rate in rates]
    return ", ".join(said)


def lost_again(run: RunValues) -> bool:
    return run.time_to_target is not None and run.diverged_at is not None


def error_of(run: RunValues) -> str:
    return f"Error of {run.algorithm} with lr {run.lr:g}, seed {run.seed}: {run.error}."


def notes(comparison: ComparisonValues, band: str = "range") -> list[str]:
    runs, said = comparison.runs, list[str]()
    names = dict.fromkeys(run.algorithm for run in runs)
    if (held := holdings.line(runs)) is not None:
        said.append(held)
    if any(run.measure == "accuracy" for run in runs):
        plain = all(run.settings.get("judge", AVERAGE) == AVERAGE for run in runs)
        judged = "the average model" if plain else " or ".join(dict.fromkeys(map(judged_model, runs)))
        said.append(f"accuracy, loss: of {judged}; worst: accuracy of the worst agent's own model.")
    if len({run.seed for run in runs}) > 1:
        time = "Medians over the seeds, for the time with [smallest - largest]"
        what = {"std": "the standard deviation of the sample", "ci": "95 % confidence, by Student's t"}
        means = f"Means over the seeds ± {what.get(band)}; never: at least one seed did not meet it"
        said.append(f"{time if band == 'range' else means}; B and D are the largest.")
        said += who_is_first(comparison)
    if any(run.stopped_at is not None for run in runs):
        said.append(
            "A run that met its target ended at that evaluation: loss, updates and all else are of that time."
        )
    ours = {run.algorithm for run in runs if f"the algorithm {run.algorithm}" not in run.settings["own"]}
    ours = {name for name in ours if row_of(name)}
    if forms := [f"{name} {form}" for name in names if name in ours and (form := find(name).form)]:
        said.append("; ".join(forms) + ".")
    for run in runs:
        if run.diverged_at is not None:
            which = f"{run.algorithm} with lr {run.lr:g}, seed {run.seed},"
            met = f" met its target at time {time_text(run.time_to_target)}, then" * lost_again(run)
            said.append(f"{which}{met} diverged by time {run.diverged_at:g}; its run ended there.")
        if run.error is not None:
            said.append(error_of(run))
    lossy = [run for run in runs if run.settings["loss"] and run.settings["agents"] > 1]
    if lossless := dict.fromkeys(run.algorithm for run in lossy if run.staleness.D is None):
        by = ", ".join(lossless)
        said.append(f"Lost are messages of registers alone; what {by} send as mail always arrives.")
    if any(run.settings["crash"] for run in runs):
        known = [(name, ALGORITHMS[name]) for name in names if name in ALGORITHMS]
        said += [f"{name} {row.note}." for name, row in known if "return" not in row.tolerates]
    tuned_too = any(map(lr_tuned, runs))
    coupled = any(run.settings.get("lr_said") for run in runs)
    if tuned_too or coupled or len({run.lr for run in runs}) > 1:
        said.append(f"Learning rates{' (tuned)' * tuned_too}: {_rates(comparison)}.")
    said += how_tuned(comparison)
    if comparison.interrupted:
        made = Counter(run.algorithm for run in runs)
        counts = ", ".join(f"{name} {made[name]} of {count}" for name, count in comparison.planned.items())
        counts = f" ({counts})" * bool(counts)
        said.append(f"Interrupted: these are the runs that were finished{counts}.")
    return [*said, LEGEND]
