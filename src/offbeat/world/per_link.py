"""A number for every link of a world: its latency, bandwidth or loss, in each direction."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from offbeat.core.errors import SettingError


@dataclass(frozen=True)
class PerLink:
    """A number for each link from one agent to another: `usual`, but for those in `own`.

    Attributes:
        usual: of every link that is not in `own`
        own: (sender, receiver) -> number; the way back is a link of its own
        source: which file the numbers are from, and what is in it
    """

    usual: float
    own: Mapping[tuple[int, int], float] = field(default_factory=dict)
    source: str = field(default="", compare=False)

    def __call__(self, sender: int, receiver: int) -> float:
        return self.own.get((sender, receiver), self.usual)

    @property
    def values(self) -> list[float]:
        return [self.usual, *self.own.values()]

    @property
    def uniform(self) -> bool:
        """Whether all links have the same number."""
        return all(value == self.usual for value in self.own.values())

    def __str__(self) -> str:
        """Where the numbers are from; or the number, or from where to where they are."""
        if self.source or self.uniform:
            return self.source or f"{self.usual:g}"
        return f"{min(self.values):g} to {max(self.values):g} by link"

    def check(self, what: str, low: float, high: float) -> None:
        """Raise SettingError unless all numbers are in [low, high]."""
        for link, value in [(None, self.usual), *self.own.items()]:
            if not low <= value <= high:
                where = "" if link is None else f" from agent {link[0]} to {link[1]}"
                raise SettingError(f"{what}{where} is {value}; expected a number from {low:g} to {high:g}.")
