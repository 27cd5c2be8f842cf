"""Where each algorithm ends on quadratics with exact gradients and a constant learning rate: a row for each,
by the formulas of `fixed_points`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from offbeat import tasks
from offbeat.algorithms import Algorithm, find, row_of
from offbeat.core.errors import SettingError
from offbeat.core.rates import Rate, above_zero
from offbeat.core.settings import USUAL_AGENTS
from offbeat.tasks.quadratic import Quadratic
from offbeat.theory.fixed_points import (
    At,
    adapted_first,
    averaged_pairs,
    blocks,
    descended,
    elastic,
    flowing_pairs,
    in_rounds,
    local_pairs,
    local_steps,
    mixing,
    no_push_nearer,
    no_step_nearer,
    optimum,
    pushed,
    pushed_meanwhile,
    weighted,
)
from offbeat.world.topology import Topology, build, size_of


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
