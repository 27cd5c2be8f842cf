"""From the settings of an experiment to its `World`."""

from dataclasses import replace
from typing import cast

from offbeat.core.errors import SettingError
from offbeat.core.settings import declared
from offbeat.experiments.experiment import Experiment
from offbeat.world.delays import parse
from offbeat.world.topology import Topology
from offbeat.world.world import STRAGGLER_CASES, Crash, World, parse_crash

OF_WORLD = ("compute", "communication", "loss", "crash")  # settings that a world has, where one is given
LONG = 1e9  # agents times edges from which it takes too long to look for the centre of a graph


def world_of(e: Experiment, seed: int) -> World:
    """The world that was given, or the one that the settings describe; before the case."""
    if e.world is not None:
        if not isinstance(e.world, World):
            raise SettingError(f"The world must be an offbeat.World; got {e.world!r}.")
        for name in OF_WORLD:
            if getattr(e, name) != declared(Experiment)[name].default:
                raise SettingError(f"Expected a world or '{name}', which is part of it; got both.")
        return replace(e.world, seed=seed)
    compute, sending = (parse(d) if isinstance(d, str) else d for d in (e.compute, e.communication))
    given = cast(tuple[str | Crash, ...], e.crash)
    crashes = tuple(parse_crash(each) if isinstance(each, str) else each for each in given)
    return World(seed=seed, compute=compute, communication=sending, loss=e.loss, crashes=crashes)


def straggler_of(e: Experiment, topology: Topology) -> int:
    """The slow agent of the case; 0 where it has none."""
    if e.case not in STRAGGLER_CASES:
        if e.straggler is not None:
            cases = ", ".join(STRAGGLER_CASES)
            raise SettingError(f"A straggler was named; there is none in case '{e.case}', but in {cases}.")
        return 0
    n = topology.n
    if e.straggler is None and n**2 * topology.degree > LONG:
        hours = f"Finding the centre of a graph of {n:,} agents would take hours"
        raise SettingError(f"{hours}; expected --straggler, the slow agent.")
    straggler = topology.centre if e.straggler is None else e.straggler
    if not 0 <= straggler < n:
        agents = f"with {n} agents they are 0 to {n - 1}"
        raise SettingError(f"There is no agent {straggler} to be the straggler: {agents}.")
    return straggler
