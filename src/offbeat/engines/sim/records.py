"""What a simulation has recorded and not made yet, and what stands for the values."""

import weakref
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress, pairwise
from typing import Protocol

import numpy as np

from offbeat.core.forms import Piece
from offbeat.core.system.kernel import Floats, Ints
from offbeat.core.vector import Later, Parts

NOWHERE = 1 << 62  # the place of what is in no row
Function = Callable[..., Parts]
_numbers = partial(array, "q")  # of which numpy makes arrays without a look at each


class Maker(Protocol):
    """Makes what is recorded."""

    def compute(self) -> None:
        """All of it."""

    def copied(self, place: int) -> Parts:
        """The parts of a value in this row, which may be used again."""


class Recorded(Later):
    """A value that is recorded, or was.

    Attributes:
        place: its row in the pools; until it is made -1 - its number among the records
        own: its parts, where it has no row, and once somebody has read them
        whole: what it is a piece of, the piece named `piece`; then it has no place of its own
    """

    __slots__ = ("__weakref__", "_maker", "own", "piece", "place", "whole")

    def __init__(self, maker: Maker, place: int, lengths: tuple[int, ...], nbytes: int) -> None:
        self._maker, self.place, self.lengths, self.nbytes = maker, place, lengths, nbytes
        self.own: Parts | None = None
        self.whole: Recorded | None = None

    piece: Piece

    def read(self) -> Parts:
        if self.own is None and self.place < 0:
            self._maker.compute()
        if self.own is None:
            whole = self.whole
            self.own = self._maker.copied(self.place) if whole is None else self.piece(whole.read())
        return self.own


@dataclass(eq=False)
class Records:
    """What is to be made, by number; each record makes one value.

    Attributes:
        made: these values
        forms: numbers of those that are forms; `first`: where the terms of each begin, `source` and `scale`;
            `cut`: places among them of those that make a piece, `pieces`: several may make one record so
        gradients: numbers of those that are gradients; `models`: places of the models, `agents`, `samples`:
            of whom, and on which minibatch
        apart: by number, what torch computes by itself: a function, the values that it takes, if it has a row
    """

    made: list["weakref.ref[Recorded]"] = field(default_factory=list)
    forms: "array[int]" = field(default_factory=_numbers)
    first: "array[int]" = field(default_factory=partial(array, "q", [0]))
    source: "array[int]" = field(default_factory=_numbers)
    scale: "array[float]" = field(default_factory=lambda: array("d"))
    cut: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    gradients: "array[int]" = field(default_factory=_numbers)
    models: "array[int]" = field(default_factory=_numbers)
    agents: list[int] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)
    apart: dict[int, tuple[Function, tuple[Recorded, ...], bool]] = field(default_factory=dict)


@dataclass(eq=False)
class Batch:
    """The same as arrays, by the same names.

    Attributes:
        boxes: the values to be made, of which somebody knows
        kept: of each value, whether that is so
    """

    boxes: Sequence[Recorded | None]
    kept: np.ndarray
    forms: Ints
    first: Ints
    source: Ints
    scale: Floats
    gradients: Ints
    models: Ints
    agents: Sequence[int]
    samples: Sequence[np.ndarray]
    cut: Sequence[int]
    pieces: Sequence[Piece]
    apart: dict[int, tuple[Function, tuple[Recorded, ...], bool]]

    @staticmethod
    def of(r: Records) -> "Batch":
        """These records, if they have no pieces without forms and gradients that nobody takes."""
        boxes = [ref() for ref in r.made]
        kept = np.array([box is not None for box in boxes])
        forms, first, source, scale = (np.array(each) for each in (r.forms, r.first, r.source, r.scale))
        calls = np.array(r.gradients), np.array(r.models), r.agents, r.samples
        batch = Batch(boxes, kept, forms, first, source, scale, *calls, r.cut, r.pieces, r.apart)
        return batch if r.pieces else batch.needed()

    @property
    def taken(self) -> tuple[Ints, Ints]:
        """Places of values that forms and gradients take, and the numbers of those that take them."""
        taker = np.repeat(self.forms, np.diff(self.first)), self.gradients
        return np.concatenate([self.source, self.models]), np.concatenate(taker)

    def needed(self) -> "Batch":
        """Without forms and gradients that nobody takes."""
        place, taker = self.taken
        recorded, kept = place < 0, self.kept  # (what `apart` takes is)
        place, taker, before, needed = ~place[recorded], taker[recorded], np.zeros_like(kept), True | kept
        while (needed != before).any():  # at each turn without what only those take that the last left out
            before, needed = needed, kept.copy()
            needed[place[before[taker]]] = True
        of_forms, of_gradients = needed[self.forms], needed[self.gradients]
        if of_forms.all() and of_gradients.all():
            return self
        terms = np.diff(self.first)
        of_terms = np.repeat(of_forms, terms)
        return replace(
            self, forms=self.forms[of_forms], first=np.append(0, np.cumsum(terms[of_forms])),
            source=self.source[of_terms], scale=self.scale[of_terms], gradients=self.gradients[of_gradients],
            models=self.models[of_gradients], agents=[*compress(self.agents, of_gradients)],
            samples=[*compress(self.samples, of_gradients)],
        )  # fmt: skip

    def by_depth(self) -> Ints:
        """Their numbers by depth, of one depth the gradients first."""
        count = len(self.boxes)
        takes: list[list[int]] = [[]] * count
        source = self.source.tolist()
        for number, (low, high) in zip(self.forms.tolist(), pairwise(self.first.tolist()), strict=True):
            takes[number] = takes[number] + source[low:high]
        for number, place in zip(self.gradients.tolist(), self.models.tolist(), strict=True):
            takes[number] = [place]
        for number, (_, boxes, _) in self.apart.items():
            takes[number] = places(boxes)
        depth, later = [0] * count, [True] * count
        for number in self.gradients.tolist():
            later[number] = False
        for number, those in enumerate(takes):
            highest = max([depth[~place] for place in those if place < 0], default=0)
            depth[number] = highest if later[number] else highest + 1
        return np.array(sorted(range(count), key=lambda number: (depth[number], later[number])))


def places(boxes: Iterable[Recorded]) -> list[int]:
    """The places of values, and of what they are pieces of, without those that are in no row."""
    found = [box.place if box.whole is None else box.whole.place for box in boxes]
    return [place for place in found if place != NOWHERE]
