"""Partitions into shards of equal size, by label.

Each is a matrix of sample indices, int64 [n, N // n]: row i is the shard of agent i, no index appears twice,
and the N mod n samples that are left over are dropped, drawn uniformly at random; but `copies` splits
nothing. Shards of equal size keep the mean of the agents' objectives equal to the objective on all the
samples kept.
"""

import math

import numpy as np
import numpy.typing as npt

from offbeat.core.errors import SettingError

Labels = npt.NDArray[np.integer]  # the label of each sample, [N]: any integers

Rows = npt.NDArray[np.int64]  # [n, N // n], row i the indices of agent i's samples


def by_label(labels: Labels, n: int, skew: float, rng: np.random.Generator) -> Rows:
    """Sort the fraction `skew` of the data by label and deal it out in pieces, the rest at random.

    Of each shard's m = N // n samples, k = round(skew m) come from the sorted part and m - k from the rest: n
    k samples, drawn uniformly, are sorted by label (in random order within a label) and cut into n
    consecutive pieces; the others are split uniformly at random; agent i gets the i-th piece of each, the
    sorted one first. At skew = 1 agent i has no label above one that agent i + 1 has.

    Raises SettingError unless 0 <= skew <= 1 and 1 <= n <= N.
    """
    if not 0 <= skew <= 1:
        raise SettingError(f"Label skew is {skew}; expected a number from 0 (uniform) to 1 (sorted).")
    keep = shuffled(len(labels), n, rng)
    size = len(keep) // n
    k = round(skew * size)
    lot, rest = keep[: n * k], keep[n * k :]
    # The lot is in random order and the sort is stable, so ties stay in random order.
    lot = lot[np.argsort(labels[lot], kind="stable")]
    return np.concatenate([lot.reshape(n, k), rest.reshape(n, size - k)], axis=1)


def dirichlet(labels: Labels, n: int, alpha: float, rng: np.random.Generator) -> Rows:
    """Give each agent a class mixture of its own, q_i ~ Dir(alpha p) (Hsu, Qi, Brown 2019, arXiv:1909.06335).

    p is the share of each class in the data. Small alpha leaves an agent with few classes (alpha -> 0: with
    one, as long as there is enough of it), large alpha gives every agent the mixture p.

    The agents fill their shards of m = N // n one after another. Agent i draws q_i and then m samples without
    replacement: a class from q_i, then one of the samples left of that class, uniformly. A class that has run
    out is struck from q_i, and the rest of q_i renormalised.

    As in the paper: the law of q_i, shards of equal size, sampling without replacement. Ours: the agents fill
    their shards in random order, since those that come late get what is left whatever their q_i, and would
    else always be those of the highest indices; p is taken after the N mod n samples have been dropped; and
    where all of q_i that is left has rounded to 0, as happens at small alpha, q_i is drawn again on the
    classes left. That has the same law: a part of a Dirichlet vector, renormalised, is Dirichlet, independent
    of the rest.

    Raises SettingError unless alpha is positive and finite and 1 <= n <= N.
    """
    if not 0 < alpha < math.inf:
        raise SettingError(f"Dirichlet concentration alpha is {alpha}; expected a positive finite number.")
    keep = shuffled(len(labels), n, rng)
    _, klass, left = np.unique(labels[keep], return_inverse=True, return_counts=True)
    # The kept samples class after class, at random within each: a class is a range, used up from its start.
    pool = keep[np.argsort(klass, kind="stable")]
    start = np.cumsum(left) - left
    size = len(keep) // n
    # No concentration may round to 0, which numpy refuses.
    concentration = np.maximum(alpha * (left / left.sum()), np.finfo(np.float64).tiny)
    shards = np.empty((n, size), dtype=np.int64)
    for agent in rng.permutation(n):
        take = _fill(concentration, left, size, rng)
        shards[agent] = np.concatenate([pool[start[c] : start[c] + take[c]] for c in np.flatnonzero(take)])
        start += take
        left -= take
    return shards


def contiguous(total: int, n: int, rng: np.random.Generator) -> Rows:
    """Cut the data, in their order, into n consecutive pieces; of the N mod n left over nobody has any.

    Raises SettingError unless 1 <= n <= N.
    """
    shuffled(total, n, rng)  # refuses numbers of agents that cannot be
    return np.arange(total // n * n).reshape(n, -1)


def copies(total: int, n: int) -> Rows:
    """All samples for every agent, [n, N]: all f_i are f."""
    return np.broadcast_to(np.arange(total), (n, total))


def sorted_shards(labels: Labels, n: int, k: int, rng: np.random.Generator) -> Rows:
    """Sort by label, cut into n k pieces of equal size, and deal k of them to each agent at random.

    As McMahan et al. split MNIST (arXiv:1602.05629, section 3: n = 100 and k = 2): most agents have samples
    of at most k classes. Ours: the N mod n k samples that do not fill a piece are dropped, drawn uniformly at
    random.

    Raises SettingError unless k >= 1 and n k <= N.
    """
    if k < 1 or n * k > len(labels):
        most = len(labels) // max(n, 1)
        raise SettingError(
            f"Cannot cut {len(labels)} samples into {k} shards for each of {n} agents; expected 1 to {most}."
        )
    keep = shuffled(len(labels), n * k, rng)
    pieces = keep[np.argsort(labels[keep], kind="stable")].reshape(n * k, -1)
    return pieces[rng.permutation(n * k)].reshape(n, -1)


def _fill(
    concentration: npt.NDArray[np.float64], left: npt.NDArray[np.int64], size: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """How many samples of each class [C] one agent takes: `size` in all, at most `left` of each.

    q ~ Dir(concentration) is drawn here. To draw class after class from q and strike out each that runs out
    is to draw from q throughout and pass over the classes that have run out. So draw as many at once as are
    missing, take what there is, and go on with the classes not yet empty.
    """
    q = rng.dirichlet(concentration)
    take = np.zeros_like(left)
    while missing := size - int(take.sum()):
        some = take < left
        weights = np.where(some, q, 0.0)
        if weights.sum() == 0:
            weights[some] = rng.dirichlet(concentration[some])
        take = np.minimum(left, take + rng.multinomial(missing, weights / weights.sum()))
    return take


def shuffled(total: int, n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """n * (total // n) of the indices below `total`, in random order; SettingError unless 1 <= n <= total."""
    if not 1 <= n <= total:
        raise SettingError(f"Cannot split {total} samples over {n} agents; each needs at least one.")
    return rng.permutation(total)[: total - total % n]
