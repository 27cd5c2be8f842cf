"""What tells two runs apart: a checkpoint, or an agent that joins, is refused with the differences."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from offbeat.core.errors import SettingError

SHOWN, WIDE = 8, 80
"""How many differences are shown; how wide a value may be before its entries are compared one by one."""


def refuse_other(
    saved: Mapping[str, Any], now: Mapping[str, Any], what: str = "This checkpoint is of another run:",
    names: tuple[str, str] = ("saved", "now"),
) -> None:  # fmt: skip
    """Raise SettingError, with the differences, unless a checkpoint is of the run that wants to go on from
    it.

    Args:
        what, names: how the message begins, and calls the two
    """
    lines = _differences("", _described(saved), _described(now), names) or _differences("", saved, now, names)
    if lines:
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise SettingError("\n  ".join([what, *lines[:SHOWN], *more]))


def _described(about: Mapping[str, Any]) -> dict[str, Any]:
    """The same with a model's parameters in few words: where they lie follows from that, mostly."""
    known = dict(about)
    with suppress(LookupError, TypeError, ValueError):
        known["model"] = {name: f"{dtype} {shape}" for name, shape, dtype, *_ in known["model"]}
    return known


def _differences(what: str, saved: Any, now: Any, names: tuple[str, str]) -> list[str]:
    if saved == now:
        return []
    before, after = _entries(saved), _entries(now)
    if before is None or after is None:
        return [f"{what}: {names[0]} {saved!r:.{WIDE}}, {names[1]} {now!r:.{WIDE}}"]
    lines = []
    for key in {**before, **after}:
        place = f"{what}[{key}]" if isinstance(key, int) else f"{what}.{key}".lstrip(".")
        lines += _differences(place, before.get(key), after.get(key), names)
    return lines or [
        f"{what}: {names[0]} {list(before)!r:.{WIDE}}, {names[1]} {list(after)!r:.{WIDE}}, another order"
    ]


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
