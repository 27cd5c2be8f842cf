"""Numbers for links as they are said: one for all, or from a file.

- `0.2`: the same for every link
- `file:PATH`, `file:PATH:ARRAY`: lines from,to,value, or a square matrix
- `rtt:PATH`, `rtt:PATH:ARRAY:SLICE`, of latencies: round-trip times between nodes
- either with ` mean 0.5` after it: times the factor that makes this the mean of the links used
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from offbeat.core.errors import DataError, SettingError
from offbeat.core.settings import as_word, finite
from offbeat.world.files import is_number
from offbeat.world.matrices import from_file, from_round_trips
from offbeat.world.per_link import PerLink

WHAT = ("file", "rtt")
LINES = "(with lines from,to,value, as in 0,1,0.5)"


def spelt_links(name: str, value: object) -> float | str:
    """A number, or the one way to spell where numbers are from; no file is read. Raises SettingError."""
    if not isinstance(value, str):
        return finite(name, value)
    said, (what, rest, mean) = value.strip(), _parts(value)
    if what in WHAT and rest and (what != "rtt" or name == "latency"):
        return f"{what}:{rest}" + (f" mean {as_word(mean)}" if mean is not None else "")
    if is_number(said):
        return finite(name, float(said))
    rtt = ", 'rtt:rtt.npz', 'rtt:rtt.npz:rtt:1 mean 0.5'" if name == "latency" else ""
    raise SettingError(f"Cannot read '{name}', '{said}'; expected a number, 'file:links.csv' {LINES}{rtt}.")


def numbers_of_links(
    name: str, said: float | str, n: int, links: Sequence[tuple[int, int]], seed: int
) -> float | PerLink:
    """What is said, for the links (sender, receiver) of n agents, each of which has a number.

    Raises SettingError or DataError, with the name of the file, and its line, for anything else.
    """
    if not isinstance(said, str):
        return said
    what, rest, mean = _parts(said)
    do = f"Round-trip times between nodes: 'rtt:{rest}'." if name == "latency" else ""
    try:
        found = from_round_trips(rest, n, seed) if what == "rtt" else from_file(rest, n, do)
    except DataError as error:
        raise DataError(f"'{name}': {error}") from None
    found.check_used(f"'{name}'", links)
    if mean is not None:
        found = _scaled(name, found, mean, links)
    if not (used := [found(*link) for link in links]):  # one agent alone
        return found
    zeros = f", {used.count(0)} of them 0" if 0 in used else ""
    about = f": {len(used):,} links{zeros}, from {min(used):.4g} to {max(used):.4g}, mean {fmean(used):.4g}"
    return replace(found, source=found.source + about)


def _scaled(name: str, numbers: PerLink, mean: float, used: Sequence[tuple[int, int]]) -> PerLink:
    """The same times a factor that makes the mean over these links that. SettingError if all are 0."""
    now = sum(numbers(*link) for link in used) / max(1, len(used))
    if not (math.isfinite(mean) and mean > 0):
        raise SettingError(f"'{name}' cannot have the mean {mean:g}; expected a finite number > 0.")
    if not now > 0:
        raise SettingError(f"'{name}' cannot be scaled to the mean {mean:g}: all of its numbers are 0.")
    own = {link: value * mean / now for link, value in numbers.own.items()}
    return replace(numbers, usual=numbers.usual * mean / now, own=own)


def _parts(said: str) -> tuple[str, str, float | None]:
    """'rtt', 'PATH:ARRAY' and the mean of 'rtt:PATH:ARRAY mean 0.5'."""
    what, _, rest = said.strip().partition(":")
    shape, _, mean = rest.strip().rpartition(" mean ")
    try:
        return (what, shape.strip(), float(mean)) if shape else (what, rest.strip(), None)
    except ValueError:
        return what, rest.strip(), None  # "mean" may be a word of a path
