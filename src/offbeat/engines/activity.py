"""What agents did in a run: how old what they mixed was, what their time went into, who sent whom
how much. Found part by part beside the summary of a trace, which need not be kept.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from offbeat.engines.events import (
    Crashed,
    GradientDone,
    MailReceived,
    RegisterMoved,
    RegisterRead,
    Rejoined,
    rows_of,
)

Link = tuple[int, int]  # sender, receiver

EDGES = np.array([*range(16), *(m << e for e in range(2, 58) for m in (4, 5, 6, 7))], dtype=np.int64)
"""Where the bins of the histogram of ages begin: one for each age below 16, then four for each doubling."""


class Activity:
    """Sums over the parts of a trace so far.

    Attributes:
        ages: how many of the models that were mixed have an age, k - s_ij^k, in each bin of `EDGES`
        sent: bytes of each agent's transmissions: int64 [agents]
    """

    def __init__(self, agents: int) -> None:
        self.ages = np.zeros(len(EDGES), dtype=np.int64)
        self.sent = np.zeros(agents, dtype=np.int64)
        self._computing, self._sending, self._last = np.zeros((3, agents))
        self._faults: list[tuple[int, float, bool]] = []  # agent, time, whether it is back
        self._over = np.zeros((0, 2))  # agent and end of what was on its way at the end of a part
        self._now = 0.0

    def add(self, events: np.ndarray, transmissions: np.ndarray, ages: np.ndarray) -> None:
        """The next part: two tables of the trace, and the age of every model that was mixed."""
        self.ages += np.bincount(np.searchsorted(EDGES, ages, side="right") - 1, minlength=len(EDGES))
        done, sent = rows_of(events, GradientDone), transmissions
        # one after another, so that the sums are the same in whatever parts they come
        self._computing = _added(self._computing, done["agent"], done["end"] - done["start"])
        self._sending = _added(self._sending, sent["agent"], sent["end"] - sent["start"])
        self.sent = _added(self.sent, sent["agent"], sent["bytes"]).astype(np.int64)
        np.maximum.at(self._last, done["agent"], done["end"])
        for kind in (Crashed, Rejoined):
            rows = rows_of(events, kind)
            pairs = zip(rows["agent"].tolist(), rows["time"].tolist(), strict=True)
            self._faults += [(agent, time, kind is Rejoined) for agent, time in pairs]
        self._now = max([self._now, *events["time"][-1:].tolist(), *sent["start"][-1:].tolist()])
        over = np.concatenate([self._over, np.column_stack([sent["agent"], sent["end"]])])
        self._over = over[over[:, 1] > self._now]

    def shares(self, until: float) -> dict[str, list[float]]:
        """What part of its time each agent computed, waited and was down; and was sending, besides.

        Until the end of its last gradient, for what it began then is not in a trace; sending: until the end
        of the run. An agent that finished no gradient has 0 of all but sending.
        """
        last = self._last
        down, since = np.zeros(len(last)), dict[int, float]()
        for agent, time, back in sorted(self._faults, key=lambda fault: fault[1]):
            if not back:
                since.setdefault(agent, time)
            elif (at := since.pop(agent, None)) is not None:
                down[agent] += max(0.0, min(time, last[agent]) - at)
        agents, ends = self._over.T
        sending = self._sending.copy()
        np.subtract.at(sending, agents.astype(np.int64), np.maximum(ends - until, 0.0))
        whole = np.where(last > 0, last, 1.0)
        computing, down = self._computing / whole, down / whole
        waiting = np.where(last > 0, np.maximum(0.0, 1.0 - computing - down), 0.0)
        found = {"computing": computing, "waiting": waiting, "down": down, "sending": sending / until}
        return {name: values.tolist() for name, values in found.items()}

    def histogram(self) -> dict[str, list[int]]:
        """The bins up to the oldest: where each begins, and how many models are in it."""
        count = int(np.flatnonzero(self.ages).max(initial=-1)) + 1
        return {"from": EDGES[:count].tolist(), "count": self.ages[:count].tolist()}


def _added(sums: np.ndarray, which: np.ndarray, values: np.ndarray) -> np.ndarray:
    """These sums with values added to some of them, one after another."""
    which = np.concatenate([np.arange(len(sums)), which])
    return np.bincount(which, np.concatenate([sums, values]), len(sums))


def carried(events: np.ndarray, transmissions: np.ndarray) -> dict[Link, int]:
    """Bytes by link, read off a whole trace, which does not say to whom something was sent, but who took it
    in: mail that arrived, and the versions of registers that were read, each once for every reader.
    """
    sent, found = transmissions[["agent", "kind", "start", "bytes"]], defaultdict[Link, int](int)
    sizes = {(agent, kind, start): size for agent, kind, start, size in sent.tolist()}
    for what in (MailReceived, RegisterRead, RegisterMoved):
        for j, i, kind, start in rows_of(events, what)[["agent", "source", "kind", "start"]].tolist():
            found[i, j] += sizes.get((i, kind, start), 0)
    return dict(found)


def traffic(sent: np.ndarray, links: Mapping[Link, int]) -> dict[str, list[int]]:
    """Bytes by agent, and by link: sender, receiver and bytes of each, as columns."""
    rows = sorted(links.items())
    columns = {"from": [i for (i, _), _ in rows], "to": [j for (_, j), _ in rows]}
    return {"agents": sent.tolist(), **columns, "bytes": [size for _, size in rows]}
