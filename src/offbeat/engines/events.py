"""What happens to agents, as records: one class for each kind of event. A trace keeps them in one table.

Writers construct records; the recorder makes rows of them. Readers get records back (`records`), or an array
of one kind with that kind's own columns (`rows_of`). No other module knows which column a field is kept in.
"""

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple, get_type_hints

import numpy as np

EVENT = np.dtype(
    [("time", "f8"), ("agent", "i4"), ("event", "i2"), ("source", "i4"), ("kind", "i2"), ("version", "i8"),
     ("start", "f8"), ("end", "f8")]
)  # fmt: skip
WRITE = np.dtype([("time", "f8"), ("agent", "i4"), ("step", "i8")])
MIXED = np.dtype([("write", "i8"), ("source", "i4"), ("version", "i8")])
TRANSMISSION = np.dtype([("start", "f8"), ("end", "f8"), ("agent", "i4"), ("kind", "i2"), ("bytes", "i8")])
TABLES = {"events": EVENT, "writes": WRITE, "mixed": MIXED, "transmissions": TRANSMISSION}


class Started(NamedTuple):
    """The agent starts."""

    time: float
    agent: int


class Rejoined(NamedTuple):
    """The agent is back, with that version of the donor's model.

    Live only: the gradients that it had asked for before, and which of its lives this is.
    """

    time: float
    agent: int
    donor: int
    version: int
    asked: int = -1
    incarnation: int = -1


class GradientDone(NamedTuple):
    """The gradient of a step, counted from 0, has been computed, from `start` to `end`."""

    time: float
    agent: int
    step: int
    start: float
    end: float


class Heard(NamedTuple):
    """A message: its kind, the version of the model in it, and its transmission."""

    time: float
    agent: int
    source: int
    kind: int
    version: int
    start: float
    end: float


class MailReceived(Heard):
    """A letter has arrived."""

    __slots__ = ()


class SumEnds(NamedTuple):
    """The next letter from this source has what it accumulated up to this number (see `Actor.letter`), which
    is not the version in it.
    """

    time: float
    agent: int
    source: int
    number: int


class RegisterRead(Heard):
    """The newest version in a register is handed to the agent."""

    __slots__ = ()


class RegisterMoved(Heard):
    """Live only: in the next handler a register's vectors moved on to this version; the older was torn."""

    __slots__ = ()


class AlarmRang(NamedTuple):
    """An alarm that the agent had set rings."""

    time: float
    agent: int


class ViewChanged(NamedTuple):
    """The agent learns that a peer is lost, or back; live only: in which of the peer's lives."""

    time: float
    agent: int
    peer: int
    back: bool
    incarnation: int = -1


class Crashed(NamedTuple):
    """The agent crashes."""

    time: float
    agent: int


class LossKnown(NamedTuple):
    """Live only: an agent that comes back knows that this peer is lost."""

    time: float
    agent: int
    peer: int


class Saved(NamedTuple):
    """Live only: the agent's state with this version of its model goes into a checkpoint."""

    time: float
    agent: int
    version: int


class Resumed(NamedTuple):
    """Live only: the agent goes on from the checkpoint with this version of its model."""

    time: float
    agent: int
    version: int


class PeerMet(NamedTuple):
    """Live only: an agent that comes back finds this peer in a later life of the peer's own."""

    time: float
    agent: int
    peer: int
    incarnation: int


class BatchTaken(NamedTuple):
    """Live only: a step was made with this batch of an epoch of a loader, where who comes first gets one."""

    time: float
    agent: int
    loader: int
    epoch: int
    number: int


class Regrouped(NamedTuple):
    """Live only: the agent goes on from the checkpoint with this version of its model, on another graph."""

    time: float
    agent: int
    version: int


class SumAdded(NamedTuple):
    """Live only: what left the agent as one was added, as one, to what waits for this receiver, which is up
    to this number.
    """

    time: float
    agent: int
    receiver: int
    kind: int
    number: int


