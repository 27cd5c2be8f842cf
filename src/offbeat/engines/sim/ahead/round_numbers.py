"""Numbers of agents in rounds: what they keep, hear, give and multiply vectors by, carried as programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offbeat.core.agent import Message
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.numbers import Function, Number, Program, Question
from offbeat.engines.sim.ahead.placeholders import NotLinear, Terms
from offbeat.engines.sim.ahead.timetable import Floats


@dataclass(frozen=True)
class Varying:
    """In place of a coefficient that is not the same in every round: which of those it is."""

    which: int


@dataclass(frozen=True)
class Counted:
    """What is done with numbers in a round.

    Attributes:
        given: those of the letters that are sent in it, one letter after the other: of those of the state
        after: those of the state that follows, the coefficients of forms, and, so that nothing else is given
            where these are the same, those of the letters that were sent last: of those of the state, and of
            all that were heard, sender by sender
        varying: how many coefficients there are
    """

    given: Function
    after: Function
    varying: int


class Counting:
    """The numbers of one agent, round after round, as it is read."""

    def __init__(self) -> None:
        self._program, self._state = Program(0, (), _refuse), 0
        self._sent, self._given = list[Any](), self._program.function([])

    def heard(self, place: int, message: Message) -> dict[str, Number]:
        """What stands for those in the letter of a sender, which is like this one."""
        names, many = numbers_of(message), self._state
        return {
            name: Number(self._program, f"N[{many + place * len(names) + f}]") for f, name in enumerate(names)
        }

    def posted(self, messages: Sequence[Message], begins: bool) -> None:
        """These are sent; as a round begins they are those of the next one."""
        self._sent = [x for each in messages for x in numbers_of(each).values()]
        if not begins:
            self._given = self._program.function(self._sent)

    def ended(
        self, forms: Sequence[Terms], kept: Sequence[Number], begins: bool
    ) -> tuple[tuple[Terms, ...], Counted | None]:
        """The forms of the round; what is done with numbers in it, if these are those of the agent then."""
        varying = dict[str, int]()
        made = tuple([tuple([(what, k, _named(c, varying)) for what, k, c in terms]) for terms in forms])
        state: list[Any] = [*kept, *(self._sent if begins else ())]
        coefficients = [Number(self._program, name) for name in varying]
        after = self._program.function(state, coefficients, self._sent)
        counted = Counted(self._given, after, len(varying)) if state or varying or self._sent else None
        self._program, self._state = Program(len(state), (), _refuse), len(state)
        for number, name in zip(state, self._program.numbers, strict=True):
            if isinstance(number, Number):  # it is that of the state, from now on
                number.program, number.name = self._program, name.name
        if begins:
            self._sent = self._program.numbers[len(kept) :]
            self._given = self._program.function(self._sent)
        return made, counted


def numbers_of(message: Message) -> dict[str, Any]:
    """The numbers in a letter, but for its round."""
    fields = {name: getattr(message, name) for name in message.__dataclass_fields__ if name != "k"}
    return {name: x for name, x in fields.items() if isinstance(x, Number) or type(x) is float}


def _named(c: Any, varying: dict[str, int]) -> Any:
    return Varying(varying.setdefault(c.name, len(varying))) if isinstance(c, Number) else c


def _refuse(question: Question) -> Any:
    raise NotLinear("what it does depends on its numbers")


class RoundNumbers:
    """Those of a run, round after round.

    Args:
        senders: of each agent from whom its letters are, and which of the sender's
        wide: how many numbers are in a letter
    """

    def __init__(
        self, initial: Sequence[Counted | None], senders: Sequence[Sequence[tuple[int, int]]], wide: int
    ) -> None:
        self._senders, self._wide, self._made = senders, wide, dict[int, Floats]()
        self._state = [() if each is None else each.after(0.0, ())[0] for each in initial]

    def of(self, k: int, counted: Sequence[Counted | None]) -> Floats:
        """The coefficients in round k of all agents, one agent after the other, if this is what they count
        in it. Raises NoTimetable where a number is none.
        """
        if k not in self._made:
            self._made[k] = self._round(counted)
        return self._made[k]

    def forget(self, k: int) -> None:
        """Nothing of rounds before the k-th is needed any more."""
        self._made = {number: made for number, made in self._made.items() if number >= k}

    def _round(self, counted: Sequence[Counted | None]) -> Floats:
        wide, state, made = self._wide, self._state, list[float]()
        try:
            given = [each.given(0.0, N)[0] if each else () for each, N in zip(counted, state, strict=True)]
            for i, (each, senders) in enumerate(zip(counted, self._senders, strict=True)):
                if each is not None:
                    heard = [x for j, g in senders for x in given[j][g * wide : (g + 1) * wide]]
                    state[i], coefficients, _ = each.after(0.0, (*state[i], *heard))
                    made += coefficients
        except ArithmeticError:  # the simulator says what is wrong
            raise NoTimetable from None
        return np.array(made, dtype=np.float64)
