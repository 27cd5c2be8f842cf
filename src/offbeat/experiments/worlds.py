"""From the settings of an experiment to its `World`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from offbeat.core.errors import SettingError
from offbeat.core.settings import declared
from offbeat.core.system.streams import Purpose
from offbeat.experiments.experiment import Experiment
from offbeat.world.delays import parse
from offbeat.world.speeds import speeds
from offbeat.world.topology import Topology
from offbeat.world.world import STRAGGLER_CASES, Crash, World

OF_WORLD = ("compute", "communication", "loss", "crash", "speeds", "links")
"""Settings that are part of a world, where one is given."""
LONG = 1e9  # agents times edges from which it takes too long to look for the centre of a graph


def world_of(e: Experiment, n: int, seed: int) -> World:
    """The world that was given, or the one that the settings describe; before the case."""
    if e.world is not None:
        if not isinstance(e.world, World):
            raise SettingError(f"The world must be an offbeat.World; got {e.world!r}.")
        for name in OF_WORLD:
            if getattr(e, name) != declared(Experiment)[name].default:
                raise SettingError(f"Expected a world or '{name}', which is part of it; got both.")
        return replace(e.world, seed=seed)
    compute, sending = (parse(d) if isinstance(d, str) else d for d in (e.compute, e.communication))
    return World(
        seed=seed, compute=compute, communication=sending, loss=e.loss,
        crashes=cast(tuple[Crash, ...], e.crash),
        slow_compute=_slow("speeds", cast(str | None, e.speeds), n, seed, Purpose.SPEED),
        slow_communication=_slow("links", cast(str | None, e.links), n, seed, Purpose.LINK),
    )  # fmt: skip


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
    if named is None and n**2 * topology.degree > LONG:
        hours = f"Finding the centre of a graph of {n:,} agents would take hours"
        raise SettingError(f"{hours}; expected --straggler, the slow agent.")
    stragglers = (topology.centre,) if named is None else named
    for agent in stragglers:
        if not 0 <= agent < n:
            agents = f"with {n} agents they are 0 to {n - 1}"
            raise SettingError(f"There is no agent {agent} to be the straggler: {agents}.")
    return stragglers
