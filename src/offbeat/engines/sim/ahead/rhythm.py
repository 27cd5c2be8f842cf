"""What the agents of a run give one another, and when: found out from what each does (`reading`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from offbeat.core.agent import Agent, Message, View
from offbeat.core.rules import Rule
from offbeat.core.schedules import Schedule
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.reading import Reading
from offbeat.engines.sim.ahead.states import Slot
from offbeat.engines.sim.ahead.timetable import Ints, begin_of

Inputs = list[tuple[int, Message, bool]]


@dataclass(frozen=True, eq=False)
class Rhythm:
    """What agents give, to whom, and who hears what.

    Attributes:
        every: at each so many-th gradient everybody gives all of its slots, one after the other
        mail: whether it is summed and arrives as mail; else it is published
        before: whether it is the model of before the gradient
        slots: of each agent, each with its receivers
        receiver, input, sender, slot, place: an edge for each pair of a slot and a receiver of it: who hears,
            which of its inputs that is; who gives, which of its slots, the receiver's place among those of
            the slot
        width: how many inputs each agent has
        schedule: what the learning rate follows, if it does
        size: of a model, in bytes
        blocks: see `offbeat.Agent`
    """

    every: int
    mail: bool
    before: bool
    slots: Sequence[Sequence[tuple[Slot, tuple[int, ...]]]]
    receiver: Ints
    input: Ints
    sender: Ints
    slot: Ints
    place: Ints
    width: Ints
    schedule: Schedule | None
    size: int
    blocks: bool


def readings(
    new_agent: Callable[[], Agent], new_rule: Callable[[], Rule], views: Sequence[View], model: Tensor
) -> tuple[list[Reading], Rhythm]:
    """Those of all agents, of those alike the same one; and what they give. Raises NotLinear.

    Args:
        model: one, whatever its numbers are
    """
    alike = _Alike(new_agent, new_rule, views, model)
    alone = [alike.reading(i, None) for i in range(len(views))]
    slots = [[(slot, alike.moved(i, slot.to)) for slot in each.slots] for i, each in enumerate(alone)]
    flat = [slot for each in {id(reading): reading for reading in alone}.values() for slot in each.slots]
    every = {reading.every for reading in alone if reading.slots} or {1}
    several = any(slot.sums for slot in flat) and any(len(each) > 1 for each in slots)
    if several or len(every) > 1 or len({(slot.sums, slot.before) for slot in flat}) > 1:
        raise NotLinear("it gives its neighbours things of several sorts")
    kinds = [*dict.fromkeys(slot.kind for slot in flat)]
    edges = np.array(
        sorted(
            (i, j, kinds.index(slot.kind), s, place)
            for j, each in enumerate(slots)
            for s, (slot, to) in enumerate(each)
            for place, i in enumerate(to)
        ),
        dtype=np.int64,
    ).reshape(-1, 5)
    if (np.diff(edges[:, :3], axis=0) == 0).all(axis=1).any():
        raise NotLinear("it gives the same kind of message to somebody in two ways")
    receiver, sender, _, slot, place = edges.T
    width = np.bincount(receiver, minlength=len(views))
    begin, givers = begin_of(width), [*zip(sender.tolist(), slot.tolist(), strict=True)]
    made = list[Reading]()
    for i, (low, high) in enumerate(zip(begin[:-1].tolist(), begin[1:].tolist(), strict=True)):
        given = [(j, slots[j][s][0]) for j, s in givers[low:high]]
        made.append(alike.reading(i, [(j, slot.message, slot.sums) for j, slot in given]))
    first = flat[0] if flat else None
    return made, Rhythm(
        every.pop(), first is not None and first.sums, first is not None and first.before, slots, receiver,
        np.arange(len(receiver)) - begin[receiver], sender, slot, place, width,
        alone[0].schedule, model.nbytes, new_agent().blocks,
    )  # fmt: skip


def seen(i: int, view: View, everybody: list[int] | None = None) -> tuple[Any, list[int]]:
    """What agent i sees of the graph, whoever it is and its neighbours are: the same as others where agents
    are alike; and who they are. everybody: those of whom it knows; None: its neighbours.
    """
    people = everybody or sorted({i, *view.w, *view.a, *view.listeners, *view.peers})
    place = {j: k for k, j in enumerate(people)}
    w, a = (tuple([(place[j], x) for j, x in row.items()]) for row in (view.w, view.a))
    ends = (tuple([place[j] for j in who]) for who in (view.listeners, view.peers))
    return (place[i], w, a, *ends, view.side), people


class _Alike:
    """Readings, one for all agents that see the same of the graph: neighbours by their place in it."""

    def __init__(
        self, new_agent: Callable[[], Agent], new_rule: Callable[[], Rule], views: Sequence[View],
        model: Tensor,
    ) -> None:  # fmt: skip
        self._new, self._views, self._beyond = (new_agent, new_rule, model), views, new_agent().beyond_graph
        self._of, self._known = list[tuple[Any, list[int]]](), dict[Any, tuple[Reading, int]]()
        for i, view in enumerate(views):
            self._of.append(seen(i, view, [*range(len(views))] if self._beyond else None))

    def reading(self, i: int, inputs: Inputs | None) -> Reading:
        """That of agent i, which may hear that; None: nothing yet."""
        shape, people = self._of[i]
        if inputs is not None:
            place = {j: k for k, j in enumerate(people)}
            shape = shape, tuple([(place.get(j, j), type(message), mail) for j, message, mail in inputs])
        if shape not in self._known:
            known = None if inputs is None else self._known.get(shape[0])
            if known is not None and known[1] == i:
                reading = known[0]
            else:
                reading = Reading(*self._new, i, len(self._views), self._views[i])
            if inputs is not None:
                reading.listen(inputs)
            self._known[shape] = reading, i
        return self._known[shape][0]

    def moved(self, i: int, to: tuple[int, ...]) -> tuple[int, ...]:
        """The same receivers in agent i's neighbourhood."""
        shape, people = self._of[i]
        first = self._known[shape][1]
        if first == i:
            return to
        place = {j: k for k, j in enumerate(self._of[first][1])}
        return tuple([people[place[j]] for j in to])
