"""Learning rates as they are said: a number, or one that is coupled to the number of agents n."""

import math
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from offbeat.core.errors import SettingError
from offbeat.core.settings import as_word

EXPECTED = "a number, or one that is coupled to the number of agents n: 0.01n, '0.01sqrt(n)'"
FACTOR = re.compile(r"sqrt\(n\)|n")
WRITTEN = re.compile(rf"\s*([^\s*ns]+?)((?:\s*\*?\s*(?:{FACTOR.pattern}))*)\s*")


@dataclass(frozen=True)
class Rate:
    """base * n^power, a learning rate with n agents; the power is a multiple of 1/2."""

    base: float
    power: float = 0.0

    @staticmethod
    def of(said: Any, also: str = "; or 'tuned'") -> "Rate":
        """A number, or text: '0.01', '0.01n', '0.01*sqrt(n)', '0.01n*n'. Raises SettingError.

        Args:
            said: what was given
            also: what else is expected there, in words
        """
        if isinstance(said, Real) and not isinstance(said, bool):
            return Rate(float(said))
        if isinstance(said, str):
            with suppress(ValueError):
                return Rate(float(said))
        if isinstance(said, str) and (found := WRITTEN.fullmatch(said)):
            with suppress(ValueError):
                factors = FACTOR.findall(found[2])
                return Rate(float(found[1]), sum(0.5 if each == "sqrt(n)" else 1.0 for each in factors))
        raise SettingError(f"Cannot read the learning rate {said!r}; expected {EXPECTED}{also}.")

    @property
    def coupled(self) -> bool:
        return self.power != 0

    @property
    def said(self) -> float | str:
        """The number, or the one way to say what is coupled: '0.01n', '0.01sqrt(n)', '0.01n*n'."""
        if not self.coupled:
            return self.base
        factors = ["n"] * math.floor(self.power) + ["sqrt(n)"] * (self.power % 1 > 0)
        return as_word(self.base) + "*".join(factors)

    def at(self, n: int) -> float:
        """What it comes to with n agents."""
        return self.base * math.pow(n, self.power)

    def times_n(self, times: int = 1) -> "Rate":
        return replace(self, power=self.power + times)


def above_zero(lr: float, whose: str) -> float:
    """The learning rate of `whose` algorithm, as it is. Raises SettingError unless it is finite and > 0."""
    if not 0 < lr < math.inf:
        comma = " A comma separates rates: write 0.01, not 0,01." * (lr == 0)
        raise SettingError(f"A learning rate is a finite number > 0; got {lr:g} for {whose}.{comma}")
    return lr
