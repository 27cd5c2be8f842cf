"""What is refused by arithmetic before anything is built: what cannot fit into memory, or a lifetime.

`memory` estimates what a run that is set up will take.
"""

from offbeat.core.errors import SettingError
from offbeat.core.system import machine

NODE, EDGE = 24_000, 600
"""Bytes of an agent without its model and minibatches, and of an edge of the graph: both more than that,
mostly."""

AHEAD = 512
"""Bytes of the minibatches that an agent has drawn ahead, for each sample of one."""

PROCESS = 50e6
"""Bytes of a process that trains, at least."""

MOST_UPDATES = 1e12
"""Gradients of one run, at most: months of work."""


def refuse_agents(n: int, topology: str, edges: float, batch: int) -> None:
    """Raise SettingError if so many agents cannot be held, whatever the algorithm.

    Args:
        n: how many
        topology: the name of the graph
        edges: of the graph
        batch: samples of a minibatch; 0 where none are drawn
    """
    drawn = float(n) * batch * AHEAD
    parts = {f"{n:,} agents": float(n) * NODE, f"{edges:.3g} edges of '{topology}'": edges * EDGE}
    parts |= {f"minibatches of {batch} samples": drawn}
    needs, largest = sum(parts.values()), max(parts, key=lambda name: parts[name])
    _refuse(needs, f"A run with {n:,} agents", f"most of it for {largest}. Expected fewer of them")


def refuse_processes(n: int) -> None:
    """Raise SettingError if this machine cannot hold so many processes."""
    _refuse(n * PROCESS, f"{n:,} processes", "50 MB each. Expected fewer agents")


def refuse_runs(count: int, each: float, worlds: int, world: float) -> None:
    """Raise SettingError if the results of so many runs, or their worlds, cannot be held together."""
    advice = "with their results. Expected fewer seeds or evaluations"
    _refuse(count * each + worlds * world, f"{count:,} runs", advice)


def refuse_updates(n: int, until: float, mean: float) -> None:
    """Raise SettingError if a run would never end. mean: of the time of a gradient."""
    updates = n * (until / mean)
    if updates > MOST_UPDATES:
        raise SettingError(
            f"About {updates:.3g} gradients would be made until time {until:g}; at most {MOST_UPDATES:.0e} "
            f"are. Expected an end at {MOST_UPDATES * mean / n:.3g} or before."
        )


def _refuse(needs: float, what: str, advice: str) -> None:
    free = machine.available()
    if needs > free:
        much = f"{needs / 1e9:,.1f} GB of memory at least, {advice}"
        raise SettingError(f"{what} would need {much}; {free / 1e9:.1f} GB are free.")
