"""The engine against the simulation that was written from docs/world.md alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np
import plain_agents
import pytest
import torch
from plain_agents import Array
from plain_world import Simulation

import offbeat
from offbeat import Crash, Delay, World
from offbeat.results.run import Run
from offbeat.world.changes import Byzantine, Change, Cut, Slowdown
from offbeat.world.per_link import PerLink

UNTIL = 40.0
LR = 0.1


@dataclass(frozen=True)
class Quadratics:
    """f_i(x) = a_i / 2 |x - b_i|^2; a minibatch is noise z on the gradient a_i (x - b_i)."""

    a: Array  # [n]
    b: Array  # [n, d]
    noise: float
    name: str = "quadratics"
    measure: str = "loss"

    @property
    def agents(self) -> int:
        return len(self.a)

    def initial(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(self.b.shape[1], dtype=torch.float64),)

    def draw(self, agent: int, rng: np.random.Generator, count: int) -> Array:
        return self.noise * rng.standard_normal((count, self.b.shape[1]))

    def gradient(self, agent: int, sample: Array, x: Array) -> Array:
        g: Array = self.a[agent] * (x - self.b[agent]) + sample
        return g

    def gradients(self, agents: Sequence[int], samples: Sequence[Array], models: Any) -> Any:
        rows = zip(agents, samples, models[0].numpy(), strict=True)
        return (torch.from_numpy(np.stack([self.gradient(*row) for row in rows])),)

    def losses(self, models: Any) -> Array:
        apart = models[0].numpy()[:, None] - self.b
        loss: Array = (self.a / 2 * (apart**2).sum(axis=2)).mean(axis=1)
        return loss

    def accuracies(self, models: Any) -> Array:
        raise NotImplementedError


def drawn(seed: int) -> tuple[World, nx.Graph, Quadratics]:
    """A world, a graph and a task; together the ten have everything that a world can have."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 9))
    graph = nx.cycle_graph(n)
    graph.add_edges_from([(i, j) for i in range(n) for j in range(i) if rng.random() < 0.3])

    def agents(p: float) -> list[int]:
        return [i for i in range(n) if rng.random() < p]

    def delay(mean: float) -> Delay:
        family = ("gamma", "lognormal", "exponential", "constant")[rng.integers(4)]
        cv = float(rng.uniform(0.2, 1.5)) if family in ("gamma", "lognormal") else None
        return Delay(family, mean, cv)

    def links(low: float, high: float) -> PerLink:
        some = [(i, j) for i in range(n) for j in range(n) if i != j and rng.random() < 0.5]
        return PerLink(float(rng.uniform(low, high)), {link: float(rng.uniform(low, high)) for link in some})

    def times() -> tuple[float, float | None]:
        at = float(rng.uniform(0, UNTIL / 2))
        return at, None if rng.random() < 0.3 else at + float(rng.uniform(1, UNTIL / 3))

    changes: list[Change] = []
    for _ in range(rng.integers(4)):
        both, computes = rng.random() < 0.5, rng.random() < 0.5
        who, by = int(rng.integers(n)), float(rng.uniform(0.5, 5))
        changes.append(Slowdown(who, by, *times(), both or computes, both or not computes))
    for _ in range(rng.integers(3)):
        group = frozenset(agents(0.4)[: n - 1])
        at = float(rng.uniform(0, UNTIL / 2))
        if group:
            changes.append(Cut(group, at, at + float(rng.uniform(1, 10))))
    liars = agents(0.2)
    crashes = [Crash(i, *times()) for i in agents(0.3 * (rng.random() < 0.7))]
    world = World(
        seed=seed,
        compute=delay(1.0),
        communication=delay(float(rng.uniform(0.2, 2))),
        own_compute={i: delay(float(rng.uniform(0.5, 3))) for i in agents(0.2)},
        own_communication={i: delay(float(rng.uniform(0.5, 3))) for i in agents(0.2)},
        slow_compute={i: float(rng.uniform(0.5, 5)) for i in agents(0.3)},
        slow_communication={i: float(rng.uniform(0.5, 5)) for i in agents(0.3)},
        latency=links(0, 2) if rng.random() < 0.5 else 0.0,
        bandwidth=links(0.3, 3) if rng.random() < 0.5 else 1.0,
        loss=links(0, 0.5) if rng.random() < 0.5 else 0.0,
        sending=("multicast", "unicast")[rng.integers(2)],
        network=("serial", "serial", "fair")[rng.integers(3)],
        changes=tuple(changes),
        byzantine=tuple(Byzantine(i, **{("scale", "noise")[rng.integers(2)]: 0.5}) for i in liars),
        crashes=tuple(crashes),
    )
    task = Quadratics(rng.uniform(0.5, 2, n), rng.normal(size=(n, 3)), 0.3)
    return world, graph, task


def engine(algorithm: str, world: World, graph: nx.Graph, task: Quadratics) -> Run:
    settings: dict[str, Any] = {"task": task, "topology": graph, "world": world, "until": UNTIL, "lr": LR}
    plan = offbeat.plan([algorithm], **settings, seed=world.seed, executor="event-by-event")
    return next(plan.runs(keep_traces=True))


