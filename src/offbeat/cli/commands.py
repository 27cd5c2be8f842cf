"""All commands of `offbeat` together, and its entry point."""

import errno
import io
import os
import sys

import typer
from rich.text import Text

from offbeat.cli.compare import compare
from offbeat.cli.console import complain
from offbeat.cli.launch import launch, replay
from offbeat.cli.live import live
from offbeat.cli.options import flowing, option
from offbeat.cli.predict import predict
from offbeat.cli.sweep import sweep
from offbeat.cli.tools import doctor, export, list_
from offbeat.core.errors import DiskError, OffbeatError, failed
from offbeat.results.values import VERSION

PRINTING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EBADF}
"""What goes wrong while standard output is written; where it is a file, the error names it."""

app = typer.Typer(
    name="offbeat", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        print(f"offbeat {VERSION}")
        raise typer.Exit


@app.callback()
def offbeat(
    version: bool = option(False, None, "Print the version.", "--version", callback=_version, is_eager=True),
) -> None:
    """Asynchronous decentralized SGD: compare algorithms under controlled delays.

    Start with [bold]offbeat compare --case combined[/bold], then see [bold]offbeat list[/bold].
    """


for each in (compare, launch, replay, list_, live, predict, sweep, export, doctor):
    name, about = each.__name__.removesuffix("_"), flowing(each.__doc__ or "")
    how = {"allow_interspersed_args": each is not launch}  # what follows is the script's
    app.command(name, help=about, context_settings=how)(each)


def main() -> None:
    """The entry point: an error of ours is one paragraph and its exit code, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal cannot show must not end anything
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            app()
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
