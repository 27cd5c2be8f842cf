"""How far the monotonic clock of another machine is ahead of this one's.

A question that takes 2 d there and back, and is answered with the time t, was answered some time within these
2 d; so t less the middle of them is off by at most d (Cristian, 1989). Of several the quickest counts. So
every board gets a zero of its own, and all agents' times are those of one clock, to within d and to what the
clocks drift afterwards. Ages and the times in the trace are as good as that; no order is taken from them.
"""

import time
from typing import NamedTuple

from offbeat.engines.live.cluster.peer import Peer

ASKED = 8  # times


class Offset(NamedTuple):
    """Add `ns` to a time of this machine's clock: there it is that, to `within` ns."""

    ns: int
    within: int


async def offset(peer: Peer) -> Offset:
    """Raises what the peer raises."""
    found = []
    for _ in range(ASKED):
        before = time.monotonic_ns()
        there = await peer.clock()
        after = time.monotonic_ns()
        found.append(Offset(there - (before + after) // 2, (after - before + 1) // 2))
    return min(found, key=lambda each: each.within)
