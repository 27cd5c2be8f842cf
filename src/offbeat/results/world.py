"""The world of a run: how long what takes for whom, by which numbers links differ, what happens when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from offbeat.core.errors import SettingError
from offbeat.world.changes import Byzantine, Change, parse_byzantine, parse_change
from offbeat.world.per_link import PerLink
from offbeat.world.world import Crash, World, apply_case, parse_crash

if TYPE_CHECKING:
    from offbeat.world.topology import Topology

MOST = 2000  # links, and crashes, that are kept one by one
NAMED = 5  # agents, or events of a kind, that a sentence names; more are counted
BY_LINK = ("latency", "bandwidth", "loss")
CALLED = {"latency": "latency is", "bandwidth": "bandwidth is", "loss": "the share of lost messages is"}
ENDS = ("from", "to")


@dataclass(frozen=True)
class WorldValues:
    """What is not the same for all agents, links and times; its numbers have six digits.

    Attributes:
        computing: expected time of a gradient, by agent; empty: the same for all
        sending: expected time of a transmission of one model, by agent, likewise
        links: those of latency, bandwidth and loss that are not the same for all links of the graph: a value
            for each link, and the links in the columns `from` and `to`. Of more than 2,000 links without
            these two, and smallest, median and largest value in place of all
        crashes, changes, byzantine: as `--crash`, `--event` and `--byzantine` take them; crashes are also
            the times at which agents are not there (`--availability`)
        left_out: how many crashes there are beside the first 2,000
    """

    computing: list[float] = field(default_factory=list)
    sending: list[float] = field(default_factory=list)
    links: dict[str, list[float]] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    byzantine: list[str] = field(default_factory=list)
    left_out: int = 0

    @staticmethod
    def of(world: World, n: int, topology: Topology | None = None) -> WorldValues | None:
        """None where all n agents and all links are alike and nothing happens; links only of a topology."""
        found = WorldValues(
            _by_agent(world.compute_delay, n, world.slow_compute, world.own_compute),
            _by_agent(world.communication_delay, n, world.slow_communication, world.own_communication),
            {} if topology is None else _by_link(world, topology),
            [*map(str, world.crashes[:MOST])], [*map(str, world.changes)], [*map(str, world.byzantine)],
            max(0, len(world.crashes) - MOST),
        )  # fmt: skip
        return None if found == WorldValues() else found

    @staticmethod
    def said(settings: Mapping[str, Any]) -> WorldValues | None:
        """What the settings of a run say of its world: all of it, of a version that did not record worlds.

        Raises ValueError where that makes no sense.
        """
        crashes, slow, n = settings.get("crash") or (), settings.get("straggler") or (), settings["agents"]
        try:
            world = apply_case(
                World(crashes=tuple(map(parse_crash, crashes))), settings["case"], slow, settings["slowdown"]
            )
            world.check(n)
        except SettingError as error:
            raise ValueError(f"{error}".rstrip(".")) from None
        return WorldValues.of(world, n)

    @staticmethod
    def read(record: Mapping[str, Any], n: int) -> WorldValues:
        """From what `vars` gives, of n agents. Raises KeyError, TypeError or ValueError for anything else."""
        computing, sending = (_numbers(record[name]) for name in ("computing", "sending"))
        links = {name: _numbers(values) for name, values in record["links"].items()}
        crashed, changed, lying = ([*map(str, record[name])] for name in ("crashes", "changes", "byzantine"))
        found = WorldValues(computing, sending, links, crashed, changed, lying, int(record["left_out"]))
        try:
            crashes, changes, byzantine = found.events
            World(crashes=crashes, changes=changes, byzantine=byzantine).check(n)
        except SettingError as error:
            raise ValueError(f"{error}".rstrip(".")) from None
        _check(found, n)
        return found

    @property
    def events(self) -> tuple[tuple[Crash, ...], tuple[Change, ...], tuple[Byzantine, ...]]:
        """Crashes, changes and Byzantine agents, as values."""
        return (
            tuple(map(parse_crash, self.crashes)),
            tuple(map(parse_change, self.changes)),
            tuple(map(parse_byzantine, self.byzantine)),
        )

    @property
    def by_link(self) -> dict[str, list[float]]:
        """Latency, bandwidth and loss, as far as they differ: all values, or of many links three."""
        return {name: self.links[name] for name in BY_LINK if name in self.links}

    def __str__(self) -> str:
        """In a sentence."""
        text = "; ".join([*self._slow(), *self._by_link(), *self._happens()])
        return f"{text[:1].upper()}{text[1:]}."

    def _slow(self) -> list[str]:
        """Who needs how long."""
        does = {"for a gradient": self.computing, "to send a model": self.sending}
        if self.computing == self.sending:
            does = {"for a gradient and to send a model": self.computing}
        said, ranges = list[str](), list[str]()
        for what, values in does.items():
            usual = max(Counter(values).items(), key=lambda pair: (pair[1], -pair[0]), default=(1.0, 0))[0]
            others = {value for value in values if value != usual}
            slow = {agent for agent, value in enumerate(values) if value != usual}
            if len(others) == 1 and usual > 0:
                need = "need" if len(slow) > 1 else "needs"
                said.append(f"{_who(slow)} {need} {others.pop() / usual:.3g} times as long {what}")
            elif others:
                ranges.append(f"{_range(values)} {what}")
        return said + [f"agents need {', '.join(ranges)}"] * bool(ranges)

    def _by_link(self) -> list[str]:
        return [f"{CALLED[name]} {_range(values)} by link" for name, values in self.by_link.items()]

    def _happens(self) -> list[str]:
        crashes, changes, byzantine = self.events
        lies = [f"{lie} (Byzantine)" for lie in byzantine]
        if len(crashes) <= NAMED:
            said = [*map(_crash, crashes)]
        else:
            who = _who({crash.agent for crash in crashes})
            said = [f"{who} crash {len(crashes) + self.left_out:,} times in all"]
        said += map(str, changes) if len(changes) <= NAMED else [f"{len(changes)} slowdowns and cuts"]
        return said + (lies if len(lies) <= NAMED else [f"{len(lies)} agents are Byzantine"])


def _check(found: WorldValues, n: int) -> None:
    """Raise ValueError unless all of it is of n agents and has the lengths that it says."""
    links, lengths = found.links, {len(values) for values in found.links.values()}
    ends = [end for name in ENDS for end in links.get(name, [])]
    listed = [*links][:2] == [*ENDS] and len(lengths) == 1 and {*ends} <= {*range(n)}
    some = not ends and lengths <= {3}
    fits = {*links} <= {*ENDS, *BY_LINK} and (listed or some) and found.left_out >= 0
    whole = all(type(end) is int for end in ends)
    if not (fits and whole and {len(found.computing), len(found.sending)} <= {0, n}):
        raise ValueError("its world does not fit together")


def _by_agent(delay: Callable[[int], Any], n: int, *own: Mapping[int, object]) -> list[float]:
    """The expected delays of n agents, unless all are alike, as they are where none has one of its own."""
    values = [_rounded(delay(agent).expected) for agent in range(n)] if any(own) else []
    return values if len({*values}) > 1 else []


def _by_link(world: World, topology: Topology) -> dict[str, list[float]]:
    numbers = {name: value for name in BY_LINK if isinstance(value := getattr(world, name), PerLink)}
    links = topology.links if numbers else []
    each = {name: [_rounded(value(*link)) for link in links] for name, value in numbers.items()}
    differing = {name: values for name, values in each.items() if len({*values}) > 1}
    if len(links) > MOST:
        return {name: [min(v), _rounded(median(v)), max(v)] for name, v in differing.items()}
    ends: dict[str, list[float]] = {"from": [i for i, _ in links], "to": [j for _, j in links]}
    return ends | differing if differing else {}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _numbers(values: Any) -> list[float]:
    """Finite, and not negative; whole ones as they are."""
    if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
        raise TypeError(f"{values!r:.60} where numbers were expected")
    if not np.isfinite(values).all() or min(values, default=0) < 0:
        raise ValueError(f"{values!r:.60} where finite numbers from 0 were expected")
    return [*values]


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g} (median {median(values):.3g})"


def _who(agents: set[int]) -> str:
    if len(agents) > NAMED:
        return f"{len(agents)} agents"
    *before, last = map(str, sorted(agents))
    return f"agents {', '.join(before)} and {last}" if before else f"agent {last}"


def _crash(crash: Crash) -> str:
    back = " for good" if crash.until is None else f" until {crash.until:g}"
    return f"agent {crash.agent} is down from {crash.at:g}{back}"
