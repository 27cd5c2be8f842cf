"""A number for every link of a world: its latency, bandwidth or loss, in each direction."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from offbeat.core.errors import SettingError


@dataclass(frozen=True)
class PerLink:
    """A number for each link from one agent to another: `usual`, but for those in `own`.

    Attributes:
        usual: of every link that is not in `own`; NaN: no other link has one, and none may be used
        own: (sender, receiver) -> number; the way back is a link of its own
        source: which file the numbers are from, and what is in it
        hint: how all other links are given a number where these are from; empty: in no way
    """

    usual: float
    own: Mapping[tuple[int, int], float] = field(default_factory=dict)
    source: str = field(default="", compare=False)
    hint: str = field(default="`usual` gives all other links a number", compare=False, repr=False)

    def __call__(self, sender: int, receiver: int) -> float:
        return self.own.get((sender, receiver), self.usual)

    @property
    def values(self) -> list[float]:
        return [*([] if math.isnan(self.usual) and self.own else [self.usual]), *self.own.values()]

    @property
    def uniform(self) -> bool:
        """Whether all links have the same number."""
        return all(value == self.usual for value in self.own.values())

    def __str__(self) -> str:
        """From where to where the numbers are."""
        low, high = min(self.values), max(self.values)
        return f"{low:g}" if low == high else f"{low:g} to {high:g} by link"

    def check(self, what: str, low: float, high: float) -> None:
        """Raise SettingError unless all numbers are in [low, high]."""
        usual = [] if math.isnan(self.usual) and self.own else [(None, self.usual)]
        for link, value in [*usual, *self.own.items()]:
            if not low <= value <= high:
                where = "" if link is None else f" from agent {link[0]} to {link[1]}"
                got = f"{what}{where} is {value}{f', in {self.source}' if self.source else ''}"
                raise SettingError(f"{got}; expected a number from {low:g} to {high:g}.")

    def check_used(self, what: str, links: Iterable[tuple[int, int]], why: str = "") -> None:
        """Raise SettingError unless each of these links, that are used, has a number."""
        for sender, receiver in links:
            if math.isnan(self(sender, receiver)):
                which = f"from agent {sender} to {receiver}, nor for the way back{why}"
                said = f"{what} has no number for the link {which}{f', in {self.source}' * bool(self.source)}"
                raise SettingError(f"{said}. Expected one of them{f'; {self.hint}' * bool(self.hint)}.")
