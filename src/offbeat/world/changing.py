"""Graphs that change from round to round, by name: one row each in `CHANGING`. All know who hears whom when.

In round k agents mix with W_k, whose rows and columns sum to 1; A_k = W_k. Either the matrices of one period
come again and again, or those of each round are drawn, from a stream that the round names.
"""

import math
import re
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import networkx as nx
import numpy as np
from scipy import sparse

from offbeat.core.agent import View
from offbeat.core.errors import SettingError
from offbeat.core.pairs import paired
from offbeat.core.system.streams import Purpose, stream
from offbeat.world.finite_time import base

Dense = np.ndarray[Any, np.dtype[np.float64]]
Entries = dict[int, dict[int, float]]  # receiver i -> sender j -> w_ij, i itself among them


@dataclass(frozen=True)
class PeriodicView:
    """The views of one agent in the rounds of a period."""

    views: tuple[View, ...]

    def at(self, k: int) -> View:
        return self.views[k % len(self.views)]


@dataclass(frozen=True, eq=False)
class Periodic:
    """The matrices of one period, which come again and again.

    Attributes:
        rounds: of each round the entries of its matrix
        symmetric: whether all of them are
    """

    n: int
    rounds: tuple[Entries, ...] = field(repr=False)
    symmetric: bool = True

    @property
    def period(self) -> int:
        return len(self.rounds)

    def matrix(self, k: int) -> Dense:
        """W_k, [n, n]."""
        w, rows = np.zeros((self.n, self.n)), self.rounds[k % self.period]
        for i, row in rows.items():
            w[i, [*row]] = [*row.values()]
        return w

    def mean(self) -> sparse.csr_array:
        """The mean over a period."""
        cells = [(i, j, w) for rows in self.rounds for i, row in rows.items() for j, w in row.items()]
        i, j, w = (np.array(each) for each in zip(*cells, strict=True))
        m = sparse.csr_array((w / self.period, (i, j)), shape=(self.n, self.n))
        m.sum_duplicates()
        return m

    def degree(self) -> float:
        """The mean over agents and rounds."""
        entries = sum(len(row) for rows in self.rounds for row in rows.values())
        return entries / (self.n * self.period) - 1.0

    def seen_by(self, i: int, living: Set[int]) -> PeriodicView:
        """Row and column i of every round."""
        return PeriodicView(
            tuple(
                _view(i, rows[i], column, living)
                for rows, column in zip(self.rounds, self._columns[i], strict=True)
            )
        )

    @cached_property
    def _columns(self) -> list[list[dict[int, float]]]:
        """By agent j and round: i -> w_ij."""
        columns: list[list[dict[int, float]]] = [[{} for _ in self.rounds] for _ in range(self.n)]
        for k, rows in enumerate(self.rounds):
            for i in sorted(rows):
                for j, w in rows[i].items():
                    columns[j][k][i] = w
        return columns

    def left(self) -> tuple[float, str]:
        """The norm of the product of one period, less that of exact averaging."""
        product = np.eye(self.n)
        for k in range(self.period):
            product = self.matrix(k) @ product
        norm = float(np.linalg.norm(product - 1.0 / self.n, 2))
        return (0.0 if norm < 1e-12 else norm), f"after {self.period} rounds, of the models' distance"


def _view(i: int, row: dict[int, float], column: dict[int, float], living: Set[int]) -> View:
    """What agent i does in one round; the weight of the lost is on the diagonal."""
    listeners = tuple(j for j in column if j != i and j in living)
    return View(folded(i, row, living), folded(i, column, living), listeners)


def folded(i: int, line: dict[int, float], living: Set[int]) -> dict[int, float]:
    """The line with the weight of the lost on the diagonal; exactly 1 for whoever is left alone."""
    kept = {j: w for j, w in sorted(line.items()) if j == i or j in living}
    if lost := [w for j, w in line.items() if j not in kept]:
        kept[i] = math.fsum([kept[i], *lost]) if len(kept) > 1 else 1.0
    return kept


@lru_cache(maxsize=256)
def _partners(n: int, seed: int, k: int) -> tuple[int, ...]:
    """By agent: who it is paired with in round k; with itself, if n is odd and it is left over."""
    return paired(stream(seed, Purpose.MATCHING, k).permutation(n).tolist())


@dataclass(frozen=True)
class MatchedView:
    """The views of one agent, of rounds of which each is drawn."""

    me: int
    n: int
    seed: int
    lost: tuple[int, ...]

    def at(self, k: int) -> View:
        j = _partners(self.n, self.seed, k)[self.me]
        if j == self.me or j in self.lost:
            return View({self.me: 1.0}, {self.me: 1.0}, ())
        w = dict.fromkeys(sorted((self.me, j)), 0.5)
        return View(w, w, (j,))


