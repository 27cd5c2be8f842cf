"""What a run reports of its trace, found part by part: the constants B and D, and the digest.

So a trace that nothing else is wanted of need not be held. A part has the next rows of every table; rows of
`mixed` come with their write.
"""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from offbeat.engines.events import RegisterRead, rows_of
from offbeat.engines.tables import TABLES


@dataclass(frozen=True)
class Staleness:
    """The constants of assumption 3.3 of arXiv:2505.10322, measured.

    Attributes:
        B: every agent writes at least once in every window of B iterations.
        D: no mixed model is older than D iterations, k - D <= s_ij^k; None where nothing came from a
            register.
    """

    B: int
    D: int | None


class TraceSummary:
    """What is reported of the parts so far; `writes`: how many they have.

    The global iteration k counts instants at which some model was written; s_ij^k is the smaller of k and the
    k of the write that ended the mixed version.
    """

    def __init__(self, agents: int) -> None:
        self.agents, self.kinds, self.writes = agents, tuple[str, ...](), 0
        self._hashes = {name: hashlib.sha256() for name in TABLES}
        self._now, self._k = np.nan, -1  # of the last write
        self._newest = np.full(agents, -1)  # k of every agent's last write
        self._gap, self._age, self._heard = 0, 0, False
        self._ks = [array("q") for _ in range(agents)]  # k of every agent's writes, but for its first ones
        self._forgotten = [0] * agents

    def add(self, kinds: tuple[str, ...], tables: Mapping[str, np.ndarray]) -> None:
        """The next part: its tables, and all kinds of messages so far."""
        for name, sha in self._hashes.items():
            sha.update(np.ascontiguousarray(tables[name]).view(np.uint8).data)
        if len(kinds) > len(self.kinds):
            self.kinds = kinds
        self._heard |= len(rows_of(tables["events"], RegisterRead)) > 0
        now, then = self.selected(tables["writes"], tables["mixed"])
        self._age = max(self._age, int((now - then).max(initial=0)))

    def forget(self, oldest: Sequence[int] | np.ndarray) -> None:
        """Later parts mix no version of an agent that is older than this: [agents]."""
        for i, version in enumerate(np.asarray(oldest).tolist()):
            del self._ks[i][: version - self._forgotten[i]]
            self._forgotten[i] = version

    def staleness(self) -> Staleness:
        """B and D of all parts so far, the ends included."""
        longest = max(self._gap, int((self._k + 1 - self._newest).max()))
        return Staleness(longest, self._age if self._heard else None)

    def digest(self, *more: bytes) -> str:
        """SHA-256 over the SHA-256 of every table, and over whatever else is given (the final models)."""
        sha = hashlib.sha256(repr((self.agents, self.kinds)).encode())
        for part in (*[each.digest() for each in self._hashes.values()], *more):
            sha.update(part)
        return sha.hexdigest()

    def iterations(self, times: np.ndarray) -> np.ndarray:
        """k of the next writes, which are at these times: int64 [writes]."""
        k = self._k + np.cumsum(np.diff(times, prepend=self._now) != 0)
        if len(k):
            self._now, self._k = times[-1], int(k[-1])
        return k

    def selected(self, writes: np.ndarray, mixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For every row of the next part's `mixed`: k, and s_ij^k."""
        k, agent = self.iterations(writes["time"]), writes["agent"]
        order, begin = _by_agent(agent, self.agents)
        of_agent, wrote = k[order], np.flatnonzero(np.diff(begin))
        before = np.roll(of_agent, 1)
        before[begin[wrote]] = self._newest[wrote]
        self._gap = max(self._gap, int((of_agent - before).max(initial=0)))
        self._newest[wrote] = of_agent[begin[wrote + 1] - 1]
        for i in wrote.tolist():
            self._ks[i].frombytes(of_agent[begin[i] : begin[i + 1]].tobytes())
        now = k[mixed["write"] - self.writes]
        self.writes += len(k)
        then = now.copy()
        order, begin = _by_agent(mixed["source"], self.agents)
        for i in np.flatnonzero(np.diff(begin)).tolist():
            rows = order[begin[i] : begin[i + 1]]
            then[rows] = np.minimum(now[rows], self._ended(i, mixed["version"][rows]))
        return now, then

    def _ended(self, agent: int, version: np.ndarray) -> np.ndarray:
        """k of the write that ended each of these versions of an agent's model; later where none has."""
        ks, place = np.frombuffer(self._ks[agent], dtype=np.int64), version - self._forgotten[agent]
        ended, k = place < len(ks), np.full(len(place), self._k + 1)
        k[ended] = ks[place[ended]]
        return k


def _by_agent(agent: np.ndarray, agents: int) -> tuple[np.ndarray, np.ndarray]:
    """An order of rows by this column, and where every agent's rows begin in it: [agents + 1]."""
    order = np.argsort(agent, kind="stable")
    return order, np.searchsorted(agent[order], np.arange(agents + 1))
