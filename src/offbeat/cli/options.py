"""The options of commands: most are derived from the declarations of settings (`offbeat.core.settings`)."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from offbeat.core.errors import SettingError
from offbeat.core.rates import Rate
from offbeat.core.settings import RUNNING, SCOPES, Setting, declared

Number = TypeVar("Number", int, float)


def option(default: Any, panel: str | None, help: str, *names: str, **more: Any) -> Any:
    """An option that is no setting, as the default of a parameter; panel: what heads it in the help."""
    return typer.Option(default, *names, help=help, rich_help_panel=panel, **more)


JSON = option(None, RUNNING, "Write all results to this file.")
CSV = option(None, RUNNING, "Write the numbers to this file, a row for each group.")
REPORT = option(None, RUNNING, "Write a self-contained page with figures to this file.")
QUIET = option(False, RUNNING, "Print nothing but errors.", "--quiet", "-q")
RESUME = option(False, RUNNING, "Go on with what is in --out, from its checkpoints.", "--resume")
FOLDER = "Folder for traces, output and checkpoints; default: a new one in ./offbeat-runs."
OUT = option(None, RUNNING, FOLDER)


Command = Callable[..., None]
KEYWORD = inspect.Parameter.KEYWORD_ONLY
NONE: Mapping[str, Any] = MappingProxyType({})


def with_settings(
    *classes: type,
    live: bool = False,
    panels: Mapping[str, str] = NONE,
    helps: Mapping[str, str] = NONE,
    defaults: Mapping[str, Any] = NONE,
    last: bool = False,
    only: Sequence[str] = (),
) -> Callable[[Command], Command]:
    """Give a command an option for every setting that these dataclasses declare, before its own options.

    The command's first parameter gets the settings: name -> value.

    Args:
        live: leave out those that do not apply to live runs
        panels: scope -> how it is headed here, where not by its own name
        helps: setting -> its help here, where it is another one
        defaults: setting -> its default here, where it is another one
        last: the command's own options come first
        only: names of settings; leave out all others
    """
    every = [each for cls in classes for each in declared(cls).values()]
    applying = [each for each in every if (each.live or not live) and (not only or each.name in only)]
    applying.sort(key=lambda each: SCOPES.index(each.scope))

    def derived_option(each: Setting) -> inspect.Parameter:
        default = defaults.get(each.name, each.default)
        default = None if default in (None, ()) else each.kind.record(default)
        shape = each.kind.option if default is not None else each.kind.option | None
        names = [f"--{name.replace('_', '-')}" for name in (each.name, each.also) if each.also]
        if each.kind.option is bool and not names:  # so that there is no --no-NAME beside it
            names = [f"--{each.name.replace('_', '-')}"]
        about = option(..., panels.get(each.scope, each.scope), helps.get(each.name, each.help), *names)
        return inspect.Parameter(each.name, KEYWORD, default=default, annotation=Annotated[shape, about])

    def derive(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        _, *own = inspect.signature(command).parameters.values()

        @wraps(command)
        def derived(**given: Any) -> None:
            asked = {each.name: given.pop(each.name) for each in applying}
            for each in applying:
                if asked[each.name] is None and each.name not in defaults:
                    asked[each.name] = each.default
            command(asked, **given)

        mine = [each.replace(annotation=hints[each.name], kind=KEYWORD) for each in own]
        options = [derived_option(each) for each in applying]
        signature = inspect.Signature([*mine, *options] if last else [*options, *mine])
        derived.__signature__ = signature  # type: ignore[attr-defined]
        return derived

    return derive


def flowing(doc: str) -> str:
    """A docstring for any terminal's width: its paragraphs are lines, what is indented stays as it is."""
    paragraphs = inspect.cleandoc(doc).split("\n\n")
    return "\n\n".join(f"\b{p}" if p.startswith(" ") else " ".join(p.split()) for p in paragraphs)


def numbers(kind: type[Number], text: str, what: str, expected: str) -> list[Number]:
    """Numbers with commas between. Raises SettingError for anything else, with `what` it is."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(f"Cannot read {what}; expected {expected}.") from None


def _rates(text: str, values: str) -> list[float | str]:
    try:
        return [Rate.of(value).said for value in values.split(",")]
    except SettingError:
        expected = "0.01, or 0.01,0.03, or 0.01n, or tuned, or rfast=0.05"
        raise SettingError(f"Cannot read --lr {text}; expected {expected}.") from None


def parse_lrs(texts: Sequence[str]) -> dict[str, Any]:
    """--lr: 'x', 'x,y', 'tuned' for all; 'name=x' for one. Raises SettingError for anything else."""
    lrs: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.rpartition("=")
        name = name.strip()
        if "," in name:
            each = " ".join(f"--lr {one.strip()}" for one in text.split(","))
            raise SettingError(f"--lr {text} is of several algorithms; expected one at a time: {each}")
        if name.lower() in map(str.lower, lrs):
            advice = "expected one." if name else "give several with commas between."
            raise SettingError(f"--lr was given twice for {name or 'all algorithms'}; {advice}")
        if value == "tuned" and not separator:
            lrs[name] = value
            continue
        rates = _rates(text, value)
        if separator and len(rates) != 1:
            raise SettingError(f"--lr {text} gives one algorithm several rates; expected rfast=0.05.")
        lrs[name] = rates[0] if separator else rates
    return lrs


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option was named, on the command line or in the environment."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
