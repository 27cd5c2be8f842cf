"""The command line's `list`: what there is."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.table import Table

from offbeat.algorithms import ALGORITHMS, find
from offbeat.cli.console import Out
from offbeat.core.errors import unknown
from offbeat.tasks import TASKS
from offbeat.world.delays import FAMILIES
from offbeat.world.graphs import TOPOLOGIES
from offbeat.world.world import CASES


def register(app: typer.Typer) -> None:
    app.command("list")(list_)


def list_(
    what: Annotated[
        str | None, typer.Argument(help="algorithms, topologies, tasks, cases or delays; default: all.")
    ] = None,
) -> None:
    """Say which algorithms, topologies, tasks, cases and distributions of delays there are."""
    tables: dict[str, Callable[[], Table]] = {
        "algorithms": _algorithms,
        "topologies": lambda: _two(
            "topologies", {name: f"{row.about}; agents: {row.takes}" for name, row in TOPOLOGIES.items()}
        ),
        "tasks": lambda: _two(
            "tasks",
            {
                row.name: f"{row.title}; to time {row.until:g}, target {row.target:g}"
                for row in TASKS.values()
            },
        ),
        "cases": lambda: _two("cases", CASES),
        "delays": lambda: _two("delays", FAMILIES),
    }
    if what is not None and what not in tables:
        raise unknown("list", what, tables)
    out = Out()
    for name, table in tables.items():
        if what in (None, name):
            out.print(table())


def _two(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column()
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def _algorithms() -> Table:
    table = _two("algorithms", {})
    for row in ALGORITHMS.values():
        lines = [f"{row.title} ({row.paper})", f"waits for {row.waits_for}; needs {row.needs}",
                 f"tolerates {', '.join(sorted(row.tolerates)) or 'nothing'}", row.note]  # fmt: skip
        names = [row.name, *(f"{row.name}:{option}" for option in row.options)] if row.options else []
        lines += [f"{name} {find(name).form}" for name in names]
        table.add_row(row.name, "\n".join(line for line in lines if line))
    return table
