"""What is particular to the algorithms in which nobody waits, besides what every row is held to."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from runs import LOCKSTEP, models, quadratic, started

import offbeat
from offbeat import ADSGD, Crash, Quadratic, SettingError, Vector, World
from offbeat.algorithms import ALGORITHMS, find, with_local_steps
from offbeat.core.vector import Parts
from offbeat.experiments.comparison import plan
from offbeat.theory import limit
from offbeat.world.topology import Topology, build

STRAGGLERS = World(seed=3, slow_compute={4: 10.0}, slow_communication={2: 10.0, 4: 10.0})


@pytest.mark.parametrize("options", ["", "theta=0.5", "local_steps=3+theta=0.5"])
def test_algorithm_3_goes_the_way_of_algorithm_2(options: str) -> None:
    away = quadratic(noise=0.5)
    object.__setattr__(away, "initial", lambda: (torch.full((3,), 2.0, dtype=torch.float64),))
    two, three = (
        started(name, away, STRAGGLERS, lr=0.05, check=False)
        for name in (f"adsgd:{options}".strip(":"), f"adsgd:memory-efficient+{options}".strip("+"))
    )
    for time in range(5, 100, 5):
        for sim in (two, three):
            sim.run(time)
        assert two.steps == three.steps
        assert models(three) == pytest.approx(models(two), abs=1e-12)


@pytest.mark.parametrize("returns", [True, False])
def test_algorithm_3_counts_nobody_twice_when_agents_crash(returns: bool) -> None:
    """Crashes while differences wait and are under way; afterwards every sum is that of the models heard."""
    crashes = tuple(Crash(i, 20.5 + i, 40.5 + 2 * i if returns else None) for i in (1, 4))
    task = quadratic()
    world = World(seed=3, slow_communication={4: 5.0, 3: 3.0}, crashes=crashes)
    sim = started("adsgd:memory-efficient", task, world, lr=0.3, check=False)
    sim.run(600)
    if returns:
        assert models(sim) == pytest.approx(limit("adsgd", task, sim.topology, 0.3), abs=1e-8)
    for i in sorted(sim.alive):
        agent: Any = sim.agents[i]
        assert sorted(agent.counted) == [j for j in agent.view.w if j != i], "everybody was heard again"
        heard = sum(w * sim.agents[j].x.parts[0] for j, w in agent.view.w.items() if j != i)
        assert torch.allclose(agent.y.parts[0], heard, atol=1e-8)


@pytest.mark.parametrize("degree", [2, 4, 8])
def test_algorithm_3_keeps_four_models_whatever_the_degree(degree: int) -> None:
    sim = started("adsgd:memory-efficient", quadratic(10), topology=f"random-regular:{degree}")
    sim.run(60)
    for agent in sim.agents:
        kept = [value for name, value in vars(agent).items() if name not in ("view", "rule", "rng")]
        vectors = [value for value in kept if type(value).__name__ == "Vector"]
        assert len(vectors) == 2, "x and y; the gradient and the difference are there for a moment"
        assert not any(isinstance(value, dict) and value for value in kept)


def test_shrinking_ends_where_no_agent_can_improve() -> None:
    """0 in lr h_i (x_i - b_i) + x_i - sum_j w_ij x_j + lr l1 d|x_i|."""
    task, lr, l1 = quadratic(4), 0.1, 0.3
    sim = started(f"prox-dgd:l1={l1}", task, topology="ring", lr=lr, check=False)
    sim.run(1200)
    x = models(sim)
    pull = (lr * task.h[:, None] * (x - task.b) + x - sim.topology.dense_w() @ x) / (lr * l1)
    assert np.isclose(x, 0, atol=1e-12).any() and not np.isclose(x, 0).all()
    assert pull[x != 0] == pytest.approx(-np.sign(x[x != 0]), abs=1e-7)
    assert (np.abs(pull[x == 0]) <= 1).all()


def test_shrinking_needs_a_learning_rate() -> None:
    for rule in (offbeat.Momentum, offbeat.AdamW, lambda lr: lambda g: lr * g):
        with pytest.raises(SettingError, match="needs a local rule that steps by its learning rate"):
            started("prox-dgd:l1=0.1", rule=rule)


class Auxiliary(Quadratic):
    """L(x) = sum_i f_i(x_i) + 1/(2 alpha) x^T (I - W) x, x the models of all, which every agent descends."""

    alpha = 0.05
    topology: Topology

    def initial(self) -> Parts:
        return (torch.zeros(self.b.size, dtype=torch.float64),)

    def gradients(self, agents: Sequence[int], samples: Any, stacked: Parts) -> Parts:
        x = stacked[0].view(len(agents), *self.b.shape)
        w = torch.from_numpy(self.topology.dense_w())
        whole = self.curvatures * (x - self.centres) + (x - w @ x) / self.alpha
        return (whole.reshape(len(agents), -1),)


def test_adsgd_is_block_coordinate_descent_on_the_auxiliary_function() -> None:
    """Blocks are read when a gradient begins, where those of its instant are still under way; with a latency
    of 1.5, models are as old when it is done. The buffers hold x_j^0 from the start, as in the paper.
    """
    plain, grid = quadratic(), build("grid", 9)
    auxiliary = Auxiliary(plain.b, plain.h)
    object.__setattr__(auxiliary, "topology", grid)
    blocks = started("asbcd", auxiliary, LOCKSTEP, grid, lr=auxiliary.alpha)
    whole = started("adsgd", plain, replace(LOCKSTEP, latency=1.5), grid, lr=auxiliary.alpha, check=False)
    for agent in cast(list[ADSGD], whole.agents):
        agent.heard = dict.fromkeys((j for j in agent.view.w if j != agent.me), agent.x)
    for time in (1.5, 10.5, 60.5):
        for sim in (blocks, whole):
            sim.run(time)
        own = models(blocks).reshape(9, 9, 3)[range(9), range(9)]
        assert own == pytest.approx(models(whole), abs=1e-10)


@pytest.mark.parametrize("name", ["adsgd", "asbcd"])
def test_both_are_equation_6_with_their_own_indices_in_any_world(name: str) -> None:
    """x_i <- sum_j w_ij x_j^{s_ij} - alpha grad f_i(x_i), at every write, with s_ij^k read off the trace; who
    has not been heard by `adsgd` counts as x_i. Blocks are those of the auxiliary function.
    """
    plain, grid, alpha = quadratic(), build("grid", 9), Auxiliary.alpha
    auxiliary = Auxiliary(plain.b, plain.h)
    object.__setattr__(auxiliary, "topology", grid)
    x, written = [np.zeros((9, 3))], list[int]()

    def observe(time: float, i: int, model: Vector) -> None:
        found, after = model.parts[0].numpy().reshape(-1, 3), x[-1].copy()
        after[i] = found[i if name == "asbcd" else 0]
        x.append(after)
        written.append(i)

    task, world = plain if name == "adsgd" else auxiliary, replace(STRAGGLERS, loss=0.2)
    sim = started(name, task, world, grid, lr=alpha, observers=[observe])
    sim.run(40)
    trace, w = sim.recorder.trace(), grid.dense_w()
    rows, (_, then) = trace.used(), trace.selected()
    mixed = [{j: xk[j] * 0 + xk[i] for j in range(9)} for i, xk in zip(written, x, strict=False)]
    for (k, j, _), s in zip(rows.tolist(), then.tolist(), strict=True):
        mixed[k][j] = x[s][j]
    assert len(written) > 300 and max(then) < len(written)
    for k, i in enumerate(written):
        step = alpha * plain.h[i] * (x[k][i] - plain.b[i])
        assert x[k + 1][i] == pytest.approx(sum(w[i, j] * mixed[k][j] for j in range(9)) - step, abs=1e-10)


def test_swift_gives_away_the_model_of_before_the_step_and_mixes_at_each_kth_gradient() -> None:
    """In lockstep: x <- W x - lr g(x) at every k-th gradient, and x <- x - lr g(x) at the others."""
    task, grid = quadratic(), build("grid", 9)
    sim = started("swift:every=3", task, LOCKSTEP, grid)
    sim.run(30.5)
    x, before = np.zeros((9, 3)), np.zeros((9, 3))
    for k in range(1, 31):
        heard, w = before, grid.dense_w()
        step = 0.05 * task.h[:, None] * (x - task.b)
        own = np.diag(np.diag(w))
        before, x = x, ((own @ x + (w - own) @ heard) if k % 3 == 0 else x) - step
    assert models(sim) == pytest.approx(x, rel=1e-12)


def test_local_steps_are_steps_from_the_own_model() -> None:
    """In lockstep: x <- x - lr g(x); at every third gradient what was given away at the last is mixed."""
    task, grid = quadratic(), build("grid", 9)
    sim = started("adsgd:local_steps=3", task, LOCKSTEP, grid)
    sim.run(30.5)
    x, given = np.zeros((9, 3)), None
    for k in range(1, 31):
        step, w = 0.05 * task.h[:, None] * (x - task.b), grid.dense_w()
        if k % 3 == 0 and given is not None:
            own = np.diag(np.diag(w))
            x = own @ x + (w - own) @ given
        x = x - step
        given = x if k % 3 == 0 else given
    assert models(sim) == pytest.approx(x, rel=1e-12)
    assert sum(box.busy for box in sim.links.outbox) == 0
    assert len(sim.recorder.trace().transmissions) == 9 * 10


def test_local_steps_of_all_algorithms_at_once() -> None:
    asked: dict[str, Any] = {"task": "quadratic", "until": 20, "local_steps": 4}
    runs = offbeat.compare("adsgd,adpsgd:wait", **asked).runs
    assert [run.algorithm for run in runs] == ["adsgd:local_steps=4", "adpsgd:local_steps=4+wait"]
    for names, said in {
        "adsgd,rfast": "rfast makes no local steps: what it tracks are .* Expected one of adsgd, ",
        "adsgd:local_steps=2": "adsgd:local_steps=2 has local_steps=2, and --local-steps is 4; expected one",
        "diloco:h=5": "diloco:h=5 has h=5, and --local-steps is 4",
        "adsgd,adsgd:local_steps=4": "named twice: adsgd:local_steps=4, adsgd:local_steps=4",
    }.items():
        with pytest.raises(SettingError, match=said):
            offbeat.compare(names, **asked)
    with pytest.raises(SettingError, match="has local_steps=2, and --local-steps is 1"):
        offbeat.compare("adsgd:local_steps=2", **asked | {"local_steps": 1})


def test_of_all_those_without_local_steps_are_left_out_and_it_is_said_why() -> None:
    made = plan("all", task="quadratic", until=2, local_steps=2)
    assert {"dsgd:local_steps=2", "diloco:h=2"} <= {spec.name for spec in made.specs}
    assert "rfast makes no local steps: what it tracks" in made.left_out["rfast"]


def test_local_steps_are_set_by_the_name_that_each_has_for_them() -> None:
    for row in ALGORITHMS.values():
        if row.local in row.options:
            made = with_local_steps(find(row.name), 4)
            assert getattr(made.prototype, row.local) == 4 and made is not row
            assert find(made.name).name == made.name == with_local_steps(made, 4).name
        else:
            with pytest.raises(SettingError, match=f"makes no local steps: {re.escape(row.no_local)}"):
                with_local_steps(row, 4)
            assert with_local_steps(row, 1) is row and len(row.no_local) > 30
