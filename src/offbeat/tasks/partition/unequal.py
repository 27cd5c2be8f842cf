"""Partitions into shards of any size. Each is a list of n arrays of sample indices, none of them empty."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from offbeat.core.errors import SettingError
from offbeat.tasks.minibatches import Indices
from offbeat.tasks.partition.equal import Labels, shuffled

TRIES = 100  # how often shares are drawn in search of such as leave nobody without a sample


def by_class(labels: Labels, n: int, k: int, rng: np.random.Generator) -> list[Indices]:
    """Give every agent samples of exactly k classes: the pathological split.

    As in NIID-Bench (Li et al., arXiv:2102.02079, "quantity-based label imbalance", #C = k): agent i has
    class i mod C and k - 1 others, drawn at random; the samples of a class are divided at random and evenly
    among the agents that have it. Ours: of the others, classes that nobody has yet come first, so that no
    class is left out.

    Raises SettingError unless 1 <= k <= C, n k >= C, and every class has a sample for each agent that has it.
    """
    names, klass = np.unique(labels, return_inverse=True)
    count = len(names)
    if not 1 <= k <= count:
        raise SettingError(f"Cannot give each agent {k} classes: there are {count}; expected 1 to {count}.")
    if n * k < count:
        raise SettingError(
            f"{n} agents with {k} classes each hold {n * k} of {count} at most, and nobody would hold the "
            f"others; expected classes:{math.ceil(count / n)} or more, or more agents."
        )
    shuffled(len(labels), n, rng)  # refuses numbers of agents that cannot be
    owners: list[list[int]] = [[] for _ in names]
    for agent in range(n):
        owners[agent % count].append(agent)
    for agent in range(n):
        others = [c for c in rng.permutation(count).tolist() if agent not in owners[c]]
        others.sort(key=lambda c: bool(owners[c]))  # those without an owner first; a stable sort
        for c in others[: k - 1]:
            owners[c].append(agent)
    parts: list[list[Indices]] = [[] for _ in range(n)]
    for c, having in enumerate(owners):
        samples = rng.permutation(np.flatnonzero(klass == c))
        if len(samples) < len(having):
            raise SettingError(
                f"Class {names[c]} has {len(samples)} samples for {len(having)} agents; expected one for "
                "each. Use fewer agents or fewer classes an agent."
            )
        for agent, part in zip(having, np.array_split(samples, len(having)), strict=True):
            parts[agent].append(part)
    return [np.concatenate(each) for each in parts]


def class_shares(labels: Labels, n: int, alpha: float, rng: np.random.Generator) -> list[Indices]:
    """Divide the samples of each class among the agents by shares p_c ~ Dir_n(alpha) of its own.

    The split of Yurochkin et al. (arXiv:1905.12022), "distribution-based label imbalance" in NIID-Bench (Li
    et al., arXiv:2102.02079). Sizes differ, more so with small alpha. All shares are drawn again until every
    agent has a sample (the papers' code asks for 10).

    Raises SettingError unless alpha is positive and finite and 1 <= n <= N, or if no draw leaves every agent
    a sample.
    """
    _refuse_alpha(alpha)
    _, klass = np.unique(labels, return_inverse=True)
    shuffled(len(labels), n, rng)  # refuses numbers of agents that cannot be
    classes = [np.flatnonzero(klass == c) for c in range(int(klass.max()) + 1)]

    def draw() -> list[Indices]:
        cut = [_cut(rng.permutation(samples), _shares(n, alpha, rng)) for samples in classes]
        return [np.concatenate(parts) for parts in zip(*cut, strict=True)]

    return _without_empty(draw, f"class-shares:{alpha:g}", n)


def by_quantity(labels: Labels, n: int, alpha: float, rng: np.random.Generator) -> list[Indices]:
    """Shards of uniform samples whose shares of the data are q ~ Dir_n(alpha).

    "Quantity skew" in NIID-Bench (Li et al., arXiv:2102.02079). Shares are drawn again until every agent has
    a sample. Labels play no part.

    Raises SettingError as `class_shares` does.
    """
    _refuse_alpha(alpha)
    shuffled(len(labels), n, rng)  # refuses numbers of agents that cannot be
    order = rng.permutation(len(labels))
    return _without_empty(lambda: _cut(order, _shares(n, alpha, rng)), f"quantity:{alpha:g}", n)


def by_value(column: npt.NDArray[np.generic], n: int, name: str, rng: np.random.Generator) -> list[Indices]:
    """What has the same value in a column, the same writer, say, stays together: a natural partition.

    Where there are as many values as agents, agent i has the i-th in their order. Where there are more, they
    are dealt out in random order, agent i getting every n-th of them. As LEAF splits text by speaking role
    (Caldas et al., arXiv:1812.01097); there a value is a client, so set the number of agents to that of the
    values, or let each agent have several.

    Raises SettingError if there are fewer values than agents.
    """
    values, which = np.unique(column, return_inverse=True)
    if len(values) < n or n < 1:
        raise SettingError(
            f"The column '{name}' has {len(values)} different values for {n} agents; expected at least one "
            f"each. Use {len(values)} agents or fewer."
        )
    owner = np.arange(len(values)) % n
    if len(values) > n:
        owner = owner[rng.permutation(len(values))]
    return [np.flatnonzero(owner[which] == agent) for agent in range(n)]


def _refuse_alpha(alpha: float) -> None:
    if not 0 < alpha < math.inf:
        raise SettingError(f"Dirichlet concentration alpha is {alpha}; expected a positive finite number.")


def _shares(n: int, alpha: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Dir_n(alpha); where all of it rounds to 0, at tiny alpha, its limit: one agent has all."""
    q = rng.dirichlet(np.full(n, alpha))
    return q if np.isfinite(q).all() and q.sum() > 0 else np.eye(n)[rng.integers(n)]


def _cut(samples: Indices, shares: npt.NDArray[np.float64]) -> list[Indices]:
    ends = np.minimum(np.cumsum(shares) * len(samples), len(samples)).round().astype(int)[:-1]
    return np.split(samples, ends)


def _without_empty(draw: Callable[[], list[Indices]], what: str, n: int) -> list[Indices]:
    for _ in range(TRIES):
        if all(map(len, shards := draw())):
            return shards
    raise SettingError(
        f"In none of {TRIES} draws of '{what}' had each of {n} agents a sample; expected one or more. Use a "
        "larger number after the colon, or fewer agents."
    )
