"""The command line of results that are on disk: table, merge, plot, show."""

from functools import partial
from pathlib import Path

import typer
from rich.console import Group
from rich.text import Text

from offbeat.cli.console import Out, say
from offbeat.cli.options import CSV, QUIET, option
from offbeat.cli.outputs import Outputs, check_writable
from offbeat.cli.spread import SPREAD, check_spread
from offbeat.cli.traced import sentences
from offbeat.core.errors import SettingError
from offbeat.core.settings import RUNNING
from offbeat.core.system.files import as_file_name, write_atomically
from offbeat.core.system.named import separated
from offbeat.engines.trace import Trace
from offbeat.experiments.loading import is_live, is_trace, load
from offbeat.results.columns import known_columns
from offbeat.results.export import as_csv, as_latex
from offbeat.results.figure import check_saved_as
from offbeat.results.run import Comparison
from offbeat.results.sparkline import sparkline
from offbeat.results.speedup import speedup_table
from offbeat.results.summary import summary
from offbeat.results.table import as_table
from offbeat.results.values import value_text
from offbeat.results.worlds import in_words
from offbeat.tasks.metrics import METRICS

COLUMNS = (
    "Which columns, by the names that --csv has: 'time_to_target,vs_best,loss'; what tells rows apart is "
    "always there."
)
METRIC = (
    "loss, accuracy, consensus; time_to_target; speedup (with --x agents); or what --metrics measured: "
    f"{', '.join(METRICS)}."
)
SPEEDUP = "The speed-up of more agents and its efficiency, of runs with several numbers of agents."
FILES = "JSON of compare and live, Parquet of sweep, their folders, or a folder of such; several are one."


def table(
    files: list[Path] = typer.Argument(help=FILES),
    by: str | None = option(None, None, "A setting, or seed: a table for each of its values, 'case'."),
    spread: str = option("range", None, SPREAD),
    speedup: bool = option(False, None, SPEEDUP, "--speedup"),
    columns: str | None = option(None, None, COLUMNS),
    caption: str | None = option(None, RUNNING, "Of the LaTeX table, in LaTeX; default: what was run."),
    label: str = option("tab:offbeat", RUNNING, "Of the LaTeX table, for \\ref."),
    csv: Path | None = CSV,
    latex: Path | None = option(None, RUNNING, "Write the table to this file, for LaTeX with booktabs."),
    quiet: bool = QUIET,
) -> None:
    """Print the table of results that are on disk.

    Runs are grouped by algorithm, learning rate and every setting that differs.

    Examples:

      offbeat table a.json b.json --spread std
      offbeat table sweep.parquet --by case --csv table.csv
      offbeat table sweep.parquet --by seed
      offbeat table a.json --columns time_to_target,vs_best,loss --latex table.tex
      offbeat table scaling.parquet --speedup
    """
    check_writable(csv, latex)
    check_spread(spread)
    result = load(*files)
    if speedup:
        _speedup(result, {"--by": by, "--columns": columns, "--csv": csv, "--latex": latex}, quiet)
        return
    parts = {None: result} if by is None else result.split(by)
    chosen = None if columns is None else separated(columns)
    numbers = as_csv(result, spread, chosen, by == "seed")
    tables = list[str]()
    output = Outputs(quiet)
    for value, part in parts.items():
        here = None if chosen is None else [name for name in chosen if name in known_columns(part)]
        output.show(partial(as_table, part, band=spread, chosen=here))
        name = label if by is None else f"{label}-{as_file_name(value_text(value))}"
        said = caption if caption is None or by is None else f"{caption} ({by} {value_text(value)})"
        tables.append(as_latex(part, spread, here, said, name))
    output.save(csv, lambda path: write_atomically(path, numbers.encode()))
    output.save(latex, lambda path: write_atomically(path, "\n".join(tables).encode()))
    output.close()


def _speedup(result: Comparison, others: dict[str, object], quiet: bool) -> None:
    """Print the other table; `others` are options that it has nothing of."""
    for name, value in others.items():
        if value is not None:
            raise SettingError(f"--speedup prints one table of all runs; expected no {name} beside it.")
    made, output = speedup_table(result), Outputs(quiet)
    output.show(lambda width: made)
    output.close()


