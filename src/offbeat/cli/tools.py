"""The command line of what goes with live runs: export, doctor."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from offbeat.cli.console import Out
from offbeat.core.errors import SettingError
from offbeat.engines.live.launcher.doctor import FAILED, examine
from offbeat.tasks import softmax
from offbeat.training.export import export as written

STYLES = {"ok": "green", "warning": "yellow", FAILED: "bold red"}


def register(app: typer.Typer) -> None:
    app.command()(export)
    app.command()(doctor)


def export(
    folder: Annotated[
        Path, typer.Argument(help="The results of 'offbeat launch': the folder with checkpoints/.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: model.safetensors in FOLDER.")
    ] = None,
    agents: Annotated[
        str | None, typer.Option(help="The mean of these agents only, '0,1,3', or one agent's model, '2'.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="Of this step; default: each agent's newest checkpoint.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out agents without a checkpoint.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write the mean of all agents' models as one safetensors file, for model.load_state_dict.

    Parameters and running statistics are averaged in float64; of counters it is the largest; tied weights are
    there under all their names. Every agent counts the same; those that are far behind are named.

    Example:

      offbeat export offbeat-runs/train-0 --out model.safetensors
    """
    done = written(folder, out, None if agents is None else _numbers(agents), step, allow_missing, force)
    console = Out()
    for source in done.sources:
        at = "" if source.time is None else f" at time {source.time:,.4g}"
        console.print(Text(f"agent {source.agent}: step {source.step}{at}, {source.path}"), soft_wrap=True)
    for warning in done.warnings:
        console.print(Text(warning, "yellow"), soft_wrap=True)
    console.print(Text(f"Written: {done.path}"), soft_wrap=True)
    load = f"safetensors.torch.load_file({str(done.path)!r})"
    how = f"parts = {load}  # the task's model: 'x.0', 'x.1', ..."
    if done.sources[0].named:
        how = f"model.load_state_dict({load})"
    console.print(Text(f"To load: {how}"), soft_wrap=True)


def _numbers(text: str) -> list[int]:
    """The agents that '0,1,3' names. Raises SettingError."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(
            f"Cannot read the agents '{text}'; expected numbers with commas between: '0,1,3'."
        ) from None


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Remove what runs that were killed left in shared memory.")
    ] = False,
) -> None:
    """Check this machine for live runs: what was found, what is expected, what to do.

    It takes a few seconds: at the end two processes really exchange models. The exit code is 1 if a check
        FAILED.
    """
    checks = examine(sweep, {"softmax regression": softmax.name})
    failed = any(check.status == FAILED for check in checks.values())
    if as_json:
        listed = [{"name": name, **asdict(check)} for name, check in checks.items()]
        print(json.dumps({"ok": not failed, "checks": listed}, indent=2))
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("check", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("found")
        table.add_column("expected", style="dim")
        for name, check in checks.items():
            status = Text(check.status, STYLES[check.status])
            table.add_row(Text(name), status, Text(check.found), Text(check.expected))
        console = Out()
        console.print(table)
        for name, check in checks.items():
            if check.status != "ok":
                said = Text.assemble((name, STYLES[check.status]), f": {check.do}.")
                console.print(said, soft_wrap=True)
    if failed:
        raise typer.Exit(1)
