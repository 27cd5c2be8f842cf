"""What agents do round after round, or averaging after averaging: it repeats itself after a while."""

from typing import Generic, TypeVar

Part = TypeVar("Part")

LONGEST = 32  # rounds or averagings after which what an agent makes has to have repeated itself


class Repeating(Generic[Part]):
    """Part after part.

    Attributes:
        once: of which there is one each; again: those that are repeated from then on
    """

    once: tuple[Part, ...]
    again: tuple[Part, ...]

    def at(self, k: int) -> int:
        """Which of all the k-th is."""
        return k if k < len(self.once) else len(self.once) + (k - len(self.once)) % len(self.again)

    @property
    def all(self) -> tuple[Part, ...]:
        """Each once."""
        return self.once + self.again
