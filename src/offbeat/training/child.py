"""A user's script as an agent: `python -P -m offbeat.training.child script.py ...`, or `-m module ...`.

The script finds its modules where plain `python script.py` would: its own folder comes first, and nothing of
ours is imported from there (or, of a module, from the current folder), because ours is imported before.

When the script ends, by sys.exit too, the agent stays until all are done, to answer mail; its exit code is
the script's. When an error ends it, the agent does not: what it had reached is saved, the launcher is told of
the error, and decides whether there is another life.
"""

import os
import runpy
import sys
from contextlib import suppress
from pathlib import Path

from offbeat.engines.live.node.ending import tell
from offbeat.engines.live.node.enter import arrive
from offbeat.training import member

MIXED = (
    "Note: a step of any optimizer that agent.wrap returned mixes all parameters, in place. What backward "
    "goes through has to be made after it: generate anew once the discriminator has stepped, say."
)


def main() -> None:
    arrive()
    _, *command = sys.argv
    try:
        code = _run(command)
        for joined in member.joined():
            if not (joined.wrapped or code):
                advice = "expected optimizer = agent.wrap(model, optimizer) before its loop"
                sys.stderr.write(f"Agent {joined.rank} has joined and never wrapped a model: {advice}.\n")
        steps = [joined.steps for joined in member.joined()]
        if any(steps) or not code:  # that of a script which gave up before it had begun is told as it is
            for joined in member.joined():
                joined.leave()
    except BaseException as error:
        with suppress(Exception):  # the script's own error is the one to tell
            for joined in member.joined():
                joined.rescue()
        if not isinstance(error, Exception):
            raise
        if "modified by an inplace operation" in str(error) and any(each.wrapped for each in member.joined()):
            error.add_note(MIXED)
        code = tell(error, __file__)
    sys.exit(code)


def _run(command: list[str]) -> int:
    """The script's exit code: 0, or what it gave sys.exit; a message counts as 1, as it does for Python."""
    module = command[0] == "-m"
    if not os.environ.get("PYTHONSAFEPATH"):
        sys.path.insert(0, str(Path.cwd() if module else Path(command[0]).resolve().parent))
    sys.argv = command[module:]
    try:
        if module:
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as ending:
        if not isinstance(ending.code, int | None):
            sys.stderr.write(f"{ending.code}\n")
            return 1
        return (ending.code or 0) & 0xFF
    return 0


if __name__ == "__main__":
    main()
