"""All commands of `offbeat` together, and its entry point."""

import errno
import io
import os
import sys

from rich.text import Text

from offbeat.cli import launch as cli_launch
from offbeat.cli import list_ as cli_list
from offbeat.cli import live as cli_live
from offbeat.cli import predict as cli_predict
from offbeat.cli import sweep as cli_sweep
from offbeat.cli import tools as cli_tools
from offbeat.cli.compare import app
from offbeat.cli.console import Out
from offbeat.cli.options import flowing
from offbeat.core.errors import DiskError, OffbeatError, failed

PRINTING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EBADF}
"""What goes wrong while standard output is written; where it is a file, the error names it."""

cli_launch.register(app)
cli_list.register(app)
cli_live.register(app)
cli_predict.register(app)
cli_sweep.register(app)
cli_tools.register(app)
for each in app.registered_commands:
    each.help = flowing(each.callback.__doc__ or "") if each.callback is not None else None


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
        Out(stderr=True).print(Text.assemble(("Error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(error.exit_code)
