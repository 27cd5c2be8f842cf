"""All commands of `offbeat` together, and its entry point."""

import ast
import errno
import io
import os
import sys
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from offbeat.cli.console import Out, complain
from offbeat.cli.options import flowing, option
from offbeat.cli.usage import USAGE, one_paragraph
from offbeat.core.errors import DiskError, OffbeatError, SettingError, failed

PRINTING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EBADF}
"""What goes wrong while standard output is written; where it is a file, the error names it."""

COMMANDS = {
    "compare": "compare", "sweep": "sweep", "reproduce": "reproduce",
    "live": "live", "launch": "launch", "join": "joining",
    "leave": "joining", "replay": "launch",
    "table": "results", "plot": "results", "show": "results", "merge": "results",
    "predict": "predict", "theory": "theory", "export": "tools", "list": "tools", "new": "new",
    "doctor": "doctor",
}  # fmt: skip
"""Command -> the module of this room that it is in, where its function has its name, or that and `_`."""

ON_ALL_CORES = {"compare", "sweep", "reproduce"}
"""Commands whose runs are made by several processes."""
OTHERWISE = {"-h", "--help", "--dry-run", "--workers", "--until", "--device", "--ray"}
"""Options after which they may need none: who has given one waits until all options are read."""

HELP = {"help_option_names": ["-h", "--help"]}


@cache
def listed(name: str) -> TyperCommand:
    """A command as `offbeat --help` lists it: its docstring, read from its source without importing it."""
    source = Path(__file__).with_name(COMMANDS[name] + ".py").read_text("utf-8")
    functions = (each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef))
    (doc,) = [ast.get_docstring(each) for each in functions if each.name.removesuffix("_") == name]
    return TyperCommand(name, help=flowing(doc or ""), rich_markup_mode="rich")


@cache
def loaded(name: str) -> TyperCommand:
    """The command of this name, imported with all that it needs; torch takes a second or more."""
    console = Out(stderr=True)
    with console.status(f"Loading offbeat {name} ...") if console.is_terminal else nullcontext():
        module = import_module(f"offbeat.cli.{COMMANDS[name]}")
    function = getattr(module, name, None) or getattr(module, f"{name}_")
    how = {"allow_interspersed_args": name != "launch", **HELP}  # what follows is the script's
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name, help=flowing(function.__doc__ or ""), context_settings=how)(function)
    return cast(TyperCommand, typer.main.get_command(alone))


class Commands(TyperGroup):
    """All commands by name; what is not called is not imported, nor read if it is not listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        return listed(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in COMMANDS:
            if args[0] in ON_ALL_CORES and OTHERWISE.isdisjoint(each.partition("=")[0] for each in args):
                _get_ready(args[0])
            return args[0], loaded(args[0]), args[1:]
        self.commands = {name: listed(name) for name in COMMANDS}  # whose names are like the one that is not
        return super().resolve_command(ctx, args)


def _get_ready(name: str) -> None:
    """Have the server of worker processes import everything while this process imports this command."""
    from offbeat.core.system.machine import cores
    from offbeat.experiments.forking import possible, start_server

    if f"offbeat.cli.{COMMANDS[name]}" not in sys.modules and cores() > 1 and possible():
        start_server()


app = typer.Typer(
    name="offbeat", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode="rich", context_settings=HELP,
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        print(f"offbeat {version('offbeat')}")
        raise typer.Exit


@app.callback()
def _offbeat(
    show: bool = option(False, None, "Print the version.", "--version", callback=_version, is_eager=True),
) -> None:
    """Asynchronous decentralized SGD: compare algorithms under controlled delays.

    Start with [bold]offbeat compare --case combined[/bold], then see [bold]offbeat list[/bold].
    """


def main() -> None:
    """The entry point: an error of ours is one paragraph and its exit code, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal cannot show must not end anything
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            code = _called()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # while somebody can say that it cannot be
    except OSError as error:
        if error.filename is not None or error.errno not in PRINTING:
            sys.stderr.write(f"Error: {failed(error)}\n")
            sys.exit(DiskError.exit_code)
        sys.stderr.write(f"Error: Cannot print: {error.strerror or error}.\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OffbeatError as error:
        complain(Text.assemble(("Error: ", "bold red"), str(error)))
        sys.exit(error.exit_code)
    sys.exit(code)


def _called() -> int:
    """The exit code. Raises SettingError for a command line that makes no sense."""
    try:
        return int(app(prog_name="offbeat", standalone_mode=False) or 0)
    except USAGE as error:
        if len(sys.argv) == 1:  # nothing was asked for, and the help has been shown
            return SettingError.exit_code
        raise one_paragraph(error) from None
