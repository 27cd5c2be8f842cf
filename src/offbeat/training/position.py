"""Where the loops over a loader are."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False)
class Position:
    """Where the loops over a loader are: before batch `batch` of epoch `epoch`, both counted from 0.

    Attributes:
        size: the number of batches in an epoch, if that is known
        begun: whether a loop of this process is, or was, in that epoch; the next one begins another
        moves: how often it was put elsewhere
        turn: the number of loops so far
        active: of those that are going on
        ends: which of them is to end, as the run has done enough
        on_early_end: called if it then ends within its epoch, before what the script does after an epoch
        of: which share of how many an epoch that has begun is of: (rank, world); nothing: it is not known
    """

    epoch: int = 0
    batch: int = 0
    size: int | None = None
    begun: bool = False
    moves: int = 0
    turn: int = 0
    active: int = 0
    ends: int = 0
    on_early_end: Callable[[], object] = lambda: None
    of: tuple[int, ...] = ()

    def next(self) -> tuple[int, int]:
        """Epoch and batch of what comes next; known at the last batch already, where the size is."""
        return (self.epoch + 1, 0) if self.batch and self.batch == self.size else (self.epoch, self.batch)

    def move(self, epoch: int, batch: int, of: tuple[int, ...] = ()) -> None:
        """Go elsewhere: the next loop, and one that is going on, go on there."""
        self.epoch, self.batch, self.begun, self.moves = epoch, batch, False, self.moves + 1
        self.of = of

    def open(self) -> None:
        """A loop begins, or goes on after a move."""
        self.epoch, self.batch = (self.epoch + 1, 0) if self.begun else self.next()
        self.begun = True

    def close(self) -> None:
        self.epoch, self.batch, self.begun = self.epoch + 1, 0, False
