"""Where algorithms end on quadratics with exact gradients and a constant learning rate: the formulas.

    f_i(x) = h_i / 2 ||x - b_i||^2,   H = diag(h),   b stacked, [n, d],   P = diag(p)

p_i is the share of all updates that agent i makes. Everything here is derived here.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from offbeat.algorithms import A2CiD2, Algorithm, DiLoCo
from offbeat.tasks.quadratic import Quadratic
from offbeat.world.topology import Topology


@dataclass(frozen=True)
class At:
    """What a limit depends on: W is that of the topology, `p` the agents' shares of the updates, [n]."""

    spec: Algorithm
    task: Quadratic
    topology: Topology
    lr: float
    p: np.ndarray

    @property
    def w(self) -> np.ndarray:
        return self.topology.dense_w()

    @property
    def a(self) -> np.ndarray:
        return np.asarray(self.topology.a.toarray())

    @property
    def h(self) -> np.ndarray:
        return np.diag(self.task.h)


def mixing(at: At) -> np.ndarray:
    """X = (lr H + I - W)^-1 lr H b, whatever delays and shares are: mix, and step by the gradient at x_i."""
    return solved(at.lr * at.h + np.eye(len(at.p)) - at.w, at.lr * at.h @ at.task.b)


def adapted_first(at: At) -> np.ndarray:
    """X = (I - W + lr W H)^-1 lr W H b: step from the own model, and mix what was stepped."""
    return solved(np.eye(len(at.p)) - at.w + at.lr * at.w @ at.h, at.lr * at.w @ at.h @ at.task.b)


def pushed(at: At) -> np.ndarray:
    """Z = ((I - A) V + lr A H)^-1 lr A H b,  V = diag(v), A v = v, sum v = n.

    The fixed point of x = A (x - lr H (z - b)), x = V z. As `adapted_first` if A is symmetric, when V = I.
    """
    return solved(flows(at) + at.lr * at.a @ at.h, at.lr * at.a @ at.h @ at.task.b)


def pushed_meanwhile(at: At) -> np.ndarray:
    """Z = ((I - A) V + lr H)^-1 lr H b, V as in `pushed`: x = A x - lr H (z - b), x = V z.

    As `mixing` if A is symmetric. With tau above 1 it depends on delays.
    """
    return solved(flows(at) + at.lr * at.h, at.lr * at.h @ at.task.b)


def flows(at: At) -> np.ndarray:
    """(I - A) V."""
    return np.asarray((np.eye(len(at.p)) - at.a) @ np.diag(masses(at)))


def masses(at: At) -> np.ndarray:
    """v, [n], which solves (I - A + 1 1^T / n) v = 1, for A is column-stochastic."""
    n = len(at.p)
    return solved(np.eye(n) - at.a + np.full((n, n), 1 / n), np.ones((n, 1)))[:, 0]


def blocks(at: At) -> np.ndarray:
    """Coordinate c of every model at the c-th of b_i, i the agent whose block it is in."""
    owner = np.repeat(np.arange(len(at.p)), [len(part) for part in np.array_split(at.task.b[0], len(at.p))])
    return np.tile(at.task.b[owner, np.arange(len(owner))], (len(at.p), 1))


def optimum(at: At) -> np.ndarray:
    """Everybody at the minimiser of sum_i f_i."""
    return np.tile(at.task.optimum, (len(at.p), 1))


def weighted(at: At) -> np.ndarray:
    """Everybody at sum_i p_i h_i b_i / sum_i p_i h_i, the minimiser of sum_i p_i f_i, whatever the delays.

    The expectation: a model that moves along one agent's gradient at a time does not stand still there.
    """
    ph = at.p * at.task.h
    return np.tile(ph @ at.task.b / ph.sum(), (len(at.p), 1))


def elastic(at: At) -> np.ndarray:
    """x_i = c + lr k_i (b_i - c),  c = sum_i p_i k_i b_i / sum_i p_i k_i: as much drawn to c as to b_i.

    k_i = h_i / (alpha (1 - delta) + lr h_i (1 + delta alpha)), alpha = beta / n, delta the momentum. The
    expectation, for the centre moves with every exchange; with one at each gradient.
    """
    prototype = at.spec.prototype
    beta, delta = (getattr(prototype, name) for name in ("beta", "momentum"))
    alpha, h = beta / len(at.p), at.task.h
    k = h / (alpha * (1 - delta) + at.lr * h * (1 + delta * alpha))
    centre = (at.p * k) @ at.task.b / (at.p @ k)
    return np.asarray(centre + at.lr * k[:, None] * (at.task.b - centre))


