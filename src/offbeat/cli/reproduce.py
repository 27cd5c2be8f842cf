"""The command line of papers' evaluations that are made again."""

from pathlib import Path

import typer

from offbeat.cli.console import complain, say
from offbeat.cli.dry import DRY_RUN, listed
from offbeat.cli.options import QUIET, option
from offbeat.cli.outputs import check_writable
from offbeat.cli.progress import RunsShown
from offbeat.core.errors import unknown
from offbeat.core.settings import RUNNING, TASK
from offbeat.core.system.signals import exit_code, terminable
from offbeat.experiments.loading import load
from offbeat.experiments.reproduction.part import Paper, Part
from offbeat.experiments.reproduction.running import PAPERS, Making
from offbeat.experiments.sweep import running
from offbeat.experiments.sweep.running import Outcome
from offbeat.experiments.workers import wanted

PARTS = "; ".join(f"{name}: {', '.join(paper.parts)}" for name, paper in PAPERS.items())
PART = f"Of its evaluation: {PARTS}. Default: all, one after another."
DATA = "Folder with the files of data sets; default: OFFBEAT_DATA, or they are downloaded."
MEASURED = (
    "For part internet, which is left out without: round-trip times, FILE, FILE:ARRAY or FILE:ARRAY:SLICE."
)
FOLDER = "Folder for results, pages and figures; default: ./reproduce."
QUICKER = "Small enough for two cores and some minutes: it shows that all works."


def reproduce(
    paper: str = typer.Argument(help=f"Which: {', '.join(PAPERS)}."),
    part: str | None = option(None, TASK, PART),
    quick: bool = option(False, TASK, QUICKER, "--quick"),
    data: Path | None = option(None, TASK, DATA),
    rtt: str | None = option(None, TASK, MEASURED),
    device: str | None = option(None, RUNNING, "'cpu', or 'cuda' for a GPU."),
    workers: int | None = option(None, RUNNING, "How many runs at once; default: one for each core."),
    out: Path | None = option(None, RUNNING, FOLDER, metavar="FOLDER"),
    dry_run: bool = DRY_RUN,
    quiet: bool = QUIET,
) -> None:
    """Make the evaluation of a paper again, and set its claims beside what is measured.

    A part is a grid of runs with several seeds, made as 'offbeat sweep' makes one: what it will take is said
    before it starts; Ctrl-C keeps what is finished, and the same command goes on. Then a page (HTML, and
    Markdown) says of every claim whether it is confirmed, with the numbers and their spread, and on which
    open choice that hinges; figures are written as SVG and PDF, too, where matplotlib is installed.

    Examples:

      offbeat reproduce adsgd --part lr --quick
      offbeat reproduce adsgd --part lr --data DIR --out results
    """
    if paper not in PAPERS:
        raise unknown("evaluation", paper, PAPERS)
    folder, count = out or Path("reproduce"), wanted(workers)
    check_writable(folder=folder)
    makings = [
        Making(PAPERS[paper], each, folder, quick, data, device, rtt) for each in _parts(PAPERS[paper], part)
    ]
    made = [_make(each, count, dry_run, quiet) for each in makings if part is not None or not each.lacking]
    if not all(made):
        raise typer.Exit(1)


def _parts(paper: Paper, part: str | None) -> list[Part]:
    if part is not None and part not in paper.parts:
        raise unknown("part", part, paper.parts)
    return [*paper.parts.values()] if part is None else [paper.parts[part]]


def _make(making: Making, workers: int, dry_run: bool, quiet: bool) -> bool:
    """One part; whether no run failed. Raises Exit after a signal, which is meant for all parts."""
    every = making.points()
    if not quiet:
        say(f"{making.part.title}{', quick' * making.quick}")
        if every:
            say(making.cost(every).text(min(workers, len(every))))
    if dry_run:
        return True
    making.folder.mkdir(parents=True, exist_ok=True)
    failures, code = list[Outcome](), 0
    if every:
        with terminable(), RunsShown(len(every), quiet) as shown:
            try:
                running.sweep(
                    every, making.table, workers, None, shown.on_sweep, failures.append, shown.on_notice
                )
            except KeyboardInterrupt as interrupt:
                code = exit_code(interrupt)
    done = every and making.table.exists() and len(failures) < len(every)
    try:
        runs = load(making.table).runs if done else []
    except Exception:  # of a sweep that was stopped before its first run
        if not code:
            raise
        runs = []
    for path in making.write(runs, len(every)) if runs or not every else []:
        if not quiet:
            say(f"Written: {path}")
    if code:
        complain("Stopped. Give the same command again to go on.")
    listed(
        complain, [f"Failed: {one.point.named}: {one.failure}" for one in failures], "and {:,} more failed"
    )
    if code:
        raise typer.Exit(code)
    return not failures
