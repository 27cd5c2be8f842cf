"""What handlers make in a simulation: written down while the heap runs, and computed later, much at once.

Timing never depends on values. So forms, gradients, and functions of values are only recorded, in the order
in which the oracle would compute them, each with the places of the values that it takes; they are computed
(`pools`) when there are enough of them, or when somebody reads a value. A piece of a model is its row, and a
range in it.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from offbeat.core.forms import Piece, Replaced, joined, pieces
from offbeat.core.sums import combined
from offbeat.core.vector import Applied, Parts, Scope, Torn, Vector
from offbeat.engines.sim.executors import Executor
from offbeat.engines.sim.pools import Pools
from offbeat.engines.sim.records import NOWHERE, Function, Recorded, Records
from offbeat.tasks.task import Task

LONGEST, PER_AGENT = 2048, 4
"""Records that are computed together where nobody asks for a value before: so many, and so many an agent."""


class Tape(Executor):
    """The executor that records."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.scope, self.records, self.pools = RecordingScope(self), Records(), Pools(task, self.compute)
        self.lengths = self.pools.lengths
        self.nbytes = self.pools.bytes_of(self.lengths)
        self._longest = LONGEST + PER_AGENT * task.agents
        self._constants = weakref.WeakValueDictionary[int, Recorded]()

    # -- what is recorded --------------------------------------------------------------------------

    def request(self, agent: int, x: Vector, sample: np.ndarray) -> None:
        self.open[agent] = self.value(x), sample

    def resolve(self, agent: int) -> Vector:
        if len(self.records.made) >= self._longest:
            self.compute()
        return Vector(self._gradient(agent) if agent in self.open else self.known.pop(agent))

    def _gradient(self, agent: int) -> Recorded:
        model, sample = self.open.pop(agent)
        records = self.records
        records.gradients.append(len(records.made))
        records.models.append(model.place)
        records.agents.append(agent)
        records.samples.append(sample)
        return self._new(self.lengths, self.nbytes)

    def record(self, v: Vector) -> None:
        """A vector that a handler has built: a form, or opaque."""
        if (make := v._make) is not None:
            if isinstance(make, Applied):
                v._parts = self._applied(make)
            else:
                v.parts  # noqa: B018  (what it reads may move on)
            return
        terms, lengths = v._terms, self.lengths
        if len(terms) == 1 and terms[0][0] == 1.0:
            v._parts = self.value(terms[0][1])
            return
        records = self.records
        source, scale = records.source, records.scale
        begin = len(source)
        for c, u in terms:
            box = u._parts if type(u._parts) is Recorded else self.value(u)
            if box.lengths is not lengths:
                del source[begin:], scale[begin:]
                self._of_pieces(v, terms)
                return
            source.append(box.place)
            scale.append(c)
        records.first.append(len(source))
        records.forms.append(len(records.made))
        v._parts = self._new(lengths, self.nbytes)

    def _of_pieces(self, v: Vector, terms: Sequence[tuple[float, Vector]]) -> None:
        """A form of what is not as long as a model."""
        takes = [self.value(u) for _, u in terms]
        cut = None if takes[0].whole is None else takes[0].piece
        wholes = [box.whole.place for box in takes if box.whole is not None and box.piece is cut]
        if cut is not None and len(wholes) == len(takes):
            records = self.records
            records.source.extend(wholes)
            records.scale.extend([c for c, _ in terms])
            records.cut.append(len(records.forms))
            records.pieces.append(cut)
            records.forms.append(len(records.made))
            records.first.append(len(records.source))
            v._parts = self._piece(self._new(self.lengths, self.nbytes), cut, takes[0].lengths)
        elif len({box.lengths for box in takes}) == 1:
            v._parts = self._apart(partial(combined, [c for c, _ in terms]), (*takes,), takes[0].lengths)
        else:
            v.parts  # noqa: B018  (torch says whether these can be added)

    def _piece(self, whole: Recorded, piece: Piece, lengths: tuple[int, ...]) -> Recorded:
        box = Recorded(self.pools, NOWHERE, lengths, self.pools.bytes_of(lengths))
        box.whole, box.piece = whole, piece
        return box

    def _applied(self, make: Applied) -> Recorded:
        """A function of values; a piece of a model takes no time, and a model of pieces little."""
        takes = tuple([u._parts if type(u._parts) is Recorded else self.value(u) for u in make.vectors])
        function = make.function
        if type(function) is Piece and takes[0].lengths is self.lengths:
            return self._piece(takes[0], function, make.lengths)
        if type(function) is Replaced and takes[0].lengths is self.lengths:
            which, given, cuts = function.which, takes[1:], pieces(function.n)
            places = [takes[0].place] * function.n
        elif function is joined:
            which, given, cuts = (*range(len(takes)),), takes, pieces(len(takes))
            places = [NOWHERE] * len(takes)
        else:
            return self._apart(function, takes, make.lengths)
        for c, box in zip(which, given, strict=True):
            if box.whole is None or (box.piece is not cuts[c] and box.piece != cuts[c]):
                return self._apart(function, takes, make.lengths)
            places[c] = box.whole.place
        return self._of_copies(places, cuts)

    def _of_copies(self, places: Sequence[int], cuts: Sequence[Piece]) -> Recorded:
        """A model made of these pieces of others."""
        records, count = self.records, len(cuts)
        forms, terms = len(records.forms), len(records.source) + 1
        records.source.extend(places)
        records.scale.extend([1.0] * count)
        records.cut.extend(range(forms, forms + count))
        records.pieces.extend(cuts)
        records.forms.extend([len(records.made)] * count)
        records.first.extend(range(terms, terms + count))
        return self._new(self.lengths, self.nbytes)

    def _apart(self, function: Function, takes: tuple[Recorded, ...], lengths: tuple[int, ...]) -> Recorded:
        has_row = lengths == self.lengths
        self.records.apart[len(self.records.made)] = function, takes, has_row
        if has_row:
            return self._new(self.lengths, self.nbytes)
        return self._new(lengths, self.pools.bytes_of(lengths))

    def _new(self, lengths: tuple[int, ...], nbytes: int) -> Recorded:
        box = Recorded(self.pools, ~len(self.records.made), lengths, nbytes)
        self.records.made.append(weakref.ref(box))
        return box

    def value(self, v: Vector) -> Recorded:
        """What stands for the value of this vector."""
        if type(v._parts) is Recorded:
            return v._parts
        there = v.value()
        assert isinstance(there, tuple)
        box = v._parts = self._constant(there)
        return box

    def _constant(self, there: Parts) -> Recorded:
        """What stands for tensors."""
        box = self._constants.get(id(there))
        if box is None:
            box = self._constants[id(there)] = self.pools.constant(there)
        return box

    # -- what is computed --------------------------------------------------------------------------

    def compute(self) -> None:
        """Make all values that are recorded; where that is done together, of gradients that are open too."""
        if self.pools.native is None:
            for agent in [*self.open]:
                self.known[agent] = self._gradient(agent)
        if self.records.made:
            records, self.records = self.records, Records()
            self.pools.make(records)

    def stacked(self, models: Iterable[Vector]) -> Parts:
        boxes = [self.value(v) for v in models]
        self.compute()
        if any(box.place == NOWHERE for box in boxes):
            return super().stacked([Vector(box) for box in boxes])
        return self.pools.gathered(np.array([box.place for box in boxes]))


class RecordingScope(Scope):
    """Has what handlers build recorded."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def settle(self, torn: Torn | None = None) -> None:
        record = self.tape.record
        for ref in self.born:
            v = ref()
            if v is None:
                continue
            if v._parts is None:
                record(v)
            v._terms = ()
            if v._open or v._make is not None:
                v._of, v._make, v._open = (), None, False
        self.born.clear()


ORACLE = "event-by-event"
EXECUTORS: dict[str, Callable[[Task], Executor]] = {"batched": Tape, ORACLE: Executor}
"""How gradients, and what handlers build, are evaluated."""
