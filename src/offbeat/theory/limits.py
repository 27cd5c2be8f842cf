"""Where algorithms end on quadratics with exact gradients and a constant learning rate.

    f_i(x) = h_i / 2 ||x - b_i||^2,   H = diag(h),   b stacked, [n, d],   P = diag(p)

p_i is the share of all updates that agent i makes. Everything here is derived here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from offbeat import tasks
from offbeat.algorithms import A2CiD2, Algorithm, DiLoCo, find, row_of
from offbeat.core.errors import SettingError
from offbeat.core.rates import Rate, above_zero
from offbeat.core.settings import USUAL_AGENTS
from offbeat.tasks.quadratic import Quadratic
from offbeat.world.topology import Topology, build, size_of


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


@dataclass(frozen=True)
class Known:
    """What is known of where a row of the table of algorithms ends.

    Attributes:
        at: where that is
        options: those of the row with which it is so, whatever their values
        how: in which sense, if not exactly
        most: the learning rate from which on no run ends there, whatever its delays; None: not known
        uncounted: why what is counted of a run does not give the shares p_i; empty if it does
    """

    at: Callable[[At], np.ndarray]
    options: tuple[str, ...] = ()
    how: str = ""
    most: Callable[[At], float] | None = None
    uncounted: str = ""


LARGE = 1e100  # beyond it a limit is that of an infinite learning rate, to the last bit

EXPECTED = "an expectation, about which models go on moving"
NEARLY = "up to O(lr)"
IGNORED = "its updates do not say whose gradients were ignored"
OUTER = "of phi, which the agents' models are at outer steps alone"


LIMITS: dict[str, Known] = {
    "adsgd": Known(mixing, ("theta",), most=no_step_nearer),
    "adpsgd": Known(averaged_pairs, ("wait", "atomic"), how=EXPECTED),
    "rfast": Known(optimum, ("matched",)),
    "kungurtsev": Known(optimum),
    "dsgd": Known(mixing, ("after",), most=in_rounds),
    "dpsgd": Known(adapted_first, most=no_step_nearer),
    "dsgt": Known(optimum),
    "d2": Known(optimum, ("theta",)),
    "qg-dsgdm": Known(adapted_first, ("beta",)),
    "sgp": Known(pushed, most=no_push_nearer),
    "osgp": Known(pushed_meanwhile),
    "allreduce": Known(optimum, most=descended),
    "amelie": Known(optimum, ("batch",)),
    "adsgd:memory-efficient": Known(mixing, ("theta",), most=no_step_nearer),
    "asbcd": Known(blocks),
    "swift": Known(mixing, most=no_step_nearer),
    "dgd-atc": Known(adapted_first),
    "prox-dgd": Known(mixing, most=no_step_nearer),
    "apsgd": Known(weighted, how=EXPECTED),
    "spsgd": Known(optimum, most=descended),
    "rasgp": Known(optimum, how=NEARLY),
    "diloco": Known(local_steps, ("outer_lr", "outer_momentum", "h"), how=OUTER),
    "noloco": Known(local_pairs, ("outer_lr", "outer_momentum", "h"), how=OUTER),
    "a2cid2": Known(flowing_pairs, ("eta", "alpha"), how=EXPECTED),
    "easgd": Known(elastic, ("beta", "momentum"), how=EXPECTED),
    "ringmaster": Known(weighted, how=EXPECTED, uncounted=IGNORED),
    "ringleader": Known(optimum),
}
"""Row of the table of algorithms -> its limit. One that has none has no entry."""


def known(spec: Algorithm) -> Known:
    """Of an algorithm of which `why_unknown` says nothing."""
    return LIMITS[cast(Algorithm, row_of(spec.name)).name]


def why_unknown(spec: Algorithm) -> str:
    """Why no limit is known of this algorithm, with these options; empty if one is."""
    row = None if spec.user_defined else row_of(spec.name)
    if row is None or row.name not in LIMITS:
        return f"there are those of {', '.join(LIMITS)}"
    said = [name for name, (_, value, usual) in spec.chosen().items() if value != usual]
    bad = [name for name in said if name not in LIMITS[row.name].options]
    return f"expected it without {' and '.join(bad)}" if bad else ""


def limit(
    algorithm: str | Algorithm,
    task: Quadratic | str,
    topology: Topology | str,
    lr: float | str,
    frequencies: Sequence[float] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The models at which an algorithm ends on quadratics with exact gradients, [n, d].

    Args:
        algorithm: its name, with options, or its row
        task: the quadratics f_i(x) = h_i / 2 ||x - b_i||^2; or 'quadratic', those of `offbeat.compare`
        topology: the graph and its weights, or its name
        lr: the learning rate, constant and the same for all: a number, or '0.01n' with n agents
        frequencies: how often each agent makes an update, in any unit; default: all alike. Only what is
            biased to the data of fast agents depends on it: its expectation is given. Of `ringmaster`, how
            often its server takes a gradient of that agent, and does not ignore it
        seed: of a task and a graph that are named

    Raises SettingError for an algorithm, or options of one, without a known limit, what is no learning rate,
    one with which no run ends there (`Known.most`; where that is not known, whether one does is not checked),
    frequencies that are not n
    numbers above 0, and what the algorithm refuses: a directed graph, weights that are not symmetric.
    """
    spec, (task, topology) = find(algorithm), _built(task, topology, seed)
    if why := why_unknown(spec):
        raise SettingError(f"No limit is known of {spec.name}: {why}.")
    if topology.n != task.agents:
        raise SettingError(f"The task has {task.agents} agents, the graph {topology.n}; expected the same.")
    spec.check(topology)
    if topology.rounds is not None:
        raise SettingError(f"No limit is known on '{topology.name}', which changes from round to round.")
    p = np.ones(task.agents) if frequencies is None else np.asarray(frequencies, dtype=float)
    if p.shape != (task.agents,) or not (np.isfinite(p).all() and (p > 0).all()):
        raise SettingError(f"Expected {task.agents} frequencies above 0; got {frequencies!r}.")
    rate = above_zero(Rate.of(lr, also="").at(topology.n), spec.name)
    at = At(spec, task, topology, rate, p / p.sum())
    most = known(spec).most
    if most is not None and rate >= (bound := most(at)):
        raise SettingError(
            f"No run of {spec.name} on these quadratics ends with a learning rate of {rate:g}: all need "
            f"one below {bound:.4g}, with any delays. Expected a smaller one: 'offbeat theory' has safe ones."
        )
    return settling(at)


def settling(at: At) -> np.ndarray:
    """The limit, also with a learning rate with which no run comes to it: then how far away one is."""
    return known(at.spec).at(replace(at, lr=min(at.lr, LARGE)))


def _built(task: Quadratic | str, topology: Topology | str, seed: int) -> tuple[Quadratic, Topology]:
    """Both, built if they are named. Raises SettingError for what is neither."""
    if not isinstance(task, Quadratic) and task != "quadratic":
        raise SettingError(f"Limits are of quadratics: expected 'quadratic' or a Quadratic; got {task!r}.")
    if not isinstance(topology, Topology | str):
        got = type(topology).__name__
        raise SettingError(f"Expected the name of a graph, or an offbeat.Topology; got a {got}.")
    if isinstance(topology, str):
        n = USUAL_AGENTS if isinstance(task, str) else task.agents
        topology = build(topology, size_of(topology, seed) or n, seed)
    if isinstance(task, str):
        task = cast(Quadratic, tasks.build("quadratic", topology.n, seed))
    return task, topology
