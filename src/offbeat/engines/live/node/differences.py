"""What tells two runs apart: a checkpoint, or an agent that joins, is refused with the differences."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from offbeat.core.errors import SettingError

SHOWN, WIDE = 8, 80
"""How many differences are shown; how wide a value may be before its entries are compared one by one."""
OTHER_RUN = "This checkpoint is of another run:"
About = Mapping[str, Any]
"""Which run something is of."""


def refuse_other(
    saved: About, now: About, what: str = OTHER_RUN, names: tuple[str, str] = ("saved", "now")
) -> None:
    """Raise SettingError, `what` and the differences, unless the two, called `names`, are of one run."""
    found = _differences("", _described(saved), _described(now)) or _differences("", saved, now)
    if found:
        lines = [f"{place}: {names[0]} {one}, {names[1]} {other}" for place, one, other in found[:SHOWN]]
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise SettingError("\n  ".join([what, *lines, *more]))


def _described(about: About) -> dict[str, Any]:
    """The same with a model's parameters in few words: where they lie follows from that, mostly."""
    known = dict(about)
    with suppress(LookupError, TypeError, ValueError):
        known["model"] = {name: f"{dtype} {shape}" for name, shape, dtype, *_ in known["model"]}
    return known


def _differences(what: str, saved: Any, now: Any) -> list[tuple[str, str, str]]:
    if saved == now:
        return []
    before, after = _entries(saved), _entries(now)
    if before is None or after is None:
        return [(what, f"{saved!r:.{WIDE}}", f"{now!r:.{WIDE}}")]
    found = []
    for key in {**before, **after}:
        place = f"{what}[{key}]" if isinstance(key, int) else f"{what}.{key}".lstrip(".")
        found += _differences(place, before.get(key), after.get(key))
    return found or [(what, f"{list(before)!r:.{WIDE}}", f"{list(after)!r:.{WIDE}}, another order")]


def _entries(value: Any) -> dict[Any, Any] | None:
    """What to compare one by one: a mapping, a list of (name, ...), or a long list; else None."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(isinstance(item, list | tuple) and len(item) > 1 and isinstance(item[0], str) for item in value):
        named = {item[0]: tuple(item[1:]) for item in value}
        if len(named) == len(value):
            return named
    return dict(enumerate(value)) if len(repr(value)) > WIDE else None
