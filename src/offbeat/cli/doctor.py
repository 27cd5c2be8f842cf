"""The command line of what is looked at before a live run: this machine, or a cluster."""

import json
from dataclasses import asdict

import typer
from rich.table import Column, Table
from rich.text import Text

from offbeat.cli.console import Out, say
from offbeat.cli.options import option
from offbeat.engines.live.cluster import checkup
from offbeat.engines.live.launcher.doctor import FAILED, Check, examine
from offbeat.tasks import softmax

STYLES = {"ok": "green", "warning": "yellow", FAILED: "bold red"}
FUNCTIONS = {"softmax regression": softmax.name}
SWEEP = "Remove what was left in shared memory by runs that were killed."
RAY = "Of all machines of a Ray cluster, and between them: 'auto', HOST:PORT, or 'local:2'."


def doctor(
    ray: str | None = option(None, None, RAY, metavar="ADDRESS"),
    as_json: bool = option(False, None, "Print it as JSON.", "--json"),
    sweep: bool = option(False, None, SWEEP, "--sweep"),
) -> None:
    """Check this machine for live runs, or a cluster: what was found, what is expected, what to do.

    It takes a few seconds: at the end two processes really exchange models. With --ray each machine of the
    cluster is checked so, and their versions, their clocks, who is let in, and how fast the link is between
    each two. The exit code is 1 if a check FAILED.

    Examples:

      offbeat doctor

      offbeat doctor --ray auto
    """
    checks = examine(sweep, FUNCTIONS) if ray is None else _of_cluster(ray, sweep)
    failed = any(check.status == FAILED for check in checks.values())
    if as_json:
        listed = [{"name": name, **asdict(check)} for name, check in checks.items()]
        print(json.dumps({"ok": not failed, "checks": listed}, indent=2))
    else:
        _show(checks)
    if failed:
        raise typer.Exit(1)


def _of_cluster(address: str, sweep: bool) -> dict[str, Check]:
    """With what is looked at in view, on a terminal."""
    console = Out(stderr=True)
    with console.status("") as status:
        return checkup.examine(address, sweep, FUNCTIONS, status.update)


def _show(checks: dict[str, Check]) -> None:
    columns = (Column("check", no_wrap=True), Column(no_wrap=True), "found", Column("expected", style="dim"))
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for name, check in checks.items():
        table.add_row(
            Text(name), Text(check.status, STYLES[check.status]), Text(check.found), Text(check.expected)
        )
    Out().print(table)
    for name, check in checks.items():
        if check.status != "ok":
            say(Text.assemble((name, STYLES[check.status]), f": {check.do}."))
