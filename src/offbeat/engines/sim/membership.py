"""Who is alive in a simulation, and what the others know of it."""

from collections.abc import Iterator

from offbeat.core.agent import View
from offbeat.world.topology import Topology


class Membership:
    """Crashes and returns.

    Attributes:
        alive: the living
        incarnation: how often each agent has begun, from 1; of the dead the negative number. What was
            scheduled for one incarnation, or given to it, is nothing to the next
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.alive = frozenset(range(topology.n))
        self.incarnation = [1] * topology.n

    def view(self, i: int) -> View:
        """What agent i knows of the graph at present."""
        return self.topology.view(i, self.alive)

    def peers(self, i: int) -> list[int]:
        """The living agents that share an edge with i, by rising index."""
        return [j for j in self.topology.peers(i) if j in self.alive and j != i]

    def donor(self, i: int) -> int:
        """Whose model agent i returns with: a living neighbour's, else another's, else its own."""
        return next(iter([*self.peers(i), *sorted(self.alive)]), i)

    def crash(self, i: int) -> Iterator[tuple[int, View]]:
        """Agent i is gone: whose views have changed, and the new ones, one at a time."""
        self.incarnation[i] = -abs(self.incarnation[i])
        return self._changed(i, self.alive - {i})

    def back(self, i: int) -> Iterator[tuple[int, View]]:
        """Agent i is there again, as `crash`."""
        self.incarnation[i] = 1 - self.incarnation[i]
        return self._changed(i, self.alive | {i})

    def _changed(self, i: int, alive: frozenset[int]) -> Iterator[tuple[int, View]]:
        before = {j: self.view(j) for j in self.peers(i)}
        self.alive = alive
        return ((j, view) for j, old in before.items() if (view := self.view(j)) != old)
