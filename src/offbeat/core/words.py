"""Numbers that are said by name: what they may be, and how a name with some of them is read and spelt.

After a colon a name has its main number, 'momentum:0.95', or several by name, with + between:
'adamw:beta2=0.95+weight_decay=0.1'; what takes no number is named alone, 'dsgd:after'. Algorithms,
optimizers, schedules and ways to compress are named so. What is spelt here is read back to the same numbers.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from offbeat.core.errors import SettingError, unknown
from offbeat.core.settings import as_word

WHOLE = re.compile(r"\s*[+-]?\d[\d_]*(\.0*)?\s*")
"""A whole number as it is written: as the options of the command line take one, so not as 1e3."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a number may be.

    Attributes:
        low, high: the smallest and the largest
        above, below: whether `low` itself is too small, and `high` too large
        example: one that it may be, where what it is if nobody says is none
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    example: float = 20.0

    def takes(self, usual: float) -> str:
        """What it expects, by the type of the value that it has without being named."""
        if isinstance(usual, bool):
            return "no value"
        kind = "a whole number" if isinstance(usual, int) else "a number"
        ends = [f"{'above' if self.above else 'at least'} {self.low:g}"] if self.low > -math.inf else []
        ends += [f"{'below' if self.below else 'at most'} {self.high:g}"] if self.high < math.inf else []
        return ", ".join([kind, *ends])

    def value(self, said: str | float, usual: float) -> float:
        """What was said, as a value of the type of `usual`. Raises ValueError for what it does not take."""
        if isinstance(usual, int) and isinstance(said, str) and not WHOLE.fullmatch(said):
            raise ValueError
        number = _number(said)
        if not math.isfinite(number) or not self.low <= number <= self.high:
            raise ValueError
        if (self.above and number == self.low) or (self.below and number == self.high):
            raise ValueError
        if number != type(usual)(number):
            raise ValueError
        return type(usual)(number)


def _number(said: str | float) -> float:
    """A whole number keeps all of its digits."""
    try:
        number = said if isinstance(said, int | float) else int(said)
    except ValueError:
        number = float(said)
    try:
        float(number)
    except OverflowError:
        raise ValueError from None
    return number


@dataclass(frozen=True, kw_only=True)
class Parameter(Bounds):
    """A number of a row of a table, or what is named alone: then `usual` is False.

    Attributes:
        about: what it is
        usual: what it is where nobody says; None: something else decides, or, if `asked`, it must be said
    """

    about: str = ""
    usual: float | None = None
    asked: bool = False

    def read(self, owner: str, name: str, said: str | float | None) -> float:
        """What was said of it; None: its name alone. Raises SettingError for what it does not take."""
        usual = 0.0 if self.usual is None else self.usual
        flag = isinstance(usual, bool)
        try:
            if flag == (said is None):
                return True if said is None else self.value(said, usual)
        except ValueError:
            pass
        got = "nothing" if said is None else f"'{said}'"
        example = f"{name}" if flag else f"{name}={as_word(self.shown)}"
        as_in = f"{'' if flag else 'as in '}'{owner}{'+' if ':' in owner else ':'}{example}'"
        about = f" It is {self.about}." * bool(self.about)
        several = " Several go with + between." * ("," in str(said))
        raise SettingError(
            f"{name} of {owner} takes {self.takes(usual)}, {as_in}; got {got}.{about}{several}"
        )

    @property
    def shown(self) -> float:
        """A number that it takes: the usual one, if it is one."""
        try:
            return self.example if self.usual is None else self.value(self.usual, self.usual)
        except ValueError:
            return self.example


Parameters = Mapping[str, Parameter]


def parts(text: str) -> list[str]:
    """What stands with + between; that of a number, 1e+22, is none, since no name begins with a digit."""
    return [each.strip() for each in re.split(r"\+(?!\d)", text)]


def headed(text: str) -> tuple[str, list[str]]:
    """A name, and the words behind its colon: 'momentum:0.95' is of 'momentum'."""
    name, colon, rest = (part.strip() for part in text.strip().partition(":"))
    return name, parts(rest) if colon else []