def plain(algorithm: str, world: World, graph: nx.Graph, task: Quadratics) -> Simulation:
    kind = {"adsgd": plain_agents.ADSGD, "dsgd": plain_agents.DSGD}[algorithm]
    x0, near = task.initial()[0].numpy(), [list(graph[i]) for i in range(len(graph))]
    sim = Simulation(kind, near, world, x0, task.draw, task.gradient, LR)
    sim.run(UNTIL)
    return sim


def steps(run: Run) -> list[tuple[float, int]]:
    """When which agent applied a gradient: a return after a crash writes a model, too, and is no step."""
    assert run.trace is not None
    found, count = [], dict.fromkeys(range(run.trace.agents), 0)
    for row in run.trace.writes:
        time, agent, step = float(row["time"]), int(row["agent"]), int(row["step"])
        if step > count[agent]:
            found.append((time, agent))
        count[agent] = step
    return found


def agree(run: Run, sim: Simulation) -> bool:
    """Every living agent's model and every time within 1e-12 (the fair network's rates may differ in the last
    bit, and so may the order of what is simultaneous), as many updates, as many messages.
    """
    here, there = sorted(steps(run), key=by_agent), sorted(sim.updates, key=by_agent)
    if [i for _, i in here] != [i for _, i in there] or run.messages != sim.messages:
        return False
    models = np.stack([agent.x for agent, alive in zip(sim.agents, sim.alive, strict=True) if alive])
    apart = [abs(a - b) / max(1.0, b) for (a, _), (b, _) in zip(here, there, strict=True)]
    return max(apart, default=0.0) <= 1e-12 and bool(np.abs(run.models[0].numpy() - models).max() <= 1e-12)


def by_agent(step: tuple[float, int]) -> tuple[int, float]:
    return step[1], step[0]


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
@pytest.mark.parametrize("seed", range(10))
def test_engine_and_page_agree(seed: int, algorithm: str) -> None:
    world, graph, task = drawn(seed)
    run, sim = engine(algorithm, world, graph, task), plain(algorithm, world, graph, task)
    assert run.updates > 0
    assert agree(run, sim)


def test_agents_that_crash_and_return_at_one_instant() -> None:
    """The return is scheduled at the crash: agent 0, which dies at the instant, is gone before 1 returns."""
    world, graph, task = drawn(0)
    changed = replace(world, crashes=(Crash(1, 5.0, 12.0), Crash(0, 12.0, 14.0)))
    for algorithm in ("adsgd", "dsgd"):
        args = algorithm, changed, graph, task
        assert agree(engine(*args), plain(*args))


def tied(**parts: Any) -> World:
    """A world in which much happens at one instant: all delays are whole numbers, or nothing."""
    return World(compute=Delay("constant"), communication=Delay("constant"), **parts)


TIES = {
    "arrive as gradients end": tied(),
    "take no time": replace(tied(), communication=Delay("constant", 0.0)),
    "one after another": tied(sending="unicast", latency=1.0),
    "crash and return as gradients end": tied(crashes=(Crash(1, 5.0, 12.0), Crash(0, 12.0, 14.0))),
    "slow down, and are cut off": tied(
        changes=(Slowdown(2, 2.0, 4.0, 12.0), Cut(frozenset({0, 1}), 3.0, 7.0)), latency=1.0
    ),
}


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
@pytest.mark.parametrize("world", TIES.values(), ids=TIES)
def test_what_happens_at_one_instant_has_the_order_of_the_page(world: World, algorithm: str) -> None:
    _, graph, task = drawn(0)
    assert agree(engine(algorithm, world, graph, task), plain(algorithm, world, graph, task))


def test_the_worlds_have_everything() -> None:
    worlds = [drawn(seed)[0] for seed in range(10)]
    families = {w.compute.family for w in worlds} | {w.communication.family for w in worlds}
    assert families == {"gamma", "lognormal", "exponential", "constant"}
    assert {w.sending for w in worlds} == {"multicast", "unicast"}
    assert {w.network for w in worlds} == {"serial", "fair"}
    changes = [change for w in worlds for change in w.changes]
    assert {type(change) for change in changes} == {Slowdown, Cut}
    assert {crash.until is None for w in worlds for crash in w.crashes} == {True, False}
    assert {bool(lie.scale) for w in worlds for lie in w.byzantine} == {True, False}
    for what in ("latency", "bandwidth", "loss"):
        assert any(isinstance(getattr(w, what), PerLink) for w in worlds)
    assert any(w.slow_compute for w in worlds) and any(w.slow_communication for w in worlds)


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
def test_a_world_with_one_number_changed_does_not_agree(algorithm: str) -> None:
    world, graph, task = drawn(0)
    other = replace(world, communication=world.communication.times(1.001))
    assert agree(engine(algorithm, world, graph, task), plain(algorithm, world, graph, task))
    assert not agree(engine(algorithm, world, graph, task), plain(algorithm, other, graph, task))
