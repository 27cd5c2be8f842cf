"""What a world does to gradients and letters, for the events that ask (`loop`): how long they take, when and
by whom they are lost.
"""

from collections.abc import Sequence
from itertools import islice

from offbeat.core.system.streams import CHUNK, BufferedStream, Purpose, uniform
from offbeat.world.changes import finish
from offbeat.world.sending import senders, slowdowns
from offbeat.world.world import World

COMPUTES, SENDS = range(2)  # what takes time


class Post:
    """That of a run.

    Args:
        around: who is around each agent: they are known by their places there, receivers by their places
            among those of a letter

    Attributes:
        back: the place of an agent among those whom each of these sees (-1: it does not see it)
        slow: which agents are slowed down when they compute, and when they send
        unicast, lossy: see `World`; uniform, cuts, bandwidth: see `Sender`
    """

    def __init__(self, world: World, around: Sequence[Sequence[int]], model_bytes: int) -> None:
        seed, agents = world.seed, range(len(around))
        self.around, self.model_bytes = around, model_bytes
        self._place = [{j: place for place, j in enumerate(row)} for row in around]
        self.back = [[self._place[j].get(i, -1) for j in row] for i, row in enumerate(around)]
        self._senders = senders(world, agents)
        self._slow = [slowdowns(world, i, sends=False) for i in agents]
        self.slow = [bool(each) for each in self._slow], [bool(each.slowdowns) for each in self._senders]
        self.unicast, self.lossy = world.sending == "unicast", bool(world.lossy)
        self.uniform, self.cuts = self._senders[0].uniform, bool(self._senders[0].cuts)
        self.bandwidth = self._senders[0].bandwidth.usual
        drawn = (Purpose.COMPUTE, world.compute_delay), (Purpose.COMMUNICATION, world.communication_delay)
        self._delays = [[BufferedStream(of(i).draw, seed, why, i) for i in agents] for why, of in drawn]
        self._lost = [BufferedStream(uniform, seed, Purpose.LOSS, i) for i in agents]

    def delays(self, which: int, i: int) -> list[float]:
        """The next ones of an agent's gradients, or transmissions: as many as are drawn at once."""
        return [*islice(self._delays[which][i], CHUNK)]

    def ends(self, which: int, i: int, start: float, work: float) -> float:
        """When one of that length is over."""
        if which == COMPUTES:
            return finish(start, work, self._slow[i])
        return self._senders[i].sent(start, work)

    def instants(
        self, i: int, to: Sequence[int], waits: bool, start: float, work: float
    ) -> tuple[float, list[tuple[float, list[int]]]]:
        """When the link is free of a transmission, and who has it when: see `Sender.instants`."""
        receivers = [self.around[i][place] for place in to]
        which = {j: k for k, j in enumerate(receivers)}
        end, instants = self._senders[i].instants(start, work, receivers, waits=waits)
        return end, [(instant, [which[j] for j in there]) for instant, there in instants]

    def lost(self, i: int, to: Sequence[int]) -> list[int]:
        """Which receivers lose a version of a register."""
        receivers = [self.around[i][place] for place in to]
        missing = self._senders[i].missing(receivers, self._lost[i])
        return [k for k, j in enumerate(receivers) if j in missing]

    def parted(self, i: int, place: int, now: float) -> bool:
        """Whether a cut parts an agent from that one around it."""
        return self._senders[i].parted(self.around[i][place], now)
