"""What is particular to the algorithms with a server, besides what every row is held to."""

from dataclasses import dataclass, field, replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
from runs import models, quadratic, started
from under_way import array, on_their_way

import offbeat
from offbeat import SGD, Crash, Delay, SettingError, Vector, World
from offbeat.algorithms import Ringleader, Ringmaster
from offbeat.core.pairs import Moved
from offbeat.theory import limit
from offbeat.world.topology import build

CONSTANT = World(compute=Delay("constant"), communication=Delay("constant"))
SERVED = ["apsgd", "spsgd", "easgd", "ringmaster", "ringleader"]
WAITING = ["spsgd", "ringleader"]
served = pytest.mark.parametrize("name", SERVED)


def hub_last(n: int) -> nx.Graph:
    return nx.relabel_nodes(nx.star_graph(n - 1), {i: n - 1 - i for i in range(n)})


def test_the_server_is_the_hub_of_the_graph_and_agent_0_where_there_is_none() -> None:
    known = {"star": 0, "grid": None, "ring": None, "complete": None, "exponential": None}
    for name, hub in known.items():
        topology = build(name, 9)
        assert topology.hub == hub
        assert {view.server for view in topology.views()} == {hub or 0}
    topology = build(hub_last(5), 5)
    assert topology.hub == 4 and {view.server for view in topology.views()} == {4}
    assert [build("ring", n).hub for n in (1, 2)] == [0, 0]
    both_ways = nx.DiGraph([(0, 1), (1, 0), (0, 2), (2, 0)])
    assert build(both_ways, 3).hub == 0, "two edges, one neighbour"
    assert build("star", 3).view(1, {1, 2}).server == 0, "whoever is lost"


@served
def test_it_goes_its_way_whatever_the_graph_is(name: str) -> None:
    """Mail goes to the server, neighbour or not, as on a star."""
    task, star = quadratic(5, noise=0.3), started(name, quadratic(5, noise=0.3), topology="star")
    for graph in ("ring", "complete", "exponential"):
        sim = started(name, task, topology=graph)
        for each in (star, sim):
            each.run(60)
        assert np.array_equal(models(sim), models(star))


@served
def test_a_hub_that_is_not_agent_0_serves(name: str) -> None:
    sim = started(name, quadratic(5), CONSTANT, build(hub_last(5), 5))
    sim.run(60.5)
    assert min(sim.steps) > 5
    sent = sim.links.carried
    assert all(4 in link for link in sent) and len(sent) == 8


def rate(name: str, n: int, world: World = CONSTANT) -> float:
    """Gradients a unit of time that come from workers."""
    sim = started(name, quadratic(n), world, "star", check=False)
    sim.run(20)
    before = sum(sim.steps[1:])
    sim.run(220)
    return (sum(sim.steps[1:]) - before) / 200


def test_the_servers_link_is_the_bottleneck() -> None:
    """A gradient, its way there and the answer take 3; an answer occupies the server's link for 1."""
    assert [rate("apsgd", n) for n in (2, 3)] == pytest.approx([1 / 3, 2 / 3], abs=0.02)
    assert [rate("apsgd", n) for n in (4, 9, 17)] == pytest.approx([1, 1, 1], abs=0.02)
    unicast = replace(CONSTANT, sending="unicast")
    assert [rate("spsgd", n) / (n - 1) for n in (2, 5, 9)] == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=0.02)
    assert [rate("spsgd", n, unicast) for n in (5, 9, 17)] == pytest.approx([2 / 3, 0.8, 8 / 9], abs=0.03)


@served
def test_workers_crash_and_return(name: str) -> None:
    gone = [Crash(4, 10.5, 30.5), Crash(1, 8.3)][: 1 if name in WAITING else 2]  # it would wait for agent 1
    sim = started(name, quadratic(noise=0.1), World(seed=2, crashes=tuple(gone)), lr=0.02)
    sim.run(12)
    before = list(sim.steps)
    sim.run(30)
    moved = [now - then for now, then in zip(sim.steps, before, strict=True)]
    assert (max(moved) <= 1) if name in WAITING else all(moved[i] > 1 for i in sorted(sim.alive))
    before = list(sim.steps)
    sim.run(110)
    assert all(sim.steps[i] > before[i] + 5 for i in sorted(sim.alive))


@served
def test_all_stand_still_while_the_server_is_lost_and_go_on_when_it_returns(name: str) -> None:
    sim = started(name, quadratic(noise=0.1), World(seed=2, crashes=(Crash(0, 20.5, 50.5),)), lr=0.02)
    sim.run(30)
    still = list(sim.steps)
    sim.run(50)
    assert sim.steps == still and max(still) > 1
    sim.run(130)
    assert all(now > before + 5 for now, before in zip(sim.steps, still, strict=True))
    spread = models(sim).max(0) - models(sim).min(0)
    assert spread.max() < (0.8 if name == "easgd" else 0.2), "all go on from one model"


def test_a_round_counts_nobody_twice_who_was_down_meanwhile() -> None:
    """Crashes in the middle of rounds: the model is still that of descent on the mean, noise apart."""
    crashes = tuple(Crash(i, 10.1 + i, 20.7 + 2 * i) for i in range(4))
    task = quadratic(5)
    sim = started("spsgd", task, World(seed=4, crashes=crashes, slow_communication={2: 4.0}), "ring", lr=0.3)
    sim.run(900)
    assert models(sim) == pytest.approx(np.tile(task.optimum, (5, 1)), abs=1e-9)


