"""The world of a run: how long everything takes, what is lost, who crashes. One seeded value.

A sender has one server for all that it sends, first come first served; one delay is drawn for each
transmission, and receiving costs nothing (full duplex). Transmission k of agent i leaves at t, with a drawn
delay d (its agent's slowness included) and a size s in models; receiver j gets it at

    t + d s / bandwidth_ij + latency_ij

and the server is free again at t + d s / min_j bandwidth_ij. A multicast is one transmission to all its
receivers; under `unicast` each receiver has its own, one after another, in the order of the receivers.
`fair`: the receivers' transmissions are flows that go at the same time, see `World.network`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from offbeat.core.errors import SettingError, unknown
from offbeat.world.changes import Byzantine, Change, Cut
from offbeat.world.delays import Delay
from offbeat.world.per_link import PerLink


@dataclass(frozen=True)
class Crash:
    """The agent dies at time `at`, and returns at time `until` (None: never)."""

    agent: int
    at: float
    until: float | None = None

    def __post_init__(self) -> None:
        if not (self.agent >= 0 and math.isfinite(self.at) and self.at >= 0):
            expected = "A crash needs an agent >= 0 and a time >= 0"
            raise SettingError(f"{expected}; got agent {self.agent} at {self.at}.")
        if self.until is not None and not self.until > self.at:
            raise SettingError(f"Agent {self.agent} crashes at {self.at}: it cannot return before.")

    def __str__(self) -> str:
        times = [repr(float(time)).removesuffix(".0") for time in (self.at, self.until) if time is not None]
        return f"agent {self.agent} at {' until '.join(times)}"


SENDING = {
    "multicast": "one transmission to all receivers, who get it together",
    "unicast": "one transmission to each receiver, one after another",
}
NETWORKS = {
    "serial": "one transmission of an agent at a time",
    "fair": "the transmissions to all receivers at a time, as flows that share the network max-min fairly",
}


@dataclass(frozen=True)
class World:
    """Delays, losses and crashes.

    Attributes:
        seed: every stream of the run comes from it
        compute: delay of a gradient (default: gamma, mean 1, cv 0.25)
        communication: delay of a transmission of one model (default: lognormal, mean 1, cv 1); a smaller
            payload takes proportionally less, bare numbers take no time
        own_compute, own_communication: agent -> its own delay instead, where it has one
        slow_compute, slow_communication: agent -> factor on its mean
        loss: probability that one receiver misses one transmission of a register; mail is never lost. By
            link, 1 is a link that carries none
        crashes: who crashes when
        latency: time from the end of a transmission on a link until it is there, by link
        bandwidth: of a link: how many times as fast as the drawn delay says it carries a model, by link
        sending: "multicast": one transmission to all receivers; "unicast": one to each, one after another
        network: "serial": one transmission of an agent at a time; "fair": those to all receivers at a time,
            as flows, each of the length d s with a delay of its own. Their rates are max-min fair, and found
            anew whenever a flow begins or ends: at most bandwidth_ij each, at most 1 in all for each sender,
            and for each receiver. A slow sender has less capacity, 1 / factor, instead of longer flows
        changes: slowdowns and cuts, each for a time
        byzantine: who sends what is wrong

    Raises SettingError for a factor or a probability out of range.
    """

    seed: int = 0
    compute: Delay = Delay("gamma")
    communication: Delay = Delay("lognormal")
    slow_compute: Mapping[int, float] = field(default_factory=dict)
    slow_communication: Mapping[int, float] = field(default_factory=dict)
    loss: float | PerLink = 0.0
    crashes: tuple[Crash, ...] = ()
    own_compute: Mapping[int, Delay] = field(default_factory=dict)
    own_communication: Mapping[int, Delay] = field(default_factory=dict)
    latency: float | PerLink = 0.0
    bandwidth: float | PerLink = 1.0
    sending: str = "multicast"
    network: str = "serial"
    changes: tuple[Change, ...] = ()
    byzantine: tuple[Byzantine, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.loss, float | int) and not 0 <= self.loss < 1:
            raise SettingError(f"The probability of loss must be in [0, 1); got {self.loss}.")
        for what, value, low, high in (
            ("The loss", self.loss, 0.0, 1.0),
            ("The latency", self.latency, 0.0, 1e9),
            ("The bandwidth", self.bandwidth, 1e-9, 1e9),
        ):
            (value if isinstance(value, PerLink) else PerLink(value)).check(what, low, high)
        for what, said, known in (("sending", self.sending, SENDING), ("network", self.network, NETWORKS)):
            if said not in known:
                raise unknown(what, said, known)
        for factor in (*self.slow_compute.values(), *self.slow_communication.values()):
            if not 1e-3 <= factor <= 1e9:
                raise SettingError(f"A slowdown must be a number between 0.001 and 10^9; got {factor}.")
        for mean in [delay.expected for delay in (self.compute, *self.own_compute.values())]:
            if mean < 1e-3:
                what = "A gradient must take time, or the clock stands still"
                raise SettingError(f"{what}: the mean of its delay is {mean}; expected at least 0.001.")
        if self.seed < 0:
            raise SettingError(f"A seed must be >= 0; got {self.seed}.")

    @property
    def lossy(self) -> bool:
        return max(self.loss.values) > 0 if isinstance(self.loss, PerLink) else self.loss > 0

    @property
    def simulated_only(self) -> list[str]:
        """What it has that real processes do not heed."""
        fair, lies = self.network == "fair", bool(self.byzantine)
        return ["the fair network"] * fair + ["Byzantine agents"] * lies

    def check(self, n: int) -> None:
        """Raise SettingError if it speaks of agents that do not exist, of crashes that overlap, of a cut that
        leaves nobody.
        """
        self._check_agents(n)
        for cut in self.changes:
            if isinstance(cut, Cut) and len(cut.group) >= n:
                raise SettingError(f"'{cut}' leaves no rest: there are {n} agents. Expected some of them.")
        if len({each.agent for each in self.byzantine}) < len(self.byzantine):
            raise SettingError("A Byzantine agent is named twice; expected one thing that it does.")
        ends: dict[int, float] = {}
        for crash in sorted(self.crashes, key=lambda c: c.at):
            if crash.at <= ends.get(crash.agent, -1.0):
                raise SettingError(f"Agent {crash.agent} cannot crash at {crash.at:g}: it is down then.")
            ends[crash.agent] = math.inf if crash.until is None else crash.until

    def _check_agents(self, n: int) -> None:
        named: list[tuple[str, Iterable[int]]] = [
            ("", [*self.slow_compute, *self.slow_communication, *self.own_compute, *self.own_communication]),
            *((f"'{crash}': ", [crash.agent]) for crash in self.crashes),
            *((f"'{lie}': ", [lie.agent]) for lie in self.byzantine),
            *((f"'{c}': ", c.group if isinstance(c, Cut) else [c.agent]) for c in self.changes),
        ]
        for what in (self.latency, self.bandwidth, self.loss):
            if isinstance(what, PerLink):
                named.append((f"{what.source}: " * bool(what.source), [i for link in what.own for i in link]))
        for where, agents in named:
            for agent in agents:
                if not 0 <= agent < n:
                    raise SettingError(
                        f"{where}There is no agent {agent}: with {n} agents they are 0 to {n - 1}."
                    )

    def compute_delay(self, agent: int) -> Delay:
        return self.own_compute.get(agent, self.compute).times(self.slow_compute.get(agent, 1.0))

    def communication_delay(self, agent: int) -> Delay:
        """How long this agent's transmissions take, for one model each."""
        own = self.own_communication.get(agent, self.communication)
        return own.times(self.slow_communication.get(agent, 1.0))


