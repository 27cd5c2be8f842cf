"""Numbers that are said by name: what they may be, and how a name with some of them is read and spelt.

After a colon a name has its main number, 'momentum:0.95', or several by name, with + between:
'adamw:beta2=0.95+weight_decay=0.1'.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from offbeat.core.errors import SettingError, unknown
from offbeat.core.settings import as_word


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a number may be.

    Attributes:
        low, high: the smallest and the largest
        above, below: whether `low` itself is too small, and `high` too large
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

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
        number = float(said)
        if not math.isfinite(number) or not self.low <= number <= self.high:
            raise ValueError
        if (self.above and number == self.low) or (self.below and number == self.high):
            raise ValueError
        if number != type(usual)(number):
            raise ValueError
        return type(usual)(number)


@dataclass(frozen=True, kw_only=True)
class Parameter(Bounds):
    """A number of a row of a table.

    Attributes:
        about: what it is
        usual: what it is where nobody says; None: something else decides, or, if `asked`, it must be said
    """

    about: str
    usual: float | None = None
    asked: bool = False

    def read(self, owner: str, name: str, said: str | float) -> float:
        """What was said of it. Raises SettingError for what it does not take."""
        try:
            return self.value(said, 0.0)
        except ValueError:
            expected = f"{self.about}: {self.takes(0.0)}"
            hint = " Several go with + between." * ("," in str(said))
            raise SettingError(f"'{name}' of {owner} is {expected}; got '{said}'.{hint}") from None


Parameters = Mapping[str, Parameter]


def read(what: str, name: str, words: Iterable[str], parameters: Parameters, main: str) -> dict[str, float]:
    """The numbers that these words say of `name`: 'weight_decay=0.1', or '0.95' for the one called `main`.

    Raises SettingError for others; `what` has such names, "optimizer".
    """
    found = dict[str, float]()
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals and main and not found:
            key, value = main, key
        elif not equals:
            few = ", ".join(f"{each}=..." for each in parameters) or "nothing behind it"
            raise SettingError(f"Cannot read '{word}' behind the {what} '{name}'; expected {few}, + between.")
        if key not in parameters:
            raise unknown(f"parameter of the {what} {name}", key, parameters)
        if key in found:
            raise SettingError(f"The {what} {name} is given '{key}' twice; expected it once.")
        found[key] = parameters[key].read(name, key, value)
    for key, each in parameters.items():
        if each.asked and key not in found:
            raise SettingError(f"The {what} {name} needs {each.about}, as in '{name}:20'.")
    return found


def spelt(name: str, said: Mapping[str, float], parameters: Parameters, main: str) -> str:
    """The one way to spell it: what is as usual is left out."""
    order = [main, *(each for each in parameters if each != main)] if main else [*parameters]
    kept = {each: said[each] for each in order if each in said and said[each] != parameters[each].usual}
    words = [as_word(value) if each == main else f"{each}={as_word(value)}" for each, value in kept.items()]
    return f"{name}:{'+'.join(words)}" if words else name


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
