"""How the user's own code is named: FILE.py:NAME or FILE.py:NAME(h=10). `core.system.own` loads it."""

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offbeat.core.errors import SettingError, unknown

FORM = "expected FILE.py:NAME, or with options FILE.py:NAME(h=10)"
BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


@dataclass(frozen=True)
class Own:
    """What a text names. options: what stands in the parentheses, literals by keyword"""

    file: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def parse(text: str) -> "Own | None":
        """None if the text names no file of Python's. Raises SettingError if it cannot be read."""
        quoted = re.fullmatch(r'"(.*)"', text.strip(), re.DOTALL)
        match = re.fullmatch(r"(.+?\.py)(?::(.*))?", quoted[1] if quoted else text.strip(), re.DOTALL)
        if match is None:
            return None
        file, rest = match[1], match[2]
        named = re.fullmatch(r"\s*([^\W\d]\w*)\s*(\(.*\))?\s*", rest or "", re.DOTALL)
        if named is None:
            raise SettingError(f"'{text}' does not say what is meant in {file}; {FORM}.")
        return Own(file, named[1], _options(text, named[2] or "()"))

    @property
    def short(self) -> str:
        """Without its file: 'Mine(h=10)'."""
        return self.name + called(self.options)

    def __str__(self) -> str:
        said = f"{self.file}:{self.short}"
        return f'"{said}"' if "," in self.file else said  # so that `separated` leaves it whole

    def elsewhere(self) -> "Own":
        """The same for a process with another current folder: the file's path is absolute."""
        return Own(str(Path(self.file).resolve()), self.name, self.options)


def unknown_name(what: str, text: str, got: str, known: Iterable[str]) -> SettingError:
    """The error for a name that is not in a table; if its file lacks only the ending, how it is written.

    Args:
        text: what was said; `got` is the name in it
    """
    file, _, name = text.partition(":")
    if Path(f"{file}.py").is_file():
        name = name or "NAME"
        return SettingError(
            f"Unknown {what} '{text}'. There is a {file}.py: did you mean '{file}.py:{name}'?"
        )
    return unknown(what, got, known)


def elsewhere(text: str, suffixes: tuple[str, ...] = ()) -> str:
    """What a text names, for a process with another folder; also a file with one of these suffixes."""
    if (named := Own.parse(text)) is not None:
        return str(named.elsewhere())
    return str(Path(text).resolve()) if Path(text).suffix.lower() in suffixes else text


def without_folder(text: str) -> str:
    """As it is shown: '/home/me/mine.py:make_task' is 'mine.py:make_task', 'graphs/a.csv' is 'a.csv'."""
    named = re.fullmatch(r'"?[^(]*/([^/(]+\.\w+(?::.*?)?)"?', text, re.DOTALL)
    return named[1] if named else text


def called(options: Mapping[str, Any]) -> str:
    """Options as they are written: "(h=10)", or nothing where there are none."""
    return f"({', '.join(f'{name}={value!r}' for name, value in options.items())})" if options else ""


def _options(text: str, words: str) -> dict[str, Any]:
    """The keywords and literals between these parentheses; nothing is evaluated."""
    try:
        call = ast.parse(f"f{words}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise ValueError("there is more than keywords")
        found = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg is not None}
        if len(found) < len(call.keywords):
            raise ValueError("a keyword is there twice")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        literals = "options are different keywords with numbers, text, True, False, None, or lists of such"
        raise SettingError(
            f"Cannot read the options of '{text}'; {literals}, as in (h=10, mode='fast')."
        ) from None
    return found


def separated(text: str, mark: str = ",") -> list[str]:
    """Names with commas, or a mark, between: 'adsgd,mine.py:Mine(h=1, k=2),"a,b/mine.py:Mine"' are three."""
    parts, depth, quote, escaped = [""], 0, "", False
    for letter in text:
        if quote:
            quote, escaped = (
                ("" if letter == quote and not escaped else quote),
                letter == "\\" and not escaped,
            )
        elif (depth and letter in "'\"") or (letter == '"' and not parts[-1].strip()):
            quote, escaped = letter, False
        elif letter in BRACKETS:
            depth = max(0, depth + BRACKETS[letter])
        if letter == mark and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
