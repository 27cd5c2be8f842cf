"""Fields of an agent, pickled with names for its vectors, and for numbers that are not known, so that they
are the same bytes where the agent is in the same state, whatever these are.
"""

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from offbeat.core.agent import Agent, View
from offbeat.core.vector import Vector
from offbeat.engines.sim.ahead.numbers import Number
from offbeat.engines.sim.ahead.placeholders import UNSEEN, NotLinear, Round

PLAIN = frozenset(
    (str, int, float, bool, type(None), list, tuple, dict)
)  # most of what there is: has no name


class Fields(pickle.Pickler):
    """Writes the fields of an agent, with names for vectors.

    Attributes:
        numbers: those in them that are not known, in order
    """

    def __init__(
        self, file: io.BytesIO, agent: Agent, name: Callable[[Vector], tuple[str, int, int]]
    ) -> None:
        super().__init__(file)
        self._name, self._round, self.numbers = name, agent.round, list[Number]()
        names = (agent, "agent"), (agent.view, "view"), (UNSEEN, "unseen")
        self._known = {id(known): (named, 0, 0) for known, named in names}

    def persistent_id(self, obj: Any) -> tuple[str, int, int] | None:
        if type(obj) in PLAIN:
            return None
        if isinstance(obj, Round):
            return "round", obj - self._round, 0
        if isinstance(obj, Number):
            self.numbers.append(obj)
            return "number", len(self.numbers) - 1, 0
        return self._name(obj) if isinstance(obj, Vector) else self._known.get(id(obj))


def frozen(agent: Agent, name: Callable[[Vector], tuple[str, int, int]]) -> tuple[bytes, list[Number]]:
    """The fields of an agent, and the numbers in them. Raises NotLinear if they cannot be pickled."""
    file = io.BytesIO()
    fields = Fields(file, agent, name)
    try:
        fields.dump(vars(agent))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise NotLinear(f"its fields cannot be pickled ({error})") from None
    return file.getvalue(), fields.numbers


class Restored(pickle.Unpickler):
    """The inverse."""

    def __init__(
        self, fields: bytes, agent: Agent, view: View, places: Sequence[Vector],
        late: Sequence[Sequence[Vector]] = (), numbers: Sequence[Number] = (),
    ) -> None:  # fmt: skip
        super().__init__(io.BytesIO(fields))
        self._known: dict[str, Any] = {"agent": agent, "view": view, "unseen": UNSEEN}
        self._of: dict[str, Sequence[Any]] = {"v": places, "number": numbers}
        self._late = late

    def persistent_load(self, pid: tuple[str, int, int]) -> Any:
        name, k, f = pid
        if name in self._of:
            return self._of[name][k]
        return self._late[k][f] if name == "late" else self._known[name]
