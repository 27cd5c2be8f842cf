"""Settings, each declared once: a field of a frozen dataclass with its default, help, scope and kind.

    @dataclass(frozen=True, kw_only=True)
    class Experiment:
        batch: int = setting(32, LEARNING, "Samples in a minibatch.")

Everything else is derived from that: the option of the command line, the key in a sweep's TOML file, the
value in a run's JSON, the column of the Parquet file, and the words of the command that makes a run again.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args, get_type_hints

from offbeat.core.errors import SettingError

# The scopes of settings, as they head the options of the command line.
SCOPES = TASK, WORLD, LEARNING, RUNNING = "What is compared", "The world", "Learning", "Running and output"

USUAL_AGENTS = 9  # how many there are when nothing says


def whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise SettingError(f"'{name}' must be a whole number; got {value!r}.")
    return int(value)


def real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SettingError(f"'{name}' must be a number; got {value!r}.")
    return float(value)


def finite(name: str, value: object) -> float:
    number = real(name, value)
    if not math.isfinite(number):
        raise SettingError(f"'{name}' must be finite; got {value!r}.")
    return number


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SettingError(f"'{name}' must be text; got {value!r}.")
    return value


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise SettingError(f"'{name}' must be true or false; got {value!r}.")
    return value


def path(name: str, value: object) -> str | Path:
    return value if isinstance(value, Path) else text(name, value)


def as_word(value: object) -> str:
    """A value of JSON as the command line takes it: a number with all of its digits, and without a +."""
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else repr(float(value)).replace("e+", "e")
    return str(value)


@dataclass(frozen=True)
class Kind:
    """What the values of a setting are."""

    option: Any  # the type of its option on the command line
    column: str  # the type of its column in a Parquet file
    check: Callable[[str, Any], Any]  # (name, value given from Python) -> the value; raises SettingError
    spelt: Callable[[str, Any], Any]  # the same for a value in a TOML file -> the one way to spell it
    record: Callable[[Any], Any] = lambda value: value  # value -> a JSON-ready one
    # JSON-ready value -> the values of the option, one for each time that it is given; "": it takes none
    words: Callable[[Any], list[str]] = lambda value: [as_word(value)]


WHOLE = Kind(int, "int64", whole, whole)
REAL = Kind(float, "float64", real, finite)
TEXT = Kind(str, "string", text, text)
PATH = Kind(Path, "string", path, text, str)
FLAG = Kind(bool, "bool", flag, flag, words=lambda on: [""] * on)
KINDS = {bool: FLAG, int: WHOLE, float: REAL, str: TEXT}  # of fields that are annotated so and name none


@dataclass(frozen=True)
class Setting:
    """A declared setting; `usual` and `needs` are functions of all settings of a run."""

    name: str
    default: Any
    kind: Kind
    scope: str
    help: str
    live: bool  # whether it applies to live runs too
    brief: bool  # whether the command that makes a run again leaves it out where it is as by default
    usual: Callable[[Mapping[str, Any]], Any] | None  # what it is where nobody says; None: the default
    needs: Callable[[Mapping[str, Any]], bool] | None  # whether it means anything; None: always
    also: str  # another name of its option

    def checked(self, value: Any) -> Any:
        """A value given from Python; None stays None where that is the default. Raises SettingError."""
        return None if value is None and self.default is None else self.kind.check(self.name, value)

    def is_usual(self, settings: Mapping[str, Any]) -> bool:
        """Whether it is as it is where nobody says."""
        usual = None if self.default is None else self.kind.record(self.default)
        return bool(settings.get(self.name) == (self.usual(settings) if self.usual else usual))


def setting(
    default: Any,
    scope: str,
    help: str,
    kind: Kind | None = None,
    *,
    live: bool = True,
    brief: bool = False,
    usual: Callable[[Mapping[str, Any]], Any] | None = None,
    needs: Callable[[Mapping[str, Any]], bool] | None = None,
    also: str = "",
) -> Any:
    """Declare a field of a dataclass as a setting; see `Setting`."""
    return field(default=default, metadata={"setting": (kind, scope, help, live, brief, usual, needs, also)})


@cache
def declared(cls: type) -> dict[str, Setting]:
    found, hints = {}, get_type_hints(cls)
    for f in fields(cls):
        if "setting" in f.metadata:
            kind, *more = f.metadata["setting"]
            kind = kind or KINDS[(get_args(hints[f.name]) or (hints[f.name],))[0]]
            found[f.name] = Setting(f.name, f.default, kind, *more)
    return found


class Settings(dict[str, Any]):
    """The settings of a run, JSON-ready, by name. Attributes: of: the dataclasses that declare them"""

    def __init__(self, values: Mapping[str, Any] | None = None, of: tuple[type, ...] = ()) -> None:
        super().__init__(values or {})
        self.of = of

    def __or__(self, more: Mapping[str, Any]) -> "Settings":  # type: ignore[override]
        return Settings({**self, **more}, self.of)

    def declared(self) -> list[Setting]:
        return [each for cls in self.of for each in declared(cls).values()]

    def departures(self) -> dict[str, Any]:
        """What is not as it is where nobody says, and what is not declared, in their order."""
        usual = {each.name for each in self.declared() if each.is_usual(self)}
        return {name: value for name, value in self.items() if name not in usual}

    def idle(self) -> list[str]:
        """The names of those that mean nothing beside the others."""
        return [each.name for each in self.declared() if each.needs is not None and not each.needs(self)]

    def words(self, live: bool = False) -> list[tuple[str, str]]:
        """The options that give these settings on the command line: (name, value)."""
        said, idle = [], self.idle()
        for each in self.declared():
            value = self.get(each.name)
            means = (each.live or not live) and each.name not in idle
            if value is not None and means and not (each.brief and each.is_usual(self)):
                said += [(each.name, word) for word in each.kind.words(value)]
        return said
