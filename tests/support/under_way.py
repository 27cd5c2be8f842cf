"""What is under way in a simulation, and what must be conserved with it."""

from typing import Any

import numpy as np

from offbeat import Vector
from offbeat.core.pairs import Moved
from offbeat.engines.outbox import Transmission
from offbeat.engines.sim.simulator import Simulator


def on_their_way(sim: Simulator) -> list[Transmission]:
    """Everything that was sent and has not arrived: queued, being transmitted, or flowing."""
    waiting = [item for box in sim.links.outbox for item in box.queue]
    flying = [args[1] for *_, call, args in sim.heap.events if call == sim.links._arrive and args[2]]
    flowing = [] if sim.links.fair is None else [flow.item for flow in sim.links.fair.flows]
    return [item for item in waiting + flying + flowing if isinstance(item, Transmission)]


def array(v: Vector) -> np.ndarray:
    value: np.ndarray = v.parts[0].numpy()
    return value


def tracked_mass(sim: Simulator) -> tuple[np.ndarray, np.ndarray]:
    """Sum of trackers and of mass on the links, and sum of the newest gradients."""
    live: list[Any] = [sim.agents[i] for i in sorted(sim.alive)]
    zero = np.zeros(3)
    mass = sum((array(agent.z) for agent in live), zero)
    for giver in live:
        one = dict.fromkeys(giver.view.listeners, giver.rho) if hasattr(giver, "rho") else {}
        for j, rho in (giver.given | one).items():
            taker: Any = sim.agents[j]
            mass = mass + array(rho) - (array(taker.used[giver.me]) if giver.me in taker.used else zero)
    return mass, sum((array(agent.g) for agent in live), zero)


def pushed_mass(sim: Simulator) -> tuple[np.ndarray, np.ndarray]:
    """Sum of y at agents and on the links whose books are open, and how many agents there are."""
    live: list[Any] = [sim.agents[i] for i in sorted(sim.alive)]
    mass = sum(agent.y for agent in live)
    for taker in live:
        mass += sum(sim.agents[j].phi_y - used.y for j, used in taker.used.items())
    return np.array(mass), np.array(float(len(live)))


def shares(sim: Simulator) -> list[tuple[np.ndarray, float]]:
    """Sum and weight of all that push-sum in rounds keeps: held, come for a later moment, or on its way."""
    live: list[Any] = [sim.agents[i] for i in sorted(sim.alive)]
    pairs = [(array(agent.x), agent.w) for agent in live]
    came = [push for agent in live for xs in agent.letters.values() for push in xs.values() if push]
    pairs += [(array(push.x), push.w) for push in came]
    for item in on_their_way(sim):
        there = [
            j
            for j, life in item.receivers
            if 0 < life == sim.heap.incarnation[j] and item.sender in sim.alive
        ]
        pairs += [(array(item.message.x), item.message.w) for _ in there]
    return pairs


def shared_weights(sim: Simulator) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the weights, and how many agents there are."""
    return np.array(sum(w for _, w in shares(sim))), np.array(float(len(sim.alive)))


def displaced(sim: Simulator) -> np.ndarray:
    """Sum of the displacements in flight that are still to be taken off their receivers."""
    flying = [item.message for item in on_their_way(sim)]
    return sum((array(each.d) for each in flying if isinstance(each, Moved)), np.zeros(3))


class Applied:
    """A local rule that adds up what it applied."""

    total: np.ndarray

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def __call__(self, g: Vector) -> Vector:
        Applied.total = Applied.total + self.lr * array(g)
        return self.lr * g


class Nothing:
    """The local rule of no gradients at all."""

    def __init__(self, lr: float) -> None: ...

    def __call__(self, g: Vector) -> Vector:
        return 0.0 * g