Event = (
    Started | Rejoined | GradientDone | Heard | AlarmRang | ViewChanged | Crashed | LossKnown | Saved
    | Resumed | PeerMet | BatchTaken | Regrouped | SumAdded | SumEnds
)  # fmt: skip

KINDS: dict[type[Event], tuple[str, str, dict[str, str]]] = {
    Started: ("start", "start", {}),
    Rejoined: ("rejoin", "rejoin", {"donor": "source", "asked": "start", "incarnation": "end"}),
    GradientDone: ("gradient", "on_gradient", {"step": "version"}),
    MailReceived: ("mail", "on_message", {}),
    RegisterRead: ("register", "on_message", {}),
    AlarmRang: ("alarm", "on_alarm", {}),
    ViewChanged: ("view", "on_view", {"peer": "source", "back": "version", "incarnation": "start"}),
    Crashed: ("crash", "", {}),
    LossKnown: ("crash", "", {"peer": "source"}),  # told from a crash by having a source
    RegisterMoved: ("moved", "", {}),
    Saved: ("saved", "", {}),
    Resumed: ("resume", "resume", {}),
    PeerMet: ("met", "", {"peer": "source", "incarnation": "version"}),
    BatchTaken: ("batch", "", {"loader": "start", "epoch": "end", "number": "version"}),
    Regrouped: ("regroup", "resume_on", {}),
    SumAdded: ("added", "", {"receiver": "source", "number": "version"}),
    SumEnds: ("ends", "", {"number": "version"}),
}
"""Every kind's name, the handler that it calls, and the columns of fields that are not called as these."""

HANDLERS = {kind: handler for kind, (_, handler, _) in KINDS.items()}
NAMES = [*dict.fromkeys(name for name, _, _ in KINDS.values())]
"""A row's number in the column `event` is a place in this list."""

PLACES: Mapping[str, Any] = EVENT.fields or {}
COLUMNS = [*PLACES]


class Layout:
    """How records of one kind lie in rows. A column in which the kind has no field holds -1."""

    def __init__(self, kind: type[Event]) -> None:
        name, _, renamed = KINDS[kind]
        self.code = NAMES.index(name)
        self.rest = (self.code, -1)
        """What follows a record's own fields before `order` makes a row of it all."""
        columns = [renamed.get(field, field) for field in kind._fields]
        filled = [*columns, "event"]
        self.order = itemgetter(*(filled.index(c) if c in filled else len(filled) for c in COLUMNS))
        self.types = [*zip(get_type_hints(kind).values(), map(COLUMNS.index, columns), strict=True)]
        formats, offsets = zip(*(PLACES[column] for column in columns), strict=True)
        self.dtype = np.dtype(
            {"names": kind._fields, "formats": formats, "offsets": offsets, "itemsize": EVENT.itemsize}
        )


LAYOUTS = {kind: Layout(kind) for kind in KINDS}
BY_CODE = {LAYOUTS[kind].code: kind for kind in KINDS if kind is not LossKnown}


def records(events: np.ndarray) -> Iterator[Event]:
    for columns in events.tolist():
        kind = BY_CODE[columns[2]]
        if kind is Crashed and columns[3] >= 0:
            kind = LossKnown
        yield kind(*(to(columns[place]) for to, place in LAYOUTS[kind].types))


def rows_of(events: np.ndarray, kind: type[Event]) -> np.ndarray:
    """The rows of one kind, as an array with its fields as columns."""
    chosen = events["event"] == LAYOUTS[kind].code
    if kind in (Crashed, LossKnown):
        chosen &= (events["source"] >= 0) == (kind is LossKnown)
    found: np.ndarray = events[chosen].view(LAYOUTS[kind].dtype)
    return found


def fill(
    events: np.ndarray, where: np.ndarray | slice, kind: type[Event], /, **fields: np.ndarray | float
) -> None:
    """Make these rows ones of that kind. Where no field is given they must hold -1 before."""
    events["event"][where] = LAYOUTS[kind].code
    for name, values in fields.items():
        events.view(LAYOUTS[kind].dtype)[name][where] = values