def measured(world: World) -> list[str]:
    """What was read of delays and links that come from files."""
    delays = {"compute": world.compute, "communication": world.communication}
    links = {"latency": world.latency, "bandwidth": world.bandwidth, "loss": world.loss}
    said = [f"{name} from {d.source}; drawn with mean {d.mean:g}." for name, d in delays.items() if d.source]
    by_link = {name: value.source for name, value in links.items() if isinstance(value, PerLink)}
    return [*said, *(f"{name} from {source}." for name, source in by_link.items() if source)]


CASES = {
    "base": "all mean delays are 1",
    "slow-comm": "every agent communicates 10 times slower",
    "comp-straggler": "one agent computes 10 times slower",
    "comm-straggler": "one agent sends 10 times slower",
    "combined": "one agent computes and sends 10 times slower",
}
"""The five cases of arXiv:2505.10322, section on experiments. The factor 10 is `--slowdown`."""
STRAGGLER_CASES = ("comp-straggler", "comm-straggler", "combined")
"""Those of the cases in which one agent is slower than the others."""


def apply_case(world: World, name: str, stragglers: Sequence[int], slowdown: float = 10.0) -> World:
    """`world` with one of the five cases on top: whoever is slow in it already is so many times slower still.

    Raises SettingError for an unknown case or slowdown.
    """
    if name not in CASES:
        raise unknown("case", name, CASES)
    if not 1e-3 <= slowdown <= 1e9:
        raise SettingError(f"The slowdown must be a number between 0.001 and 10^9; got {slowdown}.")
    if name == "slow-comm":
        own = {agent: delay.times(slowdown) for agent, delay in world.own_communication.items()}
        return replace(world, communication=world.communication.times(slowdown), own_communication=own)

    def slower(factors: Mapping[int, float]) -> dict[int, float]:
        return {**factors, **{agent: factors.get(agent, 1.0) * slowdown for agent in stragglers}}

    if name in ("comp-straggler", "combined"):
        world = replace(world, slow_compute=slower(world.slow_compute))
    if name in ("comm-straggler", "combined"):
        world = replace(world, slow_communication=slower(world.slow_communication))
    return world


_CRASH = re.compile(r"(?i)\s*(?:agent\s+)?(\d+)\s+at\s+([0-9.e+-]+)(?:\s+until\s+([0-9.e+-]+))?\s*")


def parse_crash(text: str) -> Crash:
    """'agent 3 at 100 until 200', or without 'until' for good. Raises SettingError for anything else."""
    match = _CRASH.fullmatch(text)
    try:
        if match:
            agent, at, until = match.groups()
            return Crash(int(agent), float(at), float(until) if until else None)
    except ValueError:
        pass
    expected = "'agent 3 at 100' or 'agent 3 at 100 until 200'"
    raise SettingError(f"Cannot read the crash '{text}'; expected {expected}.")