@dataclass(frozen=True)
class Matchings:
    """In every round all agents are paired anew, all ways with the same probability; pairs average."""

    n: int
    seed: int
    symmetric: bool = True
    period: int | None = None

    def matrix(self, k: int) -> Dense:
        """W_k, [n, n]."""
        w = np.eye(self.n)
        for i, j in enumerate(_partners(self.n, self.seed, k)):
            if i != j:
                w[i, i] = w[i, j] = 0.5
        return w

    def mean(self) -> sparse.csr_array:
        """The expectation."""
        n = self.n
        w = np.full((n, n), self.degree() / (2.0 * max(n - 1, 1)))
        np.fill_diagonal(w, 1.0 - self.degree() / 2.0)
        return sparse.csr_array(w)

    def degree(self) -> float:
        """1, or for odd n a little less."""
        return (self.n - self.n % 2) / self.n

    def seen_by(self, i: int, living: Set[int]) -> MatchedView:
        """It draws them itself."""
        return MatchedView(
            i, self.n, self.seed, tuple(j for j in range(self.n) if j != i and j not in living)
        )

    def left(self) -> tuple[float, str]:
        """lambda_2 of E W_k^T W_k = E W_k: by what the squared distance falls in expectation."""
        n = self.n
        second = 1.0 - self.degree() / 2.0 - self.degree() / (2.0 * max(n - 1, 1)) if n > 1 else 0.0
        return second, "after each round, of the models' squared distance, in expectation"


def _one_peer(n: int, seed: int, parameter: str) -> Periodic:
    hops = [2**k % n for k in range(max(1, (n - 1).bit_length()))] if n > 1 else []
    rounds = [{i: {i: 0.5, (i + hop) % n: 0.5} for i in range(n)} for hop in hops]
    return Periodic(n, tuple(rounds) or ({0: {0: 1.0}},), symmetric=n <= 2)


def _base(n: int, seed: int, parameter: str) -> Periodic:
    if not re.fullmatch(r"[1-9]\d{0,5}|", parameter):
        raise SettingError(f"'base:{parameter}' takes a largest degree of 1 or more, as in 'base:2'.")
    rounds: list[Entries] = []
    for edges in base(n, int(parameter or 1)):
        rows: Entries = {i: {} for i in range(n)}
        for (i, j), w in edges.items():
            rows[i][j] = rows[j][i] = w
        rounds.append({i: {i: 1.0 - math.fsum(row.values()), **row} for i, row in rows.items()})
    return Periodic(n, tuple(rounds))


Graphs = Periodic | Matchings
"""W_0, W_1, ... of n agents. `period`: after how many rounds they begin again; None: never, each is drawn."""


@dataclass(frozen=True)
class Family:
    """A row of `CHANGING`."""

    sequence: Callable[[int, int, str], Graphs]  # of n, seed, and what follows the colon, or ""
    about: str
    parameter: str = ""  # what may follow a colon


CHANGING: dict[str, Family] = {
    "one-peer-exponential": Family(
        _one_peer,
        "in round k agent i hears i + 2^(k mod ceil(log2 n)) and nobody else (arXiv:2110.13363); averages "
        "exactly after log2 n rounds, if n is a power of 2",
    ),
    "base": Family(
        _base,
        "the Base-(K+1) graph of arXiv:2305.11420: averages exactly after a period, for any n; nobody has "
        "more than K = 1 neighbours in a round",
        "the largest degree K, as in base:2",
    ),
    "matchings": Family(
        lambda n, seed, _: Matchings(n, seed),
        "in every round random pairs average, drawn anew from the seed; one is left over if n is odd",
    ),
}
"""Name -> family of graphs that change with rounds, in the order in which they are listed."""


def changing(text: str, n: int, seed: int) -> Graphs | None:
    """The sequence of this name, with or without a parameter; None if it is no such. Raises SettingError."""
    name, colon, parameter = text.partition(":")
    if name not in CHANGING:
        return None
    family = CHANGING[name]
    if colon and not (parameter and family.parameter):
        expected = family.parameter or f"nothing; use '{name}'"
        raise SettingError(f"'{text}' has a colon; expected behind it: {expected}.")
    return family.sequence(n, seed, parameter)


def union(sequence: Graphs) -> nx.Graph:
    """Who ever hears whom, on a circle."""
    i, j = sequence.mean().nonzero()
    graph = nx.Graph() if sequence.symmetric else nx.DiGraph()
    turn = math.tau / sequence.n
    graph.add_nodes_from((a, {"pos": (math.sin(turn * a), math.cos(turn * a))}) for a in range(sequence.n))
    graph.add_edges_from((b, a) for a, b in zip(i.tolist(), j.tolist(), strict=True) if a != b)
    return graph
