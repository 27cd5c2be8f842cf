"""What changes while a run goes on, and who misbehaves: values with the words that say them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from offbeat.core.errors import SettingError


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _times(at: float, until: float | None) -> str:
    return " until ".join(_number(t) for t in (at, until) if t is not None)


def _check_times(what: str, at: float, until: float | None) -> None:
    if not (math.isfinite(at) and at >= 0):
        raise SettingError(f"{what} begins at {at}; expected a finite time >= 0.")
    if until is not None and not until > at:
        raise SettingError(f"{what} begins at {at} and ends at {until}; expected a later end.")


@dataclass(frozen=True)
class Slowdown:
    """Agent `agent` is `factor` times slower from `at` until `until` (None: for good); below 1 it is faster.

    What is going on when the speed changes goes on at the new speed: a gradient, or a transmission, of
    length w is finished as soon as the integral of 1 / factor over the time since its start is w.
    """

    agent: int
    factor: float
    at: float
    until: float | None = None
    computes: bool = True
    sends: bool = True

    def __post_init__(self) -> None:
        _check_times(f"The slowdown of agent {self.agent}", self.at, self.until)
        if not (self.computes or self.sends):
            raise SettingError(
                f"Agent {self.agent} is slower in computing, in sending, or in both; got neither."
            )
        if not 1e-3 <= self.factor <= 1e9:
            raise SettingError(f"A slowdown must be a number between 0.001 and 10^9; got {self.factor}.")

    def __str__(self) -> str:
        does = (
            "slows"
            if self.computes and self.sends
            else "computes slower"
            if self.computes
            else "sends slower"
        )
        return f"agent {self.agent} {does} by {_number(self.factor)} at {_times(self.at, self.until)}"


@dataclass(frozen=True)
class Cut:
    """No link between the agents of `group` and all others works from `at` until `until` (None: for good).

    What would arrive over such a link then is lost, if it is a version of a register. Mail and accumulators,
    which are never lost, arrive when the cut is over, in the order in which they were sent.
    """

    group: frozenset[int]
    at: float
    until: float | None = None

    def __post_init__(self) -> None:
        _check_times(f"The cut of {sorted(self.group)}", self.at, self.until)
        if not self.group:
            raise SettingError("A cut needs a group of agents; got none.")

    def __str__(self) -> str:
        agents = ",".join(map(str, sorted(self.group)))
        return f"cut {{{agents}}} from the rest at {_times(self.at, self.until)}"


@dataclass(frozen=True)
class Byzantine:
    """What agent `agent` sends is wrong, while its own model is not: each vector v of it leaves as

    -scale v  (scale > 0: "flips"),    v + noise z with z standard normal  (noise > 0: "adds noise").
    """

    agent: int
    scale: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for value in (self.scale, self.noise):
            if not (math.isfinite(value) and value >= 0):
                raise SettingError(f"A Byzantine agent needs finite numbers >= 0; got {value}.")
        if bool(self.scale) == bool(self.noise):
            raise SettingError("A Byzantine agent flips what it sends, or adds noise to it; expected one.")

    def __str__(self) -> str:
        what, value = ("flips", self.scale) if self.scale else ("adds noise", self.noise)
        return f"agent {self.agent} {what}" + (f" {_number(value)}" if value != 1 else "")


Change = Slowdown | Cut


def finish(start: float, work: float, slowdowns: Sequence[Slowdown]) -> float:
    """When something of length `work` that begins at `start` ends, if these slow it down (they multiply).

    Piece by piece, from one change of the factor to the next; without slowdowns start + work, to the bit.
    """
    if not slowdowns:
        return start + work
    ends = {s.at for s in slowdowns} | {s.until for s in slowdowns if s.until is not None}
    now, left = start, work
    for change in sorted(t for t in ends if t > start):
        factor = factor_at(now, slowdowns)
        if now + left * factor <= change:
            return now + left * factor
        left = max(0.0, left - (change - now) / factor)
        now = change
    return now + left * factor_at(now, slowdowns)


def factor_at(now: float, slowdowns: Sequence[Slowdown]) -> float:
    """How many times slower the agent is at that time."""
    return math.prod(s.factor for s in slowdowns if s.at <= now and (s.until is None or now < s.until))


_AT = r"at\s+(?P<at>\S+)(?:\s+until\s+(?P<until>\S+))?"
_SLOWDOWN = re.compile(
    rf"(?i)\s*(?:agent\s+)?(?P<agent>\d+)\s+(?:slows|(?P<what>computes|sends)\s+slower)\s+by\s+(?P<by>\S+)\s+{_AT}\s*"
)
_CUT = re.compile(rf"(?i)\s*cut\s*\{{?(?P<group>[\d\s,]+?)\}}?\s+from\s+the\s+rest\s+{_AT}\s*")
_BYZANTINE = re.compile(
    r"(?i)\s*(?:agent\s+)?(?P<agent>\d+)\s+(?P<does>flips|adds\s+noise)(?:\s+(?P<by>\S+))?\s*"
)


def parse_change(text: str) -> Change:
    """'agent 3 slows by 5 at 100 until 200', or 'computes slower', or 'sends slower'; 'cut {0,1,2} from the
    rest at 100 until 200'; without 'until' for good. Raises SettingError for anything else.
    """
    try:
        if found := _SLOWDOWN.fullmatch(text):
            what = (found["what"] or "").lower()
            computes, sends = what != "sends", what != "computes"
            return Slowdown(int(found["agent"]), float(found["by"]), *_read_times(found), computes, sends)
        if found := _CUT.fullmatch(text):
            group = frozenset(int(agent) for agent in found["group"].split(","))
            return Cut(group, *_read_times(found))
    except ValueError:
        pass
    expected = "'agent 3 slows by 5 at 100 until 200', 'agent 3 computes slower by 5 at 100', 'agent 3 sends "
    expected += "slower by 5 at 100' or 'cut {0,1,2} from the rest at 100 until 200'"
    crash = " Agents crash by --crash 'agent 3 at 5 until 10'." * ("crash" in text.lower())
    raise SettingError(f"Cannot read the event '{text}'; expected {expected}.{crash}")


def parse_byzantine(text: str) -> Byzantine:
    """'agent 3 flips', 'agent 3 flips 10' or 'agent 3 adds noise 0.5'. Raises SettingError otherwise."""
    try:
        if found := _BYZANTINE.fullmatch(text):
            by, flips = float(found["by"] or 1.0), found["does"].lower() == "flips"
            return Byzantine(int(found["agent"]), scale=by * flips, noise=by * (not flips))
    except ValueError:
        pass
    expected = "'agent 3 flips', 'agent 3 flips 10' or 'agent 3 adds noise 0.5'"
    raise SettingError(f"Cannot read what the Byzantine agent does, '{text}'; expected {expected}.")


def _read_times(found: re.Match[str]) -> tuple[float, float | None]:
    return float(found["at"]), None if found["until"] is None else float(found["until"])
