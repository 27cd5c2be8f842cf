"""Whether a handler has changed anything of an agent, seen without a look at all that there is of it."""

from dataclasses import is_dataclass
from operator import is_
from typing import Any

from offbeat.core.agent import Agent, View
from offbeat.core.vector import Vector
from offbeat.engines.sim.ahead.placeholders import UNSEEN

FIXED = Vector, View, type(UNSEEN), int, float, str, bytes, type(None), type
"""What stays what it is."""


class Unchanged:
    """What an agent's fields refer to, down to what stays what it is; called, whether they still do. Where
    something is of another kind it never says so.
    """

    def __init__(self, agent: Agent) -> None:
        self._within, self._known = list[tuple[dict[Any, Any] | list[Any], list[Any]]](), True
        found, seen = list[Any]([vars(agent)]), {id(agent)}
        for each in found:
            if isinstance(each, FIXED) or id(each) in seen:
                continue
            if isinstance(each, dict | list):
                self._within.append((each, _inside(each)))
                found += _inside(each)
            elif isinstance(each, tuple):
                found += each
            elif is_dataclass(each) and not hasattr(each, "__slots__"):
                found.append(vars(each))
            else:
                self._known = False
            seen.add(id(each))

    def __call__(self) -> bool:
        now = [_inside(each) for each, _ in self._within]
        then = [inside for _, inside in self._within]
        return self._known and all(
            len(a) == len(b) and all(map(is_, a, b)) for a, b in zip(now, then, strict=True)
        )


def _inside(each: dict[Any, Any] | list[Any]) -> list[Any]:
    return [*each, *each.values()] if isinstance(each, dict) else [*each]
