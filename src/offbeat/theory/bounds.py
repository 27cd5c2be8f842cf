"""Rates with all constants: of descent by blocks that may be old, and of ADSGD on an auxiliary function.

The function that ADSGD descends, block by block, the stacked x = (x_1, ..., x_n) its variable:

    L_alpha(x) = sum_i f_i(x_i) + x^T (I - W) x / (2 alpha),   its smoothness L_A = L + (1 - lambda_n) / alpha

with one step size inside of it, alpha, and another that is made, gamma <= alpha: `adsgd:theta=gamma/alpha`
with the learning rate alpha. All constants are derived here; arXiv:2505.10322 has the same statements (lemma
3.8, theorem 3.9, corollary 3.12, lemma C.1) with constants of its own, which these are not. Losses are
bounded from below; no heterogeneity is bounded, and no speed but by B.
"""

from dataclasses import dataclass

import numpy as np

from offbeat.core.errors import SettingError
from offbeat.world.topology import Topology

MOST = 2000
"""Agents of whose W all eigenvalues are found."""


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues 1 = lambda_1 > lambda_2 >= ... >= lambda_n > -1 of a symmetric W, and its diagonal.

    Attributes:
        second, last: lambda_2 and lambda_n
        own: the least w_ii
        least: the least positive entry of W
        pairs: lambda_2 of the expectation of averaging random pairs, each agent asking as often as any other
            one of its neighbours: I - 1/(2n) sum_{edges ij} (1/d_i + 1/d_j) (e_i - e_j)(e_i - e_j)^T
        kept: the mean of all w_ii
    """

    second: float
    last: float
    own: float
    least: float
    pairs: float
    kept: float

    @property
    def gap(self) -> float:
        """1 - max(|lambda_2|, |lambda_n|): by what a round of mixing takes disagreement down, at least."""
        return 1.0 - max(abs(self.second), abs(self.last))


def check_agents(n: int) -> None:
    """Raise SettingError for one agent, or more than 2,000."""
    if not 2 <= n <= MOST:
        alone = " One agent alone mixes nothing: it is SGD, which converges for lr < 2 / L." * (n == 1)
        many = " Expected a smaller graph of the same kind." * (n > MOST)
        raise SettingError(
            f"Theory is of 2 to {MOST:,} agents, for it takes all eigenvalues of W; got {n:,}.{alone}{many} "
            "Give --agents N, or a topology of such a size."
        )


def spectrum(topology: Topology) -> Spectrum:
    """Of the graph's W. Raises SettingError for one agent, more than 2,000, and a W that is not symmetric."""
    check_agents(topology.n)
    if topology.graph.is_directed() or not topology.symmetric:
        raise SettingError(
            f"The weights of '{topology.name}' are not symmetric, and what is known here needs w_ij = w_ji; "
            "expected an undirected graph with symmetric weights, as Metropolis weights are (the default)."
        )
    w = topology.dense_w()
    values = np.linalg.eigvalsh(w)
    edges = (w > 0) & ~np.eye(topology.n, dtype=bool)
    walk = edges / edges.sum(1, keepdims=True)
    asked = (walk + walk.T) / (2 * topology.n)
    drawn = np.linalg.eigvalsh(np.eye(topology.n) + asked - np.diag(asked.sum(1)))
    own = w.diagonal()
    return Spectrum(*map(float, (values[-2], values[0], own.min(), w[w > 0].min(), drawn[-2], own.mean())))


@dataclass(frozen=True)
class Given:
    """What theory takes as given.

    Attributes:
        n: agents
        w: the eigenvalues of their W
        L: smoothness: of every f_i, ||grad f_i(x) - grad f_i(y)|| <= L ||x - y||
        D: no model that is mixed is older than D iterations (assumption 3.3 of arXiv:2505.10322)
        B: every agent writes at least once in every window of B iterations
        K: iterations, the updates of all agents together
        start: sum_i (f_i(x^0) - inf f_i)
        sigma: E ||g_i - grad f_i||^2 <= sigma^2
        read: D of who reads models when a gradient begins, where that was measured
    """

    n: int
    w: Spectrum
    L: float = 1.0
    D: int = 0
    B: int = 1
    K: int = 100_000
    start: float = 1.0
    sigma: float = 0.0
    read: int | None = None

    @property
    def both(self) -> int:
        """D of who reads models when a gradient begins, at an update: the next is up to B iterations later.

        Without any delay of messages nothing that was read has been replaced by then: B - 1.
        """
        if self.read is not None:
            return self.read
        return self.D + self.B if self.D else self.B - 1


