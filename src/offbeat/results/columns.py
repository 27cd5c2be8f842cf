"""The cells of the table: which columns there are, and what stands in them."""

from statistics import mean, median

from offbeat.results.headline import WORDS
from offbeat.results.scores import number_text, plus_minus, score, share_text, spread_text, times_of
from offbeat.results.values import ComparisonValues, value_text
from offbeat.results.wording import lost_again, target_name
from offbeat.tasks.metrics import METRICS

HEADS = {name: name.replace("_", " ") for name in METRICS}  # of the columns of further metrics


VERSUS, EFFORT = "vs best", "updates"  # the heads of these columns; from `EFFORT` on: what it took


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
