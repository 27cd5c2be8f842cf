"""The comparison's table for other programs: CSV with numbers as they are, LaTeX as it is printed."""

import csv
import io
import re

from offbeat.results.columns import cells
from offbeat.results.headline import headline
from offbeat.results.notes import notes
from offbeat.results.scores import over_seeds
from offbeat.results.summary import BANDS
from offbeat.results.values import ComparisonValues, RunValues, value_text

SCORES = ("accuracy", "accuracy_mean", "accuracy_worst", "loss", "loss_worst", "consensus")
COUNTS = ("updates", "messages", "megabytes")
SPECIAL = str.maketrans({
    **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "·": r"$\cdot$",
})  # fmt: skip


def as_csv(comparison: ComparisonValues, band: str = "range") -> str:
    """A row for each group: algorithm, lr, every setting that differs, how many seeds; then of each result
    the centre, and the ends of the band, `NAME_low` and `NAME_high` (see `offbeat.results.summary.BANDS`).

    A setting that is called as a result has `setting_` before its name. Empty: not measured, or never met.
    """
    rows, names = [], dict[str, None]()
    for key, runs in comparison.groups().items():
        further = dict.fromkeys(name for run in runs for name in run.curve.more)
        results = {name: [run.final.get(name) for run in runs] for name in (*SCORES, *further)}
        results |= {name: [getattr(run, name) for run in runs] for name in COUNTS}
        row: dict[str, object] = {"algorithm": key.algorithm, "lr": key.lr}
        for name, value in key.world:
            row[f"setting_{name}" if name in results else name] = value_text(value)
        row["seeds"] = len(runs)
        row |= _three("time_to_target", [run.time_to_target for run in runs], band)
        for name, values in results.items():
            if any(value is not None for value in values):
                row |= _three(name, values, band)
        row |= {"staleness_B": max(run.staleness.B for run in runs), "staleness_D": _oldest(runs)}
        row |= {"diverged": sum(run.diverged_at is not None for run in runs)}
        names |= dict.fromkeys(row)
        rows.append(row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _three(name: str, values: list[float | None], band: str) -> dict[str, object]:
    numbers = over_seeds(values, band)
    named = zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True)
    return {each: "" if abs(number) == float("inf") else number for each, number in named}


def _oldest(runs: list[RunValues]) -> object:
    return max((run.staleness.D for run in runs if run.staleness.D is not None), default="")


def as_latex(comparison: ComparisonValues, band: str = "range") -> str:
    """The table as LaTeX's `tabular`, for the package booktabs; what was run, and the notes, as comments."""
    if not comparison.runs:
        return "% No run was finished.\n"
    heads, rows = cells(comparison, band)
    first = 1 + len(comparison.differing)
    said = [headline(comparison), BANDS[band], *notes(comparison, band)]
    lines = [*(f"% {' '.join(each.split())}" for each in said), "% \\usepackage{booktabs}"]
    lines += [f"\\begin{{tabular}}{{{'l' * first}{'r' * (len(heads) - first)}}}", "\\toprule"]
    lines += [_latex(heads), "\\midrule", *map(_latex, rows), "\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex(row: list[str]) -> str:
    texts = (cell.translate(SPECIAL).replace(" - ", " -- ") for cell in row)
    return " & ".join(re.sub(r"(?<=\d)x$", r"$\\times$", text) for text in texts) + r" \\"
