"""Sequences of graphs whose weights average exactly after one period, for any number of agents.

The Base-(k+1) graph of arXiv:2305.11420, with at most k neighbours in a round, as its authors' program has
it: agents that are left over in a round average among themselves.
"""

from functools import lru_cache

Edges = dict[tuple[int, int], float]  # (i, j), i < j -> w_ij = w_ji
Period = list[Edges]
Agents = list[int]


@lru_cache(maxsize=1024)
def _factors(n: int, most: int) -> tuple[int, ...] | None:
    """n as a product of the fewest factors from 2 to `most`, rising; None if it is none."""
    if n == 1:
        return ()
    found: tuple[int, ...] | None = None
    for factor in (each for each in range(min(most, n), 1, -1) if n % each == 0):
        rest = _factors(n // factor, most)
        if rest is not None and (found is None or len(rest) + 1 < len(found)):
            found = tuple(sorted((factor, *rest)))
    return found


def _edge(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def _clique(agents: Agents) -> Edges:
    """All average."""
    return {_edge(i, j): 1.0 / len(agents) for i in agents for j in agents if i < j}


def _hypercube(agents: Agents, k: int) -> Period:
    """The hyper-hypercube: a clique in each digit, one after another, of the agents' places in mixed radix.

    No round at all for one agent. Their number must be a product of factors up to k + 1.
    """
    rounds, stride = Period(), 1
    for factor in _factors(len(agents), k + 1) or ():
        edges = Edges()
        for first in (a for a in range(len(agents)) if a // stride % factor == 0):
            edges |= _clique([agents[first + digit * stride] for digit in range(factor)])
        rounds, stride = [*rounds, edges], stride * factor
    return rounds


def _digits(n: int, radix: int) -> list[tuple[int, int]]:
    """n = sum_l a_l radix^{p_l} with 1 <= a_l < radix and falling p_l: (a_l, p_l)."""
    found, power = [], 0
    while n:
        n, digit = divmod(n, radix)
        found += [(digit, power)] * (digit > 0)
        power += 1
    return found[::-1]


def _simple(agents: Agents, k: int) -> Period:
    """The simple Base-(k+1) graph: agents in groups V_0, V_1, ... of a_l (k+1)^{p_l}, the largest first.

    Every group averages. Then, in turn, each of the later groups takes in the mean of V_t, with the share
    |V_t| / sum_{l >= t} |V_l|, an agent from one agent of each of its a_t parts; the mean of each part of V_t
    is that of all, then, and the parts average once more, while later groups take their turn.
    """
    if _factors(len(agents), k + 1) is not None:
        return _hypercube(agents, k)
    groups, parts, at = list[Agents](), list[list[Agents]](), 0
    for digit, power in _digits(len(agents), k + 1):
        size = (k + 1) ** power
        parts.append([agents[at + a * size : at + (a + 1) * size] for a in range(digit)])
        groups.append(agents[at : at + digit * size])
        at += digit * size
    cubes, last = [_hypercube(group, k) for group in groups], len(groups) - 1
    rounds = [_merged([cube[m % len(cube)] for cube in cubes if cube]) for m in range(len(cubes[0]))]
    again = [
        [cube] if len(group) < k + 1 else [_hypercube(part, k) for part in those]
        for group, those, cube in zip(groups, parts, cubes, strict=True)
    ]
    for t in range(1 + len(again[0][0])):
        edges = _given(groups, parts[t], t, k) if t < last else Edges()
        for place, those in enumerate(again):
            done = t - place - (place < last)
            edges |= _merged([cube[done % len(cube)] for cube in those if cube and done >= 0])
        rounds.append(edges)
    return rounds


def _given(groups: list[Agents], parts: list[Agents], t: int, k: int) -> Edges:
    """Group t gives to the later ones; those of it that are left over average, up to k + 1 at a time."""
    share = len(groups[t]) / sum(map(len, groups[t:])) / len(parts)
    free, edges = [[*part] for part in parts], Edges()
    for i in (i for group in reversed(groups[t + 1 :]) for i in group):
        edges |= {_edge(i, part.pop()): share for part in free}
    rest = [j for part in free for j in part]
    return edges | _merged([_clique(rest[at : at + k + 1]) for at in range(0, len(rest), k + 1)])


def _merged(rounds: list[Edges]) -> Edges:
    """Of groups that have no agent in common."""
    return {edge: w for edges in rounds for edge, w in edges.items()}


def base(n: int, k: int) -> Period:
    """One period of the Base-(k+1) graph of agents 0..n-1: in every round who mixes with whom, and how.

    With n = p q, p having no prime factor above k + 1 and q none below k + 2: p groups of q that average
    side by side, then the p agents of the same place in each; or the simple graph of all, where that has
    fewer rounds.
    """
    q = n
    for factor in range(2, min(k + 1, n) + 1):
        while q % factor == 0:
            q //= factor
    beside = [_simple([*range(at, at + q)], k) for at in range(0, n, q)]
    across = [_hypercube([*range(place, n, q)], k) for place in range(q)]
    whole, rounds = _simple([*range(n)], k), [_merged(list(each)) for each in zip(*beside, strict=True)]
    rounds += [_merged(list(each)) for each in zip(*across, strict=True)]
    return (whole if len(whole) < len(rounds) else rounds) or [Edges()]
