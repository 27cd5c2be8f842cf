"""Graphs that are named by their file: GraphML, GML, edges as CSV or as an edge list, or a function of yours.

GraphML and GML say whether they are directed. A list of edges is undirected: each pair stands there once.

- `.csv`: a line `from,to` or `from,to,weight` for each edge; where nodes have names, under such a head. A
  weight is w_ij = w_ji, and w_ii what is missing to 1; without weights they are Metropolis', as of any graph.
- `.edgelist`: two nodes in each line, with blanks between; what follows is left alone, `#` begins a comment.
- `FILE.py:NAME`: a networkx graph or an `offbeat.Topology`, or a function of what it names of n and seed.

Nodes that are written as the numbers 0..n-1 are the agents' numbers, others are numbered in their order.
"""

import csv
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from offbeat.core.errors import SettingError
from offbeat.core.system import own
from offbeat.core.system.named import Own
from offbeat.core.system.reading import reading
from offbeat.world.columns import has_names, in_order

GRAPH = "a networkx graph, an offbeat.Topology, or a function of n and seed that returns one"
SUFFIXES = (".graphml", ".gml", ".csv", ".edgelist")
ENDING = re.compile(r"\.[A-Za-z]\w*")  # of a file; a name may end in a number, 'erdos-renyi:0.3'
Weights = dict[tuple[Any, Any], float]


def file_of(text: str) -> str | None:
    """The file that a topology is named by; None if it is a name of the table."""
    named = Own.parse(text)
    return named.file if named is not None else text if Path(text).suffix.lower() in SUFFIXES else None


def refuse_ending(text: str) -> None:
    """Raise SettingError if a topology that is no known name looks like a file, or is one."""
    there, suffix = Path(text).is_file(), Path(text).suffix
    if there or "/" in text or ENDING.fullmatch(suffix):
        what = f"There is a file {text}" if there else f"There is no file {text}"
        ending = f"its ending {suffix} says" if suffix else "a name without an ending says"
        formats = ".edgelist (two nodes in each line), .csv (a line 'from,to', then one for each edge)"
        raise SettingError(f"{what}, but {ending} no format of graphs. Expected {formats}, .graphml or .gml.")


def size(text: str, seed: int) -> int | None:
    """How many nodes the graph of this file has; None if it has as many as there are agents."""
    named = Own.parse(text)
    if named is None:
        return len(read(text)[0])
    value = own.load(named, GRAPH)
    if callable(value) and "n" in own.parameters(value)[0]:
        return None
    graph = drawn(named, None, seed)
    return int(graph.n) if hasattr(graph, "n") else len(graph)


def drawn(named: Own, n: int | None, seed: int) -> Any:
    """What the user's own code gives: a graph, or a function's. Raises SettingError for its faults."""
    given = own.load(named, GRAPH)
    if callable(given) or named.options:
        given = own.made(named, {"n": n, "seed": seed}, GRAPH)
    if not isinstance(given, nx.Graph) and not hasattr(given, "w"):
        raise SettingError(f"{named} gives a {type(given).__name__}; expected {GRAPH}.")
    return given


def read(file: str) -> tuple[nx.Graph, np.ndarray[Any, Any] | None]:
    """The graph in a file, and its matrix W where it has weights. Raises DataError."""
    lines = "lines 'from,to' or 'from,to,weight' (under such a head, if nodes are not numbers)"
    expected = f"a graph: GraphML, GML, {lines}, or an edge list"
    raw = own.data(file)
    with reading(file, expected):
        graph, weights = _parsed(Path(file).suffix.lower(), raw)
        return graph, _matrix(graph, weights) if weights else None


@lru_cache(maxsize=2)
def _parsed(suffix: str, raw: bytes) -> tuple[nx.Graph, Weights]:
    if suffix == ".graphml":
        return _plain(nx.parse_graphml(raw.decode("utf-8"))), {}
    text = raw.decode("utf-8-sig")
    if suffix == ".gml":
        labelled = any(line.split()[:1] == ["label"] for line in text.splitlines())
        return _plain(nx.parse_gml(text, label="label" if labelled else "id")), {}
    if suffix == ".csv":
        return _edges(text)
    lines = [line for line in text.splitlines() if line.strip()]
    return _plain(nx.parse_edgelist(lines, data=False)), {}


def _plain(graph: nx.Graph) -> nx.Graph:
    """Nodes that are written as numbers are numbers."""
    return nx.relabel_nodes(graph, {node: _node(node) for node in graph})


def _node(node: Any) -> Any:
    return int(node) if isinstance(node, str) and node.strip().isdecimal() else node


def _edges(text: str) -> tuple[nx.Graph, Weights]:
    cells = csv.reader(text.splitlines())
    rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(cells, 1) if row]
    first, named = rows[0][1] if rows else [], has_names(rows)
    if not named and not (len(first) in (2, 3) and all(map(str.isdecimal, first[:2]))):
        raise ValueError(f"its first line is {','.join(first)!r:.60}")
    graph, weights = nx.Graph(), Weights()
    for number, row in in_order(rows, ("from", "to", "weight"), optional="weight"):
        if len(row) != len(first):
            raise ValueError(f"row {number} has {len(row)} values, and the first {len(first)}")
        i, j = map(_node, row[:2])
        if graph.has_edge(i, j):
            raise ValueError(f"row {number} names the edge between {i} and {j} again; it is undirected")
        graph.add_edge(i, j)
        if len(row) == 3:
            weights[i, j] = float(row[2])
            if not 0 <= weights[i, j] < math.inf:
                raise ValueError(f"row {number} has the weight {row[2].strip()}, which is not 0 or more")
    return graph, weights


def _matrix(graph: nx.Graph, weights: Weights) -> np.ndarray[Any, Any]:
    n = len(graph)
    nodes = list(range(n)) if all(i in graph for i in range(n)) else list(graph)
    at, w = {node: k for k, node in enumerate(nodes)}, np.zeros((n, n))
    for (i, j), weight in weights.items():
        w[at[i], at[j]] = w[at[j], at[i]] = weight
    np.fill_diagonal(w, 0.0)
    np.fill_diagonal(w, 1.0 - w.sum(axis=1))
    if (over := np.flatnonzero(w.diagonal() <= 0)).size:
        raise ValueError(
            f"the weights of node {nodes[over[0]]} sum to {1 - w[over[0], over[0]]:g}, not to less than 1"
        )
    return w
