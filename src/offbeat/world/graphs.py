"""The named graphs, from networkx: one row each in `TOPOLOGIES`. Weights: `offbeat.world.topology`."""

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import networkx as nx

from offbeat.core.errors import SettingError, agents
from offbeat.core.system.named import unknown_name
from offbeat.world.changing import CHANGING

SHAPE = re.compile(r"(\d+)x(\d+)")
TRIES = 100  # how many random graphs are drawn in search of a connected one


@dataclass(frozen=True)
class Family:
    """A row of `TOPOLOGIES`."""

    graph: Callable[[int, int, str], nx.Graph]  # of n, seed, and what follows the colon, or ""
    about: str
    takes: str = "any n"  # which n fit
    parameter: str = ""  # what may follow a colon


def _placed(graph: nx.Graph, place: Callable[[int], tuple[float, float]]) -> nx.Graph:
    nx.set_node_attributes(graph, {node: place(k) for k, node in enumerate(graph)}, "pos")
    return graph


def _circle(graph: nx.Graph, hub: int = 0) -> nx.Graph:
    """On a circle, clockwise from the top, around the first `hub` nodes."""
    turn = math.tau / max(len(graph) - hub, 1)
    return _placed(graph, lambda k: (math.sin(turn * k), math.cos(turn * k)) if k >= hub else (0.0, 0.0))


def _binary_tree(n: int) -> nx.Graph:
    """Layer by layer; the leaves of a full tree are one apart and a parent is midway above its children."""

    def place(k: int) -> tuple[float, float]:
        depth = (k + 1).bit_length() - 1
        return (k + 1.5 - 2**depth) * 2.0 ** (n.bit_length() - 1 - depth), float(-depth)

    return _placed(nx.full_rary_tree(2, n), place)


