"""From the settings of an experiment to its `World`."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any, cast

from offbeat.algorithms import Algorithm
from offbeat.core.errors import SettingError
from offbeat.core.settings import as_word, declared
from offbeat.core.system.streams import Purpose
from offbeat.experiments.experiment import Experiment
from offbeat.world.availability import read_availability
from offbeat.world.changes import Byzantine, Change
from offbeat.world.delays import parse
from offbeat.world.files import file_said
from offbeat.world.links import numbers_of_links
from offbeat.world.per_link import PerLink
from offbeat.world.speeds import HIGH, LOW, speeds
from offbeat.world.topology import Topology
from offbeat.world.world import STRAGGLER_CASES, Crash, World

BY_LINK = ("latency", "bandwidth", "loss")  # numbers, or one for each link
OF_WORLD = (
    "compute", "communication", "crash", "speeds", "links", *BY_LINK, "sending", "network", "event",
    "availability", "byzantine",
)  # fmt: skip
"""Settings that are part of a world, where one is given."""
LONG = 1e9  # agents times edges from which it takes too long to look for the centre of a graph


def world_of(e: Experiment, n: int, until: float, seed: int) -> World:
    """The world that was given, or what the settings say of n agents; before the links, and the case."""
    if e.world is not None:
        if not isinstance(e.world, World):
            raise SettingError(f"The world must be an offbeat.World; got {e.world!r}.")
        for name in OF_WORLD:
            if getattr(e, name) != declared(Experiment)[name].default:
                raise SettingError(f"Expected a world or '{name}', which is part of it; got both.")
        return replace(e.world, seed=seed)
    compute, communication = (parse(d) if isinstance(d, str) else d for d in (e.compute, e.communication))
    away = () if e.availability is None else read_availability(Path(e.availability), n, until)
    return World(
        seed=seed, compute=compute, communication=communication,
        slow_compute=_slow("speeds", cast(str | None, e.speeds), n, seed, Purpose.SPEED),
        slow_communication=_slow("links", cast(str | None, e.links), n, seed, Purpose.LINK),
        crashes=(*cast(tuple[Crash, ...], e.crash), *away), changes=cast(tuple[Change, ...], e.event),
        byzantine=cast(tuple[Byzantine, ...], e.byzantine), sending=e.sending, network=e.network,
    )  # fmt: skip


def with_links(e: Experiment, world: World, topology: Topology) -> World:
    """The world with what the settings say of the links of a graph, if no world was given."""
    n, links = topology.n, topology.links
    if e.world is not None:
        for name in BY_LINK:
            if isinstance(numbers := getattr(world, name), PerLink):
                numbers.check_used(f"'{name}' of the world", links)
        return world
    latency, bandwidth, loss = (
        numbers_of_links(name, getattr(e, name), n, links, world.seed) for name in BY_LINK
    )
    return replace(world, latency=latency, bandwidth=bandwidth, loss=loss)


def check_reached(world: World, spec: Algorithm, n: int) -> None:
    """Raise SettingError if an algorithm that sends beyond the graph may meet links without a number."""
    for name in BY_LINK * spec.prototype.beyond_graph:
        if isinstance(numbers := getattr(world, name), PerLink):
            why = f", which {spec.name}, that sends beyond the graph, may use"
            numbers.check_used(f"'{name}'", permutations(range(n), 2), why)


def check_times(world: World, until: float) -> None:
    """Raise SettingError for what would begin after the end."""
    for what, each in [*(("crash", c) for c in world.crashes), *(("event", c) for c in world.changes)]:
        if each.at >= until:
            raise SettingError(f"The {what} '{each}' would come after the end of the runs, at {until:g}.")


def world_files(e: Experiment) -> list[str]:
    """The files that the world is said by, as far as they are there: who reads them says what is missing."""
    said = (getattr(e, name) for name in ("compute", "communication", "speeds", "links", *BY_LINK))
    found = [*map(file_said, said), None if e.availability is None else str(e.availability)]
    return [*dict.fromkeys(path for path in found if path is not None and Path(path).is_file())]


def recorded(world: World, n: int) -> dict[str, Any]:
    """What a world of n agents that was given says, as settings would: as far as they have words for it."""
    speeds = {"speeds": world.slow_compute, "links": world.slow_communication}
    links = {name: value for name in BY_LINK if isinstance(value := getattr(world, name), PerLink)}
    said = {name: value.usual if value.uniform else str(value) for name, value in links.items()}
    as_they_are = "compute", "communication", *BY_LINK, "sending", "network"
    return {
        **{name: getattr(world, name) for name in as_they_are},
        **said,
        **{name: _listed(factors, n) for name, factors in speeds.items()},
        "crash": world.crashes, "event": world.changes, "byzantine": world.byzantine,
    }  # fmt: skip


def wordless(world: World, n: int) -> list[str]:
    """The parts of a world of n agents that settings have no words for, as its fields are called."""
    delays = {"compute": world.compute, "communication": world.communication}
    found = [name for name, delay in delays.items() if delay.values or str(parse(str(delay))) != str(delay)]
    for name in ("slow_compute", "slow_communication"):
        factors = getattr(world, name)
        said = _slow(name, _listed(factors, n), n, world.seed, Purpose.SPEED) if _fit(factors) else {}
        found += [name] * any(said.get(agent, 1.0) != factor for agent, factor in factors.items())
    found += [name for name in ("own_compute", "own_communication") if getattr(world, name)]
    links = {name: getattr(world, name) for name in BY_LINK}
    return found + [name for name, of in links.items() if isinstance(of, PerLink) and not of.uniform]


def _fit(factors: Mapping[int, float]) -> bool:
    return all(LOW <= 1 / factor <= HIGH for factor in factors.values())


def _listed(factors: Mapping[int, float], n: int) -> str | None:
    """The speeds of n agents by these factors on their means, as they are listed; None: all are alike."""
    found = [1 / factors.get(agent, 1.0) for agent in range(n)]
    return ",".join(map(as_word, found)) if {*found} != {1.0} else None


def _slow(name: str, said: str | None, n: int, seed: int, purpose: Purpose) -> Mapping[int, float]:
    """By agent the factor on its mean delay, from the speeds that are said."""
    found = [] if said is None else speeds(name, said, n, seed, purpose)
    return {agent: 1 / speed for agent, speed in enumerate(found)}


def stragglers_of(e: Experiment, topology: Topology) -> tuple[int, ...]:
    """The slow agents of the case; none where it has none."""
    n, named = topology.n, cast(tuple[int, ...] | None, e.straggler)
    if e.case not in STRAGGLER_CASES:
        if named is not None:
            cases = ", ".join(STRAGGLER_CASES)
            raise SettingError(f"A straggler was named; there is none in case '{e.case}', but in {cases}.")
        return ()
    if named is None and n * len(topology.links) > LONG:
        hours = f"Finding the centre of a graph of {n:,} agents would take hours"
        raise SettingError(f"{hours}; expected --straggler, the slow agent.")
    stragglers = (topology.centre,) if named is None else named
    for agent in stragglers:
        if not 0 <= agent < n:
            agents = f"with {n} agents they are 0 to {n - 1}"
            raise SettingError(f"There is no agent {agent} to be the straggler: {agents}.")
    return stragglers
