"""The compiled events of agents that mail one another (`compiled/`): what they are told, what they ask, what
they have noted.
"""

import ctypes
import weakref
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from offbeat.core.system.signals import kept_from_calls
from offbeat.core.vector import Stamp
from offbeat.engines.events import LAYOUTS, GradientDone, MailReceived, RegisterRead
from offbeat.engines.sim.ahead.called import Called
from offbeat.engines.sim.ahead.compiled import FLOAT, FLOATS, INT, INTS, POINTER, library
from offbeat.engines.sim.ahead.instants import NoTimetable
from offbeat.engines.sim.ahead.mail_values import Noted
from offbeat.engines.sim.ahead.post import Post
from offbeat.engines.sim.ahead.timetable import Ints

ENDED, PAUSED, GIVEN_UP = range(3)


def _list(kind: Any) -> type[ctypes.Structure]:
    return type("List", (ctypes.Structure,), {"_fields_": [("n", INT), ("room", INT), ("at", kind)]})


_Ints, _Floats, _Bytes = _list(INTS), _list(FLOATS), _list(POINTER)
COUNTS = "raised", "number", "messages", "bytes", "many", "written"
NOTED = "steps", "first", "known", "taken", "asked", "at", "agent"
TABLES = "events", "writes", "mixed", "transmissions"


class _Run(ctypes.Structure):
    """What may be read of a run."""

    _fields_ = (
        ("now", FLOAT), *((name, INT) for name in COUNTS),
        *((name, _Ints) for name in NOTED), ("coefficients", _Floats), *((name, _Bytes) for name in TABLES),
        ("answers", _Ints), ("kinds", _Ints), ("order", _Ints),
    )  # fmt: skip


_WORLD = "agents", "unicast", "uniform", "lossy", "cut", "model_bytes", "done", "mail", "read"
_ARRAYS = "computes_slower", "sends_slower", "called", "first", "around", "back"


class _World(ctypes.Structure):
    _fields_ = (
        *((name, INT) for name in _WORLD),
        ("bandwidth", FLOAT),
        *((name, POINTER) for name in _ARRAYS),
    )


class Handlers(Protocol):
    """Who knows what agents make, who are known by their numbers; agents: those whose handlers are called."""

    agents: dict[int, Called]

    def found(self, agent: int, what: int, answers: Sequence[int]) -> int:
        """The number of what a handler makes where that is not known, after these answers to questions."""

    def draw(self, agent: int, question: int) -> int:
        """The number of the answer to a question whose answer is drawn."""


_CALLS: dict[str, tuple[Any, ...]] = {
    "found": (INT, INT, INT, INT),
    "draw": (INT, INT, INT),
    "called": (INT, INT, INT, INTS, INT, FLOATS, INT, INT, INT, FLOAT, INT),
    "delays": (None, INT, INT, POINTER),
    "ends": (FLOAT, INT, INT, FLOAT, FLOAT),
    "instants": (INT, INT, INTS, INT, INT, FLOAT, FLOAT, POINTER, POINTER, POINTER),
    "lost": (None, INT, INTS, INT, ctypes.POINTER(ctypes.c_char)),
    "parted": (INT, INT, INT, FLOAT),
}
_TYPES = {name: ctypes.CFUNCTYPE(*types) for name, types in _CALLS.items()}


class _Python(ctypes.Structure):
    _fields_ = tuple(_TYPES.items())


def evaluated(words: Sequence[int], now: float, numbers: Any) -> list[float]:
    """What a program (`Function.words`) makes of the time and of these numbers, an array of C. Raises
    ArithmeticError.
    """
    program, results = (INT * len(words))(*words), (FLOAT * words[1 + 4 * words[0]])()
    if not library().mail_evaluated(program, now, numbers, (FLOAT * words[0])(), results):
        raise ArithmeticError
    return [*results]