def merge(
    files: list[Path] = typer.Argument(help=FILES),
    out: Path = option(..., RUNNING, "The JSON file to write."),
    quiet: bool = QUIET,
) -> None:
    """Write the runs of several files and folders to one JSON file.

    A run that is there twice is kept once; if its results differ, nothing is written.

    Example:

      offbeat merge a.json sweep.parquet offbeat-runs/digits-0 --out all.json
    """
    check_writable(out)
    result, output = load(*files), Outputs(quiet)
    output.save(out, result.save_json)
    output.say(f"{len(result.runs):,} runs, {len(result.groups()):,} groups.")
    output.close()


def plot(
    files: list[Path] = typer.Argument(help=FILES),
    out: Path = option(..., RUNNING, "The figure: .pdf, .svg, .png or .html."),
    metric: str = option("loss", None, METRIC),
    x: str = option("time", None, "time, updates, megabytes, epochs; or a setting, as agents."),
    band: str = option("range", None, SPREAD),
    log: str | None = option(None, None, "Logarithmic axes: x, y, xy, or '' for none; default: y of losses."),
    by: str | None = option(
        None, None, "A panel for each value of a setting, 'case', or of several, 'topology,case'."
    ),
    width: float = option(3.3, None, "Inches: 3.3 is one column of a page, 6.9 both."),
    quiet: bool = QUIET,
) -> None:
    """Draw a figure of results that are on disk.

    Examples:

      offbeat plot a.json b.json --out loss.pdf --band std
      offbeat plot sweep.parquet --metric accuracy --by case --width 6.9 \\
          --out accuracy.svg
    """
    check_writable(out)
    check_saved_as(out)
    figure, output = load(*files).figure(metric, x, band, log, by, width), Outputs(quiet)
    output.save(out, figure.save)
    output.close()


def show(path: Path = typer.Argument(help="A file or folder of results, or a trace.npz.")) -> None:
    """Open what is there in the terminal: the table and the curves; the agents of a live folder; a trace.

    Of a single run of real processes, as 'offbeat launch' writes its folder, it is the trace.

    Example:

      offbeat show offbeat-runs/digits-0
    """
    out = Out()
    if (path / "agent-0.trace").is_file() or is_trace(path):
        out.print(sentences(path))
        return
    if is_live(path):
        out.print(_agents(path))
        if not any(path.glob("*/ended.json")):
            say("No run has ended yet.")
            return
    result = load(path)
    out.print(as_table(result, out.width))
    out.print(_curves(result, out))
    for line in in_words(result):
        out.print(Text(line))


def _curves(result: Comparison, out: Out) -> Group:
    """The median curve of each group, in a line."""
    lines, room = [Text()], max(10, min(60, out.width - 60))
    for key, runs in result.groups().items():
        metric = runs[0].measure if runs[0].measure in runs[0].curve.names() else "loss"
        middle = summary(runs, metric).middle.tolist()
        if middle:
            ends = f"{middle[0]:.4g} to {middle[-1]:.4g}"
            line = sparkline(middle, room, out.encoding)
            lines.append(Text(f"{line:<{room}} {metric} {ends}: {result.label(key)}", no_wrap=True))
    return Group(*lines)


def _agents(folder: Path) -> Group:
    """Of each run of a live folder whether it has ended, and how many steps each agent made."""
    lines = [Text(f"{folder}: runs of offbeat live", style="bold")]
    for each in sorted(path.parent for path in folder.glob("*/agent-0.trace")):
        ended = "ended" if (each / "ended.json").exists() else "not ended (offbeat live --resume goes on)"
        steps = ""
        if (each / "trace.npz").exists():
            counts = Trace.load(each / "trace.npz").updates().tolist()
            steps = "; steps of agents: " + ", ".join(f"{k}: {n:,}" for k, n in enumerate(counts))
        lines.append(Text(f"{each.name}: {ended}{steps}"))
    return Group(*lines, Text())
