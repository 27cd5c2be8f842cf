"""Local rules and schedules: what they compute, beside torch's, how they are spelt, and what is refused."""

import pickle
import re
from collections.abc import Callable
from copy import deepcopy
from math import cos, pi, sqrt
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import minibatches, models, quadratic, started

import offbeat
from offbeat import SettingError, World
from offbeat.core.errors import ContractError
from offbeat.core.optimizers import OPTIMIZERS, Optimizer, Steps
from offbeat.core.rules import AdamW, Rule, Scheduled
from offbeat.core.schedules import SCHEDULES, Schedule
from offbeat.core.vector import Scope, Vector, opaque

TORCH: dict[str, Callable[[list[torch.Tensor], float], torch.optim.Optimizer]] = {
    "sgd": lambda x, lr: torch.optim.SGD(x, lr=lr),
    "momentum:0.7": lambda x, lr: torch.optim.SGD(x, lr=lr, momentum=0.7),
    "nesterov:0.8": lambda x, lr: torch.optim.SGD(x, lr=lr, momentum=0.8, nesterov=True),
    "adamw": lambda x, lr: torch.optim.AdamW(x, lr=lr),
    "adamw:beta1=0.8+beta2=0.95+eps=0.001+weight_decay=0.3": lambda x, lr: torch.optim.AdamW(
        x, lr=lr, betas=(0.8, 0.95), eps=0.001, weight_decay=0.3
    ),
}


@pytest.mark.parametrize("schedule", ["constant", "warmup:7+cosine:50+to=0.1+by=steps"])
@pytest.mark.parametrize("name", TORCH)
def test_one_agent_steps_as_torch_does(name: str, schedule: str) -> None:
    """Over 50 steps, with a schedule as torch's LambdaLR takes it."""
    assert str(Optimizer.parse(name)) == name
    task, shares = quadratic(1, noise=0.3), Schedule.parse(schedule)
    steps = Steps.of(name, schedule, 100.0)
    sim = started("adsgd", task, World(seed=5), "ring", rule=steps.rule, lr=0.05)
    sim.run(60)
    (x,) = task.initial()
    x.requires_grad_(True)
    optimizer = TORCH[name]([x], 0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: shares.at(k + 1.0))
    sample = minibatches(task, 5, 0)
    for _ in range(sim.steps[0]):
        x.grad = task.gradients([0], [sample()], (x.detach()[None],))[0][0]
        optimizer.step()
        scheduler.step()
    assert sim.steps[0] >= 50
    assert models(sim)[0] == pytest.approx(x.detach().numpy(), rel=1e-12, abs=1e-12)


CANONICAL = {
    "sgd:momentum=0.9": "momentum", "momentum:momentum=0.95": "momentum:0.95", "momentum:0": "sgd",
    " nesterov : 0.9 ": "nesterov", "nesterov:0": "sgd", "momentum:0.90": "momentum",
    "adamw:weight_decay=0.01": "adamw", "adamw:eps=1e-4+beta1=0.5": "adamw:beta1=0.5+eps=0.0001",
}  # fmt: skip
SCHEDULED = {
    "cosine:over=20": "cosine:20", "warmup:5": "warmup:5", "constant": "constant", "by=time+sqrt": None,
    "warmup:5+step:every=10+factor=0.1": "warmup:5+step:10", "sqrt:1.0": "sqrt",
    "constant+by=steps": "constant",
    "delay-adaptive+cosine+to=0.5": "cosine:to=0.5+delay-adaptive", "warmup:2+constant": "warmup:2",
    "diminishing:power=0.75+by=steps": "diminishing:power=0.75+by=steps", "cosine+by=time": "cosine",
    "delay-adaptive:3": "delay-adaptive:3",
}  # fmt: skip


def test_everything_has_one_spelling() -> None:
    for text, spelt in CANONICAL.items():
        assert str(Optimizer.parse(text)) == spelt
        assert Optimizer.parse(spelt) == Optimizer.parse(text)
    for text, one in SCHEDULED.items():
        assert str(Schedule.parse(text)) == (one or "sqrt")
        assert str(Schedule.parse(one or "sqrt")) == (one or "sqrt")
    assert offbeat.core.optimizers.checked(offbeat.Nesterov) == "nesterov"


REFUSED = {
    "adam": "Unknown optimizer 'adam'", "momentum:1": r"at least 0, below 1, as in .*; got '1'",
    "momentum:x": "got 'x'", "sgd:0.9": r"expected momentum=\.\.\.", "momentum:beta=1": "Unknown option",
    "adamw:beta1=0.9,beta2=0.9": r"got '0.9,beta2=0.9'\. .* Several go with \+", "adamw:eps=0": "above 0",
    "momentum:0.5+momentum=0.6": "twice", "momentum:nan": "got 'nan'", "momentum:": "got ''",
}  # fmt: skip
NO_SCHEDULE = {
    "cos": "Unknown schedule 'cos'", "step": "needs how long each learning rate lasts", "warmup:0": "above 0",
    "cosine+by=steps": "how many there will be is not known", "cosine+sqrt": "does not go together",
    "cosine+warmup:3": "does not go together", "sqrt+by=rounds": "by=time or by=steps",
    "": "Unknown schedule",
    "warmup:3+warmup:4": "twice", "to=0.5": "begins with a number", "step:5+factor=2": "at most 1",
}  # fmt: skip