class Loop:
    """The events of one run. Raises NoTimetable where they cannot be had in this way.

    What handlers, or the world, raise meanwhile goes on to whoever started the events.
    """

    def __init__(self, handlers: Handlers, post: Post) -> None:
        self._library, self._handlers, self._post, self._n = library(), handlers, post, len(post.around)
        self._raised: BaseException | None = None
        calls = [i in handlers.agents for i in range(self._n)]
        first = np.cumsum([0, *map(len, post.around)])
        flat = ([j for row in rows for j in row] for rows in (post.around, post.back))
        self._arrays = [np.array(each, dtype=np.int64) for each in (*post.slow, calls, first, *flat)]
        codes = [LAYOUTS[kind].code for kind in (GradientDone, MailReceived, RegisterRead)]
        flags = post.unicast, post.uniform, post.lossy, post.cuts
        numbers = self._n, *flags, post.model_bytes, *codes, post.bandwidth
        world = _World(*numbers, *(each.ctypes.data for each in self._arrays))
        self._calls = _Python(*(kind(getattr(self, f"_{name}")) for name, kind in _TYPES.items()))
        self._at = self._library.mail_begun(ctypes.byref(world), ctypes.byref(self._calls))
        if not self._at:
            raise MemoryError
        weakref.finalize(self, self._library.mail_end, self._at).atexit = False  # a thread may be in it then
        self._run = _Run.from_address(self._at)

    # -- what it asks ------------------------------------------------------------------------------

    def _found(self, agent: int, what: int, answers: int) -> int:
        return self._handlers.found(agent, what, self._run.answers.at[:answers])

    def _draw(self, agent: int, question: int) -> int:
        return self._handlers.draw(agent, question)

    def _called(
        self, agent: int, what: int, values: Any, many: int, numbers: Any, count: int, source: int,
        version: int, now: float, number: int,
    ) -> int:  # fmt: skip
        heard = Stamp(source, version), values[:many], numbers[:count]
        coefficients, words = self._handlers.agents[agent].happens(now, number, what, *heard)
        scales = array("d", coefficients)
        made = array("q", (scales.buffer_info()[0], *words))
        self._reply = made, scales  # as long as it is read
        return made.buffer_info()[0]

    def _delays(self, which: int, agent: int, to: Any) -> None:
        _write(to, FLOAT, self._post.delays(which, agent))

    def _ends(self, which: int, agent: int, start: float, work: float) -> float:
        return self._post.ends(which, agent, start, work)

    def _instants(
        self, agent: int, to: Any, many: int, waits: int, start: float, work: float, when: Any, counts: Any,
        who: Any,
    ) -> int:  # fmt: skip
        end, instants = self._post.instants(agent, to[:many], bool(waits), start, work)
        some = len(instants)
        _write(when, FLOAT, [*(instant for instant, _ in instants), end])
        _write(counts, INT, [len(there) for _, there in instants])
        _write(who, INT, [k for _, there in instants for k in there])
        return some

    def _lost(self, agent: int, to: Any, many: int, missed: Any) -> None:
        for k in self._post.lost(agent, to[:many]):
            missed[k] = 1

    def _parted(self, agent: int, place: int, now: float) -> int:
        return self._post.parted(agent, place, now)

    # -- what it is told ---------------------------------------------------------------------------

    def start(self, places: Sequence[int]) -> None:
        """Every agent begins, in the state of that place."""
        array = np.array(places, dtype=np.int64)
        self._go(self._library.mail_start, array.ctypes.data)

    def run(self, until: float, most: int) -> bool:
        """All up to that time; or until so many values are noted, and then it is not done."""
        return self._go(self._library.mail_run, until, most) == ENDED

    def _go(self, events: Callable[..., int], *args: float) -> int:
        """Until these events are over; C code cannot be left by an error, which is raised here."""

        def keep(error: BaseException) -> None:
            self._run.raised, self._raised = True, error

        with kept_from_calls(keep):
            how = events(self._at, *args)
        if self._raised is not None:
            raise self._raised
        if how == GIVEN_UP:
            raise NoTimetable
        return how

    def learned(self, place: int, key: int, node: int) -> None:
        """From now on that comes of a place: what a handler makes (its number), or a question (-2 - its)."""
        self._need(self._library.mail_learned(self._at, place, key, node))

    def made(self, words: Sequence[int]) -> None:
        """What one more handler makes."""
        array = np.array(words, dtype=np.int64)
        self._need(self._library.mail_made(self._at, array.ctypes.data, len(array)))

    def asked(self, place: int, words: Sequence[int]) -> None:
        """One more question, whose answers lead on from that place; without words it is drawn."""
        array = np.array(words, dtype=np.int64)
        self._need(self._library.mail_asked(self._at, place, array.ctypes.data, len(array)))

    def _need(self, there: int) -> None:
        if not there:
            raise MemoryError

    # -- what it has noted -------------------------------------------------------------------------

    @property
    def coming(self) -> float:
        """When something happens next."""
        when: float = self._library.mail_coming(self._at)
        return when

    def counts(self) -> tuple[int, int, int]:
        """Steps, messages and bytes."""
        return sum(self.steps), int(self._run.messages), int(self._run.bytes)

    @property
    def steps(self) -> list[int]:
        """Of each agent."""
        return [self._library.mail_steps_of(self._at, i) for i in range(self._n)]

    @property
    def number(self) -> int:
        """How many events have been scheduled."""
        return int(self._run.number)

    @property
    def many(self) -> int:
        """How many values are noted."""
        return int(self._run.many)

    def models(self) -> list[int]:
        """The value that each agent's model is."""
        return [self._library.mail_model_of(self._at, i) for i in range(self._n)]

    def place(self, agent: int) -> int:
        """That of an agent's state."""
        return int(self._library.mail_place_of(self._at, agent))

    def evaluated(self, words: Sequence[int], agent: int) -> list[float]:
        """What a program makes now of the numbers that an agent has. Raises ArithmeticError."""
        return evaluated(words, self._run.now, self._library.mail_numbers_of(self._at, agent))

    def carried(self, agent: int) -> list[int]:
        """Bytes that an agent sent, to each of `around`."""
        sent: list[int] = self._library.mail_carried(self._at, agent)[: len(self._post.around[agent])]
        return sent

    def noted(self) -> Noted:
        """What is to be made. It is there until `renumbered`, or more is noted."""
        return Noted(self.many, *(_array(getattr(self._run, name)) for name in (*NOTED, "coefficients")))

    def held(self) -> Ints:
        """The values that agents have, and that are under way."""
        values = np.empty(self._library.mail_held(self._at, None, None, 0), dtype=np.int64)
        self._library.mail_held(self._at, values.ctypes.data, None, 0)
        return values

    def renumbered(self, held: Ints, many: int) -> None:
        """What was noted is made; those values have these numbers now, of so many."""
        self._library.mail_held(self._at, None, np.ascontiguousarray(held, np.int64).ctypes.data, many)

    def rows(self) -> tuple[list[bytes], int, list[int]]:
        """Those of the tables of a trace that are new; how many writes there were in all; and types of
        messages, by the numbers that these have in it.
        """
        lists = [getattr(self._run, name) for name in TABLES]
        rows = [ctypes.string_at(each.at, each.n) if each.n else b"" for each in lists]
        self._library.mail_recorded(self._at)
        return rows, int(self._run.written), self._run.order.at[: self._run.order.n]


def _write(to: int, kind: Any, values: Sequence[float]) -> None:
    """Values from that address on."""
    (kind * len(values)).from_address(to)[:] = values


def _array(noted: Any) -> np.ndarray[Any, Any]:
    """A list that grows, as it is."""
    if not noted.n:
        return np.empty(0, dtype=np.float64 if isinstance(noted, _Floats) else np.int64)
    return np.ctypeslib.as_array(noted.at, (noted.n,))
