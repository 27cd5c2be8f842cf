"""Learning rates with which algorithms are known to converge, and who says so.

What is "recalled" is general knowledge of a publication that was not read again, and not its statement; what
is "uncertain" is recalled too, and its constants may be off: an order of magnitude at most.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from offbeat.algorithms import ALGORITHMS
from offbeat.theory.bounds import Given

DERIVED, RECALLED, UNCERTAIN = "derived here", "recalled", "uncertain"
SWITCHES = 60  # halvings until a largest rate is known to the last bit


@dataclass(frozen=True)
class Rate:
    """A learning rate up to which theory holds.

    Attributes:
        power: its logarithm to the base 10, where it is too small to be a number
        what: what converges, and under which condition
        source: who says so
    """

    most: float
    what: str
    source: str
    power: float | None = None

    @property
    def text(self) -> str:
        return f"{self.most:.4g}" if self.power is None else f"10^{self.power:.0f}"


def contraction(given: Given) -> list[Rate]:
    """|w_ii - lr h_i| + 1 - w_ii < 1: the largest distance from the limit, old models' too, shrinks.

    The same for f_i that are L-smooth and strongly convex, whose gradient steps contract as much.
    """
    what = "quadratics, any delays: lr h_i < 2 w_ii"
    return [Rate(2 * given.w.own / given.L, what, DERIVED)]


def adapted_first(given: Given) -> list[Rate]:
    """|1 - lr h_i| < 1: every y_i is nearer to its limit than what it was made of, and mixing is a mean."""
    what = "quadratics, any delays: lr h_i < 2"
    return [Rate(2 / given.L, what, DERIVED)]


def rounds(given: Given) -> list[Rate]:
    """Gradient descent on L_alpha with the step alpha: alpha < 2 / L_A. The other one of arXiv:1705.09056."""
    modulus = 1.0 - given.w.gap
    return [
        Rate((1 + given.w.last) / given.L, "lr < (1 + lambda_n) / L, exact gradients", DERIVED),
        Rate(
            (1 - modulus) / (given.L * math.sqrt(18 * given.n)),
            "18 n (lr L)^2 < (1 - max |lambda|)^2",
            RECALLED,
        ),
    ]


def descent(given: Given) -> list[Rate]:
    """Gradient descent on the mean of the f_i, which is L-smooth."""
    return [Rate(2 / given.L, "lr < 2 / L, exact gradients", "textbook")]


def blocks(given: Given) -> list[Rate]:
    """The descent needs lr < 2 / ((2 D + 1) L), (R) half of that; D with the time of computing in it."""
    old = 2 * given.both + 1
    return [
        Rate(2 / (old * given.L), f"2 / ((2D' + 1) L), D' = {given.both} (D and B)", DERIVED),
        Rate(1 / (old * given.L), "half of that, for the rate (R)", DERIVED),
    ]


def server(given: Given) -> list[Rate]:
    """L lr + 2 L^2 T^2 lr^2 <= 1, minibatches counted as one sample each (M = 1)."""
    late = given.both
    most = (math.sqrt(1 + 8 * late**2) - 1) / (4 * late**2) if late else 1.0
    what = f"L lr + 2 (L T lr)^2 <= 1, T = {late} (D and B)"
    return [Rate(most / given.L, what, RECALLED)]


def pairs(given: Given) -> list[Rate]:
    """C_1 > 0, C_2 >= 0, C_3 <= 1 of arXiv:1710.06952 as recalled, with M = 1; rho is derived here."""
    low, high = 0.0, 1.0 / given.L
    for _ in range(SWITCHES):
        middle = (low + high) / 2
        low, high = (middle, high) if _pairs_converge(given, middle) else (low, middle)
    what = f"C_1 > 0, C_2 >= 0, C_3 <= 1, T = B - 1 = {given.B - 1}"
    return [Rate(low, what, UNCERTAIN)]


def _pairs_converge(given: Given, lr: float) -> bool:
    n, L, T = given.n, given.L, given.B - 1
    rho = given.w.pairs
    mixing = (n - 1) / n * (1 / (1 - rho) + 2 * math.sqrt(rho) / (1 - math.sqrt(rho)) ** 2)
    apart = T * (n - 1) / n + mixing
    c1 = 1 - 24 * L**2 * lr**2 * apart
    if c1 <= 0:
        return False
    more = 6 * lr**2 * L**3 / n**2 + lr * L**2 / n + 12 * L**4 * T**2 * lr**3 / n**3
    c2 = lr / (2 * n) - lr**2 * L / n**2 - 2 * L**2 * T**2 * lr**3 / n**3 - more * 4 * lr**2 * apart / c1
    c3 = 0.5 + 2 * (6 * lr**2 * L**2 + lr * n * L + 12 * L**3 * T**2 * lr**3 / n) * mixing / c1
    return c2 >= 0 and c3 + L * T**2 * lr / n <= 1


def tracking(given: Given) -> list[Rate]:
    """((1 - rho) / C)^2 / L with constants of the kind that ASY-SONATA's analysis has, as recalled:

        K_1 = (2 n - 1) B + n D,  eta = w^K_1, w the least positive weight,  rho = (1 - eta)^(1 / K_1),
        C = 2 sqrt((D + 2) n) (1 + 1 / eta) / (1 - eta)

    In logarithms, with 1 - rho = eta / K_1 and 1 + 1 / eta = 1 / eta, for eta is tiny.
    """
    window = (2 * given.n - 1) * given.B + given.n * given.D
    eta = window * math.log10(given.w.least)
    power = 2 * (2 * eta - math.log10(2 * window * math.sqrt((given.D + 2) * given.n))) - math.log10(given.L)
    what = f"w^(4 K_1) and less, w = {given.w.least:.2g}, K_1 = {window}"
    return [Rate(10**power, what, UNCERTAIN, power)]


def large_batches(given: Given) -> list[Rate]:
    """As the table of algorithms has it: Theorem 8 of arXiv:2405.16218."""
    return [Rate(1 / (2 * given.L), ALGORITHMS["amelie"].bound, "arXiv:2405.16218")]


RATES: dict[str, Callable[[Given], list[Rate]]] = {
    "adsgd": contraction,
    "adsgd:memory-efficient": contraction,
    "swift": contraction,
    "prox-dgd": contraction,
    "dgd-atc": adapted_first,
    "asbcd": blocks,
    "dsgd": rounds,
    "dpsgd": adapted_first,
    "allreduce": descent,
    "spsgd": descent,
    "apsgd": server,
    "adpsgd": pairs,
    "rfast": tracking,
    "kungurtsev": tracking,
    "amelie": large_batches,
}
"""Row of the table of algorithms -> what is known of its learning rate, with D, B and W of what is given."""