def averaged_pairs(at: At) -> np.ndarray:
    """X = (I - V + lr P H)^-1 lr P H b,  V = I - 1/2 sum_i p_i / d_i sum_{j in N_i} (e_i - e_j)(e_i - e_j)^T.

    i over those who ask: with `atomic` one side of the graph. The expectation for pairs that are drawn
    independently and averaged atomically; sum_i p_i h_i (x_i - b_i) is zero, so as lr goes to 0 all models go
    to the minimiser of sum_i p_i f_i.
    """
    return settled(at, asked(at))


def flowing_pairs(at: At) -> np.ndarray:
    """X = ((1/2 + alpha) (I - V) + lr P H)^-1 lr P H b, with V as in `averaged_pairs`; for eta > 0.

    The sum of both models: flow leaves it, averaging moves it by (1/2 + alpha) m, a gradient by 2 lr g; both
    are one where nothing moves.
    """
    agent = cast(A2CiD2, at.spec.prototype)
    eta, alpha = agent.rates(at.topology.views()[0])
    return settled(at, (0.5 + alpha if eta else 1.0) * asked(at))


def local_steps(at: At) -> np.ndarray:
    """Everybody at sum_i s_i b_i / sum_i s_i,  s_i = 1 - (1 - lr h_i)^H: H local steps, then the average.

    H local steps from x take agent i s_i of the way from x to b_i; where the mean of those ways is zero, no
    outer step moves x. It is the optimum if all h_i are equal, or H is 1, and nears it as lr goes to 0.
    """
    s = 1 - (1 - at.lr * at.task.h) ** cast(DiLoCo, at.spec.prototype).h
    return np.tile(s @ at.task.b / s.sum(), (len(at.p), 1))


def local_pairs(at: At) -> np.ndarray:
    """Phi = (I - P + P S)^-1 P S b,  S = diag(s_i) as in `local_steps`: the expectation over random pairs.

    P = I - q / 2 (n I - 1 1^T), the mean of pairwise averaging, q = 1 / (n - 1), or 1 / n if n is odd: how
    often two given agents are a pair. Where the momentum stands still on average, so do P S (b - Phi), what
    local steps of both add, and (P - I) Phi, what draws both together.
    """
    n = len(at.p)
    s = np.diag(1 - (1 - at.lr * at.task.h) ** cast(DiLoCo, at.spec.prototype).h)
    pairs = np.eye(n) - (n * np.eye(n) - 1) / (2 * (n - 1 + n % 2))
    return solved(np.eye(n) - pairs + pairs @ s, pairs @ s @ at.task.b)


def settled(at: At, pairs: np.ndarray) -> np.ndarray:
    """Where what averaging moves, `pairs` X, is what gradients move."""
    ph = np.diag(at.p) @ at.h
    return solved(pairs + at.lr * ph, at.lr * ph @ at.task.b)


def asked(at: At) -> np.ndarray:
    """I - V of `averaged_pairs`."""
    pairs = np.zeros((len(at.p), len(at.p)))
    atomic = getattr(at.spec.prototype, "atomic", False)
    for i in (i for i, view in enumerate(at.topology.views()) if not atomic or view.side == 0):
        peers = at.topology.peers(i)
        for j in peers:
            share = at.p[i] / len(peers) / 2
            pairs[[i, j], [i, j]] += share
            pairs[[i, j], [j, i]] -= share
    return pairs


def no_step_nearer(at: At) -> float:
    """theta lr h_i >= 2 of every agent: what mixing takes off, at most, a step puts on.

    Of distances to the limit, old models' too, let M be the largest so far, that of x_i as it is. Its
    next update makes it (theta lr h_i - theta w_ii - (1 - theta)) M - theta (1 - w_ii) M >= M, and no other
    changes it. In rounds that mix what was stepped, W (lr H - I) >= W entry by entry, of eigenvalue 1.
    """
    return 2 / (getattr(at.spec.prototype, "theta", 1.0) * float(at.task.h.min()))


def in_rounds(at: At) -> float:
    """The least eigenvalue of H^-1 (I + W): below it, and only there, all of W - lr H are within (-1, 1)."""
    root = np.diag(1 / np.sqrt(at.task.h))
    return float(np.linalg.eigvalsh(root @ (np.eye(len(at.p)) + at.w) @ root)[0])


def descended(at: At) -> float:
    """2 / mean h: gradient descent on the mean of the f_i."""
    return 2 / float(at.task.h.mean())


def no_push_nearer(at: At) -> float:
    """lr h_i >= 2 v_i of every agent: A (lr H V^-1 - I) >= A entry by entry, as in `no_step_nearer`."""
    return float((2 * masses(at) / at.task.h).max())


def solved(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The x of a x = b: by torch, whose bits do not depend on the number of cores in `devices.one_thread`."""
    return np.asarray(torch.linalg.solve(torch.from_numpy(a), torch.from_numpy(b)))
