"""The comparison's table for other programs: CSV with numbers as they are, LaTeX with a legend."""

import csv
import io
import re
from collections.abc import Sequence

from offbeat.results.columns import cells, columns, setting_name
from offbeat.results.headline import headline
from offbeat.results.notes import legend, of_seeds
from offbeat.results.ranking import rankings
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


def as_csv(
    comparison: ComparisonValues, band: str = "range", chosen: Sequence[str] | None = None,
    by_seed: bool = False,
) -> str:  # fmt: skip
    """A row for each group: algorithm, lr, every setting that differs, how many seeds; then of each result
    the centre, and the ends of the band, `NAME_low` and `NAME_high` (see `offbeat.results.summary.BANDS`).

    Where there is a target: `seeds_met`, how many seeds met it; `time_to_target`, empty where the centre is
    never; `time_to_target_of_met`, that of those seeds alone; `vs_best`, as the table has it. A setting that
    is called as a result has `setting_` before its name. Empty: not measured, or never met.

    Args:
        chosen: the results that there are, by the names of the table's columns; None: all
        by_seed: a row for each run, with its seed
    """
    columns(comparison, band, chosen)  # refuses names that there are not
    ranked, rows, names = rankings(comparison, band), list[dict[str, object]](), dict[str, None]()
    for key, group in comparison.groups().items():
        for runs in [[run] for run in group] if by_seed else [group]:
            row: dict[str, object] = {"algorithm": key.algorithm, "lr": key.lr}
            row |= {setting_name(comparison, name): value_text(value) for name, value in key.world}
            row |= {"seed": runs[0].seed} if by_seed else {"seeds": len(runs)}
            results = _results(runs, band) | {"diverged": {"diverged": sum(map(_diverged, runs))}}
            results |= {"stopped": {"stopped": sum(run.error is not None for run in runs)}}
            if "vs_best" in results and not by_seed:
                results["vs_best"] = {"vs_best": ranked[key.world].times_as_long(key)}
            for name in dict.fromkeys(chosen) if chosen is not None else results:
                row |= results.get(name, {})
            names |= dict.fromkeys(row)
            rows.append(row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _results(runs: Sequence[RunValues], band: str) -> dict[str, dict[str, object]]:
    """Of each result its fields."""
    found: dict[str, dict[str, object]] = {}
    if any(run.target is not None for run in runs):
        met = [run.time_to_target for run in runs if run.time_to_target is not None]
        found["seeds_met"] = {"seeds_met": len(met)}
        found["time_to_target"] = _three("time_to_target", [run.time_to_target for run in runs], band)
        found["time_to_target"] |= _three("time_to_target_of_met", met or [None], band)
        found["vs_best"] = {}
    for name in dict.fromkeys([*SCORES, *(name for run in runs for name in run.curve.more)]):
        if values := [value for run in runs if (value := run.final.get(name)) is not None]:
            found[name] = _three(name, values, band)
    found |= {name: _three(name, [getattr(run, name) for run in runs], band) for name in COUNTS}
    found["staleness_B"] = {"staleness_B": max(run.staleness.B for run in runs)}
    return found | {"staleness_D": {"staleness_D": _oldest(runs)}}


def _diverged(run: RunValues) -> bool:
    return run.diverged_at is not None


def _three(name: str, values: Sequence[float | None], band: str) -> dict[str, object]:
    numbers = over_seeds(values, band)
    named = zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True)
    return {each: "" if abs(number) == float("inf") else number for each, number in named}


def _oldest(runs: Sequence[RunValues]) -> object:
    return max((run.staleness.D for run in runs if run.staleness.D is not None), default="")


def as_latex(
    comparison: ComparisonValues,
    band: str = "range",
    chosen: Sequence[str] | None = None,
    caption: str | None = None,
    label: str = "tab:offbeat",
) -> str:
    """The table as a `table` of LaTeX, for the package booktabs, with what its columns mean below it.

    Args:
        chosen: the columns, see `offbeat.results.columns.columns`
        caption: in LaTeX; None: what was run, and what is shown of several seeds
        label: what it is referred to by
    """
    if not comparison.runs:
        return "% No run was finished.\n"
    heads, rows = cells(comparison, band, chosen)
    first, several = 1 + len(comparison.differing), len({run.seed for run in comparison.runs}) > 1
    usual = f"{headline(comparison)}. {f'{BANDS[band]} over the seeds.' * several}".strip()
    seeds = [of_seeds(comparison, band)] * several
    said = [as_of_latex(note) for note in seeds + legend(comparison, band, chosen)]
    lines = ["% \\usepackage{booktabs}", "\\begin{table}", "\\centering"]
    lines += [f"\\caption{{{as_of_latex(usual) if caption is None else caption}}}", f"\\label{{{label}}}"]
    lines += [f"\\begin{{tabular}}{{{'l' * first}{'r' * (len(heads) - first)}}}", "\\toprule"]
    lines += [_latex(heads), "\\midrule", *map(_latex, rows), "\\bottomrule", "\\end{tabular}"]
    if said:
        lines += ["\\par\\medskip", "\\begin{minipage}{\\linewidth}\\footnotesize", *said, "\\end{minipage}"]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _latex(row: Sequence[str]) -> str:
    return " & ".join(map(as_of_latex, row)) + r" \\"


def as_of_latex(text: str) -> str:
    """As LaTeX has it: powers of ten, times, and ranges of numbers."""
    text = " ".join(text.split()).translate(SPECIAL).replace(" - ", " -- ")
    text = re.sub(r"(\d(?:\.\d+)?)e([+-]\d+)", lambda m: rf"${m[1]}\times10^{{{int(m[2])}}}$", text)
    return re.sub(r"(?<=\d)x$", r"$\\times$", text)