@dataclass(frozen=True)
class Pair:
    """Two step sizes: alpha inside of L_alpha, and gamma, which is made."""

    alpha: float
    gamma: float

    @property
    def theta(self) -> float:
        return self.gamma / self.alpha

    def smoothness(self, given: Given) -> float:
        """L_A = L + (1 - lambda_n) / alpha."""
        return given.L + (1.0 - given.w.last) / self.alpha

    def admissible(self, given: Given) -> bool:
        """(S): gamma <= 1 / ((2 D + 1) L_A). There is no B in it: agents may compute as long as they like."""
        most = 1.0 / ((2 * given.D + 1) * self.smoothness(given))
        return self.gamma <= min(most, self.alpha) * (1 + 1e-12)


def pair_of_horizon(given: Given) -> Pair:
    """alpha = 1 / (L K^(1/3)), gamma = 1 / (3 (2 D + 1) L K^(2/3)): (S) for every K, and a rate of K^(-1/3).

    L_A <= 3 L K^(1/3), since 1 - lambda_n <= 2.
    """
    root = given.K ** (1 / 3)
    return Pair(1.0 / (given.L * root), 1.0 / (3 * (2 * given.D + 1) * given.L * root**2))


def pair_of_rate(given: Given, alpha: float) -> Pair:
    """The largest gamma, at most alpha, that meets (S) with this alpha."""
    return Pair(alpha, min(alpha, 1.0 / ((2 * given.D + 1) * (given.L + (1.0 - given.w.last) / alpha))))


def block_descent(K: int, B: int, D: int, L: float, lr: float, start: float, sigma: float = 0.0) -> float:
    """(R): a bound on 1/K sum_{k<K} E ||grad f(x^k)||^2 for lr <= 1 / ((2 D + 1) L), one block a k.

        3 [B + lr^2 L^2 Q] [2 start / (lr K) + K'/K lr L (D + 1) sigma^2] + 3 lr^2 L^2 Q sigma^2 K'/K,
        Q = (B - 1)^2 + B D^2,   K' = K + B - 1

    L is the smoothness of the whole f, start = f(x^0) - inf f. Where m blocks write at one k, sigma^2 counts
    m times.
    """
    longer, curved = (K + B - 1) / K, lr**2 * L**2 * ((B - 1) ** 2 + B * D**2)
    noise = longer * lr * L * (D + 1) * sigma**2
    return 3 * (B + curved) * (2 * start / (lr * K) + noise) + 3 * curved * sigma**2 * longer


def moved_on(D: int, moves: np.ndarray) -> np.ndarray:
    """Lemma C.1: a bound on ||x^k - xhat^k||^2, xhat^k of blocks no older than D; for every k, [K].

    D sum_{t=k-D}^{k-1} ||x^{t+1} - x^t||^2,   moves: ||x^{t+1} - x^t||^2 for t = 0, 1, ...
    """
    sums = np.concatenate([[0.0], np.cumsum(moves)])
    k = np.arange(len(moves))
    return np.asarray(D * (sums[k] - sums[np.maximum(k - D, 0)]))


@dataclass(frozen=True)
class Bounds:
    """What a pair that meets (S) is sure of, as means over k < K.

    Attributes:
        auxiliary: (i), of E ||grad L_alpha(x^k)||^2
        consensus: (ii), of E sum_i ||x_i^k - mean x^k||^2
        average: (iii), of E ||grad f(mean x^k)||^2, f = sum_i f_i
        sharper: the same by another way, with alpha^2 where (iii) has alpha: may be smaller or larger
    """

    auxiliary: float
    consensus: float
    average: float
    sharper: float


def bounds(given: Given, pair: Pair) -> Bounds:
    """(i) to (iii), with N = start + K/4 (D + 1) L_A gamma^2 sigma^2 and m = 1 - lambda_2:

        (i)   R = (R) of L_alpha: lr = gamma, L = L_A
        (ii)  2 alpha / m N
        (iii) 2 n R + 4 n alpha L^2 / m N
        sharper: 2 n (1 + 2 alpha^2 L^2 / m^2) R + 8 n alpha^2 L^3 / m^2 N

    Raises SettingError for a pair that does not meet (S).
    """
    if not pair.admissible(given):
        got = f"gamma = {pair.gamma:.4g}, alpha = {pair.alpha:.4g}, D = {given.D}"
        raise SettingError(f"Expected gamma <= alpha and gamma <= 1 / ((2 D + 1) L_A); got {got}.")
    n, L, m, alpha, whole = given.n, given.L, 1.0 - given.w.second, pair.alpha, pair.smoothness(given)
    rate = block_descent(given.K, given.B, given.D, whole, pair.gamma, given.start, given.sigma)
    reach = given.start + given.K / 4 * (given.D + 1) * whole * pair.gamma**2 * given.sigma**2
    return Bounds(
        rate,
        2 * alpha / m * reach,
        2 * n * rate + 4 * n * alpha * L**2 / m * reach,
        2 * n * (1 + 2 * alpha**2 * L**2 / m**2) * rate + 8 * n * alpha**2 * L**3 / m**2 * reach,
    )