def test_the_judged_server_is_the_one_that_serves() -> None:
    fixed: dict[str, Any] = {"task": "digits", "agents": 5, "until": 40.0, "judge": "server"}
    run = offbeat.simulate("apsgd", topology="star", **fixed)
    assert run.curve.loss[-1] < run.curve.loss[0]
    with pytest.raises(SettingError, match="No agent is the server"):
        offbeat.simulate("apsgd", topology="ring", **fixed)


class Summing(SGD):
    """Plain SGD that knows all it gave."""

    given: Vector | None = None

    def __call__(self, g: Vector) -> Vector:
        u = super().__call__(g)
        self.given = u if self.given is None else self.given + u
        return u


def test_centre_and_models_move_by_gradients_alone() -> None:
    """c + sum_i x_i - displacements in flight = (n + 1) x(0) - everything that was applied."""
    sim = started(
        "easgd", quadratic(5, noise=0.5), World(seed=3, slow_communication={2: 5.0}), "ring", rule=Summing
    )
    moved = []
    for time in range(2, 60, 3):
        sim.run(time)
        agents: list[Any] = sim.agents
        left = array(agents[0].centre) + sum(array(agent.x) for agent in agents)
        flying = [array(item.message.d) for item in on_their_way(sim) if isinstance(item.message, Moved)]
        applied = sum(array(agent.rule.given) for agent in agents if agent.rule.given is not None)
        assert left - sum(flying, np.zeros(3)) == pytest.approx(-applied, abs=1e-11)
        moved += flying
    assert moved, "some were in flight"


def test_the_elastic_limit_is_nearer_the_smaller_the_steps() -> None:
    task, off = quadratic(4), []
    for lr in (0.04, 0.01):
        sim = started("easgd", task, World(seed=3, slow_compute={1: 3.0}), "ring", lr=lr, check=False)
        sim.run(10 / lr)
        sums = 0.0 * models(sim)
        for k in range(300):
            sim.run(10 / lr + 5 * k)
            sums += models(sim)
        off.append(np.abs(sums / 300 - limit("easgd", task, sim.topology, lr, sim.steps)).max())
    assert off[1] < 0.6 * off[0] and off[1] < 0.01


def test_a_period_saves_messages() -> None:
    sims = [started(name, quadratic(4), CONSTANT) for name in ("easgd", "easgd:every=4")]
    for sim in sims:
        sim.run(200)
    each = [sim.links.messages / sum(sim.steps[1:]) for sim in sims]
    assert each == pytest.approx([2, 0.5], abs=0.05), "a question and an answer for each exchange"


def test_a_patient_ringmaster_is_the_asynchronous_server_to_the_bit() -> None:
    world = World(seed=3, slow_compute={4: 10.0}, slow_communication={2: 5.0})
    sims = [started(name, quadratic(noise=0.3), world, "star") for name in ("apsgd", "ringmaster:r=1000")]
    for sim in sims:
        sim.run(200)
    assert np.array_equal(models(sims[0]), models(sims[1]))
    assert sims[0].steps == sims[1].steps


@dataclass
class Counting(Ringmaster):
    """Knows whose gradients it took."""

    counts: dict[int, int] = field(init=False, default_factory=dict)

    def serve(self, j: int, k: int, g: Vector) -> None:
        before = self.round
        super().serve(j, k, g)
        assert (self.round > before) == (before - k < self.r)
        self.counts = {**self.counts, j: self.counts.get(j, 0) + self.round - before}


def test_ringmaster_ends_where_the_gradients_that_it_takes_lead() -> None:
    task = quadratic(4)
    world = World(seed=3, slow_compute={1: 3.0, 3: 6.0})
    sim = started(Counting(r=5), task, world, "star", lr=0.01, check=False)
    sim.run(500)
    sums = 0.0 * models(sim)
    for k in range(300):
        sim.run(500 + 5 * k)
        sums += models(sim)
    server: Any = sim.agents[0]
    taken = server.counts
    made = [taken[i] / sim.steps[i] for i in range(4)]
    assert made[0] == 1.0 and made[3] < 0.2 < made[2], "the slowest agent's are ignored"
    ends = limit("ringmaster", task, sim.topology, 0.01, [max(taken[i], 1e-9) for i in range(4)])
    assert sums / 300 == pytest.approx(ends, abs=0.03)
    assert np.abs(ends - limit("apsgd", task, sim.topology, 0.01, sim.steps)).max() > 0.05


@dataclass
class Aged(Ringleader):
    """Knows how old the gradients in its table were at its steps."""

    born: dict[int, int] = field(init=False, default_factory=dict)
    ages: list[int] = field(init=False, default_factory=list)
    makers: list[int] = field(init=False, default_factory=list)

    def serve(self, j: int, k: int, g: Vector) -> None:
        round_ = self.round
        if not self.due or j in self.due:
            self.born = {**self.born, j: k}
        super().serve(j, k, g)
        if self.round > round_:
            self.makers = [*self.makers, j]
            self.ages = [*self.ages, max(round_ - self.born[i] for i in range(self.n))]


def test_ringleader_steps_once_for_everybody_in_a_round_and_no_gradient_is_older_than_2n_minus_2() -> None:
    n = 6
    world = World(seed=3, communication=Delay("constant", mean=0.0), slow_compute={1: 3.0, 4: 9.0})
    sim = started(Aged(), quadratic(n, noise=0.3), world, "star")
    sim.run(400)
    server: Any = sim.agents[0]
    rounds = [server.makers[i : i + n] for i in range(0, len(server.makers), n)]
    assert len(rounds) > 20
    assert all(sorted(each) == [*range(n)] for each in rounds[:-1])
    assert n < max(server.ages) <= 2 * n - 2
