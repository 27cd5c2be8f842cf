"""How steps were tuned: what each gave, and what a reader should know about it."""

from offbeat.results.markup import time_text
from offbeat.results.values import ComparisonValues, RunValues, Tried, Tuning, spread


def tuned(comparison: ComparisonValues) -> dict[str, tuple[RunValues, Tuning]]:
    """Of every algorithm whose learning rate was tuned one run, and how it was found."""
    return {run.algorithm: (run, run.tuning) for run in comparison.runs if run.tuning is not None}


def tried(comparison: ComparisonValues) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of all learning rates that were tried, as text; no rows where none was
    tuned.
    """
    rows = []
    for name, (run, tuning) in tuned(comparison).items():
        for lr, one in tuning.steps.items():
            loss = "diverged" if one.loss is None else f"{one.loss:.4g}"
            stable = f"no: {one.unstable}" if one.unstable else "yes"
            rows.append([name, f"{lr:g}", _spread(one), loss, stable, "chosen" * (lr == run.lr)])
    return ["algorithm", "lr", "median [smallest - largest]", "final loss", "stable", ""], rows


def how_tuned(comparison: ComparisonValues) -> list[str]:
    """How learning rates were tuned, in a sentence or two; and warnings."""
    found = tuned(comparison)
    if not found:
        return []
    (first, one), *_ = found.values()
    about = {
        "loss": "time at which the average model's loss made nine tenths of the way down to the smallest "
        "final one",
        "target": "time to the target",
        "final": "final loss",
    }[one.by]
    if one.by == "loss" and first.measure != "accuracy" and first.settings["target"] is not None:
        about = "time to the target"
    seeds = (
        f"{len(one.seeds)} seeds that are not compared"
        if len(one.seeds) > 1
        else "a seed that is not compared"
    )
    said = [
        f"Tuned by the median {about}, over {seeds}; of {_count(found)} learning rates for each, stable ones "
        "first."
    ]
    for name, (run, tuning) in found.items():
        grid = [*tuning.steps]
        if run.lr in (min(grid), max(grid)) and len(grid) > 1:
            said.append(f"{name}'s lr {run.lr:g} is at the edge of the grid; a better one may lie beyond it.")
        if why := tuning.steps[run.lr].unstable:
            said.append(f"No learning rate of {name} was stable; {run.lr:g} was not: {why}.")
    return said


def _count(found: dict[str, tuple[RunValues, Tuning]]) -> str:
    counts = sorted({len(tuning.steps) for _, tuning in found.values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _spread(one: Tried) -> str:
    middle, low, high = map(time_text, spread(one.values))
    return middle if low == high else f"{middle} [{low} - {high}]"
