"""What the values of an experiment's settings are: how each is checked, spelt in a file, and recorded.

Kinds that any setting may have are in `offbeat.core.settings`.
"""

from collections.abc import Sequence
from typing import Any

from offbeat.core.errors import SettingError
from offbeat.core.settings import Kind, finite, text
from offbeat.results import targets
from offbeat.world.delays import Delay, parse
from offbeat.world.world import Crash, parse_crash


def as_is(name: str, value: Any) -> Any:
    return value


def _task(name: str, value: Any) -> Any:
    if not isinstance(value, str) and not hasattr(value, "gradients"):
        raise SettingError(f"The task must be a name, or have the interface of offbeat.Task; got {value!r}.")
    return value


def _delay(name: str, value: Any) -> str | Delay:
    if not isinstance(value, str | Delay):
        raise SettingError(f"'{name}' must be text like 'gamma 0.25' or an offbeat.Delay; got {value!r}.")
    return value


def _spelt_delay(name: str, value: Any) -> str:
    delay = parse(text(name, value))
    return str(value).strip() if delay.values else str(delay)  # measured delays go by their file


def _crashes(name: str, value: Any) -> tuple[str | Crash, ...]:
    crashes = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    for crash in crashes:
        if not isinstance(crash, str | Crash):
            raise SettingError(f"A crash is text like 'agent 3 at 100' or an offbeat.Crash; got {crash!r}.")
    return crashes


def _spelt_crashes(name: str, value: Any) -> tuple[str, ...]:
    crashes = [value] if isinstance(value, str) else value
    if not isinstance(crashes, list) or not all(isinstance(crash, str) for crash in crashes):
        raise SettingError(f"'{name}' must be text like 'agent 3 at 100', or a list of such; got {value!r}.")
    return tuple(str(parse_crash(crash)) for crash in crashes)


NAMED_TASK = Kind(str, "string", _task, text)
GRAPH = Kind(str, "string", as_is, text)
DELAY = Kind(str, "string", _delay, _spelt_delay, str)
CRASHES = Kind(list[str], "list string", _crashes, _spelt_crashes, lambda crashes: [*map(str, crashes)], list)
TARGET = Kind(str, "string", targets.checked, targets.checked)
NAMES = Kind(str, "string", as_is, as_is)
NUMBERS = Kind(str, "list float64", as_is, as_is)
LR = Kind(list[str], "float64", as_is, finite)  # kinds of what `comparison.plan` checks
