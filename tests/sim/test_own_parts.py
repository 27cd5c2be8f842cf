"""Local rules and tasks of the user's own may do anything: no way of making a run takes them for ours."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import offbeat
from offbeat.algorithms import find
from offbeat.core.agent import Agent
from offbeat.core.vector import Parts, Vector
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.runs import Job, run_many, run_one
from offbeat.experiments.setup import prepare
from offbeat.world.per_link import PerLink

NAMES = ["adsgd", "dsgd", "adpsgd", "a2cid2", "easgd", "rfast", "asbcd", "allreduce", "diloco:h=3"]


class ByName:
    """A step that is longer the higher the agent's index."""

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def bind(self, agent: Agent) -> None:
        self.agent = agent

    def __call__(self, g: Vector) -> Vector:
        return self.lr * (1 + self.agent.me) * g


class Catching(ByName):
    """Looks at numbers, and goes on where it may not."""

    def __call__(self, g: Vector) -> Vector:
        try:
            norm = float(g.parts[0].norm())
        except Exception:
            norm = 1.0
        return self.lr / (1.0 + norm) * g


def job(name: str, **settings: Any) -> Job:
    usual: dict[str, Any] = {
        "task": "digits",
        "topology": "ring",
        "agents": 5,
        "until": 8.0,
        "eval_every": 8.0,
    }
    return Job(prepare(Experiment(**(usual | settings)), 0), find(name), 0.05)


@pytest.mark.parametrize("rule", [ByName, Catching])
@pytest.mark.parametrize("name", NAMES)
def test_rules(name: str, rule: type) -> None:
    made = job(name, optimizer=rule)
    assert run_one(made).digest == run_one(replace(made, executor="event-by-event")).digest


class Halved(offbeat.Logistic):
    """Steps half as far."""

    def gradients(self, *args: Any) -> Parts:
        return tuple([part / 2 for part in super().gradients(*args)])


def halved(made: Job) -> Job:
    task: Any = made.setup.task
    return replace(made, setup=replace(made.setup, task=Halved(task.data, task.minibatches, task.reg)))


@pytest.mark.parametrize("name", NAMES)
def test_without_a_compiled_gradient(name: str) -> None:
    made = job(name)
    task: Any = made.setup.task
    made = replace(made, setup=replace(made.setup, task=replace(task, compiled=False)))
    assert run_one(made).digest == run_one(replace(made, executor="event-by-event")).digest


@pytest.mark.parametrize("name", NAMES)
def test_tasks(name: str) -> None:
    made = halved(job(name))
    oracle = run_one(replace(made, executor="event-by-event"))
    assert run_one(made).digest == run_one(replace(made, executor="batched")).digest == oracle.digest


def test_tasks_of_which_one_is_the_users_own_do_not_lie_side_by_side() -> None:
    """Its gradients are not the other's."""
    jobs = [job("adsgd"), halved(job("adsgd"))]
    alone = [run_one(made).digest for made in jobs]
    assert (
        [run.digest for run in run_many(jobs)]
        == alone
        == [*reversed([run.digest for run in run_many(jobs[::-1])])]
    )


@pytest.mark.parametrize("name", ["adpsgd", "a2cid2"])
def test_worlds_of_numpys_numbers(name: str) -> None:
    made = job(name)
    slow = replace(made.setup.world, latency=PerLink(np.float64(0.1)))
    made = replace(made, setup=replace(made.setup, world=slow))
    assert run_one(made).digest == run_one(replace(made, executor="event-by-event")).digest
