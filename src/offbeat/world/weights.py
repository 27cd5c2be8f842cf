"""How much of a neighbour's model is mixed in: weights of an undirected graph, one row each in `WEIGHTS`."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import networkx as nx
import numpy as np
from scipy import sparse

from offbeat.core.errors import SettingError, unknown

Numbers = np.ndarray[Any, np.dtype[Any]]

MOST = 100  # agents of whose graph the fastest weights are looked for: seconds, a minute for a long chain
SURE = 0.01  # of the spectral gap: what may be missing to the fastest
OWN = 0.01  # what every agent keeps of its own model, at least, under the fastest weights
PLACES = 6  # decimals to which these are rounded: every process that finds them anew has the same


@dataclass(frozen=True)
class Rule:
    """A row of `WEIGHTS`; w_ij of the entries ij (i hears j), of which d are the degrees of all agents."""

    weights: Callable[[Numbers, Numbers, Numbers], Numbers]
    about: str
    directed: bool = False  # whether a directed graph has these


def _fastest(i: Numbers, j: Numbers, d: Numbers) -> Numbers:
    n, pairs = len(d), np.sort(np.stack([i, j], axis=1), axis=1)
    if n > MOST:
        raise SettingError(
            f"The fastest weights are looked for on up to {MOST} agents; got {n:,}. Expected other weights: "
            "'offbeat list weights'."
        )
    found = dict(_solved(n, tuple(sorted({(int(a), int(b)) for a, b in pairs}))))
    return np.array([found[int(a), int(b)] for a, b in pairs])


@lru_cache(maxsize=8)
def _solved(n: int, edges: tuple[tuple[int, int], ...]) -> tuple[tuple[tuple[int, int], float], ...]:
    """Edge -> weight. Raises SettingError if the package is missing, or is not sure of what it found."""
    try:
        import mixingmatrix
    except ImportError:
        do = "pip install 'offbeat[weights]' installs it"
        raise SettingError(f"The fastest weights are found by mixingmatrix: {do}.") from None
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what it is not sure of is looked at below
        best = mixingmatrix.solve(graph, tol=1e-8)
    gap, missing = 1.0 - float(best.slem), float(best.certified_gap)
    if not missing <= SURE * gap:
        raise SettingError(
            f"mixingmatrix is not sure to have the fastest weights of these {n} agents: the spectral gap, "
            f"{gap:.3g}, may be too small by {missing:.2g}, and expected is {SURE:.0%} of it at most. Use "
            "other weights, as 'lazy': 'offbeat list weights'."
        )
    w = sparse.csr_array(best.weights)
    own = float(w.diagonal().min())
    share = 1.0 if own >= OWN else (1.0 - OWN) / (1.0 - own)
    return tuple((edge, round(share * max(0.0, float(w[edge])), PLACES)) for edge in edges)


WEIGHTS: dict[str, Rule] = {
    "metropolis": Rule(
        lambda i, j, d: 1.0 / (1.0 + np.maximum(d[i], d[j])), "w_ij = 1 / (1 + max(d_i, d_j)); the default"
    ),
    "lazy": Rule(
        lambda i, j, d: 0.5 / np.maximum(d[i], d[j]),
        "lazy Metropolis, w_ij = 1 / (2 max(d_i, d_j)) (arXiv:1411.4186): w_ii >= 1/2, no eigenvalue below 0",
    ),
    "max-degree": Rule(
        lambda i, j, d: np.full(len(i), 1.0 / (1.0 + d.max(initial=0))),
        "w_ij = 1 / (1 + the largest degree), the same on every edge",
    ),
    "uniform": Rule(
        lambda i, j, d: 1.0 / (1.0 + d[i]),
        "w_ij = 1 / (1 + d_i), all whom an agent hears alike; what a directed graph has, d_i the in-degree; "
        "symmetric only where all have as many neighbours: algorithms that need that refuse other graphs",
        directed=True,
    ),
    "fastest": Rule(
        _fastest,
        "the largest spectral gap of all symmetric weights >= 0 (Boyd, Diaconis and Xiao 2004), found by "
        f"mixingmatrix (pip install 'offbeat[weights]') on up to {MOST} agents, to {SURE:.0%}; ours: where "
        f"that leaves an agent less than {OWN:g} of its own model, it is mixed with I until none has less",
    ),
}
"""Name -> rule, in the order in which they are listed."""


def rule(name: str | None, directed: bool, of: str) -> Rule:
    """The rule of this name; None: the usual one. Raises SettingError for one that the graph cannot have."""
    if name is None:
        return WEIGHTS["uniform" if directed else "metropolis"]
    if name not in WEIGHTS:
        raise unknown("weights", name, WEIGHTS)
    if directed and not WEIGHTS[name].directed:
        raise SettingError(
            f"'{of}' is directed, and '{name}' weights are of undirected graphs; expected 'uniform', or none."
        )
    return WEIGHTS[name]


def matrix(name: str | None, edges: sparse.csr_array, of: str) -> sparse.csr_array:
    """W of an undirected graph, whose `edges` are entries both ways; w_ii is what is missing to 1."""
    i, j = edges.nonzero()
    n = edges.shape[0]
    w_ij = rule(name, False, of).weights(i, j, np.bincount(i, minlength=n))
    w_ii = 1.0 - np.bincount(i, weights=w_ij, minlength=n)
    return sparse.csr_array((w_ij, (i, j)), shape=(n, n)) + sparse.diags_array(w_ii)
