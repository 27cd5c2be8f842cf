"""What typer says of a command line that it cannot read, told as all other errors are."""

from typing import Any

import typer

from offbeat.core.errors import SettingError

PARENTS = {each.__name__: each for each in typer.BadParameter.__mro__ if issubclass(each, Exception)}
USAGE = PARENTS["ClickException"]
"""What all these errors are; typer gives it no public name."""

OF_TABLE = "'offbeat table' has it, of results that --json or --out kept."
OF_OPTIMIZER = "It is the optimizer's: --optimizer momentum:0.9, or nesterov:0.9 ('offbeat list optimizers')."
INSTEAD = {
    **{(command, "--momentum"): OF_OPTIMIZER for command in ("compare", "live")},
    ("live", "--crash"): "Crashes at a time are simulated, by 'offbeat compare'; real processes are killed "
    "at a step: --fault 'kill agent 1 at step 20'.",
    **{(command, name): OF_TABLE for command in ("compare", "live", "sweep")
       for name in ("--csv", "--latex", "--columns") if (command, name) != ("compare", "--csv")},
}  # fmt: skip
"""Of options of other commands: (command, option) -> what there is instead."""

EXPECTED = {"int": "a whole number", "float": "a number"}  # by how pydantic's kinds of errors begin


def one_paragraph(error: BaseException) -> SettingError:
    """What was got, what was expected, and whose help says more."""
    told: Any = error  # the attributes of these errors differ by their kind and by the version of typer
    context, parameter = getattr(told, "ctx", None), getattr(told, "param", None)
    text: str = told.format_message()
    match type(error).__name__:
        case "NoSuchOption":
            near = " or ".join(told.possibilities or ())
            text = f"There is no option {told.option_name}."
            if context is not None and (context.info_name, told.option_name) in INSTEAD:
                text += f" {INSTEAD[context.info_name, told.option_name]}"
            else:
                text += f" Did you mean {near}?" * bool(near)
        case "MissingParameter" if parameter is not None:
            text = f"{_name(parameter)} is missing: {parameter.help}"
        case "BadParameter" if parameter is not None:
            text = f"Cannot read {_name(parameter)}{_unreadable(error, text)}"
    command = "offbeat" if context is None else context.command_path
    end = "" if text.endswith((".", "?")) else "."
    return SettingError(f"{text}{end} See '{command} --help'.")


def _name(parameter: Any) -> str:
    """--out; or GRID, of an argument."""
    option = parameter.param_type_name == "option"
    return str(parameter.opts[0]) if option else str(parameter.metavar or parameter.name).upper()


def _unreadable(error: BaseException, text: str) -> str:
    """The value, and what was expected; where only a sentence is known, that."""
    errors = getattr(error.__cause__, "errors", None)
    found = errors()[0] if errors is not None else None
    if found is None:
        return f": {text.partition(': ')[2]}"
    kind = EXPECTED.get(str(found["type"]).partition("_")[0])
    said = str(found["msg"])
    expected = kind or said.replace("Input should be ", "a number ") if said.startswith("Input") else said
    return f" {found['input']}; expected {expected}"
