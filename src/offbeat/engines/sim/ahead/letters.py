"""What an agent makes of letters that it hears and keeps: whose versions its vectors are."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, get_type_hints

from offbeat.core.agent import Message
from offbeat.core.vector import Vector
from offbeat.engines.sim.ahead.fields import PLAIN
from offbeat.engines.sim.ahead.numbers import Program
from offbeat.engines.sim.ahead.placeholders import GRADIENT, HEARD, STATE, Made, NotLinear, Source

LETTER = 1  # the mark of a vector out of a letter; of one that moves on with a register: a number beyond it


class Seen:
    """The vectors that a handler finds: those that the agent has, and those that come with what happens, each
    with its mark.

    Attributes:
        many: how many the agent has; heard: how many come with what happens
        names: what each is
        stamped: of those that others have made the mark, and of which version it is, as `Done` counts these
    """

    def __init__(
        self, own: Sequence[Vector], marks: Sequence[int], heard: Sequence[tuple[Vector, int]], gradient: bool
    ) -> None:
        stamped = [k for k, mark in enumerate(marks) if mark]
        self.many, self.heard = len(own), len(heard)
        self.names = {id(v): (STATE, k) for k, v in enumerate(own)}
        self.names |= {id(v): (GRADIENT if gradient else HEARD, f) for f, (v, _) in enumerate(heard)}
        self.stamped = {id(own[k]): (marks[k], s) for s, k in enumerate(stamped)}
        self.stamped |= {id(v): (mark, len(stamped)) for v, mark in heard if mark}

    def had(self, v: Vector) -> bool:
        """Whether the agent had it before, or has heard it; a gradient is new."""
        return self.names.get(id(v), (GRADIENT, 0))[0] != GRADIENT

    def entered(self, v: Vector) -> set[int]:
        """Which versions of others entered a form, through others too."""
        if id(v) in self.names:
            return {self.stamped[id(v)][1]} if id(v) in self.stamped else set()
        return set().union(*[self.entered(u) for u in v._made_of()])


@cache
def contents(kind: type[Message]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields of a type of message that are vectors, and those that are numbers."""
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind)]
    if any(hints[name] not in (Vector, int, float, bool) for name in names):
        raise NotLinear("its letters have fields that are declared neither a vector nor a number")
    vectors = tuple([name for name in names if hints[name] is Vector])
    return vectors, tuple([name for name in names if name not in vectors])


def loosened(kept: Any, program: Program) -> Any:
    """A letter that is kept, or what is like one: its numbers count as not known."""
    if type(kept) in PLAIN or not is_dataclass(kept):
        return kept
    values = vars(kept)
    known = {name: program.known(x) for name, x in values.items() if type(x) in (int, float)}
    made: Any = kept
    return replace(made, **known) if known and any(isinstance(v, Vector) for v in values.values()) else kept


def value_of(made: Made, v: Vector, seen: Seen) -> Source:
    """What a vector is that is kept or given away: what is pinned, that itself, unless it came by mail."""
    if id(v) not in made.known and len(v._terms) == 1 and v._parts is None:
        ((scale, of),) = v._terms
        if type(scale) is float and scale == 1.0 and seen.stamped.get(id(of), (0, 0))[0] != LETTER:
            return value_of(made, of, seen)
    return made.source(v)
