"""What is compiled of runs that are made ahead of time: the events of agents that mail one another, as `loop`
drives them, and which rows their values have (`mail_values`). `types.c` says how the files hang together.
"""

import ctypes
from functools import cache

from offbeat.core.system import native
from offbeat.core.system.streams import CHUNK
from offbeat.engines.sim.ahead.instants import NoTimetable

BEGIN, COMPUTED, LETTERS = range(3)  # what happens to an agent: see `types.c`
KINDS = 64  # types of messages, at most
SOURCES = "types", "numbers", "handlers", "queue", "letters", "events", "mailing", "rows"
FLAGS = "-ffp-contract=off", "-std=c11", f"-DKINDS={KINDS}", f"-DCHUNK={CHUNK}"

INT, FLOAT, POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
INTS, FLOATS = ctypes.POINTER(INT), ctypes.POINTER(FLOAT)
_FUNCTIONS = {
    "begun": (POINTER, POINTER, POINTER),
    "end": (None, POINTER),
    "start": (ctypes.c_int, POINTER, POINTER),
    "run": (ctypes.c_int, POINTER, FLOAT, INT),
    "coming": (FLOAT, POINTER),
    "held": (INT, POINTER, POINTER, POINTER, INT),
    "recorded": (None, POINTER),
    "learned": (ctypes.c_int, POINTER, INT, INT, INT),
    "made": (ctypes.c_int, POINTER, POINTER, INT),
    "asked": (ctypes.c_int, POINTER, INT, POINTER, INT),
    "evaluated": (ctypes.c_int, INTS, FLOAT, FLOATS, FLOATS, FLOATS),
    "place_of": (INT, POINTER, INT),
    "steps_of": (INT, POINTER, INT),
    "model_of": (INT, POINTER, INT),
    "numbers_of": (FLOATS, POINTER, INT),
    "carried": (INTS, POINTER, INT),
    "rows": (INT, *[POINTER] * 4, INT, POINTER, POINTER, POINTER, INT),
}


@cache
def library() -> ctypes.CDLL:
    """The compiled functions. Raises NoTimetable where they cannot be had."""
    try:
        found, _ = native.loaded(__package__, [f"{name}.c" for name in SOURCES], FLAGS)
    except native.FAILURES as why:
        raise NoTimetable from why
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(found, f"mail_{name}")
        function.restype, function.argtypes = result, arguments
    return found