def test_what_is_no_optimizer_or_schedule_is_refused_with_what_is() -> None:
    for text, message in REFUSED.items():
        with pytest.raises(SettingError, match=message):
            Optimizer.parse(text)
    for text, message in NO_SCHEDULE.items():
        with pytest.raises(SettingError, match=message):
            Schedule.parse(text)
    with pytest.raises(SettingError, match="There is no time"):
        offbeat.simulate(task="quadratic", until=5, schedule="warmup:5+cosine")
    with pytest.raises(SettingError, match="An optimizer is a name"):
        offbeat.simulate(task="quadratic", until=5, optimizer=0.9)
    with pytest.raises(SettingError, match="Unknown setting 'rule'"):
        offbeat.simulate(task="quadratic", until=5, rule=offbeat.Momentum)


FORMULAS: dict[str, Callable[[float], float]] = {
    "cosine": lambda t: (1 + cos(pi * t / 80)) / 2, "cosine:40+to=0.2": lambda t: (
        0.6 + 0.4 * cos(pi * min(t, 40) / 40)
    ),
    "step:30": lambda t: 0.1 ** (t // 30), "step:25+factor=0.5": lambda t: 0.5 ** (t // 25),
    "sqrt:4": lambda t: 1 / sqrt(1 + t / 4), "diminishing:10": lambda t: 10 / (10 + t),
    "diminishing:power=0.75": lambda t: (1 + t) ** -0.75, "constant": lambda t: 1.0,
}  # fmt: skip


@given(st.floats(0, 80), st.sampled_from([*FORMULAS]), st.sampled_from([0.0, 3.0]))
def test_shares_follow_their_formulas_after_the_warmup_and_never_exceed_one(
    t: float, name: str, warmup: float
) -> None:
    text = f"warmup:{warmup:g}+{name}" if warmup else name
    schedule = Schedule.parse(text).ending(80.0 + warmup)
    assert schedule.at(warmup + t) == pytest.approx(FORMULAS[name](t), rel=1e-9, abs=1e-12)
    assert 0 <= schedule.at(warmup + t) <= 1
    assert schedule.at(warmup / 3) == (pytest.approx(1 / 3) if warmup else schedule.at(0))


def test_every_row_is_listed_with_a_formula_of_its_own() -> None:
    told = {re.split("[:+]", name)[0] for name in FORMULAS} | {"warmup", "delay-adaptive"}
    assert told == {*SCHEDULES}
    assert {name.partition(":")[0] for name in TORCH} == {*OPTIMIZERS}


def test_late_gradients_count_for_less() -> None:
    """1 / tau beyond the number of agents (arXiv:2206.08307, Theorem 8), at algorithms that know tau."""
    schedule = Schedule.parse("delay-adaptive")
    assert [schedule.of_delay(tau, 4) for tau in (0, 4, 5, 10)] == [1, 1, 1 / 5, 1 / 10]
    assert Schedule.parse("delay-adaptive:8").of_delay(8, 4) == 1
    given: list[tuple[int, float]] = []

    class Seen(Scheduled):
        """Tells of delays and shares."""

        def __call__(self, g: Vector) -> Vector:
            assert self.agent is not None
            given.append((self.agent.delay, self.share))
            return super().__call__(g)

    world = World(seed=3, slow_compute={1: 30.0})
    sim = started(
        "apsgd", quadratic(4), world, "star", rule=lambda lr: Seen(offbeat.SGD(lr), schedule), check=False
    )
    sim.run(100)
    assert max(tau for tau, _ in given) > 20
    assert all(share == (1 / tau if tau > 4 else 1) for tau, share in given)
    common: Any = {"task": "quadratic", "until": 5, "schedule": "delay-adaptive"}
    with pytest.raises(SettingError, match=r"dsgd does not know how late.*apsgd, ringmaster"):
        offbeat.compare("apsgd,dsgd", **common)
    assert {run.algorithm for run in offbeat.compare("all", **common).runs} == {"apsgd", "ringmaster"}


def test_decay_and_schedule_belong_to_an_agent_and_go_with_it() -> None:
    for rule in (AdamW(0.1), Scheduled(offbeat.SGD(0.1), Schedule.parse("sqrt"))):
        with pytest.raises(ContractError, match="`bind` the rule"):
            rule(Vector((torch.ones(2),)))
    sim = started("dsgd", rule=Steps.of("adamw", "sqrt", 50.0).rule)
    sim.run(5)
    agent: Any = sim.agents[0]
    for copy in (deepcopy(agent), pickle.loads(pickle.dumps(agent))):
        assert copy.rule.agent is copy
        assert copy.rule.rule.agent is copy
        assert copy.rule.taken == agent.rule.taken > 0


@pytest.mark.parametrize("name", ["momentum", "adamw:weight_decay=0"])
def test_what_a_rule_keeps_is_a_value(name: str) -> None:
    """It is given what moves on with a register, and keeps what that was."""
    rule: Rule = Optimizer.parse(name)(1.0)
    late = Vector((torch.ones(3),))
    late.late = True
    with Scope():
        rule(late)
    late.move(Vector((torch.full((3,), 7.0),)))
    assert float(rule.m.parts[0][0]) == pytest.approx(0.1 if "adamw" in name else 1.0)  # type: ignore[attr-defined]


def test_what_is_made_of_a_version_that_was_overwritten_is_made_again() -> None:
    """Also where it is no form: the square of a mixture is that of the mixture's new value."""
    late, own, torn = Vector((torch.ones(1),)), Vector((torch.ones(1),)), [True]
    late.late = True

    def overwritten(used: object) -> list[Vector]:
        if not torn:
            return []
        torn.clear()
        late.move(Vector((torch.full((1,), 3.0),)))
        return [late]

    with Scope() as scope:
        mixed = 0.5 * own + 0.5 * late
        square = opaque(lambda: (mixed.parts[0] ** 2,), of=(mixed,))
        scope.settle(overwritten)
    assert (mixed.parts[0].item(), square.parts[0].item()) == (2.0, 4.0)
