"""The options of commands, derived from the declarations of settings (`offbeat.core.settings`)."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from offbeat.core.settings import RUNNING, SCOPES, Setting, declared

JsonFile = Annotated[
    Path | None, typer.Option(help="Write all results to this file.", rich_help_panel=RUNNING)
]
ReportFile = Annotated[
    Path | None,
    typer.Option(help="Write a self-contained page with figures to this file.", rich_help_panel=RUNNING),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=RUNNING)
]
OutFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for traces, output and checkpoints; default: a new one in ./offbeat-runs.",
        rich_help_panel=RUNNING,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with what is in --out, from its checkpoints.", rich_help_panel=RUNNING
    ),
]
"""Options that several commands have."""

Command = Callable[..., None]
KEYWORD = inspect.Parameter.KEYWORD_ONLY


def with_settings(
    *classes: type,
    live: bool = False,
    panels: Mapping[str, str] | None = None,
    helps: Mapping[str, str] | None = None,
    last: bool = False,
    only: Sequence[str] = (),
    **defaults: Any,
) -> Callable[[Command], Command]:
    """Give a command an option for every setting that these dataclasses declare, before its own options.

    The command's first parameter gets the settings: name -> value.

    Args:
        live: leave out those that do not apply to live runs
        panels: scope -> how it is headed here, where not by its own name
        helps: setting -> its help here, where it is another one
        last: the command's own options come first
        only: names of settings; leave out all others
        defaults: setting -> its default here, where it is another one
    """

    def derive(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        _, *own = inspect.signature(command).parameters.values()
        applying = [each for each in _applying(classes, live) if not only or each.name in only]
        options = [_option(each, panels or {}, helps or {}, defaults) for each in applying]

        @wraps(command)
        def derived(**given: Any) -> None:
            asked = {each.name: given.pop(each.name) for each in applying}
            usual = {each.name: each.default for each in applying if each.name not in defaults}
            full = {name: usual.get(name) if value is None else value for name, value in asked.items()}
            command(full, **given)

        mine = [each.replace(annotation=hints[each.name], kind=KEYWORD) for each in own]
        signature = [*mine, *options] if last else [*options, *mine]
        derived.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        return derived

    return derive


def _applying(classes: tuple[type, ...], live: bool) -> list[Setting]:
    every = [each for cls in classes for each in declared(cls).values() if each.live or not live]
    return sorted(every, key=lambda each: SCOPES.index(each.scope))


def flowing(doc: str) -> str:
    """A docstring with its paragraphs as one line each: the terminal is told its own width."""
    paragraphs = inspect.cleandoc(doc).split("\n\n")
    return "\n\n".join(text if text.startswith(" ") else " ".join(text.split()) for text in paragraphs)


def _option(
    each: Setting, panels: Mapping[str, str], helps: Mapping[str, str], defaults: Mapping[str, Any]
) -> inspect.Parameter:
    default = defaults.get(each.name, each.default)
    default = None if default in (None, ()) else each.kind.record(default)
    shape = each.kind.option if default is not None else each.kind.option | None
    about = typer.Option(
        help=helps.get(each.name, each.help), rich_help_panel=panels.get(each.scope, each.scope)
    )
    return inspect.Parameter(each.name, KEYWORD, default=default, annotation=Annotated[shape, about])
