"""The command line's `new`: files to begin with."""

import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

import typer

from offbeat.cli.console import say
from offbeat.core.errors import DiskError, SettingError, unknown
from offbeat.core.system.files import write_atomically

KINDS = {
    "algorithm": (
        "compare --algorithms 'adsgd,$file.py:$title,$file.py:$title(gamma=0.5)' --check",
        "what on_gradient does in $file.py by your own update",
    ),
    "task": (
        "compare --task $file.py:make_task --metric $file.py:spread --lr 0.3 --until 150 --eval-every 5 "
        "--target 0.75",
        "the samples, the network and the loss in $file.py by yours",
    ),
}
"""What can be written; the command that uses it, and what to replace in it."""

KIND = f"What is to be written: {' or '.join(KINDS)}."
NAME = "What it is called: 'LocalSteps' is written to local_steps.py."


def new(kind: str = typer.Argument(help=KIND), name: str = typer.Argument(help=NAME)) -> None:
    """Write an algorithm or a task of your own to begin with, and a test of it that passes, in this folder.

    A task has data, a network, a loss, a column to split by, and metrics. Nothing is overwritten.

    Examples:

      offbeat new algorithm LocalSteps
      offbeat new task Handwriting
    """
    if kind not in KINDS:
        raise unknown("kind of file", kind, KINDS)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        raise SettingError(f"'{name}' can be no name in Python; expected one such as LocalSteps.")
    file = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    title = name if name[0].isupper() else "".join(part.capitalize() for part in name.split("_"))
    code, test = Path(f"{file}.py"), Path(f"test_{file}.py")
    for path in (code, test):
        if path.exists():
            raise SettingError(f"There is a file {path} already; expected another name, or another folder.")
    templates = resources.files("offbeat.cli").joinpath("templates")
    for path, template in ((code, f"{kind}.txt"), (test, f"test_{kind}.txt")):
        text = Template(templates.joinpath(template).read_text("utf-8")).substitute(title=title, file=file)
        try:
            write_atomically(path, text.encode())
        except OSError as error:
            raise DiskError(f"Cannot write {path}: {error.strerror or error}.") from error
    say(f"Written: {code} and {test}")
    say(f"To test it: pytest {test}")
    command, instead = (Template(text).substitute(title=title, file=file) for text in KINDS[kind])
    say(f"To use it: offbeat {command}")
    say(f"Then replace {instead}.")
