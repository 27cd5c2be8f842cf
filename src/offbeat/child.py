"""Runs a user's script as an agent: `python -m offbeat.child script.py arguments`, or `-m module arguments`.

When the script ends, the agent stays until all are done, to answer mail. When it fails, it does not: what it had
reached is saved, and the error goes on. One that offbeat raised ends the process with a code of its own
(`errors.FINAL`), by which the launcher knows that no restart can help.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from offbeat import member
from offbeat.errors import OffbeatError, agent_exit_code


def main() -> None:
    """Run the script that the command line names."""
    _, *command = sys.argv
    try:
        try:
            _run(command)
        except BaseException as ending:
            if not isinstance(ending, SystemExit) or ending.code not in (None, 0):
                for joined in member.joined():
                    joined.rescue()
                raise
        for joined in member.joined():
            joined.leave()
    except OffbeatError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(agent_exit_code(error))


def _run(command: list[str]) -> None:
    if command[0] == "-m":
        sys.argv = command[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path[0] = str(Path(command[0]).resolve().parent)
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main()