def option(word: str) -> tuple[str, str | None]:
    """The name and the value of 'weight_decay=0.1'; None where there is no value."""
    key, equals, value = (part.strip() for part in word.partition("="))
    return key.replace("-", "_") if key[:1].isalpha() else key, value if equals else None


def read(
    what: str, name: str, words: Iterable[str], parameters: Parameters, main: str = ""
) -> dict[str, float]:
    """The numbers that these words say of `name`: 'weight_decay=0.1', or '0.95' for the one called `main`.

    Raises SettingError for others; `what` has such names, "optimizer".
    """
    found, words = dict[str, float](), list(words)
    for word in words:
        key, value = option(word)
        if value is None and main and not found:
            key, value = main, key
        if not parameters:
            raise SettingError(f"The {what} {name} has no options; got '{word}'.")
        if value is None and not key[:1].isalpha():
            raise _unreadable(what, name, word, parameters)
        if value is not None and ":" in value:
            raise _unreadable(what, name, word, parameters, _meant(words, what, name, parameters, main))
        if key not in parameters:
            raise unknown(f"option of the {what} {name}", key, parameters)
        if key in found:
            raise SettingError(f"The {what} {name} is given '{key}' twice; expected it once.")
        found[key] = parameters[key].read(name, key, value)
    for key, each in parameters.items():
        if each.asked and key not in found:
            raise SettingError(f"The {what} {name} needs {each.about}, as in '{name}:{as_word(each.shown)}'.")
    return found


def _unreadable(what: str, name: str, word: str, parameters: Parameters, meant: str = "") -> SettingError:
    few = ", ".join(each if one.usual is False else f"{each}=..." for each, one in parameters.items())
    hint = f". Did you mean '{meant}'?" if meant else f"; expected {few}, + between."
    return SettingError(f"Cannot read '{word}' behind the {what} '{name}'{hint}")


def _meant(words: list[str], what: str, name: str, parameters: Parameters, main: str) -> str:
    """What is read, where these words with : between numbers are not; empty if nothing near them is."""
    pieces = [piece.strip() for word in words for piece in word.split(":")]
    keys = {option(piece)[0] for piece in pieces}
    free = (each for each, one in parameters.items() if each not in {*keys, main} and one.usual is not False)
    for k, piece in enumerate(pieces):
        if piece[:1].isalpha() or (k == 0 and main):
            continue
        if (key := next(free, None)) is None:
            return ""
        pieces[k] = f"{key}={piece}"
    try:
        read(what, name, pieces, parameters, main)
    except SettingError:
        return ""
    return f"{name}{'+' if ':' in name else ':'}{'+'.join(pieces)}"


def spelt(name: str, said: Mapping[str, float], parameters: Parameters, main: str = "") -> str:
    """The one way to spell it: what is as usual is left out, and what is not has all of its digits."""
    order = [main, *(each for each in parameters if each != main)] if main else [*parameters]
    kept = {each: said[each] for each in order if each in said and said[each] != parameters[each].usual}
    words = [
        each if value is True else as_word(value) if each == main else f"{each}={as_word(value)}"
        for each, value in kept.items()
    ]
    return f"{name}{'+' if ':' in name else ':'}{'+'.join(words)}" if words else name


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a row of a table of names with numbers says of itself; `main` is the number that needs no name."""

    about: str
    parameters: Parameters = field(default_factory=dict)
    main: str = ""

    def written(self, name: str) -> str:
        """As in a list: 'momentum:MOMENTUM'."""
        return f"{name}:{self.main.upper()}" if self.main else name

    def facts(self) -> str:
        """What it is, and a line for each number."""
        lines = [self.about]
        for name, each in self.parameters.items():
            usual = "" if each.usual is None else f"; {each.usual:g} if nothing is said"
            lines += [f"{name.upper() if name == self.main else f'{name}='}: {each.about}{usual}"]
        return "\n".join(lines)