def _lattice(n: int, shape: str, wrap: bool) -> nx.Graph:
    """A grid, or a torus if `wrap`, numbered row by row; without a shape the most square one."""
    what, least = ("torus", 3) if wrap else ("grid", 2)

    def rows_of(m: int) -> int:
        """0: no m agents make one."""
        rows = next(r for r in range(math.isqrt(m), 0, -1) if m % r == 0)
        return rows if rows >= least or (m <= 3 and not wrap) else 0

    if shape:
        match = SHAPE.fullmatch(shape)
        rows, columns = (int(match[1]), int(match[2])) if match else (0, 0)
        if rows * columns != n or (wrap and min(rows, columns) < least):
            thin = ", both 3 or more" if wrap else ""
            advice = f" Or give it {rows * columns} agents." if rows * columns and not wrap else ""
            expected = f"expected {_SHAPE}, with product {n}{thin}"
            raise SettingError(f"'{what}:{shape}' on {agents(n)}: {expected}.{advice}")
    elif rows := rows_of(n):
        columns = n // rows
    else:
        near = [*[m for m in range(1, n) if rows_of(m)][-1:], next(m for m in count(n + 1) if rows_of(m))]
        raise SettingError(
            f"{agents(n)} make{'s' * (n == 1)} no {what}: it needs {least} or more rows and as many columns. "
            f"The nearest numbers that fit: {' and '.join(map(str, near))}. "
            "A 'chain' or a 'ring' takes any number."
        )
    graph = nx.grid_2d_graph(rows, columns, periodic=wrap)
    return _placed(graph, lambda k: (float(k % columns), float(-(k // columns))))


def _draw(what: str, seed: int, draw: Callable[[random.Random], nx.Graph]) -> nx.Graph:
    """The first connected graph of one stream of draws."""
    rng = random.Random(seed)
    for _ in range(TRIES):
        graph = draw(rng)
        if nx.is_connected(graph):
            return graph
    raise SettingError(f"None of {TRIES} draws of {what} was connected. Raise the number after the colon.")


def _random_regular(n: int, seed: int, degree: str) -> nx.Graph:
    """Every agent has d neighbours. Dense graphs are drawn as complements of sparse ones, which is fast."""
    d = int(degree or 3) if re.fullmatch(r"\d*", degree) else 0
    what = f"'random-regular:{degree or d}' on {agents(n)}"
    if not 1 <= d < n:
        raise SettingError(f"{what}: expected a degree from 1 to {n - 1}; with few agents, use 'complete'.")
    if n * d % 2:
        even = "the number of agents times the degree must be even, for every edge has two ends"
        raise SettingError(f"{what}: {even}. Use {n - 1} or {n + 1} agents, or degree {d + 1}.")
    if d <= n // 2:
        return _draw(what, seed, lambda rng: nx.random_regular_graph(d, n, seed=rng))
    return _draw(what, seed, lambda rng: nx.complement(nx.random_regular_graph(n - 1 - d, n, seed=rng)))


def _erdos_renyi(n: int, seed: int, probability: str) -> nx.Graph:
    what = f"'erdos-renyi:{probability}' on {agents(n)}"
    try:
        p = float(probability) if probability else min(1.0, 2 * math.log(n) / n)
    except ValueError:
        p = math.nan
    if probability and not 0 < p <= 1:
        raise SettingError(f"{what}: expected a probability above 0 and up to 1.")
    return _draw(what, seed, lambda rng: nx.fast_gnp_random_graph(n, p, seed=rng))


_SHAPE = "rows x columns, as in 3x4"

TOPOLOGIES: dict[str, Family] = {
    "ring": Family(lambda n, *_: _circle(nx.cycle_graph(n)), "a cycle"),
    "grid": Family(
        lambda n, _, shape: _lattice(n, shape, wrap=False),
        "the most square grid, numbered row by row",
        "n that is not a prime above 3; a shape says n",
        _SHAPE,
    ),
    "torus": Family(
        lambda n, _, shape: _lattice(n, shape, wrap=True),
        "a grid whose opposite borders are joined",
        "n = rows x columns, both 3 or more; a shape says n",
        _SHAPE,
    ),
    "complete": Family(lambda n, *_: _circle(nx.complete_graph(n)), "everybody talks to everybody"),
    "star": Family(lambda n, *_: _circle(nx.star_graph(n - 1), hub=1), "agent 0 talks to everybody"),
    "exponential": Family(
        lambda n, *_: _circle(nx.circulant_graph(n, [2**k for k in range((n - 1).bit_length())])),
        "hops of 1, 2, 4, ... both ways: the static exponential graph of arXiv:2110.13363, undirected",
    ),
    "random-regular": Family(
        _random_regular, "a random graph with d = 3 neighbours each", "n > d with n d even", "the degree d"
    ),
    "erdos-renyi": Family(
        _erdos_renyi,
        "each pair an edge with probability p = min(1, 2 ln n / n)",
        parameter="the probability p, as in 0.4",
    ),
    "chain": Family(lambda n, *_: _placed(nx.path_graph(n), lambda k: (float(k), 0.0)), "a line"),
    "binary-tree": Family(lambda n, *_: _binary_tree(n), "i talks to 2i + 1, 2i + 2 and its parent"),
}
"""Name -> family, in the order in which they are listed."""


def size(text: str) -> int | None:
    """How many agents the graph of this name has, of 'grid:3x4' twelve; None: as many as it gets."""
    name, _, parameter = text.partition(":")
    match = SHAPE.fullmatch(parameter) if name in ("grid", "torus") else None
    return int(match[1]) * int(match[2]) if match else None


def edges(text: str, n: int) -> float:
    """About how many edges the graph of this name has, by arithmetic; of what is no name, those of a ring."""
    name, _, parameter = text.partition(":")
    try:
        number = float(parameter)
    except ValueError:
        number = math.nan
    degrees = {
        "complete": n - 1.0,
        "exponential": 2.0 * (n - 1).bit_length(),
        "one-peer-exponential": 2.0 * (n - 1).bit_length(),
        "matchings": n - 1.0,
        "random-regular": number if 0 < number < n else 3.0,
        "erdos-renyi": n * number if 0 < number <= 1 else 2 * math.log(max(n, 1)),
        "grid": 4.0,
        "torus": 4.0,
    }
    return min(degrees.get(name, 2.0), n - 1.0) * n / 2


def named(text: str, n: int, seed: int) -> nx.Graph:
    """The graph of a name, with or without a parameter. Raises SettingError if these and n do not fit."""
    name, colon, parameter = text.partition(":")
    if name not in TOPOLOGIES:
        raise unknown_name("topology", text, name, [*TOPOLOGIES, *CHANGING])
    family = TOPOLOGIES[name]
    if colon and not (parameter and family.parameter):
        expected = family.parameter or f"nothing; use '{name}'"
        raise SettingError(f"'{text}' has a colon; expected behind it: {expected}.")
    return family.graph(n, seed, parameter)
