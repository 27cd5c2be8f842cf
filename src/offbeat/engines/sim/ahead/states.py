"""What agents of a class are between their handlers, and what these make: what `reading` finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from offbeat.core.agent import Message
from offbeat.core.forms import Piece
from offbeat.engines.outbox import vectors
from offbeat.engines.sim.ahead.placeholders import Cuts, Terms

MODEL, ASKED, GIVEN = range(3)
"""The vectors of a state: the model, where the gradient is taken, from here on what was given last, slot by
slot; then those in the agent's fields."""


@dataclass(frozen=True)
class Slot:
    """What an agent gives at once: while it waits the newest wins, or all is summed.

    Attributes:
        kind: of the message
        to: its receivers
        fields: of the message, which are vectors
        sums: whether it is summed, and arrives as mail
        before: whether it is the model of before the gradient
        first: of the state's vectors, the first that is its own
    """

    message: Message
    to: tuple[int, ...]
    fields: tuple[str, ...]
    sums: bool
    before: bool
    first: int

    @property
    def kind(self) -> str:
        return type(self.message).__name__

    @property
    def nbytes(self) -> int:
        return sum([v.nbytes for v in vectors(self.message).values()])


@dataclass(eq=False)
class State:
    """What an agent is between two handlers: its fields, pickled, and what its vectors are.

    Attributes:
        cuts: of each vector, which piece of a model it is; None: it is as long as one
        told: for what may be heard, one after another, what becomes of it; done: what a gradient makes; idle:
            what may be heard and changes nothing; as far as it is known
        steady: whether nothing that may happen makes another state of it; None: not known
    """

    fields: bytes
    cuts: tuple[Piece | None, ...]
    told: dict[tuple[int, ...], "Template"] = field(default_factory=dict)
    idle: set[int] = field(default_factory=set)
    done: "Template | None" = None
    steady: bool | None = None

    @property
    def many(self) -> int:
        return len(self.cuts)

    @property
    def same(self) -> "Template":
        """What becomes of it when nothing happens."""
        return Template((), (), self, False, (), idle=True)


@dataclass(eq=False)
class Template:
    """What a handler makes of a state.

    Attributes:
        cells: linear forms, one after the other
        cuts: of those that make pieces of models, which
        outs: for each vector of the new state, the cell that it is
        then: the new state
        gives: whether something is given away
        mixed: which of what was heard entered the model
        number: among all of the reading
        idle: whether no vector changes, so that there is nothing to make
        adding: the same where what was given before still waits, and is added to
    """

    cells: tuple[Terms, ...]
    outs: tuple[int, ...]
    then: State
    gives: bool
    mixed: tuple[int, ...]
    cuts: Mapping[int, Cuts] = field(default_factory=dict)
    number: int = -1
    idle: bool = False
    adding: "Template | None" = None
