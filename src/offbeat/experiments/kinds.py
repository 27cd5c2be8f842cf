"""What the values of an experiment's settings are: how each is checked, spelt in a file, and recorded.

Kinds that any setting may have are in `offbeat.core.settings`.
"""

from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any

from offbeat.core import optimizers
from offbeat.core.codecs import NONE, codec_of
from offbeat.core.errors import SettingError, unknown
from offbeat.core.rates import Rate
from offbeat.core.schedules import Schedule
from offbeat.core.settings import Kind, finite, text, whole
from offbeat.results import targets
from offbeat.tasks.partition import spelt
from offbeat.world.changes import Byzantine, Change, parse_byzantine, parse_change
from offbeat.world.delays import Delay, parse
from offbeat.world.links import spelt_links
from offbeat.world.speeds import spelt_speeds
from offbeat.world.world import Crash, parse_crash


def one_of(known: Mapping[str, Any]) -> Kind:
    """One of these names."""

    def check(name: str, value: Any) -> str:
        if text(name, value) not in known:
            raise unknown(name, value, known)
        return str(value)

    return Kind(str, "string", check, check)


def as_is(name: str, value: Any) -> Any:
    return value


def _task(name: str, value: Any) -> Any:
    if not isinstance(value, str) and not hasattr(value, "gradients"):
        raise SettingError(f"The task must be a name, or have the interface of offbeat.Task; got {value!r}.")
    return value


def _delay(name: str, value: Any) -> str | Delay:
    if not isinstance(value, str | Delay):
        raise SettingError(f"'{name}' must be text like 'gamma 0.25' or an offbeat.Delay; got {value!r}.")
    return value


def _spelt_delay(name: str, value: Any) -> str:
    delay = parse(text(name, value))
    return str(value).strip() if delay.values else str(delay)  # measured delays go by their file


def _stragglers(name: str, value: Any) -> tuple[int, ...]:
    """3, '3,7' or [3, 7] as the agents."""
    try:
        several = [int(each) for each in value.split(",")] if isinstance(value, str) else value
    except ValueError:
        raise SettingError(f"'{name}' must be agents, as in '3' or '3,7'; got '{value}'.") from None
    agents = [whole(name, each) for each in (several if isinstance(several, Sequence) else [several])]
    if not agents or len({*agents}) < len(agents):
        raise SettingError(f"'{name}' must name agents, each once, as in '3' or '3,7'; got {value!r}.")
    return tuple(sorted(agents))


def _several(what: type | UnionType, parse: Callable[[str], Any], called: str, example: str) -> Kind:
    """Values that are said in words of their own, one or a list: 'agent 3 at 100'."""

    def check(name: str, value: Any) -> tuple[Any, ...]:
        given = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        for each in given:
            if not isinstance(each, what) and not isinstance(each, str):
                raise SettingError(
                    f"{called} is text like '{example}', or an object that says it; got {each!r}."
                )
        return tuple(parse(each) if isinstance(each, str) else each for each in given)

    def spelt(name: str, value: Any) -> tuple[str, ...]:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise SettingError(f"'{name}' must be text like '{example}', or a list of such; got {value!r}.")
        return tuple(str(parse(each)) for each in given)

    return Kind(list[str], "list string", check, spelt, lambda values: [*map(str, values)], list)


def _partition(name: str, value: Any) -> str:
    return spelt(text(name, value))


def _optimizer(name: str, value: Any) -> str:
    return str(optimizers.checked(text(name, value)))


def _schedule(name: str, value: Any) -> str:
    return str(Schedule.parse(text(name, value)))


def _compress(name: str, value: Any) -> str:
    return str(codec_of(text(name, value)) or NONE)


def _spelt_rate(name: str, value: Any) -> float | str:
    rate = Rate.of(value) if isinstance(value, str) else Rate(finite(name, value))
    return rate.said if rate.coupled or not isinstance(value, str) else finite(name, value)


NAMED_TASK = Kind(str, "string", _task, text)
GRAPH = Kind(str, "string", as_is, text)
DELAY = Kind(str, "string", _delay, _spelt_delay, str)
TARGET = Kind(str, "string", targets.checked, targets.checked)
CRASHES = _several(Crash, parse_crash, "A crash", "agent 3 at 100")
CHANGES = _several(Change, parse_change, "An event", "agent 3 slows by 5 at 100 until 200")
BYZANTINES = _several(Byzantine, parse_byzantine, "A Byzantine agent", "agent 3 flips")
STRAGGLERS = Kind(
    str, "list int64", _stragglers, _stragglers, list, lambda agents: [",".join(map(str, agents))]
)
PARTITION = Kind(str, "string", _partition, _partition)
OPTIMIZER = Kind(str, "string", lambda name, value: optimizers.checked(value), _optimizer, optimizers.called)
SCHEDULE = Kind(str, "string", _schedule, _schedule)
COMPRESS = Kind(str, "string", _compress, _compress)
PER_LINK = Kind(str, "number", spelt_links, spelt_links)
SPEEDS = Kind(str, "string", spelt_speeds, spelt_speeds)
NAMES = Kind(str, "string", as_is, as_is)
NUMBERS = Kind(str, "list float64", as_is, as_is)
RANGES = Kind(list[str], "string", as_is, as_is)
LR = Kind(list[str], "float64", as_is, _spelt_rate)  # kinds of what `comparison.plan` checks
