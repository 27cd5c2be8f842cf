"""The command line of what runs nothing: list; and of what goes with live runs: export."""

import inspect
import textwrap
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from offbeat.algorithms import ALGORITHMS, find
from offbeat.cli.console import Out, say
from offbeat.cli.options import numbers, option
from offbeat.core.errors import unknown
from offbeat.core.optimizers import OPTIMIZERS
from offbeat.core.schedules import SCHEDULES
from offbeat.core.system.named import separated
from offbeat.experiments.sayings import sayings
from offbeat.tasks import MODELS, PARTITIONS, TASKS, Logistic, Quadratic
from offbeat.tasks.metrics import METRICS, OF_RUN
from offbeat.tasks.trained import NetworkTask
from offbeat.training.export import export as written
from offbeat.world.changing import CHANGING
from offbeat.world.delays import FAMILIES
from offbeat.world.graphs import TOPOLOGIES
from offbeat.world.weights import WEIGHTS
from offbeat.world.world import CASES

TASKS_ARE: dict[str, type] = {
    "quadratic": Quadratic,
    "cifar10": NetworkTask,
    "shakespeare": NetworkTask,
}  # the others are logistic regressions
NAMED = (
    "Names with commas between, or all: all that is known of these. Of an algorithm its equation, what its "
    "symbols are called here, how it differs from the paper."
)
KINDS = (
    "algorithms, topologies, weights, tasks, models, partitions, optimizers, schedules, metrics, worlds, "
    "cases or delays; default: all."
)
FOLDER = "The results of 'offbeat launch': the folder with checkpoints/."
AGENTS = "The mean of these agents only, '0,1,3', or one agent's model, '2'."
STEP = "Of this step; default: each agent's newest checkpoint."


def list_(
    what: str | None = typer.Argument(None, help=KINDS), name: str | None = typer.Argument(None, help=NAMED)
) -> None:
    """Say which algorithms, graphs, weights, tasks, models, partitions, optimizers, schedules, metrics,
    worlds, cases and delays there are.

    Examples:

      offbeat list topologies

      offbeat list algorithms adsgd,d2

      offbeat list tasks quadratic
    """
    tables = {
        "algorithms": {name: "\n".join(row.facts()) for name, row in ALGORITHMS.items()},
        "topologies": {
            **{name: f"{row.about}; agents: {row.takes}" for name, row in TOPOLOGIES.items()},
            **{name: f"changes from round to round: {row.about}" for name, row in CHANGING.items()},
        },
        "weights": {name: row.about for name, row in WEIGHTS.items()},
        "tasks": {t.name: f"{t.title}; to time {t.until:g}, target {t.target:g}" for t in TASKS.values()},
        "models": MODELS,
        "partitions": {row.written(name): row.about for name, row in PARTITIONS.items()},
        "optimizers": {row.written(name): row.facts() for name, row in OPTIMIZERS.items()},
        "schedules": {row.written(name): row.facts() for name, row in SCHEDULES.items()},
        "metrics": {**{row.name: f"{row.about}; cost: {row.cost}" for row in METRICS.values()}, **OF_RUN},
        "worlds": sayings(),
        "cases": CASES,
        "delays": FAMILIES,
    }
    if what is not None and what not in tables:
        raise unknown("list", what, tables)
    out = Out()
    if name is not None:
        rows = tables[str(what)]
        names = [*rows] if name == "all" else [each.strip() for each in separated(name)]
        told = [_told(str(what), each, rows, out.width) for each in names]
        out.print(Text("\n\n".join(told)))
        return
    for title, rows in tables.items():
        if what in (None, title):
            table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
            table.add_column(no_wrap=True, style="cyan")
            table.add_column()
            for name, text in rows.items():
                table.add_row(name, Text(text))
            out.print(table)


def _told(what: str, name: str, rows: Mapping[str, str], width: int) -> str:
    """What a list says of one of its names, and what its class says. Raises SettingError if there is none."""
    if what == "algorithms":
        row = find(name)
        facts, more = row.facts(), inspect.getdoc(type(row.prototype))
    else:
        known = {key.partition(":")[0]: key for key in rows}
        if (head := name.partition(":")[0]) not in known:
            raise unknown(f"name in 'offbeat list {what}',", head, known)
        facts = f"{known[head]}: {rows[known[head]]}".splitlines()
        more = inspect.getdoc(TASKS_ARE.get(name, Logistic)) if what == "tasks" else None
    lines = [textwrap.fill(fact, width, subsequent_indent="    ") for fact in facts]
    return "\n".join([*lines, *(["", fitted(more, width)] if more else [])])


def fitted(text: str, width: int) -> str:
    """A docstring in lines of this width: paragraphs flow, lines that are indented hang."""
    lines: list[str] = []
    at = 0
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        goes_on = bool(lines and lines[-1] and line) and (indent == at == 0 or indent > at > 0)
        if goes_on:
            lines[-1] += f" {line.strip()}"
        else:
            lines, at = [*lines, line], indent
    hang = [" " * (len(line) - len(line.lstrip()) + 4) if line.startswith(" ") else "" for line in lines]
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=h, break_long_words=False, break_on_hyphens=False)
        for line, h in zip(lines, hang, strict=True)
    )


def export(
    folder: Path = typer.Argument(help=FOLDER),
    out: Path | None = option(None, None, "File to write; default: model.safetensors in FOLDER."),
    agents: str | None = option(None, None, AGENTS),
    step: int | None = option(None, None, STEP, min=0),
    allow_missing: bool = option(False, None, "Leave out agents without a checkpoint.", "--allow-missing"),
    force: bool = option(False, None, "Replace a file that exists.", "--force"),
) -> None:
    """Write the mean of all agents' models as one safetensors file, for model.load_state_dict.

    Parameters and running statistics are averaged in float64; of counters it is the largest; tied weights are
    there under all their names. Every agent counts the same; those that are far behind are named.

    Example:

      offbeat export offbeat-runs/train-0 --out model.safetensors
    """
    expected = "numbers with commas between: '0,1,3'"
    chosen = None if agents is None else numbers(int, agents, f"the agents '{agents}'", expected)
    done = written(folder, out, chosen, step, allow_missing, force)
    for source in done.sources:
        at = "" if source.time is None else f" at time {source.time:,.4g}"
        say(f"agent {source.agent}: step {source.step}{at}, {source.path}")
    for warning in done.warnings:
        say(Text(warning, "yellow"))
    say(f"Written: {done.path}")
    load = f"safetensors.torch.load_file({str(done.path)!r})"
    named = done.sources[0].named
    how = (
        f"model.load_state_dict({load})"
        if named
        else f"parts = {load}  # the task's model: 'x.0', 'x.1', ..."
    )
    say(f"To load: {how}")
